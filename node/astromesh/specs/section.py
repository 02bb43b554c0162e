"""What all resources are made of: a base for their sections, and the kinds of value that occur in them. Pure.

Keys are spelled in snake_case here; `keys` has turned camelCase and other spellings into that before a section sees them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar, TypeGuard
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_core import PydanticCustomError

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DURATION = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>ms|s|m|h|d)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
MASK = "***"
IDLE_UNLOAD_S_MAX = 30 * 86_400.0
RETENTION_S_MAX = 10 * 366 * 86_400.0  # ten years: as long as any law asks to keep letters; for ever is no ttl at all


class Section(BaseModel):
    """A mapping of known keys. `ALSO` holds spellings that other versions and dialects use for them."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False, hide_input_in_errors=True)
    ALSO: ClassVar[Mapping[str, str]] = {}


def plain(value: Any) -> Any:
    """JSON's own kinds of value, for what is passed on as it is."""
    match value:
        case Decimal():
            return float(value)
        case dict():
            return {key: plain(inner) for key, inner in value.items()}
        case list():
            return [plain(inner) for inner in value]
        case _:
            return value


def as_written(value: Any) -> Any:
    """As JSON values that read the same: a fraction that would lose a digit, as a version may, becomes text."""
    match value:
        case Decimal():
            return float(value) if str(float(value)) == str(value) else str(value)
        case dict():
            return {key: as_written(inner) for key, inner in value.items()}
        case list():
            return [as_written(inner) for inner in value]
        case _:
            return value


def _seconds(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    found = _DURATION.fullmatch(value.strip())
    if found is None:
        raise PydanticCustomError(
            "duration", "{expected}", {"expected": "expected a time in seconds", "remedy": "Write 30, or 30s, 500ms, 2m, 1h, 30d."}
        )
    return float(found["number"]) * _UNIT_S[found["unit"] or "s"]


def is_name(value: object) -> TypeGuard[str]:
    """Whether it can name a resource: a label as DNS has it, so safe in paths, addresses and logs."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def is_agent_reference(value: object) -> TypeGuard[str]:
    """Whether it can name an agent from within a document: NAME, of the document's own namespace, or NAMESPACE/NAME."""
    return isinstance(value, str) and value.count("/") <= 1 and all(is_name(part) for part in value.split("/"))


def _agent_reference(value: Any) -> Any:
    if isinstance(value, str) and not is_agent_reference(value):
        said = {"expected": "this cannot be the name of an agent", "remedy": "Write NAME, or NAMESPACE/NAME for one of another namespace."}
        raise PydanticCustomError("agent", "{expected}", said)
    return value


def _name(value: str) -> str:
    if not is_name(value):
        remedy = "Use at most 63 of a-z, 0-9 and '-', with a letter or a digit first and last."
        raise PydanticCustomError("name", "{expected}", {"expected": "this cannot be a name", "remedy": remedy})
    return value


def _url(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        parts = urlsplit(value.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise PydanticCustomError(
            "url", "{expected}", {"expected": "this is no address of a server", "remedy": "Write http://HOST:PORT or https://HOST."}
        )
    return value.strip()


def _secret(value: Any) -> Any:
    return str(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else value


Json = Annotated[Any, BeforeValidator(plain)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=86_400)]  # a day: longer is a unit that was mistaken
Retention = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=RETENTION_S_MAX)]
Idle = Annotated[float, BeforeValidator(_seconds), Field(ge=0, le=IDLE_UNLOAD_S_MAX)]  # 0: never
Name = Annotated[str, BeforeValidator(lambda value: _name(value) if isinstance(value, str) else value)]
AgentReference = Annotated[str, BeforeValidator(_agent_reference)]
Url = Annotated[str, BeforeValidator(_url)]
Secret = Annotated[SecretStr, BeforeValidator(_secret)]
Port = Annotated[int, Field(ge=0, le=65_535)]  # 0: any that is free
Texts = tuple[str, ...]


class Metadata(Section):
    name: Name = Field(examples=["support-desk"])
    version: str | None = Field(default=None, examples=["1.0.0"])
    namespace: Name = Field(default="default", examples=["default"])
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}


class FileMetadata(Metadata):
    """Of kinds that a node has once, so that nobody has to name them."""

    name: Name = Field(default="default", examples=["default"])
