"""What the runtime asks of whoever completes a transcript."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from astromesh.dialogue import ModelEvent, ModelRequest


class ModelProvider(Protocol):
    def complete(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
        """Deltas as the model makes them, then exactly one `ModelReply`. Closing the generator cancels the work behind it.

        Raises from `astromesh.errors`: `ModelFailed`, `ModelRefused`, `Overloaded`, `ModelUnavailable`.
        """
        ...

    async def close(self) -> None: ...
