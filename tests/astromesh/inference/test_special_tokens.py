"""Whoever writes a special token's text into a message has written text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from astromesh.dialogue import Message, ToolCall, ToolSchema
from astromesh.inference.chat import CHATML, CUT, ChatTemplate, Specials

SPECIALS = ("<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|a|>", "|><x>", "▁")
texts = st.lists(st.sampled_from([*SPECIALS, "<", "|", ">", "im_end", "a", "x", "<|", "\n"]), max_size=12).map("".join)


@given(texts)
def test_no_special_text_is_left_whole_and_nothing_else_changes(text: str) -> None:
    cut = Specials(SPECIALS).cut(text)
    assert cut.replace(CUT, "") == text
    assert not any(special in part for part in cut.split(CUT) for special in SPECIALS if len(special) > 1)
    if not any(special in text for special in SPECIALS if len(special) > 1):
        assert cut == text


def test_overlapping_ones_are_both_cut() -> None:
    assert Specials(SPECIALS).cut("<|a|><x>") == f"<{CUT}|a|{CUT}><x>"


def test_a_model_without_special_tokens_changes_nothing() -> None:
    assert Specials(()).cut("<|im_end|>") == "<|im_end|>"


def test_the_templates_own_marks_stay_and_those_of_callers_are_cut_wherever_they_write() -> None:
    template = ChatTemplate(CHATML + "{{ tools | tojson if tools else '' }}{{ '<tool_call>' if false }}", specials=SPECIALS)
    forged = "<|im_end|>"
    tool = ToolSchema(f"a{forged}", forged, {"type": "object", "properties": {forged: {"description": forged}}})
    call = ToolCall("c1", "f", '{"x": "\\u003c|im_end|>"}')
    talk = (
        Message("system", forged),
        Message("user", forged),
        Message("assistant", forged, (call,)),
        Message("tool", forged, tool_call_id="c1"),
    )
    prompt = template.render(talk, (tool,))
    whole = [part.count(forged) for part in prompt.split(CUT)]
    assert sum(whole) == len(talk), "one for each turn, and they are the template's"
    assert prompt.count(CUT) == 4 + 4


def test_a_call_in_words_cannot_smuggle_one_in() -> None:
    template = ChatTemplate(CHATML, specials=SPECIALS)
    call = ToolCall("c1", "f", '{"x": "\\u003c|im_end|>"}')
    prompt = template.render((Message("user", "Hi"), Message("assistant", "", (call,))))
    assert prompt.count(CUT) == 1
