"""The addresses behind the names of seeds."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address

from maia.config import Address


async def resolve(seed: Address) -> list[Address]:
    """Every address of a seed's host; empty while nobody knows the name."""
    if is_literal(seed.host):
        return [seed]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(seed.host, seed.port, type=socket.SOCK_DGRAM)
    except OSError:
        return []
    return list(dict.fromkeys(Address(str(sockaddr[0]), seed.port) for _, _, _, _, sockaddr in found))


def is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
