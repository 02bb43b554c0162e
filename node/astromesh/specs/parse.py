"""From the text of a file to the resources in it. Pure.

Every document goes its own way: envelope, variables, canonical keys, types, and what of it is honoured. The first step that finds a mistake
it cannot see past ends that document and no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import ValidationError

from astromesh.specs.agent import Agent, AgentDocument
from astromesh.specs.documents import Document, Mark, read_documents, too_large
from astromesh.specs.findings import FINDINGS_MAX, Caution, Mistake, Path, dotted, unforeseen
from astromesh.specs.honoured import LISTED_KINDS, RUN_KINDS, unhonoured
from astromesh.specs.keys import Canonical, canonical, guess
from astromesh.specs.members import member_findings
from astromesh.specs.provider import ProviderConfig, ProviderConfigDocument, ProviderDocument, ProviderResource
from astromesh.specs.rails import rail_findings
from astromesh.specs.resource import API_VERSION, Broken, Listed
from astromesh.specs.roles import role_findings
from astromesh.specs.runtime import Runtime, RuntimeDocument
from astromesh.specs.section import Section, as_written
from astromesh.specs.substitution import Substitution
from astromesh.specs.templates import template_mistakes
from astromesh.specs.tools import tool_findings
from astromesh.specs.validation import explain

F = TypeVar("F", Mistake, Caution)
AnyResource = Agent | ProviderConfig | ProviderResource | Runtime | Listed

_API_VERSIONS = (API_VERSION, "astromesh.io/v1alpha1")
_MISSPELT_API_VERSION = "astromech/v1"  # stands in files that the public project shipped
_DOCUMENTS: Mapping[str, type[AgentDocument | ProviderConfigDocument | ProviderDocument | RuntimeDocument]] = {
    "Agent": AgentDocument,
    "ProviderConfig": ProviderConfigDocument,
    "Provider": ProviderDocument,
    "RuntimeConfig": RuntimeDocument,
}
_UNCHANNELLED = ("channels",)  # the one key of a channels.yaml, which has no envelope


@dataclass(frozen=True, slots=True)
class Parsed:
    """`mistakes` are all that were found, also those of the `broken` documents; `warnings` also those of the `resources`."""

    resources: tuple[AnyResource, ...] = ()
    broken: tuple[Broken, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    warnings: tuple[Caution, ...] = ()
    empty: bool = False  # there is no document in it; also one mistake

    @property
    def agents(self) -> tuple[Agent, ...]:
        return tuple(resource for resource in self.resources if isinstance(resource, Agent))


def parse(text: str, *, source: str, environment: Mapping[str, str]) -> Parsed:
    """The resources of a file, each whole or not at all. Raises nothing, whatever the text."""
    documents, unreadable = read_documents(text, source=source)
    if not documents and not unreadable:
        said, remedy = "there is nothing in it", "Describe a resource (apiVersion, kind, metadata, spec), or delete the file."
        return Parsed(mistakes=(Mistake(source, 1, 1, "", said, remedy),), empty=True)
    lost = tuple(Broken("", "", "", source, mistake.line, (mistake,)) for mistake in unreadable)
    return _together([_one(document, source, environment) for document in documents], lost)


def parse_document(value: Any, *, source: str, environment: Mapping[str, str]) -> Parsed:
    """The same for one document that came as JSON values, so without lines."""
    if why := too_large(value):
        mistake = Mistake(source, 0, 0, "", why, "No resource needs that.")
        return _together([], (Broken("", "", "", source, 0, (mistake,)),))
    return _together([_one(Document(value, dict(_texts(value, ()))), source, environment)], ())


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, Mark]]:
    """Every text of JSON values as it was sent, before any variable was looked up: that may be shown, the variable's value not."""
    match value:
        case str():
            yield path, Mark(0, 0, value)
        case dict():
            for key, inner in value.items():
                yield from _texts(inner, (*path, key))
        case list():
            for number, inner in enumerate(value):
                yield from _texts(inner, (*path, number))


