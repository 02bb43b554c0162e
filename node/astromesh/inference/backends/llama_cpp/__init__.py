"""llama.cpp, one worker process for each loaded model, over the low-level functions of llama-cpp-python.

In the node: `engine` (what it has beyond answering). The queue, the streams, and what happens when a worker dies are those of every engine.
In the worker: `worker` (its main, around `inference.schedule`) and `library` (the only file that imports `llama_cpp`).
"""
