"""What an agent can do besides talking.

`port` is what a tool is; `toolbox` calls several side by side and turns every failure into text that the model can use; `backends/` holds
the tools themselves.
"""
