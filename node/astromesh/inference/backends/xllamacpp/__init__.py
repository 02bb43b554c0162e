"""llama.cpp's own server inside a worker process, out of a wheel that is there in seconds: `xllamacpp`.

It answers as `llama_cpp` does and tells less of how: no token ids, so an answer that broke off is begun again and not gone on with; it
hands no conversation to another node; and it claims no kernel. What it cannot do is refused by name, or empty.

In the node: `engine` and `asking` (a request in the server's words). In the worker: `worker`, the only file that imports `xllamacpp`.
"""
