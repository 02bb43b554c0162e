"""Nobody stares at an empty line while a node asks others, and no script reads what is meant for people."""

from __future__ import annotations

import io

import pytest

from astromesh.cli.waiting import waiting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def a_terminal_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def test_on_a_terminal_there_is_a_word_at_once_and_it_goes_away_with_the_answer() -> None:
    out = Terminal()
    with waiting("asking 127.0.0.1:7946", stream=out):
        assert out.getvalue().endswith("asking 127.0.0.1:7946 …")
    assert out.getvalue().endswith("\r\x1b[K")


def test_it_goes_away_with_a_failure_too() -> None:
    out = Terminal()
    with pytest.raises(TimeoutError), waiting("asking", stream=out):
        raise TimeoutError
    assert out.getvalue().endswith("\r\x1b[K")


def test_elsewhere_and_with_json_nothing_is_said() -> None:
    for out, shown in ((io.StringIO(), True), (Terminal(), False)):
        with waiting("asking", shown=shown, stream=out):
            pass
        assert out.getvalue() == ""
