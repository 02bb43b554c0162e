"""The mistakes in a script that no type checker sees, found in its syntax tree."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import astromesh.effects
from astromesh import orchestration

ROOM = Path(orchestration.__file__).parent
SCRIPTS = sorted(ROOM.rglob("*.py"))
EFFECTS = frozenset(
    name
    for name, kind in vars(astromesh.effects).items()
    if inspect.isclass(kind) and issubclass(kind, astromesh.effects.Effect) and kind is not astromesh.effects.Effect
)


def mistakes(source: str) -> Iterator[str]:
    """Line and kind of each. An effect that nobody yields is never performed; the reply of a bare `yield` is `Any`; a `yield` in a
    `finally` makes closing the script fail."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name))) if name in EFFECTS:
                yield f"line {node.lineno}: {name} is built and never performed"
            case ast.Yield():
                yield f"line {node.lineno}: yield without from"
            case ast.Try(finalbody=[*statements]):
                for statement in statements:
                    if any(isinstance(inner, (ast.Yield, ast.YieldFrom)) for inner in ast.walk(statement)):
                        yield f"line {statement.lineno}: yield in a finally"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOM)))
def test_no_script_forgets_to_perform_what_it_builds(path: Path) -> None:
    assert list(mistakes(path.read_text())) == []


def test_the_room_has_scripts_and_the_effects_have_names() -> None:
    assert ROOM / "patterns" / "react.py" in SCRIPTS
    assert {"AskModel", "CallTools", "Recall", "Remember", "Note"} <= EFFECTS


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("Remember(turn)", "line 2: Remember is built and never performed"),
        ("effects.Note('step', {})", "line 2: Note is built and never performed"),
        ("reply = yield AskModel(transcript)", "line 2: yield without from"),
        ("yield Recall()", "line 2: yield without from"),
        ("try:\n        pass\n    finally:\n        yield from Note('bye', {})", "line 5: yield in a finally"),
    ],
)
def test_a_planted_mistake_is_found(planted: str, found: str) -> None:
    assert list(mistakes(f"def script(transcript, turn):\n    {planted}\n")) == [found]


@pytest.mark.parametrize("right", ["reply = yield from AskModel(transcript)", "yield from Remember(turn)", "wish = AskModel(transcript)"])
def test_what_is_right_passes(right: str) -> None:
    assert list(mistakes(f"def script(transcript, turn):\n    {right}\n")) == []
