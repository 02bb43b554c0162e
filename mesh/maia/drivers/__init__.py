"""All that touches the world: sockets, threads, clocks, names. Nothing here decides what a message means.

`driver` owns the mesh's thread and the one `Mesh` in it, `datagrams` its UDP socket, `streams` its TCP connections, `clock` what time it
is, `discovery` the addresses behind names; `link` and `switchboard` carry calls to other nodes on the node's own loop.
"""
