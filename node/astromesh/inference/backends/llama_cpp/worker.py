"""The worker process of one model: `python -m astromesh.inference.backends.llama_cpp.worker`, started by its engine.

In:   load (first, once) · complete · encode · cancel · count · export · import (in pieces)
Out:  progress* · loaded | unusable · then step (one for each `llama_decode`) · encoded (one for each text) ·
      refused · failed · cancelled · warmth · counted · state (in pieces) · imported
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from astromesh.errors import InvalidRequest
from astromesh.inference import placement
from astromesh.inference.backends.child import begin
from astromesh.inference.chat import CHATML, ChatTemplate, TemplateUnusable
from astromesh.inference.kernel import kernel_identity
from astromesh.inference.prefixes import PrefixTree
from astromesh.inference.schedule import Schedule
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
    )
    texts = Texts(model, tokens=context, threads=load["threads"], send=send)
    send("loaded", context=context, takes_tools=template.dialect.native, kernel=kernel)
    warmth, looked_s, incoming = b"", 0.0, b""

    while True:
        # Everything that has arrived, then one text and one step; with nothing to do, sleep until something arrives.
        while (schedule.idle and texts.idle) or not arrived.empty():
            frame = arrived.get()
            match frame["kind"]:
                case "complete":
                    try:
                        schedule.submit(frame, seed=secrets.randbits(32))
                    except InvalidRequest as error:
                        send("refused", number=frame["number"], message=error.message, hint=error.hint, param=error.param)
                case "encode":
                    try:
                        texts.submit(frame)
                    except InvalidRequest as error:
                        send("refused", number=frame["number"], message=error.message, hint=error.hint, param=error.param)
                case "cancel":
                    if schedule.cancel(frame["number"]) or texts.cancel(frame["number"]):
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
                case "count":
                    send("counted", number=frame["number"], tokens=[len(model.tokenize(text)) for text in frame["texts"]])
                case other:
                    raise AssertionError(f"the node sent a frame of kind {other!r}")
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