def _together(parts: list[Parsed], lost: tuple[Broken, ...]) -> Parsed:
    broken = tuple(sorted((*(item for part in parts for item in part.broken), *lost), key=lambda item: item.line))
    return Parsed(
        resources=tuple(item for part in parts for item in part.resources),
        broken=broken,
        mistakes=tuple(mistake for item in broken for mistake in item.mistakes),
        warnings=tuple(caution for part in parts for caution in part.warnings),
    )


def _one(document: Document, source: str, environment: Mapping[str, str]) -> Parsed:
    try:
        return _read(document, source, environment)
    except Exception as failure:  # noqa: BLE001  one document never keeps the node from the others
        kind = document.value.get("kind") if isinstance(document.value, dict) else None
        top = document.marks.get((), Mark(0, 0))
        mistake = Mistake(source, top.line, top.column, "", *unforeseen(failure))
        return _broken(document, kind if isinstance(kind, str) else "", source, [mistake], [])


def _read(document: Document, source: str, environment: Mapping[str, str]) -> Parsed:
    kind, mistakes, cautions = _envelope(document, source)
    if kind in LISTED_KINDS and not mistakes:
        return _listed(document, kind, source)
    if not mistakes and kind in _DOCUMENTS:
        return _resource(document, kind, source, environment, cautions)
    return _broken(document, kind, source, mistakes, cautions)


def _envelope(document: Document, source: str) -> tuple[str, list[Mistake], list[Caution]]:
    """The kind, and what is wrong with the part that all kinds share."""
    top = document.marks.get((), Mark(0, 0))

    def mistake(path: Path, message: str, remedy: str) -> Mistake:
        mark = document.marks.get(path, top)
        return Mistake(source, mark.line, mark.column, dotted(path), message, remedy)

    value = document.value
    if not isinstance(value, dict):
        found = "a list" if isinstance(value, list) else "a single value"
        remedy = "Begin with apiVersion, kind, metadata and spec; separate several resources by a line '---'."
        return "", [mistake((), f"expected a mapping, found {found}", remedy)], []
    if "apiVersion" not in value and "kind" not in value and tuple(value) == _UNCHANNELLED:
        return "Channel", [], []
    mistakes: list[Mistake] = list(document.mistakes)
    cautions: list[Caution] = []
    version, kind = value.get("apiVersion"), value.get("kind")
    if version == _MISSPELT_API_VERSION:
        mark = document.marks.get(("apiVersion",), top)
        said = f"'{version}' is read as '{API_VERSION}'"
        cautions.append(Caution(source, mark.line, mark.column, "apiVersion", said, f"Write 'apiVersion: {API_VERSION}'."))
    elif version not in _API_VERSIONS:
        message = "is missing" if version is None else "this version of the format is not known"
        mistakes.append(mistake(("apiVersion",), message, f"Write 'apiVersion: {API_VERSION}'."))
    known = (*RUN_KINDS, *LISTED_KINDS)
    if not isinstance(kind, str) or kind not in known:
        message = "is missing" if kind is None else "this kind is not known"
        hint = guess(kind, dict.fromkeys(known)) if isinstance(kind, str) else ""
        mistakes.append(mistake(("kind",), message, f"{hint}Kinds: {', '.join(known)}."))
    return kind if isinstance(kind, str) else "", mistakes, cautions


def _listed(document: Document, kind: str, source: str) -> Parsed:
    value, top = document.value, document.marks.get((), Mark(0, 0))
    if "kind" not in value and isinstance(value["channels"], dict):
        named = [(str(name), document.marks.get(("channels", name), top)) for name in value["channels"]]
    else:
        metadata = value.get("metadata")
        named = [(str(metadata.get("name", "")) if isinstance(metadata, dict) else "", top)]
    said = f"documents of kind {kind} are listed and not run yet"
    return Parsed(
        resources=tuple(Listed(kind, name, source, mark.line) for name, mark in named),
        warnings=tuple(Caution(source, mark.line, mark.column, name, said) for name, mark in named),
    )


