"""From numbers to a verdict: ratios are taken within a round, and failures outweigh any number."""

from __future__ import annotations

from tests.bench.hotspots import counted
from tests.bench.load import Result
from tests.bench.overhead import Turn, table, verdicts
from tests.bench.ratios import Goal, Spread, Verdict, beyond, per_round, spread


def test_a_ratio_is_taken_within_its_round_so_that_noise_of_the_machine_cancels() -> None:
    # The machine is three times slower in the second round; the side is twice its yardstick in both.
    assert per_round([2.0, 6.0], [1.0, 3.0]) == Spread(2.0, 2.0, 2.0)


def test_a_round_without_a_number_is_left_out_and_none_at_all_is_no_ratio() -> None:
    assert per_round([2.0, None, 4.0], [1.0, 1.0, 0.0]) == Spread(2.0, 2.0, 2.0)
    assert per_round([None], [1.0]) is None
    assert beyond([5.0, None], [2.0, 1.0]) == [3.0, None]
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(2.0, 3.0, 4.0)


def test_a_goal_is_met_at_its_limit_and_missed_beyond_it_with_failures_or_without_numbers() -> None:
    most, least = Goal(name="G1", what="overhead", at_most=2), Goal(name="G3", what="rate", at_least=0.7)
    even = Spread(2.0, 2.0, 2.0)
    assert Verdict(goal=most, ratio=even, failures=0).met
    assert not Verdict(goal=most, ratio=Spread(2.0, 2.01, 3.0), failures=0).met
    assert not Verdict(goal=most, ratio=even, failures=1).met
    assert not Verdict(goal=most, ratio=None, failures=0).met
    assert Verdict(goal=least, ratio=even, failures=0).met
    assert not Verdict(goal=least, ratio=Spread(0.6, 0.69, 0.8), failures=0).met
    assert str(Verdict(goal=most, ratio=even, failures=3)) == "MISSED G1  overhead: 2.000 (2.000–2.000), goal ≤ 2, 3 failures"


def turn(p50_us: int, per_second: int, *, stream_us: int | None = None, failures: dict[str, int] | None = None) -> Turn:
    many = Result(latencies_us=[1] * per_second, seconds=1.0, failures=failures or {})
    stream = Result(latencies_us=[stream_us]) if stream_us is not None else None
    return Turn(one=Result(latencies_us=[p50_us]), many=many, stream=stream, cpu_us=None)


def test_each_goal_looks_at_its_own_side() -> None:
    turns = {
        "direct": turn(200, 1000, stream_us=500_000),
        "proxy": turn(600, 400, stream_us=510_000),
        "chat": turn(900, 300, stream_us=504_000),
        "run": turn(2_600, 100, failures={"status 502": 2}),
    }
    found = verdicts([turns])
    assert [(each.goal.name, round(each.ratio.median, 6) if each.ratio else None, each.met) for each in found] == [
        ("G1", 1.75, True),
        ("G1", 6.0, False),
        ("G3", 0.75, True),
        ("G3", 0.25, False),
        ("G4", 1.008, True),
    ]
    assert "2 failures: status 502" in table([turns])


def test_samples_are_counted_by_function_once_a_stack_and_by_package() -> None:
    raw = (
        "main (asyncio/runners.py:118);walk (astromesh/runtime/stage.py:40);walk (astromesh/runtime/stage.py:40) 6\n"
        "main (asyncio/runners.py:118);dumps (orjson) 2\n"
        "main (asyncio/runners.py:118);EpollSelector.select (selectors.py:451) 5\n"
        "process 12 2\n"
    )
    found = counted(raw)
    assert (found.samples, found.waiting) == (8, 5)
    assert found.own == {"walk  astromesh/runtime/stage.py": 6, "dumps  orjson": 2}
    assert found.whole["walk  astromesh/runtime/stage.py"] == 6
    assert found.whole["main  asyncio/runners.py"] == 8
    assert found.packages == {"astromesh.runtime": 6, "orjson": 2}
