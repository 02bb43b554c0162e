"""Where to try first.

Pure: candidates in, an order out. Nothing here calls a model, reads a clock or remembers anything between calls; what is remembered lives
in `runtime.models`. If a function needs `await`, it belongs there.
"""
