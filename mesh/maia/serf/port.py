"""What this room sees of membership: the table, read only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from maia.config import Address
from maia.view import Status


class Known(Protocol):
    """One member."""

    @property
    def name(self) -> str: ...
    @property
    def address(self) -> Address: ...
    @property
    def status(self) -> Status: ...
    @property
    def meta(self) -> bytes: ...
    @property
    def vsn(self) -> bytes: ...
    @property
    def living(self) -> bool: ...


class Roll(Protocol):
    """All members by name, this node included, and the living peers."""

    @property
    def by_name(self) -> Mapping[str, Known]: ...
    @property
    def living(self) -> Sequence[Known]: ...
    @property
    def living_count(self) -> int: ...
    def get(self, name: str, /) -> Known | None: ...
    def at(self, address: Address, /) -> Known | None: ...
