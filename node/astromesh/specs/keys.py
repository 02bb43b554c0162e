"""Which keys a section knows, in all their spellings, and where they stand in the file. Pure.

A document is brought into canonical spelling before pydantic sees it: so that a key said twice under two names is a mistake, an unknown
one gets the nearest known one as its remedy, and everything later speaks of one spelling while findings show the one that was written.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from astromesh.specs.documents import Mark
from astromesh.specs.findings import FINDINGS_MAX, Caution, Mistake, Path, dotted
from astromesh.specs.section import Section

KEY_SHOWN_MAX = 40


@dataclass(frozen=True, slots=True)
class Shape:
    """What can lie under a key: a section, a list of shapes, a mapping of free names to shapes. All empty: a value as it is."""

    section: type[Section] | None = None
    items: Shape | None = None
    values: Shape | None = None


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    shape: Shape
    info: FieldInfo


@dataclass(frozen=True, slots=True)
class Place:
    mark: Mark
    written: Path  # the path in the spelling of the file


@dataclass(frozen=True, slots=True)
class Places:
    """Where every value of a canonical document stands."""

    source: str
    by_path: Mapping[Path, Place]

    def of(self, path: Path) -> Place:
        """The place of a path, or of what is nearest above it."""
        for length in range(len(path), -1, -1):
            if (place := self.by_path.get(path[:length])) is not None:
                return place if length == len(path) else Place(Mark(place.mark.line, place.mark.column), (*place.written, *path[length:]))
        return Place(Mark(0, 0), path)

    def mistake(self, path: Path, message: str, remedy: str) -> Mistake:
        place = self.of(path)
        return Mistake(self.source, place.mark.line, place.mark.column, dotted(place.written), message, remedy)

    def caution(self, path: Path, message: str, remedy: str = "") -> Caution:
        place = self.of(path)
        return Caution(self.source, place.mark.line, place.mark.column, dotted(place.written), message, remedy)


@dataclass(frozen=True, slots=True)
class Canonical:
    value: Any
    places: Places
    mistakes: tuple[Mistake, ...]
    cautions: tuple[Caution, ...]


def canonical(value: Any, section: type[Section], *, source: str, marks: Mapping[Path, Mark]) -> Canonical:
    """A document in canonical spelling. Unknown keys are left out of it (each is a mistake already), and so is what is null."""
    pass_ = _Pass(section, source, marks)
    settled = pass_.settle(value, Shape(section=section), (), ())
    return Canonical(settled, Places(source, pass_.by_path), tuple(pass_.mistakes), tuple(pass_.cautions))


class _Pass:
    def __init__(self, top: type[Section], source: str, marks: Mapping[Path, Mark]) -> None:
        self._top = top
        self._source = source
        self._marks = marks
        self.by_path: dict[Path, Place] = {}
        self.mistakes: list[Mistake] = []
        self.cautions: list[Caution] = []

    def settle(self, value: Any, shape: Shape, path: Path, written: Path) -> Any:
        self.by_path[path] = Place(self._marks.get(written, Mark(0, 0)), written)
        if isinstance(value, dict) and shape.section is not None:
            return self._section(value, shape.section, path, written)
        if isinstance(value, dict):
            inner = shape.values or Shape()
            return {key: self.settle(item, inner, (*path, key), (*written, key)) for key, item in value.items()}
        if isinstance(value, list):
            inner = shape.items or Shape()
            return [self.settle(item, inner, (*path, n), (*written, n)) for n, item in enumerate(value)]
        return value

    def _section(self, value: dict[str, Any], section: type[Section], path: Path, written: Path) -> dict[str, Any]:
        known = spellings(section)
        open_ended = section.model_config.get("extra") == "allow"
        settled: dict[str, Any] = {}
        first_spelled: dict[str, str] = {}
        for key, item in value.items():
            here = (*written, key)
            mark = self._marks.get(here, Mark(0, 0))
            field = known.get(key)
            if field is None and len(self.mistakes if not open_ended else self.cautions) > FINDINGS_MAX:
                continue
            if field is None and open_ended:
                said = "is not passed on: no model server is known to take it"
                remedy = guess(key, known) + f"Known here: {', '.join(section.model_fields)}."
                self.cautions.append(Caution(self._source, mark.line, mark.column, dotted(here), said, remedy))
                settled[key] = self.settle(item, Shape(), (*path, key), here)
            elif field is None:
                shown = (*written, key[:KEY_SHOWN_MAX])
                remedy = self._remedy(key, section, known)
                self.mistakes.append(Mistake(self._source, mark.line, mark.column, dotted(shown), "unknown key", remedy))
            elif field.name in first_spelled:
                said = f"means the same as '{first_spelled[field.name]}', which is here too"
                self.mistakes.append(Mistake(self._source, mark.line, mark.column, dotted(here), said, "Keep one of them."))
            elif item is not None:
                first_spelled[field.name] = key
                settled[field.name] = self.settle(item, field.shape, (*path, field.name), here)
        return settled

    def _remedy(self, key: str, section: type[Section], known: Mapping[str, Field]) -> str:
        hint = guess(key, known)
        if not hint:
            elsewhere = [path for path in field_paths(self._top) if path.rpartition(".")[2] == key]
            hint = f"It belongs at {elsewhere[0]}. " if elsewhere else ""
        return f"{hint}Known here: {', '.join(shown_key(name) for name in section.model_fields)}."


def guess(key: str, known: Mapping[str, Any]) -> str:
    """ "Did you mean …? ", or nothing."""
    close = get_close_matches(key, known, n=1, cutoff=0.7)
    return f"Did you mean '{close[0]}'? " if close else ""


def shown_key(name: str) -> str:
    return "apiVersion" if name == "api_version" else name


@cache
def spellings(section: type[Section]) -> Mapping[str, Field]:
    """Every accepted spelling of every key of a section."""
    known: dict[str, Field] = {}
    for name, info in section.model_fields.items():
        field = Field(name, _shape(info.annotation), info)
        if name != "api_version":  # Kubernetes and the seed documents know only apiVersion
            known[name] = field
        known[_camel(name)] = field
    for also, name in section.ALSO.items():
        known[also] = known[_camel(also)] = known[name]
    return known


def field_paths(section: type[Section], prefix: str = "") -> Iterator[str]:
    """The canonical path of every key that can be written: `[]` stands for a position in a list, `*` for a free name."""
    for name, info in section.model_fields.items():
        path = f"{prefix}.{name}" if prefix else name
        yield path
        yield from _below(_shape(info.annotation), path)


def _below(shape: Shape, path: str) -> Iterator[str]:
    if shape.section is not None:
        yield from field_paths(shape.section, path)
    if shape.items is not None:
        yield from _below(shape.items, f"{path}[]")
    if shape.values is not None:
        yield from _below(shape.values, f"{path}.*")


def field_at(section: type[Section], path: Path) -> FieldInfo | None:
    """What a section says of the key at a canonical path, if it says anything."""
    shape: Shape | None = Shape(section=section)
    info: FieldInfo | None = None
    for step in path:
        if shape is None:
            return None
        if isinstance(step, int):
            shape = shape.items
        elif shape.section is not None:
            field = spellings(shape.section).get(shown_key(step))
            if field is None:
                return None
            shape, info = field.shape, field.info
        else:
            shape = shape.values
    return info


def _shape(annotation: Any) -> Shape:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return Shape(section=annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _shape(arguments[0])
    if origin is tuple:
        return Shape(items=_shape(arguments[0]))
    if origin in (Union, types.UnionType):
        shapes = [_shape(argument) for argument in arguments]
        return Shape(
            next((shape.section for shape in shapes if shape.section), None),
            next((shape.items for shape in shapes if shape.items), None),
            next((shape.values for shape in shapes if shape.values), None),
        )
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return Shape(values=_shape(arguments[1]))
    return Shape()


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
