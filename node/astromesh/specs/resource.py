"""What every resource has besides its own spec: a name, where it stands, and what of it is not honoured. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from astromesh.specs.findings import Caution, Mistake
from astromesh.specs.masking import shown
from astromesh.specs.section import Metadata, Section

API_VERSION = "astromesh/v1"
DEFAULT_NAMESPACE = "default"
S = TypeVar("S", bound=Section)


def qualified(name: str, namespace: str) -> str:
    """The one text by which a resource is known on all nodes: its name, behind its namespace where that is not the usual one.

    Neither holds a slash, so no two resources share it.
    """
    return name if namespace == DEFAULT_NAMESPACE else f"{namespace}/{name}"


def key_of(reference: str, *, within: str) -> str:
    """The key of an agent that a document of the namespace `within` names: as NAME one of its own, as NAMESPACE/NAME any."""
    namespace, _, name = reference.rpartition("/")
    return qualified(name, namespace or within)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource(Generic[S]):
    metadata: Metadata
    spec: S = field(repr=False)  # its free-form parts may hold secrets that nothing marks as such
    source: str  # the file, or whatever the text came from
    line: int  # of the document's first key
    written: Mapping[str, Any] = field(repr=False)  # with canonical keys, before any variable was looked up
    lines: Mapping[str, int] = field(repr=False)  # of every key that was written, by its dotted path
    warnings: tuple[Caution, ...] = ()

    @property
    def kind(self) -> str:
        raise NotImplementedError

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    @property
    def key(self) -> str:
        return qualified(self.name, self.namespace)

    def place(self, path: str) -> str:
        """`file:line` of a key, or of the document where the key is not written."""
        line = self.lines.get(path, self.line)
        return f"{self.source}:{line}" if line else self.source

    def as_document(self) -> dict[str, Any]:
        """What was written, as JSON values with the canonical spelling of each key, secrets masked."""
        return {
            "apiVersion": API_VERSION,
            "kind": self.kind,
            "metadata": shown({**self.written.get("metadata", {}), "name": self.name, "namespace": self.namespace}),
            "spec": shown(self.written.get("spec", {})),
        }


@dataclass(frozen=True, slots=True)
class Listed:
    """A document of a kind that is known and not run yet: shown, with a warning."""

    kind: str
    name: str
    source: str
    line: int


@dataclass(frozen=True, slots=True)
class Broken:
    """A document with mistakes. `kind` and `name` as far as they could be read, else empty."""

    kind: str
    name: str
    namespace: str
    source: str
    line: int
    mistakes: tuple[Mistake, ...]
