"""Schemas in documents: both ways of writing them, and what is said of a value that does not obey."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from astromesh.specs.schemas import COMPLAINT_CHARACTERS_MAX, COMPLAINTS_MAX, BadSchema, Schema, object_schema

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "wind": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        "places": {"type": "array", "items": {"type": "object", "required": ["lat"]}},
    },
    "required": ["city"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({}, '"city" is a required property'),
        ({"city": 7}, 'city: 7 is not of type "string"'),
        ({"city": "x"}, 'city: "x" is shorter than 2 characters'),
        ({"city": "Rome", "days": 2.5}, 'days: 2.5 is not of type "integer"'),
        ({"city": "Rome", "days": 20}, "days: 20 is greater than the maximum of 14"),
        ({"city": "Rome", "unit": "kelvin"}, 'unit: "kelvin" is not one of "celsius" or "fahrenheit"'),
        ({"city": "Rome", "wind": "much"}, "wind: expected boolean or null"),
        ({"city": "Rome", "places": [{"lat": 1}, {}]}, 'places[1]: "lat" is a required property'),
        ({"city": "Rome", "town": 1}, "Additional properties are not allowed ('town' was unexpected)"),
    ],
)
def test_a_complaint_names_the_path_and_what_was_expected(value: Any, said: str) -> None:
    assert Schema(WEATHER).complaints(value) == (said,)


def test_what_obeys_is_not_complained_about() -> None:
    assert Schema(WEATHER).complaints({"city": "Rome", "days": 3, "unit": "celsius", "wind": None, "places": [{"lat": 1}]}) == ()


def test_complaints_are_few_and_short_however_wrong_the_value_is() -> None:
    said = Schema({"items": {"type": "integer"}}).complaints(["x" * 10_000] * 100)
    assert len(said) == COMPLAINTS_MAX
    assert all(len(one) < COMPLAINT_CHARACTERS_MAX + 20 and one.endswith('is not of type "integer"') for one in said)


@pytest.mark.parametrize("value", [["x"] * 66_000, {"a": [["x"] * 66_000]}, [{"a": "x"}] * 30_000])
def test_of_a_large_value_the_first_mistake_is_told_and_the_others_are_not_looked_for(value: Any) -> None:
    """All of them take more than a second, in which nothing else happens."""
    schema = Schema({"$ref": "#/$defs/all", "$defs": {"all": {"type": ["array", "object", "integer"], "items": {"$ref": "#/$defs/all"},
        "additionalProperties": {"$ref": "#/$defs/all"}}}})  # fmt: skip
    [said] = schema.complaints(value)
    assert '"x" is not of type' in said


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({}, {"type": "object"}),
        ({"city": "string"}, {"city": {"type": "string"}}),
        ({"city": {"type": "string", "description": "its name"}}, {"city": {"type": "string", "description": "its name"}}),
        ({"type": {"type": "string"}}, {"type": {"type": "string"}}),
        ({"properties": {"type": "array"}}, {"properties": {"type": "array"}}),
    ],
)
def test_the_shorthand_is_an_object_of_these_keys_and_no_others(written: dict[str, Any], meant: dict[str, Any]) -> None:
    schema = object_schema(written)
    if written:
        assert schema == {"type": "object", "properties": meant, "required": list(meant), "additionalProperties": False}
    else:
        assert schema == meant


def test_in_the_shorthand_a_key_with_a_default_or_required_false_may_be_missing() -> None:
    schema = object_schema({"a": {"type": "string"}, "b": {"type": "integer", "default": 3}, "c": {"type": "boolean", "required": False}})
    assert schema["required"] == ["a"]
    assert schema["properties"]["c"] == {"type": "boolean"}


@pytest.mark.parametrize("whole", [WEATHER, {"properties": {"a": {"type": "string"}}}, {"anyOf": [{"required": ["a"]}]}])
def test_a_whole_schema_stays_as_it_is_written(whole: dict[str, Any]) -> None:
    assert object_schema(whole) == {"type": "object", **whole}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"a": {"type": "txt"}}, "properties.a.type: a type is one of"),
        ({"a": "txt"}, "properties.a.type: a type is one of"),
        ({"a": 3}, "a: expected a type or a schema"),
        ({"a": {"pattern": "("}}, "properties.a.pattern"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/nothing"}}}, "does not exist"),
    ],
)
def test_what_is_no_schema_is_refused_with_its_place(written: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSchema) as refused:
        Schema(object_schema(written))
    assert said in str(refused.value)


@pytest.mark.parametrize("elsewhere", ["http://127.0.0.1:9/schema.json", "file:///etc/passwd"])
def test_a_schema_that_is_somewhere_else_is_not_fetched(elsewhere: str) -> None:
    with pytest.raises(BadSchema, match="disabled"):
        Schema({"type": "object", "properties": {"a": {"$ref": elsewhere}}})


def test_a_pattern_takes_linear_time_and_one_that_could_not_is_refused() -> None:
    """Under a backtracking matcher the first takes longer than the universe is old: the test's own limit of time ends it then."""
    assert Schema({"pattern": "^(a+)+$"}).complaints("a" * 5000 + "b")
    with pytest.raises(BadSchema):
        Schema({"pattern": r"^(?=a)(\w)\1$"})


def test_the_library_is_loaded_by_the_first_schema_and_not_before() -> None:
    code = "import sys, astromesh.specs.parse; assert 'jsonschema_rs' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
