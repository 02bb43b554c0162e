"""A worker process without a model: it speaks the same frames as the real one and does what the last message says.

    say a b c    one step for each word, then the end          hold on      one word, then nothing until it is cancelled
    crash        one word, then SIGKILL                        noise        bytes into the pipe that are no frame
    refuse       refused, as for a prompt that is too long     misnumber    one word for a stream that nobody asked for

An export of `state N x` is N pieces of x, and another order is answered as above; an import is known by as many tokens as it has bytes,
unless it begins with `refuse`. A text has as many tokens as words. `held` says how many states are under way.

The name of the model's file says how loading goes: `never` says nothing more, `dies` leaves last words and exits, `unusable` says so,
`once` loads, and the next worker says nothing more.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from astromesh.errors import InvalidRequest
from astromesh.inference.frames import FrameDecoder, pack
from astromesh.inference.handovers import Handovers
from astromesh.inference.session_state import PIECE_BYTES


def send(kind: str, **values: Any) -> None:
    data = pack({"kind": kind, **values})
    while data:
        data = data[os.write(1, data) :]


def step(number: int, text: str) -> None:
    send("step", began=[], pieces=[[number, text, [1], [], None]], ended=[])


def end(number: int, words: int) -> None:
    account = {"number": number, "finish_reason": "stop", "tokens_in": 5, "tokens_out": words + 1, "cached_tokens": 0}
    send("step", began=[], pieces=[], ended=[account | {"timings": {"queue_ms": 1.0, "prefill_ms": 2.0, "decode_tok_s": 50.0}}])


def complete(number: int, order: str) -> None:
    verb, _, rest = order.partition(" ")
    match verb:
        case "say":
            for word in rest.split():
                step(number, word)
            end(number, len(rest.split()))
        case "hold":
            step(number, rest)
        case "crash":
            step(number, "ouch")
            os.kill(os.getpid(), signal.SIGKILL)
        case "noise":
            os.write(1, b"llama_model_loader: loaded meta data")
        case "refuse":
            message = "the prompt has 9 tokens and the context of this model has 8"
            send("refused", number=number, message=message, hint="shorten it", param="messages")
        case "misnumber":
            step(number + 1000, "whose?")


def load(path: Path, context: int) -> None:
    match path.stem:
        case "never":
            return
        case "once" if path.with_suffix(".loaded").exists():
            return
        case "once":
            path.with_suffix(".loaded").touch()
        case "dies":
            print("ggml: the last words", file=sys.stderr)
            sys.exit(3)
        case "unusable":
            send("unusable", message="llama.cpp cannot load it")
            sys.exit(0)
    send("progress", fraction=0.5)
    send("loaded", context=context, takes_tools=False, kernel="")


class States:
    """What the schedule is to the real worker."""

    def export(self, frame: Mapping[str, Any], *, identity: str) -> Iterator[bytes]:
        verb, _, rest = frame["transcript"][-1]["content"].partition(" ")
        if verb != "state":
            raise InvalidRequest("the prompt has 9 tokens and the context of this model has 8", param="messages")
        count, _, letter = rest.partition(" ")
        return (letter.encode() * PIECE_BYTES for _ in range(int(count)))

    def take_in(self, data: bytes, *, identity: str) -> int:
        if data.startswith(b"refuse"):
            raise InvalidRequest("this is no whole session state", param="session")
        if len(set(data)) > 1:
            raise InvalidRequest("this is a mixture", param="session")
        return len(data)


def main() -> None:
    decoder = FrameDecoder()
    handovers = Handovers(States(), identity="0" * 64, send=send)
    while data := os.read(0, 65536):
        for frame in decoder.feed(data):
            try:
                hear(frame, handovers)
            except InvalidRequest as error:
                send("refused", number=frame["number"], message=error.message, hint=error.hint, param=error.param)
        while not handovers.idle:
            handovers.step()


def hear(frame: dict[str, Any], handovers: Handovers) -> None:
    match frame["kind"]:
        case "load":
            load(Path(frame["path"]), frame["context"])
        case "complete" if frame["transcript"][-1]["content"] == "held":
            complete(frame["number"], f"say {len(handovers._coming) + len(handovers._leaving)}")
        case "complete":
            complete(frame["number"], frame["transcript"][-1]["content"])
        case "cancel" if frame["number"] >= 0:
            send("cancelled", number=frame["number"])
        case "cancel":
            handovers.cancel(frame["number"])
        case "count":
            send("counted", number=frame["number"], tokens=[len(text.split()) for text in frame["texts"]])
        case "export" | "more" | "import":
            handovers.hear(frame)


if __name__ == "__main__":
    main()
