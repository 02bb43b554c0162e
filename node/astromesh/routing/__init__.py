"""Where to try first, and whether to try again.

Pure: candidates and figures in, an order out; how a call ended in, what to do next out. Nothing here calls a model, reads a clock or
remembers anything between calls; what is remembered lives in `runtime.endpoints`, `runtime.preferences` and `runtime.models`. If a function
needs `await`, it belongs there.
"""
