"""Every bug that a simulation found, by the run that found it."""

from __future__ import annotations

import pytest

from maia.sim.run import Run, carry_out

CLOSED = {
    # Every datagram that had waited counted the same overdue relay as one more stall, each of which delayed all suspicions: by 66 s.
    "one stall counts a hundred times": Run(seed=16, nodes=25, profile="lan", loss=0.1, reordering=0.2, drift=0.01, faults=2),
}


@pytest.mark.parametrize("run", CLOSED.values(), ids=CLOSED.keys())
def test_it_stays_closed(run: Run) -> None:
    carry_out(run)
