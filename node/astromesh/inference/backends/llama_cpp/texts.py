"""Texts that a worker turns into vectors between the steps of its streams, one text at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astromesh.errors import InvalidRequest
from astromesh.inference.backends.child import Send
from astromesh.inference.backends.llama_cpp.library import EngineFault, Model
from astromesh.inference.batches import Batches

# What is read of a text. The scratch memory of a context grows with it (some 60 MB with SmolLM2-135M), and a text of this length is a step
# of 3 s on two cores, for which every stream waits.
TEXT_TOKENS = 1024


class Texts:
    def __init__(self, model: Model, *, tokens: int, threads: int, send: Send) -> None:
        """`tokens`: what the model was made to read, at most."""
        self._model = model
        self._tokens = min(tokens, TEXT_TOKENS)
        self._threads = threads
        self._send = send
        self._jobs: dict[int, list[list[int]]] = {}
        self._batches = Batches(rows_max=1)
        self._open = False

    @property
    def idle(self) -> bool:
        return not self._jobs

    def submit(self, frame: Mapping[str, Any]) -> None:
        """Raises `InvalidRequest`."""
        columns = self._model.columns
        if frame["dimensions"] not in (None, columns):
            raise InvalidRequest(
                f"the vectors of this model have {columns} dimensions, not {frame['dimensions']}",
                hint="leave dimensions out: a part of such a vector means little",
                param="dimensions",
            )
        # One token more than is read tells that there was more.
        texts = [self._model.read_text(text)[: self._tokens + 1] for text in frame["texts"]]
        self._jobs[frame["number"]] = texts
        self._batches.submit(frame["number"], [len(text) for text in texts])

    def cancel(self, number: int) -> bool:
        """Whether it was there."""
        self._jobs.pop(number, None)
        return self._batches.cancel(number)

    def step(self) -> None:
        """One text of the job whose turn it is."""
        batch = self._batches.next()
        assert batch is not None, "a job has batches until its last one"
        (place,) = batch.rows
        text = self._jobs[batch.job][place]
        if batch.last:
            del self._jobs[batch.job]
        try:
            if not self._open:
                self._model.open_encoder(tokens=self._tokens, threads=self._threads)
                self._open = True
            data = self._model.embed(text[: self._tokens])
        except EngineFault as fault:
            self.cancel(batch.job)
            self._send("failed", number=batch.job, message=str(fault))
            return
        told = {"rows": batch.rows, "columns": self._model.columns, "data": data, "tokens": min(len(text), self._tokens)}
        cut = [place] if len(text) > self._tokens else []
        self._send("encoded", number=batch.job, **told, truncated=cut, last=batch.last)
