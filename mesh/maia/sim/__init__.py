"""A mesh in one thread and virtual time: the shipped `Mesh`, bytes on every link, and weather, faults and invariants around it.

Seeded: the same seed is the same run, event for event, whatever `PYTHONHASHSEED` says. `world` moves time and bytes; `weather` decides
what the network does to them, `squeezing` what a stock agent would; `nemesis` is what happens to nodes, and `oracle` sees what must never
happen, each under its name in `invariants`, by the help of `stamps`, values that say how new they are. `run` is one seed, `campaign` many.
Only `__main__` prints.
"""