def _resource(document: Document, kind: str, source: str, environment: Mapping[str, str], cautions: list[Caution]) -> Parsed:
    section = _DOCUMENTS[kind]
    substitution = Substitution(environment, source=source, marks=document.marks)
    settled = canonical(substitution.of(document.value), section, source=source, marks=document.marks)
    mistakes = [*substitution.mistakes, *settled.mistakes]
    told = [*cautions, *substitution.cautions, *settled.cautions]
    try:
        model = section.model_validate(settled.value)
    except ValidationError as error:
        unset = {mistake.path for mistake in substitution.mistakes}  # said already: the variable is missing, not the value wrong
        mistakes += [mistake for mistake in explain(error, settled.value, section, settled.places) if mistake.path not in unset]
        return _broken(document, kind, source, mistakes, told)
    in_vain, refused = unhonoured(kind, settled.value, settled.places)
    mistakes += refused
    told += in_vain
    if isinstance(model, AgentDocument):
        mistakes += template_mistakes(model.spec, settled.places)
        for finding in (
            *rail_findings(model.spec.guardrails, settled.places),
            *role_findings(model.spec, settled.places),
            *tool_findings(model.spec, settled.places),
            *member_findings(model.spec, settled.places, name=model.metadata.name, namespace=model.metadata.namespace),
        ):
            (mistakes if isinstance(finding, Mistake) else told).append(finding)  # type: ignore[arg-type]
    if mistakes:
        return _broken(document, kind, source, mistakes, told)
    written = as_written(canonical(document.value, section, source=source, marks=document.marks).value)
    resource = _built(model, settled, written, source=source, warnings=_bounded(told))
    return Parsed(resources=(resource,), warnings=resource.warnings)


def _built(
    model: Section, settled: Canonical, written: Mapping[str, Any], *, source: str, warnings: tuple[Caution, ...]
) -> Agent | ProviderConfig | ProviderResource | Runtime:
    lines = {dotted(path): place.mark.line for path, place in settled.places.by_path.items() if path}
    place: dict[str, Any] = {
        "source": source, "line": settled.places.of(()).mark.line, "written": written, "lines": lines, "warnings": warnings,
    }  # fmt: skip
    match model:
        case AgentDocument():
            return Agent(metadata=model.metadata, spec=model.spec, **place)
        case ProviderConfigDocument():
            return ProviderConfig(metadata=model.metadata, spec=model.spec, **place)
        case ProviderDocument():
            return ProviderResource(metadata=model.metadata, spec=model.spec, **place)
        case RuntimeDocument():
            return Runtime(metadata=model.metadata, spec=model.spec, **place)
        case _:
            raise AssertionError(f"{type(model).__name__} is in _DOCUMENTS and not here")


def _broken(document: Document, kind: str, source: str, mistakes: list[Mistake], cautions: list[Caution]) -> Parsed:
    metadata = document.value.get("metadata") if isinstance(document.value, dict) else None
    names = metadata if isinstance(metadata, dict) else {}
    name, namespace = names.get("name"), names.get("namespace")
    broken = Broken(
        kind=kind,
        name=name if isinstance(name, str) else "",
        namespace=namespace if isinstance(namespace, str) else "default",
        source=source,
        line=document.marks.get((), Mark(0, 0)).line,
        mistakes=_bounded(mistakes),
    )
    return Parsed(broken=(broken,), mistakes=broken.mistakes, warnings=_bounded(cautions))


def _bounded(findings: list[F]) -> tuple[F, ...]:
    """In the order of the file; where there are too many, the last one says that there are more."""
    ordered = sorted(findings, key=_order)
    if len(ordered) > FINDINGS_MAX:
        ordered[FINDINGS_MAX:] = [
            replace(ordered[FINDINGS_MAX], path="", message="there is more of this further down", remedy="Mend these first.")
        ]
    return tuple(ordered)


def _order(finding: Mistake | Caution) -> tuple[int, int, str]:
    return finding.line, finding.column, finding.path
