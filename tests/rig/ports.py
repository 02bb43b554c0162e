"""Loopback ports that nobody else will be given before the process under test binds them.

They come from below the kernel's ephemeral range (32768 and up on Linux), so no outgoing connection takes one in between; a port is never
handed out twice by one process; and processes that test at the same time begin at different places.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
FIRST_PORT = 20_000
PORTS = 12_000
# A prime, so that neighbouring process ids begin far apart.
STRIDE = 397

_next = os.getpid() * STRIDE % PORTS


@dataclass(frozen=True, slots=True)
class NodePorts:
    """Where one node listens: API (TCP), gossip (UDP and TCP), links (TCP)."""

    api: int
    gossip: int
    link: int


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as trial:
        if kind is socket.SOCK_STREAM:
            # As servers do: what lingers in TIME_WAIT from an earlier test is free.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(*, datagrams_too: bool = False) -> int:
    """A free TCP port; with `datagrams_too`, one whose UDP twin is free as well, as gossip needs."""
    global _next  # noqa: PLW0603  the one thing that this module remembers
    for _ in range(PORTS):
        port = FIRST_PORT + _next % PORTS
        _next += 1
        if _is_free(port, socket.SOCK_STREAM) and (not datagrams_too or _is_free(port, socket.SOCK_DGRAM)):
            return port
    raise RuntimeError(f"no free port from {FIRST_PORT} to {FIRST_PORT + PORTS} on {LOOPBACK}")


def free_node_ports() -> NodePorts:
    return NodePorts(api=free_port(), gossip=free_port(datagrams_too=True), link=free_port())
