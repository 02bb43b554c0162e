"""Models that run on this machine, and the folder that keeps them.

`port` is what the rest of the node sees: an engine that streams one completion at a time to whoever asks, and the values around it. The
files beside it decide and are pure: `request` (what a local model can honour), `sampling`, `grammar` (from a JSON Schema to what may be
written), `chat` (from a transcript to the model's own prompt) and `dialects` (how families of models write calls of tools), `schedule`
(continuous batching), `assembly` (from token pieces to text), `tool_calls` (the calls inside of it) and `answer` (all of it together),
`frames` (bytes between node and worker), `gguf` and `registry`. `devices` (what there is to compute with), `placement` (which layers of a
model go to which card) and `engines` (what a build can do here) decide where it runs, and `residence` which models stay in memory. `store`
keeps models in a folder, each file under the digest of its bytes and each name in a `manifest`; `sources` is what people may ask it to
pull, and `packaged` puts a file together from its packages. `encoding` is the port of models that read texts and write none, `encoder` what
their files do not say themselves, and `batches` which texts go through one together. `backends/` holds what touches the world: worker
processes, drivers, compilers and pip.

A crash of an engine must not take the node along, so no engine is ever loaded into the node's own process.
"""
