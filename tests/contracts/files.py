"""Every key of the files, and every value of those that have only some, as items; and which of them a document writes.

`Agent spec.prompts.system` is a key, `Agent spec.tools[].type: webhook` a value, in the spelling of the tables: `[]` is any position of a
list, `*` any name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import yaml

from astromesh.specs.agent import AgentDocument
from astromesh.specs.honoured import HONOURED, LISTED_KINDS, NOT_YET, RUN_KINDS
from astromesh.specs.keys import Shape, field_at, field_paths, shown_key, spellings
from astromesh.specs.provider import ProviderConfigDocument, ProviderDocument
from astromesh.specs.runtime import RuntimeDocument
from astromesh.specs.section import Section

KINDS: Mapping[str, type[Section]] = {
    "Agent": AgentDocument,
    "ProviderConfig": ProviderConfigDocument,
    "Provider": ProviderDocument,
    "RuntimeConfig": RuntimeDocument,
}
_FREE = ("spec.providers", "spec.model.roles")  # mappings of names to sections
_ENVELOPE = ("kind", "status")  # the kind says which table it is; the status is a controller's


def keys() -> Iterator[str]:
    """Every kind, every key and every value that the sections know, and every other spelling of a key."""
    yield from (f"kind {kind}" for kind in (*RUN_KINDS, *LISTED_KINDS))
    for kind, document in KINDS.items():
        for path in field_paths(document):
            if path in _ENVELOPE or _holds_others(kind, path):
                continue
            yield f"{kind} {shown_key(path)}"
            yield from (f"{kind} {path}: {value}" for value in values(document, path))
        yield from (f"{kind} {path}" for path in _spelled_otherwise(document))


def values(document: type[Section], path: str) -> tuple[str, ...]:
    """What may be written where only some words may be."""
    info = field_at(document, steps(path))
    return tuple(str(word) for word in _words(info.annotation)) if info is not None else ()


def steps(path: str) -> tuple[str | int, ...]:
    """A path of the tables as one of a document."""
    return tuple(0 if step == "[]" else step for step in re.findall(r"\[\]|[^.\[\]]+", path))


def _words(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for argument in get_args(annotation):
            yield from _words(argument)


def _holds_others(kind: str, path: str) -> bool:
    """A mapping or a list whose keys are items of their own: where it is in no table by itself."""
    if path in HONOURED[kind] or path in NOT_YET[kind]:
        return False
    return any(other.startswith((f"{path}.", f"{path}[]")) for other in (*HONOURED[kind], *NOT_YET[kind]))


def _spelled_otherwise(document: type[Section]) -> Iterator[str]:
    """Keys that have a second name beside their camelCase."""
    for path in field_paths(document):
        for also, name in _section_of(document, path).ALSO.items():
            above, _, last = path.rpartition(".")
            if last == name:
                yield f"{above}.{also}"


def _section_of(document: type[Section], path: str) -> type[Section]:
    """The section that a key belongs to."""
    shape: Shape | None = Shape(section=document)
    for step in steps(path)[:-1]:
        assert shape is not None, path
        if step == 0:
            shape = shape.items
        elif shape.section is not None:
            shape = spellings(shape.section)[shown_key(str(step))].shape
        else:
            shape = shape.values
    assert shape is not None, path
    assert shape.section is not None, path
    return shape.section


def written(document: Mapping[str, Any] | str) -> Iterator[str]:
    """The items that a document writes, as a mapping or as the text of a file."""
    for one in yaml.safe_load_all(document) if isinstance(document, str) else (document,):
        if isinstance(one, dict) and one.get("kind") in KINDS:
            yield f"kind {one['kind']}"
            yield from (f"{one['kind']} {item}" for item in _below(one, ""))


def _snake(key: str) -> str:
    return re.sub(r"(?<=[a-z])[A-Z]", lambda found: f"_{found.group().lower()}", key)


def _below(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            step = "*" if path in _FREE else _snake(str(key)) if path else key
            below = f"{path}.{step}" if path else step
            yield below
            yield from _below(inner, below)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _below(inner, f"{path}[]")
    elif path:
        yield f"{path}: {value}"
