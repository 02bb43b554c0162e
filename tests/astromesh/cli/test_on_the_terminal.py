"""What is printed: tables, durations, sizes, progress, errors. Values in, text out."""

from __future__ import annotations

import io

import pytest

from astromesh.cli.answer import Screen, Stopwatch, summary
from astromesh.cli.aside import Aside, line_of
from astromesh.cli.client import Event
from astromesh.cli.failures import BAD_CONFIGURATION, FAILED, UNREACHABLE, NodeRefused, NodeUnreachable, exit_code, in_words, refusal
from astromesh.cli.terminal import ProgressLine, dim, duration, printable, size, table
from astromesh.errors import ConfigurationError, StoreError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_table_is_aligned_and_says_nothing_with_a_dash() -> None:
    text = table(("NAME", "STATE"), [("a", "alive"), ("kitchen", "")], io.StringIO())
    assert text == "NAME     STATE\na        alive\nkitchen  -"


def test_a_name_from_another_machine_cannot_command_the_terminal() -> None:
    assert printable("a\x1b]0;owned\x07b\r\u009bm") == "a�]0;owned�b��m"
    assert printable("two lines\n\tand a tab, ümläute, 日本") == "two lines\n\tand a tab, ümläute, 日本"
    assert "\x1b" not in table(("NAME",), [("\x1b[2J",)], io.StringIO())


@pytest.mark.parametrize(
    ("seconds", "words"), [(-1, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3_660, "1 h 1 min"), (180_000, "2 d 2 h")]
)
def test_a_duration_is_as_exact_as_it_is_short(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(999, "999 B"), (1_500, "1.5 kB"), (98_362_432, "98.4 MB"), (4.1e9, "4.1 GB")])
def test_sizes_are_decimal(count: float, words: str) -> None:
    assert size(count) == words


def test_colour_is_for_terminals_and_not_with_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert dim("x", io.StringIO()) == "x"
    assert dim("x", Terminal()) == "\x1b[2mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert dim("x", Terminal()) == "x"


def test_progress_without_a_terminal_is_a_few_whole_lines() -> None:
    out = io.StringIO()
    line = ProgressLine(out)
    for done in range(0, 101, 10):
        line.report(done, 100, "copying")
    line.report(100, 100, "copying")
    line.end()
    assert [text[:7] for text in out.getvalue().splitlines()] == ["copying", "copying"]
    assert "100%" in out.getvalue().splitlines()[1]
    assert "\r" not in out.getvalue()


def test_progress_on_a_terminal_is_one_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    line = ProgressLine(out)
    line.say("loading")
    line.say("loading")
    line.end()
    assert out.getvalue() == "\r\x1b[Kloading\r\x1b[K"


def test_each_answer_of_a_model_begins_on_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    for kind, data in (("token", {"content": "let me look"}), ("tool_call", {}), ("token", {"content": "it is noon"})):
        screen.event(Event(kind, data))
    screen.answer("it is noon")
    screen.close()
    assert capsys.readouterr().out == "let me look\nit is noon\n"


def test_an_answer_that_did_not_stream_is_shown_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.answer("all at once")
    screen.close()
    assert capsys.readouterr().out == "all at once\n"


def test_a_summary_without_tokens_gives_no_speed() -> None:
    done = {"node": "c", "home": "a", "usage": {"tokens_out": 0}}
    assert summary(done, Stopwatch()) == "served by c · home a · 0 tokens"


def test_the_speed_of_a_run_is_that_of_the_calls_that_streamed_and_of_nothing_between_them() -> None:
    clock = [0.0]
    watch = Stopwatch(lambda: clock[0])
    for clock[0], kind, tokens in (  # a decision aside, an answer, seconds of a tool, another answer
        (1.0, "usage", 500),
        (1.0, "token", 0),
        (2.0, "token", 0),
        (2.5, "usage", 11),
        (9.0, "token", 0),
        (10.0, "token", 0),
        (10.0, "usage", 21),
    ):
        watch.saw(Event(kind, {"tokens_out": tokens}))
    done = {"node": "c", "home": "a", "usage": {"tokens_out": 532}}
    assert summary(done, watch) == "served by c · home a · 532 tokens · 15 tok/s · first token 1.00 s"


