"""A JSON Schema becomes the grammar of what obeys it, or is refused by name before it can cost anybody time."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.astromesh.inference.gbnf import matches

from astromesh.errors import InvalidRequest
from astromesh.inference.grammar import json_grammar, object_grammar
from astromesh.inference.rules import READINGS_MAX, REPETITIONS_MAX

TREE = {
    "type": "object",
    "properties": {"v": {"type": "number"}, "kids": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["v"],
}
CONDITION = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "anyOf": [
                {"type": "object", "properties": {"and": {"type": "array", "items": {"$ref": "#/$defs/node"}}}, "required": ["and"]},
                {"type": "object", "properties": {"is": {"type": "string"}}, "required": ["is"]},
            ]
        }
    },
}


def grammar(schema: Any, *, strict: bool = True) -> str:
    return json_grammar(schema, param="response_format", strict=strict)


def refusal(schema: Any, *, strict: bool = True) -> str:
    with pytest.raises(InvalidRequest) as refused:
        grammar(schema, strict=strict)
    assert refused.value.param == "response_format"
    assert refused.value.hint
    return refused.value.message


@pytest.mark.parametrize(
    ("schema", "obeying", "others"),
    [
        ({"type": "string"}, ["", "Köln", 'a "b" \\ \n'], [1, None]),
        ({"type": "integer"}, [0, -7, 123], [1.5, "1"]),
        ({"type": "number"}, [0, -7.25, 1e22], ["1", True]),
        ({"type": "boolean"}, [True, False], [None]),
        ({"type": ["string", "null"]}, ["a", None], [1]),
        ({"type": "integer", "minimum": 2, "maximum": 4}, [2, 3, 4], [1, 5]),
        ({"type": "integer", "minimum": 1}, [1, 99], [0, -1]),
        ({"type": "integer", "exclusiveMinimum": -1}, [0, 99], [-1]),
        ({"enum": ["coder", "a|b", "Grüße", 7, None]}, ["coder", "a|b", "Grüße", 7, None], ["code", 8]),
        ({"type": "string", "enum": ["a", None]}, ["a"], [None, "b"]),
        ({"const": [1]}, [[1]], [[], [2]]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "abc"], ["a", "abcd"]),
        ({"type": "string", "format": "date"}, ["2024-02-29"], ["2024-13-01", "x"]),
        ({"type": "string", "format": "date-time"}, ["2024-02-29T23:59:00Z"], ["2024-02-29"]),
        ({"type": "string", "format": "uuid"}, ["123e4567-e89b-12d3-a456-426614174000"], ["123"]),
        ({"type": "array", "items": {"type": "integer"}}, [[], [1], [1, 2]], [["a"], 1]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2}, [[1], [1, 2]], [[], [1, 2, 3]]),
        ({"type": "array", "items": {}, "maxItems": 0}, [[]], [[1]]),
        ({"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]}, [["a", 1]], [["a"], ["a", 1, 2]]),
        ({"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "null"}}, [["a"], ["a", None]], [["a", 1]]),
        ({}, [1, "a", None, {"a": [1, {"b": 2}]}], []),
        ({"type": "object"}, [{}, {"a": {"b": []}}], [[], 1]),
        ({"type": "object", "properties": {}, "additionalProperties": False}, [{}], [{"a": 1}]),
        (
            {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}, "required": ["b"]},
            [{"b": "x"}, {"a": 1, "b": "x"}],
            [{"a": 1}, {"b": "x", "a": 1}, {"b": "x", "c": 1}, {}],
        ),
        (
            {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {"type": "null"}}},
            [{}, {"a": None}, {"b": None}, {"c": None}, {"a": None, "c": None}, {"a": None, "b": None, "c": None}],
            [{"c": None, "a": None}],
        ),
        (
            {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}},
            [{}, {"a": 1}, {"z": "x"}, {"a": 1, "y": "x", "z": "x"}],
            [{"z": 1}],
        ),
        ({"properties": {"a": {}}, "required": ["a", "b"]}, [{"a": 1, "b": [2]}], [{"a": 1}]),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, [1, "a"], [None]),
        (
            {"type": "object", "properties": {"a": {"type": "null"}}, "anyOf": [{"required": ["a"]}, {"properties": {"b": {"const": 1}}}]},
            [{"a": None}, {"a": None, "b": 1}, {"b": 1}],
            [{"c": 1}],
        ),
        (
            {"allOf": [{"$ref": "#/$defs/named"}, {"properties": {"age": {"type": "integer"}}, "required": ["age"]}],
             "$defs": {"named": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}}},
            [{"name": "x", "age": 1}],
            [{"name": "x"}, {"age": 1}],
        ),
        (TREE, [{"v": 1}, {"v": 1.5, "kids": [{"v": 2, "kids": []}, {"v": 3}]}], [{"kids": []}, {"v": 1, "kids": [1]}]),
        (CONDITION, [{"is": "x"}, {"and": [{"is": "x"}, {"and": []}]}], [{"and": [{"or": []}]}]),
        ({"$ref": "#/definitions/a~1b", "definitions": {"a/b": {"const": 1}}}, [1], [2]),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_schema_becomes_the_grammar_of_what_obeys_it(schema: Any, obeying: list[Any], others: list[Any]) -> None:
    rules = grammar(schema)
    for value in obeying:
        for separators in ((",", ":"), (", ", ": ")):
            assert matches(rules, json.dumps(value, ensure_ascii=False, separators=separators)), value
    for value in others:
        assert not matches(rules, json.dumps(value, ensure_ascii=False, separators=(",", ":"))), value


def test_what_is_no_json_obeys_no_schema() -> None:
    for text in ('"a\nb"', '"a', "01", "{,}", "[1,]", '{"a" 1}', "nul", "", '"\\x"'):
        assert not matches(grammar({}), text), text


def test_any_object_and_nothing_else_is_a_json_object() -> None:
    assert matches(object_grammar(), '{"a": [1, {"b": null}], "ä": "\\u00e4"}')
    assert not matches(object_grammar(), "[1]")


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "string", "pattern": "^a+$"}, "pattern"),
        ({"type": "number", "minimum": 1}, "minimum"),
        ({"type": "integer", "maximum": 7}, "maximum"),
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "properties": {"a": {"not": {"type": "null"}}}}, "not"),
        ({"type": "string", "format": "email"}, "format"),
        ({"allOf": [{"type": "integer"}, {"multipleOf": 7}]}, "multipleOf"),
    ],
)
def test_what_a_grammar_cannot_hold_a_model_to_is_refused_where_strict_and_else_left_out(schema: Any, named: str) -> None:
    assert f"has {named}," in refusal(schema)
    assert grammar(schema, strict=False)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"$ref": "https://example.com/schema.json"}, r"\$ref that is no text, or leads out"),
        ({"$ref": {"a": 1}}, r"\$ref that is no text"),
        ({"$ref": "#/$defs/none"}, "what is not there"),
        ({"$ref": "#"}, "refers to itself"),
        ({"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}}}, "itself"),
        ({"allOf": [{"$ref": "#"}]}, "itself|deeper|more than"),
        ({"anyOf": [{"allOf": [{"$ref": "#"}]}]}, "itself|deeper|more than"),
        ({"oneOf": [{"type": "null"}, {"allOf": [{"$ref": "#"}]}]}, "itself|deeper|more than"),
        ({"type": "text"}, "a type that is none of"),
        ({"type": []}, "a type that is none of"),
        ({"type": "object", "properties": []}, "properties that are no object"),
        ({"type": "object", "properties": {"a": False}}, "allows nothing"),
        ({"type": "object", "required": "a"}, "required that is no list"),
        ({"enum": []}, "enum that is no list, or an empty one"),
        ({"type": "string", "enum": [1]}, "no value is of its type"),
        ({"anyOf": {}}, "anyOf that is no list"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "two different things by type"),
        ({"type": "array", "items": {}, "minItems": REPETITIONS_MAX + 1}, "minItems"),
        ({"type": "array", "items": {}, "minItems": 3, "maxItems": 2}, "maxItems 2 below minItems 3"),
        ({"type": "string", "maxLength": "7"}, "maxLength"),
        ({"type": "array", "prefixItems": [{}], "minItems": 2}, "more items than it describes"),
    ],
)  # fmt: skip
def test_what_is_no_schema_is_refused_with_what_is_wrong(schema: Any, named: str) -> None:
    assert re.search(named, refusal(schema, strict=False))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "maxLength": REPETITIONS_MAX + 1},
        {"type": "array", "items": {"type": "integer"}, "maxItems": 10**9},
        {"type": "object", "properties": {f"p{n}": {"type": "string", "maxLength": 900} for n in range(5)}},
    ],
    ids=lambda schema: schema["type"],
)
def test_an_upper_limit_too_high_to_be_written_out_is_left_out_where_the_schema_is_not_strict(schema: Any) -> None:
    """A tool whose text may have 2,000 characters can be called by a model of this mesh, too."""
    assert json_grammar(schema, param="tools", strict=False)
    assert refusal(schema)


def _nested(levels: int) -> Any:
    schema: Any = {}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def _chain(links: int, step: Any) -> Any:
    return {"$ref": "#/$defs/d0", "$defs": {f"d{n}": step({"$ref": f"#/$defs/d{n + 1}"}) for n in range(links)} | {f"d{links}": {}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": list(range(READINGS_MAX + 1))},
        {"type": "object", "properties": {f"p{n}": {} for n in range(READINGS_MAX)}},
        {"anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "array", "items": {"$ref": "#"}, "maxItems": 3}]},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "additionalProperties": {"$ref": "#"}},
        _chain(12, lambda then: {"anyOf": [{"type": "array", "items": then}, {"type": "array", "items": then, "minItems": 1}]}),
        _chain(30, lambda then: {"allOf": [then, then]}),
        _chain(500, lambda then: {"type": "object", "properties": {"a": then}}),
        _nested(100),
        {"type": "object", "properties": {f"p{n}": {"type": "string", "maxLength": 900} for n in range(5)}},
        {"description": "x" * 70_000},
        {"enum": [list(range(9000))]},
    ],
    ids=lambda schema: json.dumps(schema)[:50],
)
def test_a_schema_that_would_cost_everybody_time_is_refused(schema: Any) -> None:
    assert refusal(schema)


def test_alternatives_that_differ_in_their_first_property_may_contain_themselves_and_others_may_stand_side_by_side() -> None:
    assert grammar(CONDITION)
    side_by_side = {"anyOf": [{"type": "object", "properties": {"a": {}, f"b{n}": {}}, "required": ["a"]} for n in range(20)]}
    assert grammar(side_by_side)
    tagged = [{"type": "object", "properties": {"kind": {"const": kind}, "of": {"$ref": "#"}}, "required": ["kind"]} for kind in ("x", "y")]
    assert grammar({"anyOf": tagged})
