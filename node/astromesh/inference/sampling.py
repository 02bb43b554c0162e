"""Which token to take: from a caller's wishes to a fixed order of sampler stages. Pure.

What the caller leaves open is filled with llama.cpp's own defaults, so that a model behaves here as it does in its other homes. The order
is llama.cpp's too: biases, penalties, top-k, top-p, min-p, temperature, then the draw.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from astromesh.dialogue import Sampling
from astromesh.errors import InvalidRequest

TEMPERATURE = 0.8
TOP_K = 40
TOP_P = 0.95
MIN_P = 0.05

STOPS_MAX = 16  # each is searched for in every piece of text
LOGIT_BIASES_MAX = 1024  # looked through for each token; OpenAI's own clients send a few
LOGIT_BIAS_MAX = 100.0  # beyond any difference of logits: always or never
LOGPROBS_MAX = 20
STOP_CHARACTERS_MAX = 256  # text is held back while it could be the beginning of a stop string


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """Every choice made. Temperature 0 is greedy: then nothing after the penalties matters."""

    temperature: float
    top_k: int  # 0: off
    top_p: float  # 1: off
    min_p: float  # 0: off
    repeat_penalty: float  # 1: off
    frequency_penalty: float  # 0: off
    presence_penalty: float  # 0: off
    seed: int | None  # None: another one each time
    max_tokens: int | None  # None: what the context has room for
    stop: tuple[str, ...]
    logit_bias: tuple[tuple[int, float], ...]
    logprobs: int | None  # None: not told

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0


def _within(name: str, value: float, *, low: float, high: float) -> float:
    if not math.isfinite(value) or not low <= value <= high:
        raise InvalidRequest(f"{name} is {value}, and it must lie between {low:g} and {high:g}", param=name)
    return value


def plan(sampling: Sampling) -> SamplingPlan:
    """The plan for these wishes. Raises `InvalidRequest` that names the first one that has no meaning."""
    s = sampling
    for stop in s.stop:
        if not 0 < len(stop) <= STOP_CHARACTERS_MAX:
            raise InvalidRequest(f"a stop string has {len(stop)} characters, and 1 to {STOP_CHARACTERS_MAX} are possible", param="stop")
    if len(s.stop) > STOPS_MAX:
        raise InvalidRequest(f"{len(s.stop)} stop strings, and at most {STOPS_MAX} are possible", param="stop")
    if s.max_tokens is not None and s.max_tokens < 1:
        raise InvalidRequest(f"max_tokens is {s.max_tokens}, and at least 1 is needed", param="max_tokens")
    if s.seed is not None and not -(2**63) <= s.seed < 2**64:
        raise InvalidRequest(f"seed is {s.seed}, which has more than 64 bits", param="seed")
    if len(s.logit_bias) > LOGIT_BIASES_MAX:
        raise InvalidRequest(
            f"logit_bias names {len(s.logit_bias)} tokens, and at most {LOGIT_BIASES_MAX} are possible", param="logit_bias"
        )
    if s.logprobs is not None and not 0 <= s.logprobs <= LOGPROBS_MAX:
        raise InvalidRequest(f"top_logprobs is {s.logprobs}, and it must lie between 0 and {LOGPROBS_MAX}", param="top_logprobs")
    repeat_penalty = 1.0 if s.repeat_penalty is None else _within("repeat_penalty", s.repeat_penalty, low=0.0, high=10.0)
    if repeat_penalty == 0.0:
        raise InvalidRequest("repeat_penalty is 0, and it divides: 1 turns it off", param="repeat_penalty")
    return SamplingPlan(
        temperature=TEMPERATURE if s.temperature is None else _within("temperature", s.temperature, low=0.0, high=10.0),
        top_k=TOP_K if s.top_k is None else max(0, s.top_k),  # -1 turns it off in some clients, 0 in others
        top_p=TOP_P if s.top_p is None else _within("top_p", s.top_p, low=0.0, high=1.0),
        min_p=MIN_P if s.min_p is None else _within("min_p", s.min_p, low=0.0, high=1.0),
        repeat_penalty=repeat_penalty,
        frequency_penalty=0.0 if s.frequency_penalty is None else _within("frequency_penalty", s.frequency_penalty, low=-2.0, high=2.0),
        presence_penalty=0.0 if s.presence_penalty is None else _within("presence_penalty", s.presence_penalty, low=-2.0, high=2.0),
        # The sampler's generator takes 32 bits. Folding keeps every seed legal and different small seeds different.
        seed=None if s.seed is None else (s.seed ^ (s.seed >> 32)) & 0xFFFFFFFF,
        max_tokens=s.max_tokens,
        stop=s.stop,
        logit_bias=tuple((token, _within("logit_bias", bias, low=-LOGIT_BIAS_MAX, high=LOGIT_BIAS_MAX)) for token, bias in s.logit_bias),
        logprobs=s.logprobs,
    )
