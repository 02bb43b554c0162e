"""What a tool is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from astromesh.dialogue import ToolSchema


class ToolFailed(Exception):
    """The tool could not do it. Its text goes to the model, so it says what to try instead."""


class BadArguments(ToolFailed):
    """It was not called: what it was given does not fit its schema."""


class Tool(Protocol):
    @property
    def schema(self) -> ToolSchema: ...

    async def call(self, arguments: Mapping[str, Any]) -> str:
        """Does it. Raises `ToolFailed`."""
        ...
