"""What the runtime asks of whoever completes a transcript."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol, runtime_checkable

from astromesh.dialogue import ModelEvent, ModelRequest


class ModelProvider(Protocol):
    def complete(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
        """Deltas as the model makes them, then exactly one `ModelReply`. Closing the generator cancels the work behind it.

        Raises from `astromesh.errors`: `ModelFailed`, `ModelRefused`, `Overloaded`, `ModelUnavailable`.
        """
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Checkable(Protocol):
    """A model server that can be asked whether it is there without asking a model."""

    async def check(self, *, path: str | None, timeout_s: float) -> int:
        """The status that it answers with, at `path` of its host or where it lists its models.

        Raises `ModelUnavailable` where nobody answers, `DeadlineExceeded` after `timeout_s`.
        """
        ...
