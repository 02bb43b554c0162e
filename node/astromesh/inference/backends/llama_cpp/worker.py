"""The worker process of one model: `python -m astromesh.inference.backends.llama_cpp.worker`, started by `process`.

Frames come in on stdin and go out on what stdout was: llama.cpp and the libraries under it print, so descriptor 1 is pointed at stderr
before any of them is loaded. The end of stdin means that the node is gone or done, and ends the process at once, whatever it is doing:
there is nothing in it to save.

In:   load (first, once) · complete · cancel · export · import (in pieces)
Out:  progress* · loaded | unusable · then step (one for each `llama_decode`) · refused · cancelled · warmth · state (in pieces) · imported
"""

from __future__ import annotations

import ctypes
import os
import queue
import secrets
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from astromesh.errors import InvalidRequest
from astromesh.inference.chat import CHATML, ChatTemplate, TemplateUnusable
from astromesh.inference.frames import FrameDecoder, pack
from astromesh.inference.kernel import kernel_identity
from astromesh.inference.prefixes import PrefixTree
from astromesh.inference.schedule import Schedule
from astromesh.inference.warmth import SALT_BYTES

# The node's own threads answer probes of other nodes within a tenth of a second; tokens can wait for them.
NICENESS = 10

# Between two streams the pool has one context to spare, so that one request without `max_tokens` (it may fill a whole context) does not
# keep all others waiting. More would be paid for in memory by everybody.
CONTEXTS_OF_CELLS = 2

# What is warm changes with every stream that ends, and is told to the whole mesh: now and then is enough.
WARMTH_PAUSE_S = 1.0

_READ_BYTES = 1 << 16
_PR_SET_PDEATHSIG = 1


def _settle() -> BinaryIO:
    """Makes this process a good child; what stdout was."""
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


def _listen(arrived: queue.SimpleQueue[dict[str, Any]]) -> None:
    decoder = FrameDecoder()
    while data := os.read(0, _READ_BYTES):
        for frame in decoder.feed(data):
            arrived.put(frame)
    os._exit(0)


def main() -> None:
    out = _settle()
    arrived: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()  # bounded by the parent: requests by sequences, cancels by requests
    threading.Thread(target=_listen, args=(arrived,), name="frames", daemon=True).start()

    def send(kind: str, **values: Any) -> None:
        out.write(pack({"kind": kind, **values}))
        out.flush()

    told = 0.0

    def progress(fraction: float) -> None:
        nonlocal told
        if fraction - told >= 0.01 or fraction >= 1.0:
            told = fraction
            send("progress", fraction=fraction)

    load = arrived.get()
    # Late: `_settle` must come before any library that prints.
    from astromesh.inference.backends.llama_cpp.library import EngineFault, Model

    sequences = load["parallel"]
    try:
        model = Model(Path(load["path"]), gpu_layers=load["gpu_layers"], progress=progress)
        template = ChatTemplate(model.chat_template or CHATML, bos=model.bos, eos=model.eos)
        context = min(load["context"], model.trained_context or load["context"])
        cells = context * min(sequences, CONTEXTS_OF_CELLS)
        model.open_context(cells=cells, sequences=sequences, threads=load["threads"])
        model.warm_up()
        kernel = kernel_identity(model, threads=load["threads"], sequences=sequences)
    except (EngineFault, TemplateUnusable) as error:
        send("unusable", message=str(error))
        return
    schedule = Schedule(
        model,
        template,
        context=context,
        cells=cells,
        sequences=sequences,
        clock=time.monotonic,
        prefixes=PrefixTree(bytes_max=load["prefix_cache_bytes"]) if load["prefix_cache_bytes"] and model.divisible else None,
        salt=secrets.token_bytes(SALT_BYTES),
    )
    send("loaded", context=context, takes_tools=template.takes_tools, kernel=kernel)
    warmth, looked_s, incoming = b"", 0.0, b""

    while True:
        # Everything that has arrived, then one step; with nothing to do, sleep until something arrives.
        while schedule.idle or not arrived.empty():
            frame = arrived.get()
            match frame["kind"]:
                case "complete":
                    try:
                        schedule.submit(frame, seed=secrets.randbits(32))
                    except InvalidRequest as error:
                        send("refused", number=frame["number"], message=error.message, hint=error.hint, param=error.param)
                case "cancel":
                    if schedule.cancel(frame["number"]):
                        send("cancelled", number=frame["number"])
                case "export":
                    try:
                        for piece in schedule.export(frame, identity=load["identity"]):
                            send("state", number=frame["number"], data=piece, last=False)
                        send("state", number=frame["number"], data=b"", last=True)
                    except InvalidRequest as error:
                        send("refused", number=frame["number"], message=error.message, hint=error.hint, param=error.param)
                case "import":
                    incoming += frame["data"]
                    if frame["last"]:
                        data, incoming = incoming, b""
                        try:
                            send("imported", number=frame["number"], tokens=schedule.take_in(data, identity=load["identity"]))
                        except InvalidRequest as error:
                            send("refused", number=frame["number"], message=error.message, hint=error.hint, param=error.param)
                case other:
                    raise AssertionError(f"the node sent a frame of kind {other!r}")
        step = schedule.step()
        send(**step.as_frame())
        if step.ended and (schedule.idle or time.monotonic() >= looked_s + WARMTH_PAUSE_S):
            looked_s = time.monotonic()
            if (now_warm := schedule.warmth()) != warmth:
                warmth = now_warm
                send("warmth", digests=warmth)


if __name__ == "__main__":
    main()
