"""States on their way out of a worker and into it: several side by side, each whole, and nothing left of those that were given up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from astromesh.errors import InvalidRequest
from astromesh.inference import handovers
from astromesh.inference.handovers import AHEAD_PIECES, Handovers


class Letters:
    """Exports a letter many times over, and remembers what it took in."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def export(self, frame: Mapping[str, Any], *, identity: str) -> Iterator[bytes]:
        return iter([frame["letter"]] * frame["times"])

    def take_in(self, data: bytes, *, identity: str) -> int:
        self.taken.append(data)
        return len(data)


class Worker:
    def __init__(self) -> None:
        self.letters = Letters()
        self.told: list[tuple[str, int, Any]] = []
        self.handovers = Handovers(self.letters, identity="0" * 64, send=self._send)

    def _send(self, kind: str, **values: Any) -> None:
        self.told.append((kind, values["number"], values.get("data", values.get("tokens"))))

    def hear(self, kind: str, number: int, **values: Any) -> None:
        self.handovers.hear({"kind": kind, "number": number, **values})

    def steps(self) -> None:
        while not self.handovers.idle:
            self.handovers.step()


def test_two_imports_at_once_stay_apart() -> None:
    worker = Worker()
    for _ in range(2):
        worker.hear("import", -1, data=b"a", last=False)
        worker.hear("import", -2, data=b"b", last=False)
    worker.hear("import", -2, data=b"", last=True)
    worker.hear("import", -1, data=b"", last=True)
    assert worker.letters.taken == [b"bb", b"aa"]
    assert worker.told == [("imported", -2, 2), ("imported", -1, 2)]


def test_of_an_import_that_was_given_up_nothing_reaches_the_next() -> None:
    worker = Worker()
    worker.hear("import", -1, data=b"half", last=False)
    worker.handovers.cancel(-1)
    worker.hear("import", -1, data=b"whole", last=True)
    assert worker.letters.taken == [b"whole"]


def test_a_state_that_is_too_large_is_refused_once_and_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handovers, "STATE_BYTES_MAX", 10)
    worker = Worker()
    worker.hear("import", -1, data=b"x" * 10, last=False)
    with pytest.raises(InvalidRequest, match="over 10 bytes"):
        worker.hear("import", -1, data=b"x", last=False)
    worker.hear("import", -1, data=b"x", last=False)
    worker.hear("import", -1, data=b"", last=True)
    worker.hear("import", -1, data=b"fits", last=True)
    with pytest.raises(InvalidRequest, match="over 10 bytes"):
        worker.hear("import", -2, data=b"x" * 11, last=True)
    assert worker.letters.taken == [b"fits"]


def test_exports_take_turns_and_end_with_an_empty_piece() -> None:
    worker = Worker()
    worker.hear("export", -1, letter=b"a", times=2)
    worker.hear("export", -2, letter=b"b", times=1)
    worker.steps()
    assert worker.told == [("state", -1, b"a"), ("state", -2, b"b"), ("state", -1, b"a"), ("state", -2, b""), ("state", -1, b"")]


def test_no_more_goes_out_than_is_asked_for() -> None:
    worker = Worker()
    worker.hear("export", -1, letter=b"a", times=AHEAD_PIECES + 2)
    worker.steps()
    assert len(worker.told) == AHEAD_PIECES
    worker.hear("more", -1)
    worker.steps()
    assert len(worker.told) == AHEAD_PIECES + 1
    worker.handovers.cancel(-1)
    worker.hear("more", -1)
    worker.steps()
    assert len(worker.told) == AHEAD_PIECES + 1
