"""The worker process of one model: `python -m astromesh.inference.backends.llama_cpp.worker`, started by its engine.

In:   load (first, once) · complete · encode · cancel · count · export · more · import (in pieces)
Out:  progress* · loaded | unusable · then step (one for each `llama_decode`) · encoded (one for each text) ·
      refused · failed · cancelled · warmth · counted · state (in pieces) · imported
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

from astromesh.errors import ContextExceeded, InvalidRequest
from astromesh.inference import placement
from astromesh.inference.backends.child import begin
from astromesh.inference.chat import CHATML, ChatTemplate, TemplateUnusable
from astromesh.inference.handovers import Handovers
from astromesh.inference.kernel import kernel_identity
from astromesh.inference.prefixes import PrefixTree
from astromesh.inference.schedule import CONTEXT_HINT, FULL_CONTEXT_HINT, Schedule
from astromesh.inference.warmth import SALT_BYTES

# What is warm changes with every stream that ends, and is told to the whole mesh: now and then is enough.
WARMTH_PAUSE_S = 1.0


def main() -> None:
    arrived, send = begin()
    told = 0.0

    def progress(fraction: float) -> None:
        nonlocal told
        if fraction - told >= 0.01 or fraction >= 1.0:
            told = fraction
            send("progress", fraction=fraction)

    load = arrived.get()
    # Late: `begin` must come before any library that prints.
    from astromesh.inference.backends.llama_cpp.library import EngineFault, Model
    from astromesh.inference.backends.llama_cpp.texts import Texts

    sequences = load["parallel"]
    try:
        model = Model(Path(load["path"]), gpu_layers=load["gpu_layers"], tensor_split=load["tensor_split"], progress=progress)
        template = ChatTemplate(model.chat_template or CHATML, bos=model.bos, eos=model.eos, specials=model.specials)
        context = min(load["context"], model.trained_context or load["context"])
        cells = placement.cells(context, sequences)
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
        hint=FULL_CONTEXT_HINT if context == model.trained_context else CONTEXT_HINT,
    )
    texts = Texts(model, tokens=context, threads=load["threads"], send=send)
    send("loaded", context=context, takes_tools=template.dialect.native, kernel=kernel)
    handovers = Handovers(schedule, identity=load["identity"], send=send)
    warmth, looked_s = b"", 0.0

    def hear(frame: dict[str, Any]) -> None:
        """Raises `InvalidRequest`."""
        number = frame["number"]
        match frame["kind"]:
            case "complete":
                schedule.submit(frame, seed=secrets.randbits(32))
            case "encode":
                texts.submit(frame)
            case "export" | "more" | "import":
                handovers.hear(frame)
            case "count":
                send("counted", number=number, tokens=[len(model.tokenize(text)) for text in frame["texts"]])
            case "cancel":
                handovers.cancel(number)
                if schedule.cancel(number) or texts.cancel(number):
                    send("cancelled", number=number)
            case other:
                raise AssertionError(f"the node sent a frame of kind {other!r}")

    while True:
        # Everything that has arrived, then one text, one piece and one step; with nothing to do, sleep until something arrives.
        while (schedule.idle and texts.idle and handovers.idle) or not arrived.empty():
            frame = arrived.get()
            try:
                hear(frame)
            except InvalidRequest as error:
                send(
                    "refused",
                    number=frame["number"],
                    message=error.message,
                    hint=error.hint,
                    param=error.param,
                    exceeds=isinstance(error, ContextExceeded),
                )
        handovers.step()
        if not texts.idle:
            texts.step()
        if schedule.idle:
            continue
        step = schedule.step()
        send(**step.as_frame())
        if step.ended and (schedule.idle or time.monotonic() >= looked_s + WARMTH_PAUSE_S):
            looked_s = time.monotonic()
            if (now_warm := schedule.warmth()) != warmth:
                warmth = now_warm
                send("warmth", digests=warmth)


if __name__ == "__main__":
    main()
