"""The UDP socket of the mesh: read in batches, written without waiting."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Final

from maia.config import Address
from maia.wire.codec import DATAGRAM_BYTES_MAX

BATCH: Final = 64  # datagrams per wake: then timers have their turn, however much arrives
BATCH_S: Final = 0.01  # and so long: one that is made to be expensive costs as much as a hundred others
READ_BYTES: Final = DATAGRAM_BYTES_MAX + 1  # the kernel cuts what is longer, and the mesh refuses it for its length
BUFFER_BYTES: Final = 2 * 1024 * 1024  # memberlist's; the kernel may grant less


class DatagramSocket:
    """Bound at once; `listen` hands every datagram over with its sender, then says that the batch is done.

    Raises `OSError` when the address cannot be bound.
    """

    def __init__(self, address: Address) -> None:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            self._socket.bind((address.host, address.port))
        except OSError:
            self._socket.close()
            raise
        self.address = Address(address.host, self._socket.getsockname()[1])
        self.dropped = 0  # sends that the kernel would not take; gossip loses packets anyway
        self._loop: asyncio.AbstractEventLoop | None = None

    def listen(self, receive: Callable[[bytes, Address], None], done: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read, receive, done)

    def _read(self, receive: Callable[[bytes, Address], None], done: Callable[[], None]) -> None:
        until_s = time.monotonic() + BATCH_S
        try:
            for _ in range(BATCH):
                try:
                    payload, source = self._socket.recvfrom(READ_BYTES)
                except BlockingIOError:
                    return
                except OSError:
                    # An ICMP answer to something that we sent: the port there is closed. Whoever lived there will fail its probe.
                    continue
                receive(payload, Address(source[0], source[1]))
                if time.monotonic() > until_s:
                    return
        finally:
            done()

    def send(self, payload: bytes, target: Address) -> None:
        try:
            self._socket.sendto(payload, (target.host, target.port))
        except OSError:
            self.dropped += 1

    def close(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._socket)
        self._socket.close()
