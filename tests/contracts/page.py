"""`python -m tests.contracts.page` writes docs/contract.md: what works, by the tests that show it, and what is said of the rest.

Nothing here knows what works. It comes from the table of `shown`, and for the rest from the program: a node is asked for each route that
it does not have, and each key that does nothing is written into a document.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.contracts import surface
from tests.contracts.files import KINDS, keys
from tests.contracts.shown import shown
from tests.contracts.witness import Answer, Witness
from tests.contracts.words import sample

PAGE = Path(__file__).resolve().parents[2] / "docs" / "contract.md"

HEAD = """\
# The contract: what can be relied on

Made by `python -m tests.contracts.page` from the tests in `tests/contracts`, which ask running nodes over HTTP; a test keeps it up to date.
What is listed is shown by a test that saw it. What does not work yet stands under its own heading, with what its user is told: a node was
asked for the route, a document was read that has the key.
"""


async def made() -> str:
    """The whole page."""
    with TemporaryDirectory() as folder:
        async with Witness(Path(folder)).node({}, mesh=False) as node:
            missing = [(route, await node.ask(*_request(route))) for route in surface.MISSING_ROUTES]
    return page(missing)


def page(missing: Iterable[tuple[str, Answer]]) -> str:
    found = shown()
    lines = [HEAD, *_routes(missing), *_said(found), *_events(), *_behaviour(found)]
    lines += _kinds(found)
    for kind in KINDS:
        lines += _files(kind, found)
    return "\n".join(lines).rstrip() + "\n"


def _request(route: str) -> tuple[str, str, Any]:
    method, _, path = route.partition(" ")
    return method, re.sub(r"\{[a-z_]+\}", "x", path), None if method in ("GET", "DELETE") else {}


def _routes(missing: Iterable[tuple[str, Answer]]) -> Iterator[str]:
    yield "## Routes\n\nEach with and without a trailing slash. `[]` is any position in a list.\n"
    yield "| route | codes | takes | tells |\n|---|---|---|---|"
    for promise in surface.ROUTES:
        if not surface.missing(promise.route):
            takes = [*promise.asks.split(), *(f"?{name}" for name in promise.query.split())]
            codes = ", ".join(map(str, promise.codes))
            yield f"| `{promise.route}` | {codes} | {_code(takes)} | {_code(_folded(promise.tells.split()))} |"
    yield "\nDo not exist yet:\n\n| routes | what is answered |\n|---|---|"
    answers: dict[str, list[str]] = {}
    for route, answer in missing:
        answers.setdefault(f"{answer.status}: {_told(answer.body)}", []).append(route)
    yield from (f"| {_code(routes)} | {said} |" for said, routes in answers.items())
    yield ""


def _told(body: Any) -> str:
    said = body["error"]["message"] if "error" in body else f"{body['detail']}. {body['hint']}"
    return str(said)


def _folded(paths: Iterable[str]) -> list[str]:
    """`a.b a.c` as `a{b, c}`."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        above, _, last = path.rpartition(".")
        groups.setdefault(above, []).append(last)
    return [name for above, names in groups.items() for name in _together(above, names)]


def _together(above: str, names: list[str]) -> list[str]:
    if not above or len(names) == 1:
        return [f"{above}.{name}".removeprefix(".") for name in names]
    return [f"{above}{{{', '.join(names)}}}"]


def _said(found: Mapping[str, str]) -> Iterator[str]:
    yield "## Headers, failures, traces\n"
    rows = (
        ("headers of answers", "header ", surface.HEADERS),
        ("headers that are read", "asked header ", surface.ASKED_HEADERS),
        ("`X-Astromesh-Route`", "route ", surface.WAYS),
        ("keys of a problem (`application/problem+json`)", "", surface.PROBLEM_KEYS),
        *((f"`detail` of {code}", "", names.split()) for code, names in surface.DETAILS.items()),
        ("codes of 502 where no model answers", "", surface.MODEL_FAILURES),
        ("codes of other failures", "", surface.OTHER_FAILURES),
        ("spans of a trace", "span ", surface.SPANS),
    )
    yield "| | |\n|---|---|"
    for what, prefix, names in rows:
        yield f"| {what} | {_code(name for name in names if not prefix or f'{prefix}{name}' in found)} |"
    yield "\nDo not exist yet:\n\n| | what happens instead |\n|---|---|"
    yield from (f"| {what} | {instead} |" for what, instead in surface.MISSING.items())
    yield ""


def _events() -> Iterator[str]:
    yield "## Events of a run\n\nAs server-sent events with `stream: true`, and with `type` over the WebSocket.\n"
    yield "| event | keys |\n|---|---|"
    for kind, names in surface.EVENTS.items():
        if f"event {kind}" not in surface.MISSING:
            yield f"| `{kind}` | {_code(names.split())} |"
    yield ""


def _behaviour(found: Mapping[str, str]) -> Iterator[str]:
    yield "## Behaviour\n\n| | shown by |\n|---|---|"
    yield from (f"| {said} | {_sentence(found[f'behaviour: {said}'])} |" for said in surface.BEHAVIOUR)
    yield ""


def _kinds(found: Mapping[str, str]) -> Iterator[str]:
    kinds = [item for item in keys() if item.startswith("kind ")]
    works = [item.removeprefix("kind ") for item in kinds if item in found]
    yield f"## Kinds of documents\n\n{_code(works)}. Of the others it is said where they are written:\n"
    yield from (f"- {sample(item).said}" for item in kinds if item not in found)
    yield ""


def _files(kind: str, found: Mapping[str, str]) -> Iterator[str]:
    works: dict[str, list[str]] = {}
    does_nothing: dict[str, list[str]] = {}
    for item in keys():
        if item.startswith(f"{kind} "):
            name = item.partition(" ")[2]
            if item in found:
                works.setdefault(found[item], []).append(name)
            else:
                does_nothing.setdefault(re.sub(r"^`[^`]+` ", "", sample(item).said), []).append(name)
    yield f"## Keys of {kind}\n\n`*` is any name; after a colon stands a word that the key takes.\n\n| keys | shown by |\n|---|---|"
    yield from (f"| {_code(_folded_keys(names))} | {_sentence(test)} |" for test, names in works.items())
    if does_nothing:
        yield "\nDo nothing yet:\n\n| keys | what is said |\n|---|---|"
        yield from (f"| {_code(_folded_keys(names))} | {said} |" for said, names in does_nothing.items())
    yield ""


def _folded_keys(names: Iterable[str]) -> list[str]:
    """Words of one key together, then keys of one section."""
    by_key: dict[str, list[str]] = {}
    for name in names:
        key, _, word = name.partition(": ")
        by_key.setdefault(key, []).extend([word] if word else [])
    return _folded(f"{key}: {'|'.join(words)}" if words else key for key, words in by_key.items())


def _sentence(test: str) -> str:
    name, _, case = test.rpartition("::")[2].removesuffix("]").partition("[")
    return name.removeprefix("test_").replace("_", " ") + (f" ({case.replace('_', ' ')})" if case else "")


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`".replace("|", "\\|") for name in names)


if __name__ == "__main__":
    PAGE.write_text(asyncio.run(made()), encoding="utf-8")
