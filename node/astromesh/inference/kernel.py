"""Which sums this worker makes: a name that two workers share only if greedy text of one can be gone on with by the other, byte for byte.

The name alone promises nothing. It is claimed after a check at the start: a short prompt answered alone, in company, and again from the
middle, has to come out equal three times. Where it does not (GPUs often add up in another order each time) there is no name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

from astromesh.dialogue import Sampling
from astromesh.inference.sampling import plan
from astromesh.inference.schedule import Decoder, Piece
from astromesh.inference.stream import CHUNK_TOKENS

PROMPT_TOKENS = CHUNK_TOKENS  # the widest batch that will ever be read
ANSWER_TOKENS = 8
COMPANY = 3

_GREEDY = plan(Sampling(temperature=0.0))
_TEXT = "The keeper of the lighthouse counted the ships, wrote their names into a book and lit the lamp before the night came. "


class CheckedDecoder(Decoder[Any], Protocol):
    """A decoder that can say what it was built of, and whether a prompt's sums are those of its tokens one by one, however far it goes."""

    @property
    def build(self) -> str: ...

    @property
    def exact(self) -> bool: ...


def kernel_identity(decoder: CheckedDecoder, *, threads: int, sequences: int) -> str:
    """Sixteen hex digits, or nothing where the check failed. Leaves no cells behind."""
    if not decoder.exact:
        return ""  # the check is too short to see it
    prompt = decoder.tokenize(_TEXT * 4)[:PROMPT_TOKENS]
    alone = _answer(decoder, prompt, resumed=(), company=1)
    company = min(COMPANY, sequences)
    same = _answer(decoder, prompt, resumed=(), company=company) == alone
    half = alone[: ANSWER_TOKENS // 2]
    if not same or _answer(decoder, prompt, resumed=half, company=1) != alone:
        return ""
    made_of = f"{decoder.build} batch {CHUNK_TOKENS} threads {threads}"
    return hashlib.sha256(made_of.encode()).hexdigest()[:16]


def _answer(decoder: CheckedDecoder, prompt: Sequence[int], *, resumed: Sequence[int], company: int) -> list[int]:
    """The greedy answer of the first of `company` equal streams, `resumed` being its beginning."""
    samplers = [decoder.sampler(_GREEDY, seed=0, window=len(prompt) + ANSWER_TOKENS, grammar=None, held=False) for _ in range(company)]
    answers = [list(resumed) for _ in range(company)]
    for sequence, sampler in enumerate(samplers):
        (output,) = decoder.decode([Piece(sequence, 0, prompt, output=True)])
        if resumed:
            (output,) = decoder.decode([Piece(sequence, len(prompt), resumed, output=True)])
            decoder.replay(sampler, resumed)
        answers[sequence].append(decoder.sample(sampler, output))
    while len(answers[0]) < ANSWER_TOKENS:
        at = len(prompt) + len(answers[0]) - 1
        outputs = decoder.decode([Piece(sequence, at, answer[-1:], output=True) for sequence, answer in enumerate(answers)])
        for sampler, answer, output in zip(samplers, answers, outputs, strict=True):
            answer.append(decoder.sample(sampler, output))
    for sequence, sampler in enumerate(samplers):
        decoder.release(sampler)
        decoder.forget(sequence)
    return answers[0]
