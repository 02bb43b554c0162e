"""A name for the sums of a worker is claimed only where they were seen to be the same in every company."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.astromesh.inference.test_schedule import Counting

from astromesh.inference.kernel import ANSWER_TOKENS, PROMPT_TOKENS, kernel_identity
from astromesh.inference.schedule import Piece


class Adding(Counting):
    """Its answers follow from what each sequence holds. One that drifts adds up otherwise in company, or behind a resumed answer."""

    build = "a build"
    exact = True

    def __init__(self, *, drifts: str = "") -> None:
        super().__init__(cells=10_000)
        self.companies: set[int] = set()
        self._drifts = drifts
        self._off = False

    def decode(self, pieces: Sequence[Piece]) -> list[int]:
        self.companies.add(len(pieces))
        gone_on = any(piece.position and len(piece.tokens) > 1 for piece in pieces)
        self._off = (self._drifts == "in company" and len(pieces) > 1) or (self._drifts == "gone on with" and gone_on)
        return super().decode(pieces)

    def sample(self, sampler: list[int], output: int) -> int:
        sampler.append(1)
        return sum(self.filled[self._rows[output]]) % 997 + self._off


def test_equal_sums_in_every_company_have_a_name_and_leave_nothing_behind() -> None:
    decoder = Adding()
    name = kernel_identity(decoder, threads=2, sequences=4)
    assert len(name) == 16
    assert int(name, 16) >= 0
    assert decoder.companies == {1, 3}
    assert (decoder.samplers, decoder.filled) == (0, {})
    assert max(len(piece.tokens) for call in decoder.calls for piece in call) == PROMPT_TOKENS
    assert kernel_identity(Adding(), threads=2, sequences=4) == name


@pytest.mark.parametrize("drifts", ["in company", "gone on with"])
def test_sums_that_depend_on_the_company_or_on_where_an_answer_was_cut_have_no_name(drifts: str) -> None:
    decoder = Adding(drifts=drifts)
    assert kernel_identity(decoder, threads=2, sequences=4) == ""
    assert (decoder.samplers, decoder.filled) == (0, {})


def test_another_build_and_other_threads_have_other_names() -> None:
    other = Adding()
    other.build = "another build"
    names = {kernel_identity(Adding(), threads=threads, sequences=4) for threads in (1, 2)} | {
        kernel_identity(other, threads=1, sequences=4)
    }
    assert len(names) == 3


def test_a_worker_of_one_stream_keeps_no_company() -> None:
    decoder = Adding(drifts="in company")
    assert kernel_identity(decoder, threads=2, sequences=1) != ""
    assert decoder.companies == {1}
    assert sum(len(call) for call in decoder.calls) < 4 * ANSWER_TOKENS


def test_a_build_that_is_known_to_round_long_prompts_otherwise_has_no_name_and_is_not_tried() -> None:
    decoder = Adding()
    decoder.exact = False
    assert kernel_identity(decoder, threads=2, sequences=4) == ""
    assert decoder.calls == []
