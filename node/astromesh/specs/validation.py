"""What pydantic says about a value, for the person who wrote it. Pure.

pydantic names types and union members; people want the line, what was expected, what was found, and an example.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from astromesh.specs.findings import FINDINGS_MAX, Mistake, Path
from astromesh.specs.keys import Place, Places, field_at, shown_key
from astromesh.specs.section import Section

FOUND_SHOWN_MAX = 40

_EXPECTED: Mapping[str, str] = {
    "int_type": "a whole number", "int_parsing": "a whole number", "int_from_float": "a whole number", "int_parsing_size": "a whole number",
    "float_type": "a number", "float_parsing": "a number", "finite_number": "a number",
    "bool_type": "true or false", "bool_parsing": "true or false",
    "string_type": "text",
    "model_type": "a mapping (key: value)", "dict_type": "a mapping (key: value)", "mapping_type": "a mapping (key: value)",
    "tuple_type": "a list", "list_type": "a list",
    "string_too_short": "text that is not empty", "too_short": "a list that is not empty",
}  # fmt: skip
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than_equal": ("ge", "a number of at least"), "greater_than": ("gt", "a number above"),
    "less_than_equal": ("le", "a number of at most"), "less_than": ("lt", "a number below"),
}  # fmt: skip
_EXAMPLE: Mapping[str, str] = {
    "a whole number": "10", "a number": "0.5", "true or false": "true", "text": '"some text"', "text that is not empty": '"some text"',
    "a list": "[first, second]", "a list that is not empty": "[first, second]",
}  # fmt: skip


def explain(error: ValidationError, value: Any, section: type[Section], places: Places) -> tuple[Mistake, ...]:
    """One mistake for every place where something is wrong, in the order of the file."""
    wrong: dict[Path, list[Any]] = {}
    missing: dict[Path, None] = {}
    for detail in error.errors(include_url=False, include_input=False)[: FINDINGS_MAX + 1]:
        path, rest = _path(detail["loc"], places)
        if detail["type"] == "missing":
            missing[(*path, *rest[-1:])] = None
        else:
            wrong.setdefault(path, []).append(detail)
    mistakes = [places.mistake(path, "is missing", _addition(path, section)) for path in missing if not _blamed_above(path, wrong)]
    for path, details in wrong.items():
        deeper = any(other != path and other[: len(path)] == path for other in (*wrong, *missing))
        if not (deeper and all(detail["type"].endswith("_type") for detail in details)):
            mistakes.append(_explained(path, details, value, section, places))
    return tuple(sorted(mistakes, key=lambda mistake: (mistake.line, mistake.column, mistake.path)))


def _path(location: Sequence[str | int], places: Places) -> tuple[Path, tuple[str | int, ...]]:
    """pydantic's location without the names of union members that it puts in between, and what of it is not in the file."""
    path: Path = ()
    rest: tuple[str | int, ...] = ()
    for step in location:
        if (*path, step) in places.by_path:
            path, rest = (*path, step), ()
        else:
            rest = (*rest, step)
    return path, rest


def _blamed_above(path: Path, wrong: Mapping[Path, Any]) -> bool:
    return path[:-1] in wrong and any(detail["type"] in ("model_type", "dict_type") for detail in wrong[path[:-1]])


def _addition(path: Path, section: type[Section]) -> str:
    info = field_at(section, path)
    key = shown_key(str(path[-1]))
    return f"Add '{key}: {info.examples[0]}'." if info is not None and info.examples else f"Add '{key}: …'."


def _explained(path: Path, details: Sequence[Any], value: Any, section: type[Section], places: Places) -> Mistake:
    for detail in details:
        context = detail.get("ctx") or {}
        if "remedy" in context:
            return places.mistake(path, context["expected"], context["remedy"])
    choices = [choice for detail in details if detail["type"] == "literal_error" for choice in _choices(detail)]
    kinds = dict.fromkeys(_expected(detail) for detail in details if detail["type"] != "literal_error")
    if choices:
        kinds = dict.fromkeys([*kinds, "one of " + ", ".join(choices)])
    place = places.of(path)
    found = _found(_at(value, path), place)
    message = f"expected {' or '.join(kinds)}, found {found}"
    return places.mistake(path, message, _remedy(path, list(kinds), choices, section, place))


def _expected(detail: Any) -> str:
    kind, context = detail["type"], detail.get("ctx") or {}
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"{words} {context[bound]:g}"
    return _EXPECTED.get(kind) or str(detail["msg"])


def _choices(detail: Any) -> list[str]:
    listed = str((detail.get("ctx") or {}).get("expected", ""))
    return [choice.strip().strip("'") for choice in listed.replace(" or ", ", ").split(", ") if choice.strip()]


def _remedy(path: Path, kinds: list[str], choices: list[str], section: type[Section], place: Place) -> str:
    key = next((step for step in reversed(place.written) if isinstance(step, str)), "")
    if choices and place.mark.written is not None:
        close = get_close_matches(place.mark.written, choices, n=1)
        return f"Did you mean '{close[0]}'?" if close else f"Write for example {key}: {choices[0]}."
    if kinds == ["text"] and place.mark.written in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return f'Put it in quotes: {key}: "{place.mark.written}".'
    info = field_at(section, path)
    example = info.examples[0] if info is not None and info.examples and isinstance(path[-1], str) else _EXAMPLE.get(kinds[0])
    return f"Write for example {key}: {example}." if example is not None and key else ""


def _found(value: Any, place: Place) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    written = place.mark.written
    if written is None:
        # JSON values bring the marks of their texts alone, and no variable becomes anything else.
        return json.dumps(value) if value is None or isinstance(value, bool | int | float) else "something else"
    shown = written if len(written) <= FOUND_SHOWN_MAX else written[:FOUND_SHOWN_MAX] + "…"
    return f"'{shown}'" if isinstance(value, str) else shown


def _at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value
