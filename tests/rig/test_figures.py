"""A goal is held to where it is measured, and five times of it elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.rig.eventually import FIGURES
from tests.rig.figures import hold


def test_elsewhere_five_times_the_goal_are_allowed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv(FIGURES, raising=False)
    hold("memory", 475.0, goal=95, unit="MB")
    assert capsys.readouterr().out == "memory: 475.00 MB (goal 95 MB)\n"
    with pytest.raises(AssertionError, match="475 MB are allowed"):
        hold("memory", 475.1, goal=95, unit="MB")


def test_in_a_proof_the_goal_itself_is_held_to_and_the_figure_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figures = tmp_path / "figures.jsonl"
    monkeypatch.setenv(FIGURES, str(figures))
    hold("memory", 95.0, goal=95, unit="MB")
    with pytest.raises(AssertionError, match="95 MB are allowed"):
        hold("memory", 95.1, goal=95, unit="MB")
    assert [json.loads(line)["value"] for line in figures.read_text().splitlines()] == [95.0, 95.1]
