"""Wishes become a plan, or are refused by name."""

from __future__ import annotations

import math

import pytest

from astromesh.dialogue import Sampling
from astromesh.errors import InvalidRequest
from astromesh.inference.sampling import STOPS_MAX, plan


def test_what_the_caller_leaves_open_is_what_llama_cpp_does() -> None:
    made = plan(Sampling())
    assert (made.temperature, made.top_k, made.top_p, made.min_p, made.repeat_penalty) == (0.8, 40, 0.95, 0.05, 1.0)
    assert made.seed is None
    assert not made.greedy


def test_temperature_zero_is_greedy() -> None:
    assert plan(Sampling(temperature=0)).greedy


def test_every_wish_is_kept() -> None:
    wish = Sampling(0.5, 0.9, 12, 0.1, 42, 0.25, -0.5, 1.1, 99, ("a", "b"), ((5, -100.0),), 20)
    made = plan(wish)
    assert (made.temperature, made.top_p, made.top_k, made.min_p, made.seed) == (0.5, 0.9, 12, 0.1, 42)
    assert (made.presence_penalty, made.frequency_penalty, made.repeat_penalty) == (0.25, -0.5, 1.1)
    assert (made.max_tokens, made.stop, made.logit_bias, made.logprobs) == (99, ("a", "b"), ((5, -100.0),), 20)


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        (Sampling(temperature=-0.1), "temperature"),
        (Sampling(temperature=math.nan), "temperature"),
        (Sampling(top_p=1.1), "top_p"),
        (Sampling(min_p=-1), "min_p"),
        (Sampling(presence_penalty=3), "presence_penalty"),
        (Sampling(frequency_penalty=math.inf), "frequency_penalty"),
        (Sampling(repeat_penalty=0), "repeat_penalty"),
        (Sampling(max_tokens=0), "max_tokens"),
        (Sampling(logit_bias=((1, 100.5),)), "logit_bias"),
        (Sampling(logit_bias=((1, math.nan),)), "logit_bias"),
        (Sampling(logit_bias=((1, 1.0),) * 1025), "logit_bias"),
        (Sampling(logprobs=21), "top_logprobs"),
        (Sampling(logprobs=-1), "top_logprobs"),
        (Sampling(seed=2**64), "seed"),
        (Sampling(stop=("",)), "stop"),
        (Sampling(stop=("x" * 300,)), "stop"),
        (Sampling(stop=tuple("abcdefghijklmnopq")), "stop"),
    ],
)
def test_a_wish_without_meaning_is_refused_by_its_name(wish: Sampling, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        plan(wish)
    assert refused.value.param == param
    assert refused.value.definite


def test_as_many_stop_strings_as_the_limit_says_are_fine() -> None:
    assert len(plan(Sampling(stop=tuple("abcdefghijklmnop"))).stop) == STOPS_MAX


def test_a_seed_of_64_bits_is_folded_and_small_ones_stay_apart() -> None:
    assert plan(Sampling(seed=7)).seed == 7
    assert plan(Sampling(seed=2**40 + 7)).seed != 7
    assert 0 <= (plan(Sampling(seed=-1)).seed or 0) < 2**32
