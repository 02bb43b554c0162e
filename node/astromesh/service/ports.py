"""Where a node may listen, and who is there already."""

from __future__ import annotations

import errno

import psutil

from astromesh.errors import ConfigurationError
from astromesh.service.addresses import HostPort

LAN_NEEDS = (
    "beyond loopback a node needs a certificate of its cluster and an API key, and this version can make neither: keep to 127.0.0.1 or ::1"
)


def check_loopback(what: str, address: HostPort) -> None:
    """Raises `ConfigurationError` for an address that other machines can reach. `what` names the setting."""
    if not address.is_loopback:
        raise ConfigurationError(f"{what} {address} could be reached by other machines", hint=LAN_NEEDS)


def holder(port: int, *, kind: str) -> str | None:
    """Who listens on a port, in words. `kind` is "tcp" or "udp"."""
    try:
        for connection in psutil.net_connections(kind):
            listening = kind == "udp" or connection.status == psutil.CONN_LISTEN
            if listening and connection.laddr and connection.laddr.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                return f"process {connection.pid} ({' '.join(process.cmdline()[:6]) or process.name()})"
    except (psutil.Error, OSError):
        return None  # other users' processes are not ours to see
    return None


def taken(what: str, address: HostPort, failure: OSError, *, kinds: tuple[str, ...] = ("tcp",)) -> ConfigurationError:
    """The error for an address that could not be bound. `what` names the flag."""
    if failure.errno != errno.EADDRINUSE:
        return ConfigurationError(f"--{what} {address} cannot be bound: {failure.strerror}", hint=f"choose another address with --{what}")
    who = next((found for kind in kinds if (found := holder(address.port, kind=kind))), "a process that only its owner or root can see")
    return ConfigurationError(f"--{what} {address} is in use by {who}", hint=f"stop it, or choose another port with --{what}")
