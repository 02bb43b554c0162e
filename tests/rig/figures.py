"""A figure of a real process beside its goal, as `eventually` does it with times.

`make proof` names a file in `PROOF_FIGURES`: there the goal itself is held to, and the figure is left in the file. Everywhere else it is
printed and may be five times the goal: a shared machine would fail it for reasons that are not ours.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.rig.eventually import FIGURES, PATIENCE


def hold(what: str, value: float, *, goal: float, unit: str) -> None:
    """Fails where `value` is above what it may be here."""
    print(f"{what}: {value:.2f} {unit} (goal {goal:g} {unit})")
    figures = os.environ.get(FIGURES)
    if figures:
        with Path(figures).open("a") as file:
            file.write(json.dumps({"what": what, "value": round(value, 3), "goal": goal, "unit": unit}) + "\n")
    limit = goal if figures else goal * PATIENCE
    assert value <= limit, f"{what}: {value:.2f} {unit}, and {limit:g} {unit} are allowed"
