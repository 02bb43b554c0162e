"""Who is in the way is named, and nobody else: a person may stop whoever is named."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from astromesh.service.addresses import HostPort
from astromesh.service.ports import holder, taken

ELSEWHERE = """
import socket, sys
listening = socket.socket()
listening.bind((sys.argv[1], int(sys.argv[2])))
listening.listen()
print("listening", flush=True)
sys.stdin.read()
"""


@contextmanager
def listening_elsewhere(host: str, port: int) -> Iterator[int]:
    """A process of its own on that address, and its id."""
    with subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE, host, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        yield process.pid


def listening(host: str) -> socket.socket:
    here = socket.socket()
    here.bind((host, 0))
    here.listen()
    return here


def test_one_port_on_two_addresses_has_two_holders_and_each_is_named_for_its_own() -> None:
    with listening("127.0.77.1") as here:
        port = here.getsockname()[1]
        with listening_elsewhere("127.0.77.2", port) as other:
            assert f"process {os.getpid()} " in (holder(HostPort("127.0.77.1", port), kind="tcp") or "")
            assert f"process {other} " in (holder(HostPort("127.0.77.2", port), kind="tcp") or "")
            assert holder(HostPort("127.0.77.3", port), kind="tcp") is None


@pytest.mark.parametrize(("bound", "wanted"), [("0.0.0.0", "127.0.77.1"), ("127.0.77.1", "0.0.0.0"), ("127.0.0.1", "localhost")])
def test_whoever_listens_everywhere_or_under_the_other_name_is_in_the_way(bound: str, wanted: str) -> None:
    with listening(bound) as here:
        address = HostPort(wanted, here.getsockname()[1])
        assert f"process {os.getpid()} " in (holder(address, kind="tcp") or "")


def test_the_error_names_the_flag_the_address_and_the_holder() -> None:
    with listening("127.0.77.1") as here:
        address = HostPort("127.0.77.1", here.getsockname()[1])
        error = taken("api", address, OSError(errno.EADDRINUSE, "in use"))
    assert str(error).startswith(f"--api {address} is in use by process {os.getpid()} ")
