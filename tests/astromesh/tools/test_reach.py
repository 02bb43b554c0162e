"""Which addresses a tool may call: public ones, and those that the node lists."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from astromesh.specs.addresses import BadAddress, listed_address
from astromesh.tools.reach import Reach, is_public


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:2800:21f:cb07::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_may_be_called(address: str) -> None:
    assert is_public(ip_address(address))
    assert Reach().permits("example.org", ip_address(address), 443)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.10", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1"),
        *("169.254.169.254", "169.254.0.1", "224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "2001:db8::1", "fd00:ec2::254"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "::7f00:1"),
        *("2002:7f00:1::1", "2001:0:7f00:1::1"),
    ],
)
def test_what_only_this_machine_or_its_network_reaches_may_not(address: str) -> None:
    assert not is_public(ip_address(address))
    assert not Reach().permits("example.org", ip_address(address), 80)


@pytest.mark.parametrize(
    ("listed", "host", "address", "port", "covered"),
    [
        ("10.0.0.0/8", "tickets", "10.1.2.3", 80, True),
        ("10.0.0.0/8", "tickets", "192.168.1.1", 80, False),
        ("10.0.0.5", "tickets", "10.0.0.5", 9, True),
        ("10.0.0.5:8080", "tickets", "10.0.0.5", 8080, True),
        ("10.0.0.5:8080", "tickets", "10.0.0.5", 80, False),
        ("10.0.0.5", "tickets", "::ffff:10.0.0.5", 80, True),
        ("[fd00::1]:8080", "fd00::1", "fd00::1", 8080, True),
        ("[fd00::1]:8080", "fd00::1", "fd00::2", 8080, False),
        ("fd00::/8", "tickets", "fd00::2", 1, True),
        ("Tickets.internal", "tickets.INTERNAL.", "10.9.9.9", 80, True),
        ("tickets.internal:8080", "tickets.internal", "127.0.0.1", 8080, True),
        ("tickets.internal:8080", "tickets.internal", "127.0.0.1", 8081, False),
        ("tickets.internal", "evil.tickets.internal", "10.9.9.9", 80, False),
        ("localhost:80", "127.0.0.1", "127.0.0.1", 80, False),
    ],
)
def test_what_the_node_lists_may_be_called_there_and_nowhere_else(listed: str, host: str, address: str, port: int, covered: bool) -> None:
    assert Reach((listed_address(listed),)).permits(host, ip_address(address), port) is covered


@pytest.mark.parametrize(
    "text", ["", "10.0.0.0/33", "10.0.0.1/8", "300.1.2.3", "host:99999", "host:0", "http://host", "a b", "[::1", "-x", "*"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(BadAddress):
        listed_address(text)


@pytest.mark.parametrize(
    ("hosts", "host", "port", "named"),
    [
        (None, "anything.example", 80, True),
        ((), "anything.example", 80, False),
        (("*.example.org",), "api.Example.org", 443, True),
        (("*.example.org",), "example.org.evil.net", 443, False),
        (("api.example.org:443",), "api.example.org", 443, True),
        (("api.example.org:443",), "api.example.org", 80, False),
    ],
)
def test_an_agent_may_be_held_to_hosts_by_pattern(hosts: tuple[str, ...] | None, host: str, port: int, named: bool) -> None:
    assert Reach(hosts=hosts).names(host, port) is named
