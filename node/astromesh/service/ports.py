"""Where a node may listen, and who is there already."""

from __future__ import annotations

import errno
import ipaddress

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


def holder(address: HostPort, *, kind: str) -> str | None:
    """Who listens there, in words. `kind` is "tcp" or "udp".

    A port alone would not do: whoever has it on another address of this machine is not in the way, and must not be stopped for it.
    """
    try:
        for connection in psutil.net_connections(kind):
            listening = kind == "udp" or connection.status == psutil.CONN_LISTEN
            if listening and connection.laddr and connection.pid and _meets(address, HostPort(*connection.laddr)):
                process = psutil.Process(connection.pid)
                return f"process {connection.pid} ({' '.join(process.cmdline()[:6]) or process.name()})"
    except (psutil.Error, OSError):
        return None  # other users' processes are not ours to see
    return None


def _meets(wanted: HostPort, bound: HostPort) -> bool:
    if wanted.port != bound.port:
        return False
    if _is_everywhere(wanted) or _is_everywhere(bound):
        return True
    return wanted.host == bound.host or (wanted.host == "localhost" and bound.is_loopback)


def _is_everywhere(address: HostPort) -> bool:
    try:
        return ipaddress.ip_address(address.host).is_unspecified
    except ValueError:
        return False  # a name


def taken(what: str, address: HostPort, failure: OSError, *, kinds: tuple[str, ...] = ("tcp",)) -> ConfigurationError:
    """The error for an address that could not be bound. `what` names the flag."""
    if failure.errno != errno.EADDRINUSE:
        return ConfigurationError(f"--{what} {address} cannot be bound: {failure.strerror}", hint=f"choose another address with --{what}")
    who = next((found for kind in kinds if (found := holder(address, kind=kind))), "a process that only its owner or root can see")
    return ConfigurationError(f"--{what} {address} is in use by {who}", hint=f"stop it, or choose another port with --{what}")
