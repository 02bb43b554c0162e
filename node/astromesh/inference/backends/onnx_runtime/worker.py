"""The worker process of one encoder: `python -m astromesh.inference.backends.onnx_runtime.worker`, started by its engine.

In:   load (first, once) · encode · cancel
Out:  loaded | unusable · then encoded (one for each batch) · refused · failed · cancelled
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from astromesh.inference.backends.child import begin
from astromesh.inference.batches import Batches


def main() -> None:
    arrived, send = begin()
    load = arrived.get()
    # Late: descriptors must be settled before any library that prints.
    from astromesh.inference.backends.onnx_runtime.library import Encoder, EncoderUnusable, Read, as_bytes, manifest_of

    try:
        encoder = Encoder(
            Path(load["path"]),
            Path(load["tokenizer"]),
            manifest=manifest_of(load["manifest"]),
            length=load["context"],
            threads=load["threads"],
        )
    except EncoderUnusable as error:
        send("unusable", message=str(error))
        return
    send("loaded", context=encoder.length, kernel="")
    jobs: dict[int, list[Read]] = {}
    batches = Batches()

    def hear(frame: dict[str, Any]) -> None:
        number = frame["number"]
        match frame["kind"]:
            case "encode":
                if frame["dimensions"] not in (None, encoder.columns):
                    message = f"the vectors of this model have {encoder.columns} dimensions, not {frame['dimensions']}"
                    hint = "leave dimensions out: a part of such a vector means little"
                    send("refused", number=number, message=message, hint=hint, param="dimensions")
                    return
                query = frame["query"]
                texts = frame["texts"] if query is None else [(query, text) for text in frame["texts"]]
                jobs[number] = encoder.read(texts)
                batches.submit(number, [row.tokens for row in jobs[number]])
            case "cancel":
                if batches.cancel(number):
                    del jobs[number]
                    send("cancelled", number=number)
            case other:
                raise AssertionError(f"the node sent a frame of kind {other!r}")

    while True:
        # Everything that has arrived, then one batch; with nothing to do, sleep until something arrives.
        while not jobs or not arrived.empty():
            hear(arrived.get())
        batch = batches.next()
        assert batch is not None, "a job has batches until its last one"
        rows = [jobs[batch.job][place] for place in batch.rows]
        try:
            data = as_bytes(encoder.encode(rows))
        except EncoderUnusable as error:
            # Of these texts. Others are none the worse for it, and a process that ended would take them along.
            batches.cancel(batch.job)
            del jobs[batch.job]
            send("failed", number=batch.job, message=str(error))
            continue
        send(
            "encoded",
            number=batch.job,
            rows=batch.rows,
            columns=encoder.columns,
            data=data,
            tokens=sum(row.tokens for row in rows),
            truncated=[place for place, row in zip(batch.rows, rows, strict=True) if row.truncated],
            last=batch.last,
        )
        if batch.last:
            del jobs[batch.job]


if __name__ == "__main__":
    main()
