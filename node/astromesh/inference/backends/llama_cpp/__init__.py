"""llama.cpp, one worker process for each loaded model, over the low-level functions of llama-cpp-python.

In the node: `engine` (the queue, the streams, and what happens when a worker dies) and `process` (one worker process and its pipes).
In the worker: `worker` (its main, around `inference.schedule`) and `library` (the only file that imports `llama_cpp`).
"""
