"""JSON Schemas as people write them into documents, and what of a value does not obey one. Pure.

jsonschema-rs reads them: it looks nothing up (`offline`), and its patterns take linear time, so no text that a model writes can make one
of them search for ever. It is imported on first use: a node whose agents have no tools does not load it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

PATTERN_BYTES_MAX = 2**20  # compiled; one that needs more is refused like any other mistake
COMPLAINTS_MAX = 5  # at once: who mends five things calls again, and learns of the rest
VALUES_MAX = 200  # of a value whose mistakes are all looked for
COMPLAINT_CHARACTERS_MAX = 300  # a value that is wrong is repeated in it, and may be long

_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_COMPOSED = ("$ref", "$defs", "anyOf", "oneOf", "allOf", "additionalProperties")


class BadSchema(ValueError):
    """No JSON Schema; says what is wrong with it."""


def object_schema(written: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object: as it is written, or from the shorthand `{key: {type: …}}` or `{key: type}`.

    In the shorthand every key is required unless it has a `default` or says `required: false`, and others are not taken. Raises `BadSchema`
    where a key has neither a type nor a schema.
    """
    if _is_whole(written):
        return {"type": "object", **written}
    properties: dict[str, Any] = {}
    required: list[str] = []
    for key, said in written.items():
        if not isinstance(said, str | Mapping):
            raise BadSchema(f"{key}: expected a type or a schema, such as {{type: string}}")
        inner = {"type": said} if isinstance(said, str) else dict(said)
        wanted = inner.get("required")
        if isinstance(wanted, bool):  # a list is JSON Schema's own, of an object within
            del inner["required"]
        properties[key] = inner
        if wanted is not False and "default" not in inner:
            required.append(key)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _is_whole(written: Mapping[str, Any]) -> bool:
    """A property may be called `type` or `properties`, too: then a mapping is below it, not what the keyword takes."""
    if not written or written.get("type") == "object" or any(key in written for key in _COMPOSED):
        return True
    properties = written.get("properties")
    return isinstance(properties, Mapping) and not isinstance(properties.get("type"), str)


class Schema:
    """A schema, compiled once."""

    __slots__ = ("_validator", "document")

    def __init__(self, document: Mapping[str, Any]) -> None:
        """Raises `BadSchema`."""
        self.document = document
        self._validator = _compiled(dict(document))

    def complaints(self, value: Any) -> tuple[str, ...]:
        """What is wrong with a value, by its path; nothing where it obeys. Of a large value the first mistake alone."""
        errors = islice(self._validator.iter_errors(value), COMPLAINTS_MAX) if _is_small(value) else self._first(value)
        return tuple(_complaint(error, self.document) for error in errors)

    def _first(self, value: Any) -> tuple[ValidationError, ...]:
        import jsonschema_rs

        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            return (error,)
        return ()


def _is_small(value: Any) -> bool:
    """Whether all its mistakes may be looked for: the library makes them all at once, 25 µs each."""
    waiting, seen = [value], 0
    while waiting and seen <= VALUES_MAX:
        match waiting.pop():
            case dict() as inner:
                seen += len(inner)
                waiting += inner.values() if seen <= VALUES_MAX else ()
            case list() as inner:
                seen += len(inner)
                waiting += inner if seen <= VALUES_MAX else ()
            case _:
                pass
    return seen <= VALUES_MAX


def _compiled(document: dict[str, Any]) -> Validator:
    import jsonschema_rs

    linear = jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES_MAX, dfa_size_limit=PATTERN_BYTES_MAX)
    try:
        return jsonschema_rs.validator_for(document, offline=True, pattern_options=linear)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as mistake:
        where = _path(getattr(mistake, "instance_path", ()))
        said = mistake.message.partition("\n")[0][:COMPLAINT_CHARACTERS_MAX]
        if where.rpartition(".")[2] == "type":
            said = f"a type is one of {', '.join(_TYPES)}"
        raise BadSchema(f"{where}: {said}" if where else said) from None
    except (ValueError, TypeError) as mistake:
        raise BadSchema(str(mistake).partition("\n")[0][:COMPLAINT_CHARACTERS_MAX]) from None


def _complaint(error: ValidationError, document: Mapping[str, Any]) -> str:
    where, said = _path(error.instance_path), error.message
    if error.kind.name in ("anyOf", "oneOf") and (types := _types(document, error.schema_path)):
        said = f"expected {' or '.join(types)}"
    if len(said) > COMPLAINT_CHARACTERS_MAX:
        # What is expected stands at the end, behind the value.
        said = f"{said[: COMPLAINT_CHARACTERS_MAX // 2]} … {said[-COMPLAINT_CHARACTERS_MAX // 2 :]}"
    return f"{where}: {said}" if where else said


def _types(document: Any, path: Sequence[str | int]) -> list[str]:
    """What the alternatives at a place of a schema want, where each of them says a type."""
    for step in path:
        inside = (isinstance(document, list) and isinstance(step, int)) or (isinstance(document, Mapping) and step in document)
        document = document[step] if inside else None
    alternatives = document if isinstance(document, list) else []
    types = [inner.get("type") for inner in alternatives if isinstance(inner, Mapping)]
    return [kind for kind in types if isinstance(kind, str)] if all(isinstance(kind, str) for kind in types) else []


def _path(path: Sequence[str | int]) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text
