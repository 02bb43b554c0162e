"""Every piece of YAML in the documentation is what a node takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from astromesh.specs.agent import AgentSpec
from astromesh.specs.parse import parse, parse_document
from astromesh.specs.runtime import RuntimeSpec

TOP = Path(__file__).parents[3]
MODEL = {"primary": {"provider": "local", "model": "m"}}


def pieces() -> Iterator[Any]:
    for page in (TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))):
        for found in re.finditer(r"^```ya?ml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            line = page.read_text().count("\n", 0, found.start()) + 1
            yield pytest.param(found[1], id=f"{page.name}:{line}")


def whole(piece: Any) -> dict[str, Any]:
    """A document around a piece of one: what it leaves out is what every document has."""
    spec = piece.get("spec", piece)
    if "workers" in spec:
        spec = {"orchestration": {"pattern": "supervisor", **spec}}
    if set(spec) <= set(RuntimeSpec.model_fields) - set(AgentSpec.model_fields):
        return {"apiVersion": "astromesh/v1", "kind": "RuntimeConfig", "spec": spec}
    spec = {**spec, "model": {**MODEL, **spec.get("model", {})}}
    if "roles" in spec["model"] or spec.get("orchestration", {}).get("pattern") == "supervisor":
        spec["orchestration"] = {"pattern": "supervisor", "workers": ["a"], **spec.get("orchestration", {})}
    return {"apiVersion": "astromesh/v1", "kind": "Agent", "metadata": {"name": "desk"}, "spec": spec}


def test_there_are_pieces_to_look_at() -> None:
    assert len(list(pieces())) >= 17


@pytest.mark.parametrize("text", list(pieces()))
def test_every_piece_of_yaml_is_taken_without_a_mistake(text: str) -> None:
    piece = yaml.safe_load(text)
    names = dict.fromkeys(re.findall(r"\$\{(\w+)", text), "set")
    if "apiVersion" in piece:
        parsed = parse(text, source="page", environment=names)
    else:
        parsed = parse_document(whole(piece), source="page", environment=names)
    assert [str(mistake) for mistake in parsed.mistakes] == []
    assert parsed.resources


@pytest.mark.parametrize(("ttl", "seconds"), [("30d", 30 * 86_400.0), ("36h", 129_600.0), (604_800, 604_800.0), ("3650d", 3650 * 86_400.0)])
def test_a_conversation_may_be_kept_for_days_and_years(ttl: object, seconds: float) -> None:
    document = whole({"memory": {"conversational": {"ttl": ttl}}})
    [agent] = parse_document(document, source="page", environment={}).agents
    assert agent.remembering is not None
    assert agent.remembering.ttl_s == seconds
