"""Who names a command names one that exists: every `astromesh-node …` in the code and in the documents is held against the program."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from astromesh.cli.program import program

ROOT = Path(__file__).resolve().parents[2]
MENTION = re.compile(r"astromesh-node(?: --url \S+)? ([a-z]+)(?: ([a-z]+))?")
# Words that follow the program's name in prose, not on a command line.
PROSE = {"runs", "is", "and", "in", "process", "distribution"}


def mentions() -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for path in (*sorted((ROOT / "node").rglob("*.py")), ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            for verb, word in MENTION.findall(line):
                if verb not in PROSE:
                    found.setdefault((verb, word), []).append(f"{path.relative_to(ROOT)}:{number}")
    return found


@pytest.mark.parametrize(("command", "places"), mentions().items(), ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_every_command_that_a_hint_names_exists(command: tuple[str, str], places: list[str]) -> None:
    verb, word = command
    found = program.commands.get(verb)
    assert found is not None, f"there is no verb {verb!r}: {places}"
    if isinstance(found, click.Group) and word:  # a family by itself says which verbs it has
        assert word in found.commands, f"there is no verb {verb} {word!r}: {places}"


def test_hints_do_name_commands() -> None:
    assert ("models", "pull") in mentions()
