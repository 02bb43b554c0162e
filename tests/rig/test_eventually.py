"""Waiting: what counts as "not yet", and what is said when time runs out."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.rig.eventually import FIGURES, eventually


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FIGURES, raising=False)


async def test_where_goals_are_proven_the_goal_itself_is_the_limit_and_the_time_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    figures = tmp_path / "figures.jsonl"
    monkeypatch.setenv(FIGURES, str(figures))

    async def is_true() -> bool:
        return True

    async def never() -> bool:
        return False

    await eventually(is_true, 1, what="truth")
    assert json.loads(figures.read_text())["what"] == "truth"
    with pytest.raises(AssertionError, match=r"not within 0\.02 s, 1 times its goal"):
        await eventually(never, 0.02)


async def test_it_returns_when_the_predicate_is_true_and_prints_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    looks = iter([False, False, True])

    async def third_time_lucky() -> bool:
        return next(looks)

    took_s = await eventually(third_time_lucky, 1)
    assert capsys.readouterr().out == f"third time lucky: {took_s:.3f} s (goal 1 s)\n"


async def test_a_refused_connection_and_a_failed_assertion_are_not_yet() -> None:
    outcomes: list[Exception | None] = [ConnectionRefusedError("nobody"), AssertionError("only 2 members"), None]

    async def comes_up() -> bool:
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome
        return True

    await eventually(comes_up, 1)
    assert outcomes == []


async def test_when_time_runs_out_the_last_reason_is_told() -> None:
    async def never() -> bool:
        raise AssertionError("only 2 members")

    with pytest.raises(AssertionError, match=r"members agree: not within 0\.1 s, 5 times its goal\. Last seen: only 2 members"):
        await eventually(never, 0.02, what="members agree")


async def test_a_predicate_that_never_returns_is_cut_at_the_same_limit() -> None:
    async def hangs() -> bool:
        await asyncio.Event().wait()
        return True

    with pytest.raises(AssertionError, match="not within"):
        await eventually(hangs, 0.02)


async def test_any_other_exception_passes_through_at_once() -> None:
    async def is_wrong() -> bool:
        raise KeyError("nodes")

    with pytest.raises(KeyError, match="nodes"):
        await eventually(is_wrong, 60)
