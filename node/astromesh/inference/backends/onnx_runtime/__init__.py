"""ONNX Runtime for models that read texts and write none: embeddings, labels, ranks. One worker process for each loaded model.

A process and not a pool of threads: a graph that makes ONNX Runtime fall over must not take the node along, the node itself never loads
numpy nor the runtime, an unloaded model gives all of its memory back, and the niceness of a process keeps its threads behind the gossip's.
What it costs is one crossing of a pipe, 0.1 ms beside the 4 ms that a short text takes.

In the node: `engine`. In the worker: `worker` (its main) and `library` (the only file that imports `onnxruntime` and `tokenizers`).
"""
