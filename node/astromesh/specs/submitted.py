"""Documents that come over the API and not from a file: whose they are, and what may not be in them. Pure.

Whoever may call the API is not always who may write files on the machine: a program to be started stands in files only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from astromesh.specs.documents import too_large
from astromesh.specs.findings import Mistake, Path, dotted
from astromesh.specs.masking import MASKED
from astromesh.specs.resource import DEFAULT_NAMESPACE
from astromesh.specs.section import MASK, is_name

SOURCE = "the document"


def identity(document: Mapping[str, Any], *, namespace: str | None) -> tuple[str, str] | None:
    """Name and namespace of an agent, both safe; None where it has none. `namespace` stands in for one that the document does not say."""
    metadata = document.get("metadata")
    if not isinstance(metadata, dict):
        return None
    name, own = metadata.get("name"), metadata.get("namespace")
    said = own if own is not None else namespace or DEFAULT_NAMESPACE
    return (name, said) if is_name(name) and is_name(said) else None


def placed(document: Mapping[str, Any], namespace: str) -> dict[str, Any]:
    """The same document, and its namespace in it."""
    return {**document, "metadata": {**document["metadata"], "namespace": namespace}}


def mistakes_of_origin(document: Any) -> tuple[Mistake, ...]:
    """What would be fine in a file, or could only be meant otherwise, in a document that came over the API."""
    if too_large(document):
        return ()  # which is said by whoever reads it
    found = [
        Mistake(
            SOURCE, 0, 0, dotted(path), f"'{MASK}' stands for a secret that is not shown",
            "Write the secret itself, or ${NAME} of the node's environment.",
        )
        for path, value in _texts(document, ())
        if MASK in value and MASKED.search(value)
    ]  # fmt: skip
    spec = document.get("spec") if isinstance(document, dict) else None
    tools = spec.get("tools") if isinstance(spec, dict) else None
    for number, tool in enumerate(tools if isinstance(tools, list) else ()):
        if isinstance(tool, dict) and tool.get("command") is not None:
            path = f"spec.tools[{number}].command"
            remedy = "Put this agent into a file of the node's configuration: agents/NAME.agent.yaml."
            found.append(Mistake(SOURCE, 0, 0, path, "no program is started on the word of a document that came over the API", remedy))
    return tuple(found)


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    match value:
        case dict():
            for key, inner in value.items():
                yield from _texts(inner, (*path, str(key)))
        case list():
            for number, inner in enumerate(value):
                yield from _texts(inner, (*path, number))
        case str():
            yield path, value
