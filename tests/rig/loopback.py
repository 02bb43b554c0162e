"""A loopback of a test's own, with hosts on it that can be cut off from each other.

    with own_loopback() as loopback:
        async with node_process("a", host=loopback.host()) as a, node_process("b", host=loopback.host(), join=[a.gossip]) as b:
            loopback.cut(a.host, b.host)     # what a sends to b is lost, what b sends to a is not
            loopback.heal()

It is a network namespace without a name: nothing but its sockets and processes holds it, so nothing of it is left however a test ends. A
thread that makes a socket or a process in it is inside for that moment only, and they stay inside for life. Needs root and `nft`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from tests.rig.ports import NodePorts

HOSTS_MAX = 32
# Nobody else is here, so that every host has the ports that a node has by itself.
PORTS = NodePorts(api=8000, gossip=7946, link=7947)
FIRST_GROUP = 47_000
CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
IFREQ = "16sh22x"
PROTOCOLS = ("udp", "tcp")
NFT_S = 10.0

_libc = ctypes.CDLL(None, use_errno=True)


def _address(number: int) -> str:
    return f"127.0.9.{number}"


def _rules() -> str:
    """All hosts share one loopback, where the kernel gives every outgoing connection the same source: the group that a process runs under
    tells whose it is. Who sends to whom is then true of what was asked where it arrives, and of what is answered where it leaves; there
    only streams are looked at, since a datagram that does not even leave is an error to its sender, and one that is lost is not."""
    sources = ", ".join(f"{FIRST_GROUP + number} : {_address(number)}" for number in range(1, HOSTS_MAX + 1))
    return f"""
        table ip wire {{
            set cut_udp {{ type ipv4_addr . ipv4_addr; }}
            set cut_tcp {{ type ipv4_addr . ipv4_addr; }}
            chain source {{
                type nat hook postrouting priority srcnat; policy accept;
                ip saddr 127.0.0.1 snat to meta skgid map {{ {sources} }}
            }}
            chain lost {{
                meta l4proto udp ip saddr . ip daddr @cut_udp drop
                meta l4proto tcp ip saddr . ip daddr @cut_tcp drop
            }}
            chain leaving {{ type filter hook output priority raw; policy accept; meta l4proto tcp jump lost; }}
            chain arriving {{ type filter hook prerouting priority raw; policy accept; jump lost; }}
        }}
    """


@dataclass(frozen=True)
class Host:
    """An address of the loopback, and the group under which its processes run."""

    loopback: Loopback
    address: str
    group: int
    ports: NodePorts = PORTS

    def popen(self, command: Iterable[str], **how: Any) -> subprocess.Popen[bytes]:
        """As `subprocess.Popen`, on this host."""
        with self.loopback.entered():
            return subprocess.Popen(tuple(command), group=self.group, **how)

    def connector(self) -> aiohttp.TCPConnector:
        """For a client of this process that talks to servers on the loopback; it is none of the hosts, and no fault concerns it."""
        return aiohttp.TCPConnector(socket_factory=self.loopback.socket)


@dataclass
class Loopback:
    home: int
    inside: int
    hosts: list[Host] = field(default_factory=list)

    def host(self) -> Host:
        """One more host."""
        number = len(self.hosts) + 1
        if number > HOSTS_MAX:
            raise AssertionError(f"a loopback has {HOSTS_MAX} hosts")
        self.hosts.append(Host(self, _address(number), FIRST_GROUP + number))
        return self.hosts[-1]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is inside, for as long as nobody else has a turn on it: never across an `await`."""
        _enter(self.inside)
        try:
            yield
        finally:
            _enter(self.home)

    def socket(self, info: Any) -> socket.socket:
        """A socket of the loopback, as aiohttp asks for one."""
        family, kind, protocol, _, _ = info
        with self.entered():
            return socket.socket(family, kind, protocol)

    def cut(self, sender: Host, receiver: Host, *, protocol: str = "") -> None:
        """Whatever `sender` sends to `receiver` is lost; of one protocol, "udp" or "tcp", where it is named."""
        pair = f"{sender.address} . {receiver.address}"
        self._nft("\n".join(f"add element ip wire cut_{each} {{ {pair} }}" for each in PROTOCOLS if protocol in ("", each)))

    def part(self, these: Iterable[Host], those: Iterable[Host], *, protocol: str = "") -> None:
        """Nothing passes between the two sides, either way."""
        those = list(those)
        for one in these:
            for other in those:
                self.cut(one, other, protocol=protocol)
                self.cut(other, one, protocol=protocol)

    def heal(self, *, protocol: str = "") -> None:
        """Everything passes again, of one protocol or of both."""
        self._nft("\n".join(f"flush set ip wire cut_{each}" for each in PROTOCOLS if protocol in ("", each)))

    def _nft(self, rules: str) -> None:
        try:
            with self.entered():
                done = subprocess.run(["nft", "-f", "-"], input=rules, text=True, capture_output=True, timeout=NFT_S, check=False)
        except FileNotFoundError:
            raise AssertionError("there is no nft on this machine, without which no fault can be made: apt-get install nftables") from None
        if done.returncode != 0:
            raise AssertionError(f"nft does not take the rules of a network with faults: {done.stderr.strip()}")

    def open(self) -> None:
        with self.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            name, flags = struct.unpack(IFREQ, fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack(IFREQ, b"lo", 0)))
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack(IFREQ, name, flags | IFF_UP))
        self._nft(_rules())


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns of a network namespace failed")


@contextlib.contextmanager
def own_loopback() -> Iterator[Loopback]:
    """Raises `AssertionError` where this process may not make one: a fault that cannot be made is not one that was survived."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(CLONE_NEWNET) != 0:
            why = os.strerror(ctypes.get_errno())
            raise AssertionError(
                f"no network namespace for faults can be made: {why}; run these tests as root, in a container as privileged"
            )
        try:
            inside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            _enter(home)
        try:
            loopback = Loopback(home, inside)
            loopback.open()
            yield loopback
        finally:
            os.close(inside)
    finally:
        os.close(home)
