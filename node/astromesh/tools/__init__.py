"""What an agent can do besides talking.

`port` is what a tool is; `toolbox` calls several side by side, on the terms of their agent (`terms`), and turns every failure into text
that the model can use; `reach` says which addresses tools may call; `results` and `docstrings` are about texts; `backends/` holds the tools
themselves.
"""
