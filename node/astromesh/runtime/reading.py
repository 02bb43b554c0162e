"""Reads what another node wrote: values of the kinds that are expected, or an error that says what was.

What these raise for a value of another kind is for `Reading`, around everything that reads one body.
"""

from __future__ import annotations

from typing import Any, NoReturn

from astromesh.errors import MalformedBody


def a_text(value: Any) -> str:
    return value if isinstance(value, str) else wrong("no text")


def some_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else wrong("no bytes")


def text_or_none(value: Any) -> str | None:
    return None if value is None else a_text(value)


def a_number(value: Any) -> int:
    return value if type(value) is int else wrong("no whole number")


def some_numbers(value: Any) -> tuple[int, ...]:
    return tuple(map(a_number, value)) if isinstance(value, list) else wrong("no list of numbers")


def an_object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else wrong("no object")


def one_of(known: tuple[str, ...], value: Any) -> str:
    return value if isinstance(value, str) and value in known else wrong(f"none of {', '.join(known)}")


def wrong(what: str) -> NoReturn:
    raise TypeError(what)


class Reading:
    """Turns whatever a malformed body makes Python raise into one error that says what was expected."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, mistake: BaseException | None, trace: object) -> None:
        if isinstance(mistake, (KeyError, TypeError, ValueError, AttributeError)):
            raise MalformedBody(
                f"the other node sent something that is not {self._what}", hint="do both nodes run the same version?"
            ) from mistake
