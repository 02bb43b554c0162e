"""What the program says of a key or a value when somebody writes it: asked of the program, for a document that holds it and no more."""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from tests.contracts.files import KINDS, steps

from astromesh.specs.findings import Finding
from astromesh.specs.keys import field_at
from astromesh.specs.parse import parse
from astromesh.specs.section import Section

SOURCE = "a.yaml"
_SERVER = {"type": "openai_compat", "endpoint": "http://box.example:8000"}
_BESIDE: Mapping[str, Mapping[str, Any]] = {
    "Agent spec.tools[]": {"type": "webhook", "name": "ticket", "endpoint": "http://tickets.example"},
    "Agent spec.knowledge": {"pipeline": "kb"},
    "ProviderConfig spec.providers.*": _SERVER,
    "ProviderConfig spec.providers.*.models[]": {"name": "m"},
    "Provider spec": _SERVER,
    "Provider spec.models[]": {"name": "m"},
    "RuntimeConfig spec.api.tls": {"cert": "a.pem", "key": "b.pem"},
    "RuntimeConfig spec.defaults.orchestration.stages[]": {"name": "a"},
    "RuntimeConfig spec.defaults.orchestration.workers[]": {"name": "a", "prompt": "b"},
    "RuntimeConfig spec.defaults.orchestration.peers[]": {"agent": "a"},
}  # what must stand beside a key


@dataclass(frozen=True, slots=True)
class Sample:
    """A document with one key, and what is said of that key there, without the file and the line."""

    document: Mapping[str, Any]
    said: str

    @property
    def text(self) -> str:
        return yaml.safe_dump(dict(self.document), sort_keys=False)


@cache
def sample(item: str) -> Sample:
    kind, _, rest = item.partition(" ")
    if kind == "kind":
        document = {"apiVersion": "astromesh/v1", "kind": rest, "metadata": {"name": "desk"}, "spec": {}}
        parsed = parse(yaml.safe_dump(document), source=SOURCE, environment={})
        return Sample(document, " ".join(f"{warning.message}." for warning in parsed.warnings))
    path, _, value = rest.partition(": ")
    document = _envelope(kind)
    _set(document, kind, steps(path), value or _value(KINDS[kind], path))
    parsed = parse(yaml.safe_dump(document, sort_keys=False), source=SOURCE, environment={})
    told: list[Finding] = [warning for warning in parsed.warnings if _is_above(_generic(warning.path), path)]
    if value:  # a word that is refused, where others are taken
        told += [mistake for mistake in parsed.mistakes if _generic(mistake.path) == path]
    return Sample(document, " ".join(dict.fromkeys(_sentence(finding) for finding in told)))


def _generic(path: str) -> str:
    return re.sub(r"\[\d+\]", "[]", path).replace(".box", ".*")


def _is_above(found: str, path: str) -> bool:
    return path == found or path.startswith((f"{found}.", f"{found}[]"))


def _sentence(finding: Finding) -> str:
    where = _generic(finding.path)
    return f"`{where}` {finding.message.rstrip('.')}." + (f" {finding.remedy}" if finding.remedy else "")


def _envelope(kind: str) -> dict[str, Any]:
    document: dict[str, Any] = {"apiVersion": "astromesh/v1", "kind": kind, "metadata": {"name": "desk"}, "spec": {}}
    if kind == "Agent":
        document["spec"]["model"] = {"primary": {"provider": "local", "model": "smollm2"}}
    if kind == "Provider":
        document["spec"] = dict(_SERVER)
    return document


def _set(document: dict[str, Any], kind: str, path: tuple[str | int, ...], value: Any) -> None:
    """Writes a value, and on the way down whatever must stand beside it."""
    here: Any = document
    so_far = kind + " "
    for place, step in enumerate(path):
        last = place == len(path) - 1
        below: Any = value if last else [] if path[place + 1] == 0 else {}
        if step == 0:
            so_far += "[]"
            here.append(value if last else {**_BESIDE.get(so_far, {}), **below})
            here = here[0]
            continue
        so_far += ("" if so_far.endswith(" ") else ".") + str(step)
        key = "box" if step == "*" else step
        if last:
            here[key] = value
        else:
            here.setdefault(key, {**_BESIDE.get(so_far, {}), **below} if isinstance(below, dict) else below)
            here = here[key]


def _value(document: type[Section], path: str) -> Any:
    """Something that may stand there and asks for something."""
    info = field_at(document, steps(path))
    return _fitting(info.annotation, info.examples) if info is not None else "a"


def _fitting(annotation: Any, examples: Any = None) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _fitting(next(argument for argument in arguments if argument is not type(None)))
    if origin is Annotated:
        return _fitting(arguments[0])
    if origin is Literal:
        return arguments[0]
    if origin is tuple:
        return [_fitting(arguments[0])]
    if isinstance(annotation, type) and issubclass(annotation, Section):
        required = {name: info for name, info in annotation.model_fields.items() if info.is_required()}
        some = required or dict(list(annotation.model_fields.items())[:1])
        return {name: _fitting(info.annotation) for name, info in some.items()}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"a": _fitting(arguments[1])}
    return {bool: True, int: 5, float: 0.5}.get(annotation, "a")
