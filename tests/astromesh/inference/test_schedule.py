"""Who gets the next decode: in the order of arrival, never more cells than there are, and prompts never beside other streams' tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from astromesh.dialogue import Message, ModelRequest, Resume, Sampling
from astromesh.errors import InvalidRequest
from astromesh.inference.chat import ChatTemplate
from astromesh.inference.prefixes import PrefixTree
from astromesh.inference.request import as_frame
from astromesh.inference.sampling import SamplingPlan
from astromesh.inference.schedule import CHUNK_TOKENS_MIN, HELD_UP_MAX_S, Piece, Schedule, TokenChances
from astromesh.inference.stream import CHUNK_TOKENS

PLAIN = ChatTemplate("{% for message in messages %}{{ message.content }}{% endfor %}")
END = 0


class Counting:
    """A decoder that knows no language: a token for each character, and its answers count down from the prompt's length to the end.

    It keeps the cells as a KV cache would, and refuses what llama.cpp would refuse: more cells than there are, positions with holes, a
    sequence that is used twice.
    """

    def __init__(self, *, cells: int) -> None:
        self.cells = cells
        self.filled: dict[int, list[int]] = {}
        self.calls: list[list[Piece]] = []
        self.samplers = 0
        self.now_s: float | None = None  # a clock of its own: each token of a prompt takes a hundredth of its position
        self._outputs: list[int] = []

    def tokenize(self, prompt: str) -> list[int]:
        return [1000 + ord(character) for character in prompt]

    def sampler(self, plan: SamplingPlan, *, seed: int, window: int, grammar: str | None, held: bool) -> list[int]:
        self.samplers += 1
        return []

    def token_of(self, text: str) -> int | None:
        return None

    def hold(self, sampler: list[int]) -> None:
        raise AssertionError("nothing here begins a call")

    let_go = hold

    def logprobs(self, output: int, token: int, *, top: int) -> TokenChances:
        return -token / 10, [(token - other, -other / 10) for other in range(top)]

    def replay(self, sampler: list[int], tokens: Sequence[int]) -> None:
        sampler.extend(tokens)

    def release(self, sampler: list[int]) -> None:
        self.samplers -= 1

    def decode(self, pieces: Sequence[Piece]) -> list[int]:
        self.calls.append(list(pieces))
        outputs, row = [], 0
        self._outputs = []
        for piece in pieces:
            cells = self.filled.setdefault(piece.sequence, [])
            assert piece.position == len(cells), "a hole in a sequence"
            cells.extend(piece.tokens)
            row += len(piece.tokens)
            if self.now_s is not None:
                self.now_s += 0.002 * len(piece.tokens) * (1 + piece.position / 100)
            if piece.output:
                outputs.append(row - 1)
                self._outputs.append(piece.sequence)
        assert sum(len(cells) for cells in self.filled.values()) <= self.cells, "more cells than there are"
        self._rows = dict(zip(outputs, self._outputs, strict=True))
        return outputs

    def sample(self, sampler: list[int], output: int) -> int:
        sequence = self._rows[output]
        prompt = sum(1 for token in self.filled[sequence] if token >= 1000)
        taken = prompt - len(sampler)
        sampler.append(taken)
        return max(taken, END)

    def piece(self, token: int) -> bytes:
        return f"{token} ".encode()

    def ends(self, token: int) -> bool:
        return token == END

    def forget(self, sequence: int) -> None:
        self.filled.pop(sequence, None)  # as in llama.cpp, one without cells is no mistake

    def share(self, source: int, target: int, *, start: int, end: int) -> None:
        cells = self.filled.setdefault(target, [])
        assert len(cells) == start, "a hole in a sequence"
        cells.extend(self.filled[source][start:end])

    def export(self, sequence: int, *, start: int, end: int) -> bytes:
        return msgpack.packb([start, self.filled[sequence][start:end]])

    def restore(self, sequence: int, data: bytes, *, start: int, end: int) -> bool:
        begin, tokens = msgpack.unpackb(data)
        cells = self.filled.setdefault(sequence, [])
        assert len(cells) == start, "a hole in a sequence"
        cells.extend(tokens[start - begin : end - begin])
        return True


def a_schedule(
    *, context: int = 600, cells: int = 1200, sequences: int = 4, prefixes: PrefixTree | None = None
) -> tuple[Schedule[list[int]], Counting]:
    decoder = Counting(cells=cells)
    ticks = iter(range(10**9))
    schedule = Schedule(
        decoder,
        PLAIN,
        context=context,
        cells=cells,
        sequences=sequences,
        clock=lambda: float(next(ticks)),
        prefixes=prefixes,
        salt=b"salt",
    )
    return schedule, decoder


def submit(schedule: Schedule[Any], number: int, prompt: str, *, resume: Resume | None = None, **sampling: Any) -> None:
    request = ModelRequest("counting", (Message("user", prompt),), sampling=Sampling(**sampling), resume=resume)
    schedule.submit(as_frame(request, number=number), seed=0)


def run(schedule: Schedule[Any]) -> tuple[dict[int, str], dict[int, dict[str, Any]]]:
    texts: dict[int, str] = {}
    ends: dict[int, dict[str, Any]] = {}
    for _ in range(100_000):
        if schedule.idle:
            return texts, ends
        step = schedule.step()
        for number, text, *_ in step.pieces:
            assert number not in ends
            texts[number] = texts.get(number, "") + text
        ends |= {account["number"]: account for account in step.ended}
    raise AssertionError("the schedule never came to rest")


def test_a_stream_runs_to_its_end() -> None:
    schedule, decoder = a_schedule()
    submit(schedule, 7, "abc")
    texts, ends = run(schedule)
    assert texts == {7: "3 2 1 "}
    assert (ends[7]["finish_reason"], ends[7]["tokens_in"], ends[7]["tokens_out"]) == ("stop", 3, 4)
    assert set(ends[7]["timings"]) == {"queue_ms", "prefill_ms", "decode_tok_s"}
    assert decoder.filled == {}
    assert decoder.samplers == 0


def test_max_tokens_is_length_and_a_stop_string_is_stop() -> None:
    schedule, _ = a_schedule()
    submit(schedule, 1, "abcdef", max_tokens=2)
    submit(schedule, 2, "abcdef", stop=("4 ",))
    texts, ends = run(schedule)
    assert texts == {1: "6 5 ", 2: "6 5 "}
    assert (ends[1]["finish_reason"], ends[2]["finish_reason"]) == ("length", "stop")


def test_the_end_of_the_context_is_length() -> None:
    schedule, _ = a_schedule(context=8)
    submit(schedule, 1, "abcdef")
    texts, ends = run(schedule)
    assert texts == {1: "6 5 "}
    assert ends[1]["finish_reason"] == "length"


def test_a_prompt_that_leaves_no_room_is_refused_with_both_numbers() -> None:
    schedule, _ = a_schedule(context=8)
    with pytest.raises(InvalidRequest, match=r"9 tokens.*8"):
        submit(schedule, 1, "abcdefghi")
    with pytest.raises(InvalidRequest):
        submit(schedule, 2, "abcdefgh")
    assert schedule.idle


def test_a_prompt_that_cannot_possibly_fit_is_not_even_tokenized() -> None:
    schedule, decoder = a_schedule(context=8)
    decoder.tokenize = None  # type: ignore[assignment,method-assign]
    with pytest.raises(InvalidRequest, match=r"2049 characters.*8 tokens"):
        submit(schedule, 1, "x" * 2049)


def test_an_empty_prompt_is_refused() -> None:
    schedule, _ = a_schedule()
    with pytest.raises(InvalidRequest, match="empty prompt"):
        submit(schedule, 1, "")


def test_streams_past_their_prompts_share_a_decode() -> None:
    schedule, decoder = a_schedule()
    for number in range(3):
        submit(schedule, number, "abcdefgh", max_tokens=20)
    run(schedule)
    assert max(len(call) for call in decoder.calls) == 3


def test_a_chunk_of_a_prompt_never_shares_a_decode_and_takes_turns_with_tokens() -> None:
    schedule, decoder = a_schedule()
    submit(schedule, 1, "abcdefgh")
    schedule.step()
    submit(schedule, 2, "x" * (3 * CHUNK_TOKENS), max_tokens=1)
    run(schedule)
    kinds = ["prompt" if len(call[0].tokens) > 1 else "tokens" for call in decoder.calls]
    assert all(len(call) == 1 for call, kind in zip(decoder.calls, kinds, strict=True) if kind == "prompt")
    assert kinds[:6] == ["prompt", "tokens", "prompt", "tokens", "prompt", "tokens"]


def test_a_long_prompt_is_fed_in_chunks_and_a_short_one_gets_in_between() -> None:
    schedule, decoder = a_schedule()
    submit(schedule, 1, "x" * (3 * CHUNK_TOKENS), max_tokens=1)
    submit(schedule, 2, "abc", max_tokens=1)
    run(schedule)
    assert [len(call[0].tokens) for call in decoder.calls] == [CHUNK_TOKENS, 3, CHUNK_TOKENS, CHUNK_TOKENS]


def reading_beside(streams: int) -> tuple[list[tuple[int, float]], Counting]:
    """A prompt of 560 tokens beside so many streams: the width of each of its chunks, and how long each held the others up."""
    decoder = Counting(cells=4000)
    decoder.now_s = 0.0
    schedule = Schedule(decoder, PLAIN, context=1000, cells=4000, sequences=4, clock=lambda: decoder.now_s or 0.0)
    for number in range(streams):
        submit(schedule, number, "abc" * 40, max_tokens=200)
    while any(len(call[0].tokens) > 1 for call in decoder.calls[-1:] or [[Piece(0, 0, (1, 2), output=False)]]) and streams:
        schedule.step()
    decoder.calls.clear()
    submit(schedule, 9, "x" * 560, max_tokens=1)
    chunks = []
    while sum(width for width, _ in chunks) < 560:
        began_s = decoder.now_s
        schedule.step()
        if len(decoder.calls[-1][0].tokens) > 1:
            chunks.append((len(decoder.calls[-1][0].tokens), decoder.now_s - began_s))
    return chunks, decoder


def test_chunks_beside_other_streams_get_narrower_as_they_take_longer() -> None:
    chunks, _ = reading_beside(2)
    assert all(held_s <= HELD_UP_MAX_S * 1.4 for _, held_s in chunks[1:]), "the next chunk is measured by the last one"
    assert CHUNK_TOKENS > chunks[-1][0] >= CHUNK_TOKENS_MIN


def test_chunks_that_hold_nobody_up_stay_wide() -> None:
    chunks, _ = reading_beside(0)
    assert {width for width, _ in chunks} == {CHUNK_TOKENS}


def test_who_may_need_more_cells_than_are_free_waits_and_nobody_overtakes() -> None:
    schedule, decoder = a_schedule(context=100, cells=150)
    submit(schedule, 1, "abc", max_tokens=97)
    submit(schedule, 2, "abcd", max_tokens=90)
    submit(schedule, 3, "a", max_tokens=1)
    order: list[int] = []
    while not schedule.idle:
        order += [account["number"] for account in schedule.step().ended]
    assert order[0] == 1
    assert len(decoder.calls[0]) == 1
    assert sorted(order) == [1, 2, 3]


def test_cancelling_frees_the_cells_at_once() -> None:
    schedule, decoder = a_schedule(context=100, cells=100)
    submit(schedule, 1, "abcdef")
    submit(schedule, 2, "abc")
    schedule.step()
    assert schedule.cancel(1)
    assert decoder.filled == {}
    assert not schedule.cancel(1)
    texts, _ = run(schedule)
    assert texts == {2: "3 2 1 "}


def test_cancelling_one_that_waits_or_is_in_its_prompt_leaves_nothing() -> None:
    schedule, decoder = a_schedule(context=600, cells=600)
    submit(schedule, 1, "x" * (2 * CHUNK_TOKENS))
    submit(schedule, 2, "abc")
    schedule.step()
    assert schedule.cancel(2)
    assert schedule.cancel(1)
    assert schedule.idle
    assert decoder.filled == {}
    assert decoder.samplers == 0


def widths(decoder: Counting) -> list[int]:
    return [sum(len(piece.tokens) for piece in call) for call in decoder.calls]


def test_a_prompt_that_was_read_is_not_read_again() -> None:
    schedule, decoder = a_schedule(prefixes=PrefixTree(bytes_max=10**6))
    submit(schedule, 1, "x" * 200, max_tokens=2)
    run(schedule)
    decoder.calls.clear()
    submit(schedule, 2, "x" * 200, max_tokens=2)
    submit(schedule, 3, "x" * 100 + "y" * 30, max_tokens=2)
    texts, ends = run(schedule)
    assert texts == {2: "200 199 ", 3: "130 129 "}
    assert (ends[2]["cached_tokens"], ends[3]["cached_tokens"]) == (199, 100)
    assert widths(decoder) == [1, 1, 30, 1]


def test_of_equal_prompts_that_arrive_together_each_chunk_is_read_once() -> None:
    schedule, decoder = a_schedule(context=400, prefixes=PrefixTree(bytes_max=10**6))
    for number in range(3):
        submit(schedule, number, "x" * 300, max_tokens=1)
    texts, ends = run(schedule)
    assert texts == dict.fromkeys(range(3), "300 ")
    assert sum(widths(decoder)) <= 300 + 2 * CHUNK_TOKENS
    assert sum(end["cached_tokens"] for end in ends.values()) == 900 - sum(widths(decoder))


def test_a_state_that_no_cache_could_keep_is_not_copied() -> None:
    schedule, decoder = a_schedule(context=600, prefixes=PrefixTree(bytes_max=300))
    exports: list[int] = []
    export = decoder.export
    decoder.export = lambda sequence, *, start, end: exports.append(end - start) or export(sequence, start=start, end=end)  # type: ignore[method-assign,func-returns-value]
    for number, letter in enumerate("abc"):
        submit(schedule, number, letter * 400, max_tokens=2)
        run(schedule)
    assert len(exports) == 1, "the first one shows how large they are"
    submit(schedule, 9, "d" * 40, max_tokens=2)
    run(schedule)
    assert len(exports) == 2


def test_a_later_turn_reads_only_what_is_new_and_the_answer_before_it_is_known() -> None:
    schedule, decoder = a_schedule(prefixes=PrefixTree(bytes_max=10**6))
    submit(schedule, 1, "x" * 100, max_tokens=30)
    texts, _ = run(schedule)
    assert schedule.warmth()
    decoder.calls.clear()
    # What a template makes of the answer is what the model took for it.
    decoder.tokenize = lambda prompt: [*[1000 + ord("x")] * 100, *map(int, prompt.split())]  # type: ignore[method-assign]
    submit(schedule, 2, texts[1] + "1001 1002 1003", max_tokens=1)
    _, ends = run(schedule)
    assert ends[2]["cached_tokens"] == 100 + 29  # the last token of an answer is never decoded
    assert widths(decoder) == [4]


def test_without_a_tree_nothing_is_shared() -> None:
    schedule, decoder = a_schedule()
    for number in (1, 2):
        submit(schedule, number, "x" * 100, max_tokens=1)
        _, ends = run(schedule)
        assert ends[number]["cached_tokens"] == 0
    assert sum(widths(decoder)) == 200
    assert schedule.warmth() == b""


def test_a_state_for_which_there_is_no_room_is_read_instead() -> None:
    schedule, decoder = a_schedule(prefixes=PrefixTree(bytes_max=10**6))
    submit(schedule, 1, "x" * 200, max_tokens=1)
    run(schedule)
    decoder.restore = lambda *_, **__: False  # type: ignore[method-assign]
    submit(schedule, 2, "x" * 200, max_tokens=1)
    texts, ends = run(schedule)
    assert texts == {2: "200 "}
    assert ends[2]["cached_tokens"] == 0


def test_the_beginning_of_an_answer_says_what_a_resume_needs_and_its_pieces_their_tokens() -> None:
    schedule, _ = a_schedule()
    submit(schedule, 7, "x" * 130, max_tokens=3, seed=42)
    began: list[dict[str, Any]] = []
    tokens: list[int] = []
    while not schedule.idle:
        step = schedule.step()
        began += step.began
        tokens += [token for _, _, taken, *_ in step.pieces for token in taken]
    assert began == [{"number": 7, "borders": [40, 80, 120, 130], "seed": 42}]
    assert tokens == [130, 129, 128]


@pytest.mark.parametrize("seam", [1, 2, 5, 9])
def test_a_resumed_answer_goes_on_behind_its_tokens_and_tells_nothing_twice(seam: int) -> None:
    schedule, decoder = a_schedule()
    resume = Resume("file", tuple(range(100, 100 - seam, -1)), (30, 60, 100))
    submit(schedule, 1, "x" * 100, resume=resume, max_tokens=10)
    texts, ends = run(schedule)
    assert texts[1].split() == [str(100 - taken) for taken in range(seam, 10)]
    assert (ends[1]["tokens_out"], ends[1]["finish_reason"]) == (10, "length")
    assert widths(decoder)[:4] == [30, 30, 40, seam]


def test_a_stop_string_across_the_seam_is_found() -> None:
    schedule, _ = a_schedule()
    submit(schedule, 1, "x" * 20, resume=Resume("file", (20, 19), (20,)), stop=("19 18",))
    texts, ends = run(schedule)
    assert texts == {}
    assert ends[1]["finish_reason"] == "stop"


@pytest.mark.parametrize("borders", [(), (10,), (10, 21), (10, 10, 20), (20, 10, 20)], ids=str)
def test_borders_that_do_not_divide_the_prompt_are_refused(borders: tuple[int, ...]) -> None:
    schedule, _ = a_schedule()
    with pytest.raises(InvalidRequest, match="20 tokens"):
        submit(schedule, 1, "x" * 20, resume=Resume("file", (20,), borders))
    assert schedule.idle


def test_an_answer_that_has_ended_or_is_longer_than_it_may_be_is_not_gone_on_with() -> None:
    schedule, _ = a_schedule()
    for tokens, sampling in (
        ((20, END), {}),
        ((20, 19, 18), {"stop": ("19",)}),
        ((20, 19), {"max_tokens": 2}),
        ((20,) * 9, {"max_tokens": 2}),
    ):
        with pytest.raises(InvalidRequest):
            submit(schedule, 1, "x" * 20, resume=Resume("file", tokens, (20,)), **sampling)
    assert schedule.idle


@pytest.mark.parametrize("cache", [None, 10**6, 300], ids=["alone", "shared", "shared in little room"])
@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 40), st.integers(0, 30)), min_size=1, max_size=12),
    cancels=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 11)), max_size=4),
    sequences=st.integers(1, 4),
)
def test_whatever_comes_and_goes_every_stream_ends_alone_and_right(
    requests: list[tuple[int, int, int]], cancels: list[tuple[int, int]], sequences: int, cache: int | None
) -> None:
    prefixes = None if cache is None else PrefixTree(bytes_max=cache)
    schedule, decoder = a_schedule(context=400, cells=500, sequences=sequences, prefixes=prefixes)
    texts: dict[int, str] = {}
    cancelled: set[int] = set()
    ended: set[int] = set()
    arrivals = sorted((at, number) for number, (_, _, at) in enumerate(requests))
    turn = 0
    while arrivals or not schedule.idle:
        while arrivals and arrivals[0][0] <= turn:
            _, number = arrivals.pop(0)
            submit(schedule, number, "x" * requests[number][0], max_tokens=requests[number][1])
        for at, number in cancels:
            if at == turn and schedule.cancel(number):
                cancelled.add(number)
        step = schedule.step() if not schedule.idle else None
        for number, text, *_ in step.pieces if step else ():
            assert number not in cancelled
            texts[number] = texts.get(number, "") + text
        ended |= {account["number"] for account in step.ended} if step else set()
        turn += 1
        assert turn < 20_000
    assert decoder.filled == {}
    assert decoder.samplers == 0
    for number, (length, tokens_max, _) in enumerate(requests):
        alone = "".join(f"{length - index} " for index in range(min(tokens_max, length)))
        if number in cancelled:
            assert alone.startswith(texts.get(number, ""))
            assert number not in ended
        else:
            assert texts[number] == alone
            assert number in ended
