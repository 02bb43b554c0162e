"""What a model writes comes apart into text and calls, however it is cut into pieces, and no mark of a call is ever shown as text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astromesh.dialogue import ToolCallDelta
from astromesh.inference.dialects import GENERIC, HERMES, LLAMA, MISTRAL, Dialect
from astromesh.inference.tool_calls import CALLS_MAX, CallReader, call_ids

Read = tuple[str, list[tuple[str, str]]]


def reader(dialect: Dialect, *, forced: bool = False) -> CallReader:
    return CallReader(dialect, {"weather", "clock"}, forced=forced, identifier=lambda index: f"id{index}")


def read(dialect: Dialect, *pieces: str, forced: bool = False, truncated: bool = False) -> Read:
    one = reader(dialect, forced=forced)
    heard = [each for piece in pieces for each in one.feed(piece)] + one.finish(truncated=truncated)
    calls: list[tuple[str, str]] = []
    for each in heard:
        if isinstance(each, ToolCallDelta):
            if each.index == len(calls):
                assert (each.id, bool(each.name)) == (f"id{each.index}", True), "id and name come first"
                calls.append((each.name, each.arguments))
            else:
                assert each.index == len(calls) - 1, "calls come one after the other"
                assert not each.name
                calls[-1] = (calls[-1][0], calls[-1][1] + each.arguments)
    assert one.calls == len(calls)
    return "".join(each for each in heard if isinstance(each, str)), calls


ROME = '{"name": "weather", "arguments": {"city": "Rome, \\"caput\\" }]"}}'
WANTED = ("weather", '{"city": "Rome, \\"caput\\" }]"}')
BROKEN = '{"name": "clock", "arguments": {"a": 1]]'
CASES: list[tuple[str, Dialect, str, Read]] = [
    ("text", HERMES, "Good day. <b>", ("Good day. <b>", [])),
    ("a call", HERMES, f"<tool_call>\n{ROME}\n</tool_call>", ("", [WANTED])),
    ("text before and behind", HERMES, f"I look.\n<tool_call>{ROME}</tool_call>\nDone.", ("I look.\n\nDone.", [WANTED])),
    ("two", HERMES, f"<tool_call>{ROME}</tool_call>\n<tool_call>{ROME}</tool_call>", ("", [WANTED, WANTED])),
    ("no closing", GENERIC, f"<tool_call>\n{ROME}", ("", [WANTED])),
    ("arguments first", HERMES, '<tool_call>{"arguments": {"a": 1}, "name": "clock"}</tool_call>', ("", [("clock", '{"a": 1}')])),
    ("arguments as text", HERMES, '<tool_call>{"name": "clock", "arguments": "{\\"a\\": 1}"}</tool_call>', ("", [("clock", '{"a": 1}')])),
    ("no arguments", HERMES, '<tool_call>{"name": "clock"}</tool_call>', ("", [("clock", "{}")])),
    ("more keys", HERMES, '<tool_call>{"id": 7, "name": "clock", "arguments": {}, "x": [{}]}</tool_call>', ("", [("clock", "{}")])),
    ("a tool that is not there", HERMES, '<tool_call>{"name": "fly", "arguments": {}}</tool_call>', ("", [("fly", "{}")])),
    ("no json", HERMES, "<tool_call>weather(Rome)</tool_call>", ("<tool_call>weather(Rome)</tool_call>", [])),
    ("no name", HERMES, '<tool_call>{"tool": "clock"}</tool_call>', ('<tool_call>{"tool": "clock"}</tool_call>', [])),
    ("broken behind its name", HERMES, f"<tool_call>{BROKEN}}}}}</tool_call> So.", (" So.", [("clock", '{"a": 1]')])),
    ("half a mark", HERMES, "a <tool_", ("a <tool_", [])),
    ("a list", MISTRAL, f"[TOOL_CALLS] [{ROME}, {ROME}]", ("", [WANTED, WANTED])),
    ("text, then a list", MISTRAL, f"So: [TOOL_CALLS][{ROME}]", ("So: ", [WANTED])),
    ("no list", MISTRAL, "[TOOL_CALLS] none", ("[TOOL_CALLS] none", [])),
    ("an answer that is a call", LLAMA, ROME.replace("arguments", "parameters"), ("", [WANTED])),
    ("and white space", LLAMA, "\n\n" + ROME.replace("arguments", "parameters") + "\n", ("", [WANTED])),
    ("two of them", LLAMA, (ROME + "; " + ROME).replace("arguments", "parameters"), ("", [WANTED, WANTED])),
    ("json that is none", LLAMA, '{"name": "Ada", "parameters": {}}', ('{"name": "Ada", "parameters": {}}', [])),
    ("other json", LLAMA, '{"a": {"b": "c"}} yes', ('{"a": {"b": "c"}} yes', [])),
    ("json in the middle", LLAMA, "So: " + ROME, ("So: " + ROME, [])),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "said", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_an_answer_comes_apart_into_text_and_calls_whole_or_letter_by_letter(dialect: Dialect, said: str, expected: Read) -> None:
    assert read(dialect, said) == expected
    assert read(dialect, *said) == expected


@given(st.sampled_from(CASES), st.lists(st.integers(0, 80), max_size=6))
def test_it_does_not_matter_where_the_pieces_end(case: tuple[str, Dialect, str, Read], cuts: list[int]) -> None:
    _, dialect, said, expected = case
    borders = [0, *sorted(min(cut, len(said)) for cut in cuts), len(said)]
    assert read(dialect, *(said[begin:end] for begin, end in pairwise(borders))) == expected


SCRAPS = ("<tool_call>", "</tool_call>", "{", "}", '"name"', ":", '"clock"', ",", '"arguments"', "[", "]", "x", '"', "\n")


@given(st.lists(st.sampled_from(SCRAPS), max_size=30))
def test_nothing_that_a_model_writes_breaks_it(pieces: list[str]) -> None:
    for dialect in (HERMES, LLAMA, MISTRAL):
        for forced in (False, True):
            text, calls = read(dialect, *pieces, forced=forced)
            assert len(text) <= sum(map(len, pieces))
            assert calls or forced or text.strip() in "".join(pieces)


def test_arguments_stream_as_they_are_written() -> None:
    one = reader(HERMES)
    assert one.feed('<tool_call>\n{"name": "clo') == []
    assert one.inside
    (begun,) = one.feed('ck", "arguments": ')
    assert begun == ToolCallDelta(0, "id0", "clock")
    assert one.feed('{"zone": "U') == [ToolCallDelta(0, arguments='{"zone": "U')]
    assert one.feed('TC"}') == [ToolCallDelta(0, arguments='TC"}')]
    assert one.feed("}\n</tool_call>") == []
    assert not one.inside


def test_text_is_shown_as_soon_as_it_can_be_no_mark() -> None:
    one = reader(HERMES)
    assert one.feed("Good <") == ["Good "]
    assert one.feed("tool") == []
    assert one.feed("box>") == ["<toolbox>"]


def test_a_grammar_may_begin_right_behind_the_mark_and_nowhere_else() -> None:
    one = reader(HERMES)
    one.feed("So <tool_call")
    assert not one.untouched
    one.feed(">\n")
    assert one.untouched
    one.feed("{")
    assert not one.untouched
    listed = reader(MISTRAL)
    listed.feed("[TOOL_CALLS]")
    assert listed.untouched
    listed.feed(f"[{ROME}")
    assert listed.inside
    assert not listed.untouched


def test_a_forced_answer_is_a_call_from_its_first_letter() -> None:
    assert read(HERMES, ROME, forced=True) == ("", [WANTED])
    assert read(MISTRAL, f"[{ROME}]", forced=True) == ("", [WANTED])
    assert read(LLAMA, ROME.replace("arguments", "parameters"), forced=True) == ("", [WANTED])


def test_a_call_that_was_cut_off_is_no_text() -> None:
    assert read(HERMES, 'So <tool_call>{"na', truncated=True) == ("So ", [])
    assert read(HERMES, '{"na', forced=True, truncated=True) == ("", [])
    assert read(HERMES, '<tool_call>{"name": "clock", "arguments": {"a', truncated=True) == ("", [("clock", '{"a')])


def test_there_is_an_end_to_calls() -> None:
    text, calls = read(HERMES, f"<tool_call>{ROME}</tool_call>" * (CALLS_MAX + 1))
    assert len(calls) == CALLS_MAX
    assert text == f"<tool_call>{ROME}</tool_call>"


def test_ids_have_nine_letters_and_differ_between_calls_prompts_and_seeds() -> None:
    ids = {call_ids(prompt, seed)(index) for prompt in ([1, 2], [1, 3]) for seed in (1, 2) for index in range(3)}
    assert len(ids) == 12
    assert all(len(one) == 9 and one.isalnum() for one in ids)
    assert call_ids([1, 2], 1)(0) == call_ids([1, 2], 1)(0)
