"""Where a node may listen, and who is there already."""

from __future__ import annotations

import socket

import psutil

from astromesh.errors import ConfigurationError

LAN_NEEDS = (
    "beyond loopback a node needs a certificate of its cluster and an API key, and this version can make neither: "
    "keep to 127.0.0.1 or ::1"
)


def check_loopback(what: str, host: str) -> None:
    """Raises `ConfigurationError` for an address that other machines can reach. `what` names the setting."""
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)}
    except socket.gaierror:
        raise ConfigurationError(f"{what}: {host!r} is no IP address", hint="write it as digits, for example 127.0.0.1") from None
    for address in found:
        if not (str(address).startswith("127.") or address == "::1"):
            raise ConfigurationError(f"{what} would bind {host}, which other machines can reach", hint=LAN_NEEDS)


def holder(port: int, *, kind: str) -> str:
    """Who listens on a port, in words. `kind` is "tcp" or "udp"."""
    try:
        for connection in psutil.net_connections(kind):
            listening = kind == "udp" or connection.status == psutil.CONN_LISTEN
            if listening and connection.laddr and connection.laddr.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                return f"process {connection.pid} ({' '.join(process.cmdline()[:6]) or process.name()})"
    except (psutil.Error, OSError):
        pass  # other users' processes are not ours to see
    return "another process, which only its owner or root can see"


def taken(what: str, host: str, port: int, *, kind: str) -> ConfigurationError:
    """The error for an address that is in use."""
    return ConfigurationError(
        f"{what} {host}:{port}/{kind} is in use by {holder(port, kind=kind)}", hint=f"stop that, or choose another port with --{what}"
    )
