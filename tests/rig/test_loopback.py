"""The network with faults, tried with bare sockets: who seems to send, what is lost and what is not."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.rig.loopback import Host, Loopback, own_loopback

pytestmark = pytest.mark.processes

PORT = 9000
PATIENCE_S = 5.0
# Answers everybody, by datagram and by stream, with the address that the question seems to come from.
ECHO = f"""
import selectors, socket, sys
kinds = (socket.SOCK_DGRAM, socket.SOCK_STREAM)
datagrams, streams = (socket.socket(socket.AF_INET, kind) for kind in kinds)
for one in (datagrams, streams):
    one.bind((sys.argv[1], {PORT}))
streams.listen()
look = selectors.DefaultSelector()
for one in (datagrams, streams):
    look.register(one, selectors.EVENT_READ)
print("ready", flush=True)
while True:
    for key, _ in look.select():
        if key.fileobj is datagrams:
            _, sender = datagrams.recvfrom(100)
            datagrams.sendto(sender[0].encode(), sender)
        elif key.fileobj is streams:
            look.register(streams.accept()[0], selectors.EVENT_READ)
        elif key.fileobj.recv(100):
            key.fileobj.sendall(key.fileobj.getpeername()[0].encode())
        else:
            look.unregister(key.fileobj)
            key.fileobj.close()
"""
# Asks by the kind named; a line on stdin asks again, over the same socket. "lost" where no answer comes.
ASK = f"""
import socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if sys.argv[2] == "udp" else socket.SOCK_STREAM)
one.settimeout(1.0)
try:
    one.bind((sys.argv[3], 0)) if sys.argv[3] else None
    one.connect((sys.argv[1], {PORT}))
    while True:
        one.send(b"?")
        print(one.recv(100).decode(), flush=True)
        if not sys.stdin.readline():
            break
except OSError:
    print("lost", flush=True)
"""


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    with own_loopback() as made:
        yield made


@pytest.fixture
def servers(loopback: Loopback) -> Iterator[tuple[Host, Host]]:
    hosts = loopback.host(), loopback.host()
    running = [host.popen((sys.executable, "-c", ECHO, host.address), stdout=subprocess.PIPE) for host in hosts]
    try:
        for process in running:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        yield hosts
    finally:
        for process in running:
            process.kill()
            process.communicate()


def asking(one: Host, other: Host, protocol: str) -> subprocess.Popen[bytes]:
    # A node's gossip is bound to its address, its connections to none.
    command = (sys.executable, "-c", ASK, other.address, protocol, one.address if protocol == "udp" else "")
    return one.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def asked(one: Host, other: Host, protocol: str) -> str:
    """What `other` answers to `one`."""
    out, _ = asking(one, other, protocol).communicate(timeout=PATIENCE_S)
    return out.decode().strip()


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_everyone_sends_from_an_address_of_its_own(servers: tuple[Host, Host], protocol: str) -> None:
    one, other = servers
    assert asked(one, other, protocol) == one.address
    assert asked(other, one, protocol) == other.address


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_cut_loses_what_one_sends_to_the_other_in_answers_too_until_it_is_healed(
    loopback: Loopback, servers: tuple[Host, Host], protocol: str
) -> None:
    one, other = servers
    third = loopback.host()
    for sender, receiver in ((one, other), (other, one)):
        loopback.cut(sender, receiver)
        assert asked(one, other, protocol) == "lost"
        assert asked(third, other, protocol) == third.address
        loopback.heal()
        assert asked(one, other, protocol) == one.address


def test_what_is_blocked_for_datagrams_is_open_for_streams(loopback: Loopback, servers: tuple[Host, Host]) -> None:
    one, other = servers
    loopback.part([one], [other])
    assert asked(one, other, "tcp") == "lost"
    loopback.heal(protocol="tcp")
    assert asked(one, other, "udp") == "lost"
    assert asked(one, other, "tcp") == one.address


@pytest.mark.parametrize("backwards", [False, True], ids=["what-is-asked", "what-is-answered"])
def test_a_connection_that_was_open_is_cut_as_well(loopback: Loopback, servers: tuple[Host, Host], backwards: bool) -> None:
    one, other = servers
    process = asking(one, other, "tcp")
    assert process.stdout is not None
    assert process.stdout.readline().decode().strip() == one.address
    loopback.cut(*((other, one) if backwards else (one, other)))
    out, _ = process.communicate(b"again\n", timeout=PATIENCE_S)
    assert out == b"lost\n"


def test_nobody_outside_is_reached_and_nothing_of_it_is_left(servers: tuple[Host, Host]) -> None:
    _, other = servers
    with socket.socket() as outside:
        outside.settimeout(PATIENCE_S)
        assert outside.connect_ex((other.address, PORT)) != 0
