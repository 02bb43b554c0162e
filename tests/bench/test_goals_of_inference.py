"""What the bench of local inference makes of what it saw."""

from __future__ import annotations

from tests.bench.inference import known_to_an_oracle, verdicts


def test_an_oracle_knows_the_longest_beginning_that_anybody_had_but_not_the_last_token() -> None:
    assert known_to_an_oracle([1, 2, 3, 4], [[1, 2], [9, 2, 3, 4], [1, 2, 3, 7, 8]]) == 3
    assert known_to_an_oracle([1, 2, 3], [[1, 2, 3]]) == 2
    assert known_to_an_oracle([1, 2, 3], []) == 0


def figures(*, ours: float, cached: int, pause_s: float, long_tokens: int = 3100) -> dict[str, object]:
    rates = {"the node": {1: [ours], 16: [ours]}, "llama.cpp's server": {1: [100.0], 16: [100.0]}}
    return {
        "rounds": [{"decode": rates}],
        "replays": {"the node": {"cached": cached, "oracle": 1000}},
        "pause": {"longest_s": pause_s, "prompt_tokens": long_tokens},
    }


def met(found: dict[str, object]) -> list[bool]:
    return [verdict.met for verdict in verdicts(found)]


def test_each_goal_is_met_by_itself() -> None:
    assert met(figures(ours=100.0, cached=900, pause_s=0.25)) == [True, True, True, True]
    assert met(figures(ours=97.0, cached=899, pause_s=0.26)) == [True, False, False, False]
    assert met(figures(ours=96.0, cached=900, pause_s=0.2, long_tokens=2999)) == [False, False, True, False]
