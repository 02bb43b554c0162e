"""What every worker process does first: it becomes a good child of its node, and listens to its frames.

They come in on stdin and go out on what stdout was.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from astromesh.inference.frames import FrameDecoder, pack

# The node's own threads answer probes of other nodes within a tenth of a second; tokens can wait for them.
NICENESS = 10

_READ_BYTES = 1 << 16
_PR_SET_PDEATHSIG = 1

Arrived = queue.SimpleQueue[dict[str, Any]]  # bounded by the parent: requests by what it gives at a time, cancels by requests
Send = Callable[..., None]


def begin() -> tuple[Arrived, Send]:
    """Frames as they arrive, and what sends one: `send(kind, **values)`. Call it before any library that prints is loaded.

    The end of stdin means that the node is gone or done, and ends the process at once, whatever it is doing: nothing in it is to be saved.
    """
    out = _settle()
    arrived: Arrived = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(arrived,), name="frames", daemon=True).start()
    writing = threading.Lock()

    def send(kind: str, **values: Any) -> None:
        frame = pack({"kind": kind, **values})
        with writing:
            out.write(frame)
            out.flush()

    return arrived, send


def _settle() -> BinaryIO:
    """What stdout was. Libraries of models print, so descriptor 1 is pointed at stderr."""
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # A terminal's ctrl-C and a service manager's stop go to the whole group, and the node still drains streams then. It ends us itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(NICENESS)
    if sys.platform == "linux":
        # The end of stdin tells it too, unless another child of the node has inherited the other end of the pipe.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    return frames


def _listen(arrived: Arrived) -> None:
    decoder = FrameDecoder()
    while data := os.read(0, _READ_BYTES):
        for frame in decoder.feed(data):
            arrived.put(frame)
    os._exit(0)
