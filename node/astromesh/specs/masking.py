"""A document as it may be shown: as it was written, and without its secrets. Pure.

Written means before `${NAME}` was looked up, so nothing of the environment is in it; a whole `${NAME}` is no secret and stays. What is
masked: texts and numbers under a key that names a secret, whatever lies in `headers` and `env`, and in every address its user, its
password and the values of its query.
"""

from __future__ import annotations

import re
from typing import Any

from astromesh.specs.section import MASK

_SECRET_ENDINGS = (
    "api_key", "apikey", "password", "passphrase", "secret", "authorization", "token", "private_key", "dsn", "connection", "credentials",
)  # fmt: skip
_SECRET_MAPPINGS = ("headers", "env")  # free ones, whose texts are secrets, or may be, whatever they are called
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s<>\"'`]+")
_BEHIND = re.compile(r"[?&#;]")
# In an address alone; what is masked looks like this, too, so it is what nobody may send back.
MASKED = re.compile(rf"\A{re.escape(MASK)}\Z|://{re.escape(MASK)}@|[?&#;][^=&#;\s]*={re.escape(MASK)}(?=[&#;\s]|\Z)")


def names_a_secret(key: Any) -> bool:
    return isinstance(key, str) and re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower().replace("-", "_").endswith(_SECRET_ENDINGS)


def shown(document: Any) -> Any:
    return _shown(document, secret=False)


def _shown(value: Any, *, secret: bool) -> Any:
    match value:
        case dict():
            return {key: _under(key, inner, value, secret=secret) for key, inner in value.items()}
        case list() | tuple():
            return [_shown(inner, secret=secret) for inner in value]
        case str() if secret:
            return value if _is_reference(value) else MASK
        case bool() | None:
            return value
        case int() | float() if secret:
            return MASK
        case str() if "://" in value:
            whole = _ADDRESS.fullmatch(value.strip()) is not None
            return _ADDRESS.sub(lambda found: _address(found.group(), whole=whole), value)
        case _:
            return value


def _under(key: Any, inner: Any, mapping: dict[Any, Any], *, secret: bool) -> Any:
    if isinstance(inner, dict) and (key == "output_schema" or (key == "parameters" and isinstance(mapping.get("type"), str))):
        return inner  # a schema says which values there are, and holds none
    return _shown(inner, secret=secret or names_a_secret(key) or (key in _SECRET_MAPPINGS and isinstance(inner, dict)))


def _address(text: str, *, whole: bool) -> str:
    """Within a longer text only those values go whose names say that they are secret: the rest belongs to what is told there."""
    scheme, _, rest = text.partition("://")
    end = next((place for place, sign in enumerate(rest) if sign in "/?#"), len(rest))
    authority, behind = rest[:end], rest[end:]
    user, at, host = authority.rpartition("@")
    if at and not _is_reference(user):
        authority = f"{MASK}@{host}"
    place = next((found.start() for found in _BEHIND.finditer(behind)), len(behind))
    pieces = re.split(r"([?&#;])", behind[place:])
    query = "".join(piece if number % 2 else _pair(piece, whole=whole) for number, piece in enumerate(pieces))
    return f"{scheme}://{authority}{behind[:place]}{query}"


def _pair(text: str, *, whole: bool) -> str:
    name, equals, value = text.partition("=")
    if not equals or not value or _is_reference(value) or not (whole or names_a_secret(name) or name.lower() == "key"):
        return text
    return f"{name}={MASK}"


def _is_reference(text: str) -> bool:
    return text.startswith("${") and text.endswith("}") and text.count("${") == 1 and ":-" not in text
