"""From a JSON Schema to the grammar (GBNF, llama.cpp's notation) of the JSON texts that obey it. Pure.

A grammar knows texts, not numbers: what it cannot hold a model to (`pattern`, `multipleOf`, most bounds of numbers, `uniqueItems`,
`not`, …) is refused by name where the schema is strict, and otherwise left out, as OpenAI does. What it does hold to may be narrower than
the schema: properties come in the order of the schema, an object with declared properties has no others unless `additionalProperties` says
so, and between the parts there is at most one space, since small models would otherwise fill their answer with it.

References could multiply the readings of a grammar without end (`[[[[…` as a list of lists or a list of lists of lists), so what is inside
of one is counted where it is referred to (`rules` says what a reading costs).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from astromesh.inference.rules import REPETITIONS_MAX, REPETITIONS_TOGETHER_MAX, Rules

SCHEMA_BYTES_MAX: Final = 64 * 1024  # a large tool has 4 KiB
SCHEMA_VALUES_MAX: Final = 8192
SCHEMA_DEPTH_MAX: Final = 64  # levels of JSON; a property inside of a property takes two
STEPS_MAX: Final = 4096  # subschemas looked at; references can make few words mean very much

_RANGE = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_OF_STRINGS = ("minLength", "maxLength", "format")
_OF_OBJECTS = ("properties", "required", "additionalProperties")
_OF_ARRAYS = ("items", "prefixItems", "minItems", "maxItems")
_HELD = frozenset({"$ref", "type", "enum", "const", "anyOf", "oneOf", "allOf", *_RANGE, *_OF_STRINGS, *_OF_OBJECTS, *_OF_ARRAYS})
_TELLING = ("title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly", "nullable")
_ANNOTATIONS = frozenset({*_TELLING, "$schema", "$id", "$comment", "$defs", "definitions", "$anchor"})
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")

_FORMATS: Mapping[str, str] = {
    "date": "full-date",
    "time": "full-time",
    "date-time": 'full-date "T" full-time',
    "uuid": '[0-9a-f]{8} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{12}',
}


def json_grammar(schema: Mapping[str, Any], *, param: str, strict: bool) -> str:
    """The grammar of the texts that obey a schema. Raises `InvalidRequest` that names `param` and what is at fault."""
    grammar = Grammar(param=param, strict=strict)
    return grammar.text(grammar.value(schema))


def object_grammar() -> str:
    """The grammar of all JSON objects."""
    grammar = Grammar(param="response_format", strict=False)
    return grammar.text(grammar.primitive("object"))


_Opening = tuple[str, str | None, str | None]  # a bracket, and of an object its first property and the value of that, where they are known
_ANYHOW: Final = frozenset({("{", None, None), ("[", None, None)})


def _alike(mine: frozenset[_Opening], theirs: frozenset[_Opening]) -> bool:
    return any(
        bracket == other and (name is None or named is None or (name == named and (value is None or valued is None or value == valued)))
        for bracket, name, value in mine
        for other, named, valued in theirs
    )


@dataclass(slots=True, eq=False)
class _Referenced:
    """A rule for what a reference points to."""

    rule: str
    outside: int  # the readings where it was first referred to
    inside: int = 1  # the most that it adds to them, as a factor
    made: bool = False
    loops: list[_Referenced] = field(default_factory=list)  # those around it that it contains again


class Grammar(Rules):
    """Rules made of schemas. `value` and the like add rules and return what stands for them in others."""

    def __init__(self, *, param: str, strict: bool) -> None:
        super().__init__(param=param)
        self._strict = strict
        self._referenced: dict[tuple[int, str], _Referenced] = {}
        self._roots: list[Mapping[str, Any]] = []  # kept, so that their ids stay theirs
        self._steps = self._nested = 0

    def value(self, schema: Any) -> str:
        """A whole schema: its references are looked up in itself."""
        self._measure(schema)
        if not isinstance(schema, Mapping):
            self.refuse("is no object")
        self._roots.append(schema)
        return self._value(schema, schema, ())

    def _measure(self, schema: Any) -> None:
        """Without recursion: the depth is what is to be found out."""
        level, depth, values = [schema], 0, 0
        while level:
            depth, values = depth + 1, values + len(level)
            if depth > SCHEMA_DEPTH_MAX or values > SCHEMA_VALUES_MAX:
                self.refuse(f"is deeper than {SCHEMA_DEPTH_MAX} levels or has more than {SCHEMA_VALUES_MAX} values")
            level = [inner for value in level for inner in _inside(value)]
        size = len(json.dumps(schema, ensure_ascii=False))
        if size > SCHEMA_BYTES_MAX:
            self.refuse(f"has {size} characters, and at most {SCHEMA_BYTES_MAX} are possible")

    def _value(self, schema: Any, root: Mapping[str, Any], open_references: tuple[str, ...]) -> str:
        """`open_references` are those that led here without a single character in between: a grammar must not go in circles."""
        self._nested += 1
        if self._nested > SCHEMA_DEPTH_MAX:
            self.refuse(f"is deeper than {SCHEMA_DEPTH_MAX} levels when its references are followed")
        found = self._of_any_kind(schema, root, open_references)
        self._nested -= 1
        return found

    def _of_any_kind(self, schema: Any, root: Mapping[str, Any], open_references: tuple[str, ...]) -> str:
        self._step()
        if schema is True or schema == {}:
            return self.primitive("value")
        if not isinstance(schema, Mapping):
            self.refuse("allows nothing somewhere, or has something else than an object for a schema")
        self._check(schema)
        if "$ref" in schema:
            if set(schema) <= _ANNOTATIONS | {"$ref"}:
                return self._reference(schema["$ref"], root, open_references)
            schema = self._merged([schema], root, ())
        if "const" in schema:
            return self._literals([schema["const"]])
        if "enum" in schema:
            values = [value for value in self._list(schema, "enum") if _is_of(value, schema.get("type"))]
            return self._literals(values)
        if "allOf" in schema:
            return self._value(self._merged([_without(schema, "allOf"), *self._list(schema, "allOf")], root, ()), root, open_references)
        for key in ("anyOf", "oneOf"):
            if key in schema:
                rest = _without(schema, key)
                parts = [{"allOf": [rest, part]} if set(rest) - _ANNOTATIONS else part for part in self._list(schema, key)]
                return self._any_of(parts, root, open_references)
        kind = schema.get("type", _kind_by_keys(schema))
        if isinstance(kind, list) and kind:
            return self._any_of([{**schema, "type": one} for one in kind], root, open_references)
        match kind:
            case "object":
                return self._object(schema, root)
            case "array":
                return self._array(schema, root)
            case "string":
                return self._string(schema)
            case "integer":
                return self._integer(schema)
            case "number":
                for key in _RANGE:
                    self._loosen(schema, key)
                return self.primitive("number")
            case "boolean" | "null":
                return self.primitive(kind)
            case None:
                return self.primitive("value")
        raise self.refusal(f"has a type that is none of {', '.join(_TYPES)}")

    def _any_of(self, parts: Sequence[Any], root: Mapping[str, Any], open_references: tuple[str, ...]) -> str:
        openings = [self._openings(part, root, ()) for part in parts]
        found = []
        for part, mine in zip(parts, openings, strict=True):
            with self.among(sum(_alike(mine, theirs) for theirs in openings) or 1):
                found.append(self._value(part, root, open_references))
        return self.union(found)

    def _openings(self, schema: Any, root: Mapping[str, Any], followed: tuple[str, ...]) -> frozenset[_Opening]:
        """How the lists and objects that obey a schema can begin; texts and numbers hold nothing that could multiply."""
        self._step()
        if schema is True or not isinstance(schema, Mapping):
            return _ANYHOW
        if "$ref" in schema or "allOf" in schema:
            reference = schema.get("$ref", "")  # none of its own: those of its parts are followed all the same, and may lead back here
            if (reference and reference in followed) or len(followed) == SCHEMA_DEPTH_MAX:
                return _ANYHOW
            return self._openings(self._merged([schema], root, ()), root, (*followed, reference))
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return frozenset().union(*(self._openings(part, root, followed) for part in self._list(schema, key)))
        if "const" in schema or "enum" in schema:
            return frozenset()
        kind = schema.get("type", _kind_by_keys(schema))
        if kind == "object":
            return self._first_properties(schema)
        if kind == "array":
            return frozenset({("[", None, None)})
        return frozenset() if kind in _TYPES else _ANYHOW

    def _first_properties(self, schema: Mapping[str, Any]) -> frozenset[_Opening]:
        declared, required = schema.get("properties"), schema.get("required", [])
        found: set[_Opening] = set()
        for name, one in declared.items() if isinstance(declared, Mapping) else ():
            values = (
                [one["const"]] if isinstance(one, Mapping) and "const" in one else one.get("enum") if isinstance(one, Mapping) else None
            )
            found |= {("{", name, json.dumps(value)) for value in values} if isinstance(values, list) else {("{", name, None)}
            if isinstance(required, list) and name in required:
                return frozenset(found)
        return frozenset({("{", None, None)})  # or an empty one

    def _step(self) -> None:
        self._steps += 1
        if self._steps > STEPS_MAX:
            self.refuse(f"means more than {STEPS_MAX} subschemas when its references are followed")

    def _check(self, schema: Mapping[str, Any]) -> None:
        for key in schema:
            if key not in _HELD and key not in _ANNOTATIONS:
                self._loosen(schema, key)

    def _loosen(self, schema: Mapping[str, Any], key: str) -> None:
        if self._strict and key in schema:
            self.refuse(f"has {key}, which a grammar cannot hold a model to", hint="leave it out, or send strict: false")

    def _list(self, schema: Mapping[str, Any], key: str) -> list[Any]:
        found = schema[key]
        if not isinstance(found, list) or not found:
            self.refuse(f"has a {key} that is no list, or an empty one")
        return found

    def _literals(self, values: Sequence[Any]) -> str:
        if not values:
            self.refuse("has an enum of which no value is of its type")
        return self.union([self.literal(json.dumps(value, ensure_ascii=False, separators=(",", ":"))) for value in values])

    # References.

    def _reference(self, reference: Any, root: Mapping[str, Any], open_references: tuple[str, ...]) -> str:
        target = self._target(reference, root)
        if reference in open_references:
            self.refuse(f"has a reference that refers to itself and nothing else: {reference}")
        known = self._referenced.get((id(root), reference))
        if known is None:
            # Named before it is made: it may be part of itself.
            known = self._referenced[id(root), reference] = _Referenced(self.rule(""), self._readings)
            seen, self._readings_seen = self._readings_seen, self._readings
            self._rules[known.rule] = self._value(target, root, (*open_references, reference))
            known.inside, known.made = self._readings_seen // self._readings, True
            self._readings_seen = max(seen, self._readings_seen)
            return known.rule
        if known.made:
            self.note(self._readings * known.inside)
        for loop in (known, *known.loops):
            if not loop.made:
                if self._readings != loop.outside:
                    self.refuse("has alternatives that begin alike and contain themselves", hint="let them differ in their first property")
                for other in self._referenced.values():
                    if not other.made and other is not loop:
                        other.loops.append(loop)
        return known.rule

    def _target(self, reference: Any, root: Mapping[str, Any]) -> Any:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            self.refuse("has a $ref that is no text, or leads out of it", hint="only references like #/$defs/NAME are followed")
        found: Any = root
        for part in reference.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and name in found:
                found = found[name]
            elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                self.refuse(f"has a $ref to what is not there: {reference}")
        return found

    def _merged(self, parts: Sequence[Any], root: Mapping[str, Any], followed: tuple[str, ...]) -> dict[str, Any]:
        """One schema that asks for all that its parts ask for."""
        whole: dict[str, Any] = {}
        for part in parts:
            self._step()
            if not isinstance(part, Mapping):
                self.refuse("has a part of an allOf that is no object")
            self._check(part)
            if "$ref" in part:
                reference = part["$ref"]
                if reference in followed or len(followed) == SCHEMA_DEPTH_MAX:
                    self.refuse(f"has a reference that refers to itself and nothing else: {reference}")
                part = self._merged([self._target(reference, root), _without(part, "$ref")], root, (*followed, reference))
            if "allOf" in part:
                part = self._merged([_without(part, "allOf"), *self._list(part, "allOf")], root, followed)
            for key, value in part.items():
                if key in _ANNOTATIONS or key not in whole or whole[key] == value:
                    whole[key] = value
                elif key == "properties" and isinstance(value, Mapping) and isinstance(whole[key], Mapping):
                    both = {name: {"allOf": [whole[key][name], value[name]]} for name in value if name in whole[key]}
                    whole[key] = {**whole[key], **value, **both}
                elif key == "required" and isinstance(value, list) and isinstance(whole[key], list):
                    whole[key] = [*whole[key], *value]
                else:
                    self.refuse(f"asks in an allOf for two different things by {key}", hint="say it once")
        return whole

    # Types.

    def _object(self, schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
        declared, required = schema.get("properties", {}), schema.get("required", [])
        if not isinstance(declared, Mapping) or not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            self.refuse("has properties that are no object, or required that is no list of names")
        properties = {**declared, **{name: {} for name in required if name not in declared}}
        additional = schema.get("additionalProperties", not properties)
        if not properties and additional is True:
            return self.primitive("object")
        with self.among(2 if declared and additional is not False else 1):  # a declared name may be read as another one
            return self._with_members(properties, required, additional, root)

    def _with_members(self, properties: Mapping[str, Any], required: Sequence[str], additional: Any, root: Mapping[str, Any]) -> str:
        space = self.primitive("space")
        pairs = [
            (self.rule(f'{self._literals([name])} {space} ":" {space} {self._value(one, root, ())}'), name in required)
            for name, one in properties.items()
        ]
        rest = ""
        if additional is not False:
            other = self.rule(f'{self.primitive("string")} {space} ":" {space} {self._value(additional, root, ())}')
            rest = f'{other} ({space} "," {space} {other})*'
        return self.rule(f'"{{" {space} {self._members(pairs, rest)} {space} "}}"')

    def _members(self, pairs: Sequence[tuple[str, bool]], rest: str) -> str:
        """From the last to the first: what may follow when nothing was said yet, and what when something was."""
        space = self.primitive("space")
        comma = f'{space} "," {space}'
        self.note(self._readings * (1 + sum(not required for _, required in pairs)))
        first = f"({rest})?" if rest else ""
        later = f"({comma} {rest})?" if rest else ""
        for pair, required in reversed(pairs):
            here, there = f"{pair} {later}", f"{comma} {pair} {later}"
            if not required:
                here = f"{here} | {first}" if first else f"({here})?"
                there = f"{there} | {later}" if later else f"({there})?"
            first, later = self.rule(here), self.rule(there)
        return first

    def _array(self, schema: Mapping[str, Any], root: Mapping[str, Any]) -> str:
        space = self.primitive("space")
        low, high = self._bounds(schema, "minItems", "maxItems")
        begin = schema.get("prefixItems", [])
        items = schema.get("items", not begin)
        if isinstance(items, list):  # as older drafts wrote it
            begin, items = items, False
        if not isinstance(begin, list):
            self.refuse("has prefixItems that are no list")
        fixed = [self._value(one, root, ()) for one in begin[:high]]
        low, high = max(0, low - len(fixed)), None if high is None else high - len(fixed)
        comma = f'{space} "," {space}'
        inside = f" {comma} ".join(fixed)
        if items is not False and high != 0:
            item = self._value(items, root, ())
            if fixed:
                inside += f" ({comma} {item}){self.times(low, high)}"
            else:
                some = f"{item} ({comma} {item}){self.times(max(0, low - 1), None if high is None else high - 1)}"
                inside = some if low else f"({some})?"
        elif low:
            self.refuse("asks for more items than it describes")
        return self.rule(f'"[" {space} {inside} {space} "]"')

    def _string(self, schema: Mapping[str, Any]) -> str:
        low, high = self._bounds(schema, "minLength", "maxLength")
        if "format" in schema and schema["format"] in _FORMATS and (low, high) == (0, None):
            form = _FORMATS[schema["format"]]
            for name in ("full-date", "full-time"):
                if name in form:
                    self.primitive(name)
            return self.rule(rf'"\"" {form} "\""')
        self._loosen(schema, "format")
        if (low, high) == (0, None):
            return self.primitive("string")
        return self.rule(rf'"\"" {self.primitive("char")}{self.times(low, high)} "\""')

    def _integer(self, schema: Mapping[str, Any]) -> str:
        low, high = schema.get("minimum"), schema.get("maximum")
        if type(schema.get("exclusiveMinimum")) is int:
            low = schema["exclusiveMinimum"] + 1
        if type(schema.get("exclusiveMaximum")) is int:
            high = schema["exclusiveMaximum"] - 1
        if type(low) is int and type(high) is int and 0 <= high - low <= 100:
            return self._literals(range(low, high + 1))
        if high is None and low in (0, 1):
            return self.primitive("positive" if low else "natural")
        for key in _RANGE:
            self._loosen(schema, key)
        return self.primitive("integer")

    def _bounds(self, schema: Mapping[str, Any], least: str, most: str) -> tuple[int, int | None]:
        low, high = schema.get(least, 0), schema.get(most)
        room = min(REPETITIONS_MAX, REPETITIONS_TOGETHER_MAX - self._repetitions)
        if not self._strict and type(high) is int and high > room and type(low) is int and low <= high:
            high = None  # left out like any other limit: what is longer is seen by whoever checks the answer
        for key, bound in ((least, low), (most, high)):
            if bound is not None and (type(bound) is not int or not 0 <= bound <= REPETITIONS_MAX):
                self.refuse(f"has {key} {bound!r}, and it must lie between 0 and {REPETITIONS_MAX}")
        if high is not None and high < low:
            self.refuse(f"has {most} {high} below {least} {low}")
        self.repeat(low if high is None else high)
        return low, high


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list) else ()


def _without(schema: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != key}


def _kind_by_keys(schema: Mapping[str, Any]) -> str | None:
    """What a schema without a type can only mean."""
    for kind, keys in (
        ("object", _OF_OBJECTS),
        ("array", _OF_ARRAYS),
        ("string", (*_OF_STRINGS, "pattern")),
        ("number", (*_RANGE, "multipleOf")),
    ):
        if any(key in schema for key in keys):
            return kind
    return None


def _is_of(value: Any, kind: Any) -> bool:
    if isinstance(kind, list):
        return any(_is_of(value, one) for one in kind)
    match kind:
        case "object":
            return isinstance(value, Mapping)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "integer":
            return type(value) is int or (type(value) is float and value.is_integer())
        case "number":
            return type(value) in (int, float)
        case "boolean":
            return type(value) is bool
        case "null":
            return value is None
        case _:
            return True
