"""Whatever the text, there is an answer: resources or mistakes with a line that exists, and never an exception."""

from __future__ import annotations

from typing import NoReturn

from hypothesis import given, settings
from hypothesis import strategies as st

from astromesh.specs.parse import parse, parse_document

GOOD = """\
apiVersion: astromesh/v1
kind: Agent
metadata: {name: desk, labels: {a: b}}
spec:
  model:
    primary: &p {provider: openai, model: m, api_key: sk-secret, parameters: {temperature: 0.5, stop: [x]}}
    fallback: [*p]
  prompts:
    system: |
      Hello {{ name }}, ${HUSH} ${TONE:-kind}
  orchestration: {max_iterations: 3}
  tools:
    - {type: builtin, name: datetime_now}
  memory: {conversational: {backend: in_memory}}
"""
PIECES = [
    "\n", "\t", "  ", "- ", ": ", "{", "}", "[", "]", "&p ", "*p", "<<: *p", "---\n", "...\n", "!!x ", "| ", '"', "'", "#", "${", "}}",
    "{% if", "\x00", "é", "null", "~", "1e999", "name", "spec:", "? ", "%YAML 1.1\n", "𝄞", "\ud800",
]  # fmt: skip
KEYS = st.sampled_from(["name", "kind", "model", "type", "x"]) | st.text(max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD)), st.sampled_from(PIECES), st.integers(0, 30)), min_size=1, max_size=4))
def test_a_damaged_document_is_read_or_explained(damages: list[tuple[int, str, int]]) -> None:
    text = GOOD
    for place, piece, cut in damages:
        text = text[:place] + piece + text[place + cut :]
    parsed = parse(text, source="f.yaml", environment={"HUSH": "from-the-environment"})
    assert parsed.resources or parsed.mistakes
    for finding in (*parsed.mistakes, *parsed.warnings):
        assert 1 <= finding.line <= text.count("\n") + 1
        assert "from-the-environment" not in str(finding)
        assert "\n" not in str(finding)


@settings(max_examples=200, deadline=None)
@given(JSON, st.sampled_from(["model", "orchestration", "tools", "memory", "guardrails", "prompts", "permissions"]))
def test_any_json_in_a_spec_is_read_or_explained(value: object, key: str) -> None:
    spec = {"model": {"primary": {"provider": "local", "model": "m"}}, key: value}
    document = {"apiVersion": "astromesh/v1", "kind": "Agent", "metadata": {"name": "a"}, "spec": spec}
    parsed = parse_document(document, source="body", environment={})
    assert parsed.resources or parsed.mistakes
    for agent in parsed.agents:
        assert agent.as_document()["metadata"]["name"] == "a"


class Bottomless(dict[str, str]):
    """An environment that fails in a way that nobody foresaw."""

    def get(self, key: str, default: object = None) -> NoReturn:
        raise RecursionError("the value of a secret")


def test_a_failure_that_nobody_foresaw_is_a_mistake_of_its_own_document() -> None:
    other = "---\napiVersion: astromesh/v1\nkind: Agent\nmetadata: {name: b}\nspec: {model: {primary: {provider: local, model: m}}}\n"
    parsed = parse(GOOD + other, source="f.yaml", environment=Bottomless())
    assert [agent.name for agent in parsed.agents] == ["b"]
    [broken] = parsed.broken
    assert (broken.kind, broken.name) == ("Agent", "desk")
    [mistake] = parsed.mistakes
    assert str(mistake).startswith("f.yaml:1: this cannot be read, for a reason that nobody foresaw: RecursionError in test_any_text.py:")
    assert "secret" not in str(mistake)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_or_explained(text: str) -> None:
    parsed = parse(text, source="f.yaml", environment={})
    assert parsed.resources or parsed.mistakes
