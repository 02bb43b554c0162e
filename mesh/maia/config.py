"""What a mesh is told before it starts: addresses, profiles and limits. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Address(NamedTuple):
    """A host, as an IP literal, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