def test_the_summary_of_a_blocked_question_speaks_of_no_first_token() -> None:
    watch = Stopwatch(lambda: 0.0)
    watch.saw(Event("token", {"content": "No."}))
    done = {"node": "", "home": "a", "blocked": True, "usage": {"tokens_out": 0}}
    assert summary(done, watch).endswith("home a · blocked by a guardrail · 0 tokens")


def test_a_summary_names_who_handed_to_whom_and_where() -> None:
    done = {"node": "c", "home": "a", "usage": {"tokens_out": 0}, "handoffs": [{"from": "desk", "to": "billing", "node": "b"}]}
    assert summary(done, Stopwatch()) == "served by c · home a · desk → billing on b · 0 tokens"


PLAN = '{"steps": [{"id": "bees", "task": "Look.", "after": []}, {"id": "honey", "task": "Ask.", "after": ["bees"]}]}'


@pytest.mark.parametrize(
    ("kind", "data", "line"),
    [
        ("status", {"state": "delegated", "agent": "researcher", "node": "b"}, "→ researcher on b"),
        ("status", {"state": "loading", "model": "smollm2"}, "· waits for the model smollm2 to load"),
        ("status", {"state": "queued"}, None),
        ("handoff", {"from": "desk", "to": "billing", "node": "b"}, "→ billing on b goes on, handed over by desk"),
        ("tool_call", {"id": "1", "name": "clock", "arguments": '{"zone": "UTC"}'}, "· calls clock UTC"),
        ("tool_call", {"id": "1", "name": "clock", "arguments": "{", "label": "sums"}, "· sums: calls clock {"),
        ("step", {"thought": None, "action": "plan", "action_input": PLAN, "observation": None}, "· plan: bees, honey"),
        (
            "step",
            {"action": "delegate", "action_input": '{"worker": "facts", "task": "Look."}', "observation": "A\n fact."},
            "· delegate: facts, Look. → A fact.",
        ),
        ("step", {"action": "conclude", "action_input": None, "observation": None, "agent": "facts"}, "· facts: conclude"),
        ("step", {"thought": None, "action": None, "result": "the answer"}, None),
        ("handoff", {"from": "x", "to": "\x1b[2Jb", "node": "b\r"}, "→ \ufffd[2Jb on b goes on, handed over by x"),
        ("route", {"node": "c"}, None),
    ],
)
def test_what_an_agent_does_aside_is_one_line_that_commands_no_terminal(kind: str, data: dict[str, object], line: str | None) -> None:
    assert line_of(Event(kind, data)) == line


def test_a_line_is_no_wider_than_the_terminal_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Event("step", {"action": "look", "action_input": '{"task": "' + "word " * 50 + '"}', "observation": "found " * 50})
    assert Aside().line(step) is None
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stderr", Terminal())
    line = Aside().line(step)
    assert line is not None
    assert line.startswith("· look: word word")
    assert "→ found found" in line
    assert (len(line), line[-1]) == (99, "…")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NodeUnreachable("x"), UNREACHABLE),
        (ConfigurationError("x"), BAD_CONFIGURATION),
        (NodeRefused("x", code="bad_configuration", hint=""), BAD_CONFIGURATION),
        (StoreError("x"), FAILED),
    ],
)
def test_an_exit_code_says_whose_turn_it_is(error: ConfigurationError, code: int) -> None:
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"detail": "no such agent", "code": "agent_not_found", "hint": "list them"}, "no such agent"),
        ({"detail": {"error": "draining", "message": "it stops", "hint": "h"}, "code": "draining"}, "it stops"),
        ({"detail": {"agent": "d", "timeout_seconds": 2.5, "steps": [{}]}}, "agent d did not finish within 2.5 s, after 1 steps"),
        ({"error": {"message": "not here", "code": "model_not_found"}}, "not here"),
        ({"title": "Not found"}, "Not found"),
        (["surprise"], "the node answered with status 404 and no reason"),
    ],
)  # fmt: skip
def test_every_shape_of_a_refusal_is_read(body: object, said: str) -> None:
    assert refusal(404, body).message == said


def test_what_and_hint_are_two_sentences() -> None:
    assert in_words("it failed", "try again") == "it failed. Try again"
    assert in_words("it failed", "astromesh-node up starts one") == "it failed. astromesh-node up starts one"
    assert in_words("it failed.", "Try again.") == "it failed. Try again."
    assert in_words("it failed", "") == "it failed"
