"""The doors: HTTP in, the runtime's values out, and back.

One file a door. `app` puts them together; `guard` decides, purely, whom a node without keys lets in; `bodies` reads JSON within limits;
`errors` is the only mapping of errors to HTTP; `documentation` describes all routes from the models that check their bodies.
"""
