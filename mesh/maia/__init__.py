"""Maia: who is here, what does each one offer, and how do I call it.

A gossip mesh that knows nothing of agents. `core.Mesh` is the one pure object: datagrams and `now` in, datagrams and events out. `drivers`
is the only room that touches the world; `sim` runs the same `Mesh` in virtual time. `mesh/README.md` draws the rooms.
"""
