"""Calls, grammars, log-probabilities and prompts on their way through the schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.astromesh.inference.reciting import Recitation, Reciting

from astromesh.dialogue import Message, ModelReply, ModelRequest, Resume, Sampling, TextDelta, ToolCallDelta, ToolSchema
from astromesh.errors import InvalidRequest
from astromesh.inference.answer import Answer
from astromesh.inference.chat import CHATML, CUT, ChatTemplate
from astromesh.inference.request import as_frame
from astromesh.inference.schedule import Schedule
from astromesh.inference.stream import CHUNK_TOKENS

CLOCK = ToolSchema("clock", "The time.", {"type": "object", "properties": {"zone": {"type": "string"}}, "required": ["zone"]})
OTHER = ToolSchema("other", "Something else.", {})
CALL = '{"name": "clock", "arguments": {"zone": "UTC"}}'
MARKED = f"<tool_call>\n{CALL}\n</tool_call>"
MISTRAL = (Path(__file__).with_name("templates") / "mistral.jinja").read_text()


class Talk:
    """One request to a schedule over a decoder that recites."""

    def __init__(self, answer: str, *, template: str = CHATML, forbids: str = "\0", **wishes: Any) -> None:
        self.decoder = Reciting(answer, forbids=forbids)
        self.schedule: Schedule[Recitation] = Schedule(
            self.decoder,
            ChatTemplate(template, specials=("<|im_start|>", "<|im_end|>")),
            context=4000,
            cells=4000,
            sequences=1,
            clock=lambda: 0.0,
        )
        request = ModelRequest(**({"model": "m", "transcript": (Message("user", "What time is it?"),)} | wishes))
        self.schedule.submit(as_frame(request, number=1), seed=7)

    def run(self) -> tuple[list[TextDelta | ToolCallDelta], ModelReply]:
        answer, pieces = Answer(), []
        while not self.schedule.idle:
            step = self.schedule.step()
            pieces += [answer.receive(*piece) for _, *piece in step.pieces]
            for account in step.ended:
                assert self.decoder.open == 0
                return pieces, answer.reply(account, model="m", timings={})
        raise AssertionError("it never ended")


def end(answer: str, **wishes: Any) -> ModelReply:
    return Talk(answer, **wishes).run()[1]


def calls(reply: ModelReply) -> list[tuple[str, str]]:
    return [(call.name, call.arguments) for call in reply.tool_calls]


def test_a_call_among_text_is_told_as_one_and_says_why_the_answer_ended() -> None:
    pieces, reply = Talk(f"I look. {MARKED}", tools=(CLOCK,)).run()
    assert (reply.text, calls(reply), reply.finish_reason) == ("I look. ", [("clock", '{"zone": "UTC"}')], "tool_calls")
    tokens = [token for piece in pieces for token in piece.tokens]
    assert "".join(map(chr, tokens)).startswith(f"I look. {MARKED}"[: len(tokens)]), "every token is told with what it set free"


def test_without_tools_the_same_text_is_text() -> None:
    reply = end(MARKED)
    assert (reply.text, calls(reply), reply.finish_reason) == (MARKED, [], "stop")


def test_a_grammar_holds_from_the_mark_to_the_end_of_the_call() -> None:
    talk = Talk(f"So: {MARKED} {MARKED}", tools=(CLOCK,))
    talk.run()
    (sampler,) = talk.decoder.samplers
    assert sampler.grammar is not None
    assert [event.partition(" <")[0] for event in sampler.events] == ["hold So:", "let go So:", "hold So:", "let go So:"]
    assert sampler.events[0].endswith("<tool_call>")
    assert sampler.events[1].endswith('"UTC"}}')


def test_a_forced_call_begins_in_the_prompt_and_is_held_as_a_whole() -> None:
    talk = Talk(CALL, tools=(CLOCK, OTHER), tool_choice={"type": "function", "function": {"name": "clock"}})
    assert talk.decoder.prompts[-1].endswith("<|im_start|>assistant\n<tool_call>\n")
    (sampler,) = talk.decoder.samplers
    assert sampler.held
    assert sampler.grammar is not None
    assert "clock" in sampler.grammar
    assert "other" not in sampler.grammar, "but the prompt still tells of it"
    assert '"name": "other"' in talk.decoder.prompts[-1]
    _, reply = talk.run()
    assert (reply.text, calls(reply), reply.finish_reason) == ("", [("clock", '{"zone": "UTC"}')], "tool_calls")


def test_a_mark_that_is_a_token_without_text_begins_a_call_too() -> None:
    reply = end(f"\1[{CALL}, {CALL}]", template=MISTRAL, tools=(CLOCK,))
    assert (reply.text, calls(reply)) == ("", [("clock", '{"zone": "UTC"}')] * 2)


def test_a_stop_string_still_stops_before_and_inside_of_a_call() -> None:
    before = end(f"I look. {MARKED}", tools=(CLOCK,), sampling=Sampling(stop=("look",)))
    assert (before.text, calls(before), before.finish_reason) == ("I ", [], "stop")
    inside = end(MARKED, tools=(CLOCK,), sampling=Sampling(stop=("UTC",)))
    assert (inside.text, calls(inside)) == ("", [("clock", '{"zone": "')])


def test_a_call_that_is_cut_off_says_length() -> None:
    reply = end(MARKED, tools=(CLOCK,), sampling=Sampling(max_tokens=50))
    assert (reply.text, [call.name for call in reply.tool_calls], reply.finish_reason) == ("", ["clock"], "length")
    nameless = end(MARKED, tools=(CLOCK,), sampling=Sampling(max_tokens=20))
    assert (nameless.text, calls(nameless), nameless.finish_reason) == ("", [], "length")


@pytest.mark.parametrize("seam", range(1, len(MARKED) + 3, 7))
def test_an_answer_with_a_call_is_gone_on_with_at_any_seam(seam: int) -> None:
    said = f"So {MARKED}."
    whole_pieces, whole = Talk(said, tools=(CLOCK,)).run()
    talk = Talk(said, tools=(CLOCK,))
    borders = (*range(CHUNK_TOKENS, len(talk.decoder.prompts[-1]), CHUNK_TOKENS), len(talk.decoder.prompts[-1]))
    resumed = Talk(said, tools=(CLOCK,), resume=Resume("file", tuple(map(ord, said[:seam])), borders))
    first, second = resumed.decoder.samplers[0], talk.decoder.samplers[0]
    rest, _ = resumed.run()
    talk.run()
    assert first.events == second.events, "its grammar began and ended where it would have"
    told = [piece for piece in whole_pieces if isinstance(piece, ToolCallDelta)]
    again = [piece for piece in rest if isinstance(piece, ToolCallDelta)]
    assert [piece.arguments for piece in again] == [piece.arguments for piece in told[len(told) - len(again) :]]
    assert {piece.id for piece in again if piece.id} <= {whole.tool_calls[0].id}


def test_an_answer_that_its_grammar_forbids_is_not_gone_on_with_and_leaves_nothing() -> None:
    with pytest.raises(InvalidRequest) as refused:
        Talk("a~b", forbids="~", response_format={"type": "json_object"}, resume=Resume("file", (ord("a"), ord("~")), (CHUNK_TOKENS, 64)))
    assert refused.value.param == "resume"


def test_log_probabilities_come_with_the_text_that_they_are_of_and_not_with_calls() -> None:
    pieces, reply = Talk(f"é. {MARKED}", tools=(CLOCK,), sampling=Sampling(logprobs=1)).run()
    assert [(one.text, one.logprob, len(one.top)) for one in reply.logprobs] == [("é", -0.5, 1), (".", -0.5, 1), (" ", -0.5, 1)]
    assert [one for piece in pieces if isinstance(piece, TextDelta) for one in piece.logprobs] == list(reply.logprobs)
    assert end("Yes").logprobs == ()


def test_a_prompt_is_read_as_it_stands_without_a_template() -> None:
    talk = Talk("more", transcript=(), prompt="<|im_end|> Once")
    assert talk.decoder.prompts[-1] == "<|im_end|> Once"
    assert talk.run()[1].text == "more"


def test_what_a_caller_wrote_is_cut_before_it_is_tokenized() -> None:
    talk = Talk("ok", transcript=(Message("user", "a<|im_end|>b"),))
    assert f"a<{CUT}|im_end|>b<|im_end|>" in talk.decoder.prompts[-1]


def test_a_conversation_that_cannot_possibly_fit_is_not_even_rendered() -> None:
    with pytest.raises(InvalidRequest, match=r"2000000 characters.*4000 tokens"):
        Talk("ok", template="{{ 1 / 0 }}", transcript=(Message("user", "x" * 2_000_000),))
