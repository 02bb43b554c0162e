"""A mesh in one thread and virtual time: the shipped `Mesh`, bytes on every link, and weather, faults and invariants around it.

Seeded: the same seed is the same run, event for event, whatever `PYTHONHASHSEED` says. `world` moves time and bytes, `weather` decides what
the network does to them, `nemesis` what happens to nodes, `oracle` what must never happen. Only `__main__` prints.
"""
