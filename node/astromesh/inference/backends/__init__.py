"""What inference touches of the world: the worker processes of models, and where the files of models come from.

`supervised` is the node's side of any worker, `encoding` and `completing` what one may be asked, `process` its pipes and `child` the
worker's side of them. Each engine has a folder: `llama_cpp`, `onnx_runtime`, `xllamacpp`. `devices` asks drivers, `building` compiles an
engine, and `inspecting` says what the one that is installed can do. `packages` brings files of models by pip and `hub` over HTTP; `folder`
opens the store of this machine over both.
"""
