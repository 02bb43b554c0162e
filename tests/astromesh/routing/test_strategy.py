"""Which of several models is asked first."""

from __future__ import annotations

from itertools import count

import pytest

from astromesh.routing.latency import NEVER, Latency
from astromesh.routing.strategy import LOOKS_AROUND_EVERY, Merits, Option, preferred
from astromesh.specs.agent import Strategy


def option(
    cost: float | None = None,
    quality: float | None = None,
    *,
    first: float | None = None,
    total: float | None = None,
    at: float = 0.0,
    tools: bool | None = None,
    down: bool = False,
) -> Option:
    skills, lacks = ("tools",) * (tools is True), ("tools",) * (tools is False)
    latency = NEVER if first is None and total is None else Latency(first, total, at)
    return Option(Merits(cost, quality, skills, lacks), latency, down)  # type: ignore[arg-type]


# In the order of the document, as an agent of four models has them.
CHEAP = option(0.1, 0.5, first=0.9, total=9.0, tools=False)
FAST = option(0.5, 0.5, first=0.1, total=8.0, tools=True)
GOOD = option(2.0, 0.9, first=0.5, total=4.0, tools=True)
UNKNOWN = option()
TABLE = (UNKNOWN, GOOD, CHEAP, FAST)
NAMES = ("unknown", "good", "cheap", "fast")


@pytest.mark.parametrize(
    ("strategy", "turn", "watched", "order"),
    [
        pytest.param(None, 0, True, "unknown good cheap fast", id="as written where nothing is said"),
        pytest.param("cost_optimized", 0, True, "cheap fast good unknown", id="a price that nobody knows comes last"),
        pytest.param("quality_first", 0, True, "good cheap fast unknown", id="equals keep the order of the document"),
        pytest.param("latency_optimized", 0, True, "fast good cheap unknown", id="by the first token where somebody watches"),
        pytest.param("latency_optimized", 0, False, "good fast cheap unknown", id="by the last one where nobody does"),
        pytest.param("round_robin", 0, True, "unknown good cheap fast", id="the first turn"),
        pytest.param("round_robin", 1, True, "good cheap fast unknown", id="the second turn"),
        pytest.param("round_robin", 7, True, "fast unknown good cheap", id="the fourth turn of the second round"),
        pytest.param("capability_match", 0, True, "good fast unknown", id="who is said to have it, who says nothing, never who lacks it"),
    ],
)
def test_the_order_is(strategy: Strategy | None, turn: int, order: str, *, watched: bool) -> None:
    places = preferred(TABLE, strategy, turn=turn, watched=watched, needs=("tools",))
    assert [NAMES[place] for place in places] == order.split()


def test_without_a_need_capabilities_leave_the_order_of_the_document() -> None:
    assert preferred(TABLE, "capability_match") == (0, 1, 2, 3)


@pytest.mark.parametrize("strategy", [None, "cost_optimized", "quality_first", "latency_optimized", "capability_match"])
def test_whose_server_is_down_is_tried_last_and_still_tried(strategy: Strategy | None) -> None:
    up, down = option(1.0, 0.1, first=5.0, total=5.0, tools=None), option(0.0, 1.0, first=0.1, total=0.1, tools=True, down=True)
    assert preferred((down, up), strategy, needs=("tools",)) == (1, 0)


def test_turns_are_shared_alike_among_those_that_are_left() -> None:
    firsts = [preferred(TABLE[:3], "round_robin", turn=turn)[0] for turn in range(9)]
    assert firsts == [0, 1, 2] * 3


def test_now_and_then_whoever_was_measured_longest_ago_is_asked_though_it_was_slow() -> None:
    slow_once, fast, never = option(first=9.0, at=1.0), option(first=0.1, at=50.0), option()
    firsts = [preferred((slow_once, fast), "latency_optimized", turn=turn)[0] for turn in range(2 * LOOKS_AROUND_EVERY)]
    assert firsts.count(0) == 2
    assert preferred((fast, slow_once, never), "latency_optimized", turn=LOOKS_AROUND_EVERY - 1) == (2, 0, 1)


def test_a_slow_hour_is_forgotten_in_some_answers_and_one_long_answer_changes_little() -> None:
    seen = NEVER.measured(first_token_s=1.0, total_s=10.0, now=0.0)
    assert seen == Latency(1.0, 10.0, 0.0)
    once = seen.measured(first_token_s=None, total_s=60.0, now=1.0)
    assert (once.first_token_s, once.total_s, once.measured_s) == (1.0, 20.0, 1.0)
    for number in count(1):
        seen = seen.measured(first_token_s=0.0, total_s=0.0, now=float(number))
        if seen.first_token_s is not None and seen.first_token_s < 0.1:
            break
    assert number == 11


def test_nobody_in_nobody_out() -> None:
    for strategy in (None, "round_robin", "latency_optimized"):
        assert preferred((), strategy, turn=LOOKS_AROUND_EVERY - 1) == ()  # type: ignore[arg-type]


def test_tokens_read_and_made_cost_alike_and_no_price_is_none() -> None:
    assert Merits(cost_per_1k_tokens=0.5).cost(3000) == 1.5
    assert Merits().cost(3000) == 0.0
