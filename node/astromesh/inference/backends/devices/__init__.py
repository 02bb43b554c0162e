"""Who knows what this machine computes with: NVIDIA's driver, the kernel about AMD's cards, llama.cpp's own registry.

Drivers hang, crash and print, so each source is asked in a process of its own that answers with one JSON document and ends: `nvidia`, `amd`
and `engine` are these processes, and nobody imports them but the worker of a model, which is such a process itself. `looking` starts
them, gives each its time, and turns whatever happened into a `Look`. `machine` reads what needs no process: processor and memory.
"""
