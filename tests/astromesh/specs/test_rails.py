"""Guardrails as documents write them: what cannot work is a mistake, what costs something is said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from astromesh.specs.agent import Guardrail, GuardrailType
from astromesh.specs.parse import Parsed, parse


def written(rules: str, *, direction: str = "input") -> Parsed:
    document = "apiVersion: astromesh/v1\nkind: Agent\nmetadata: {name: a}\nspec:\n  model: {primary: {provider: local, model: m}}\n"
    return parse(f"{document}  guardrails:\n    {direction}:\n{rules}", source="a.agent.yaml", environment={})


@pytest.mark.parametrize(
    ("rule", "path", "said", "remedy"),
    [
        ("{type: max_length}", "", "a max_length without max_chars guards nothing", "Add 'max_chars: 5000'."),
        ("{type: topic_filter}", "", "without blocked_topics or allowed_topics guards nothing", "Add 'blocked_topics: [medicine]'."),
        ("{type: content_filter, forbidden_keywords: []}", "", "without forbidden_keywords or blocked_patterns", "forbidden_keywords"),
        ("{type: cost_limit, action: block}", "", "guards nothing", "Add 'max_tokens_per_turn: 4000'."),
        ("{type: cost_limit, max_tokens_per_turn: 9, action: redact}", ".action", "nothing to redact in a cost_limit", "'action: block'"),
        ("{type: topic_filter, allowed_topics: [a], action: redact}", ".action", "mentions no allowed topic", "'action: block'"),
        ("{type: content_filter, blocked_patterns: ['(a)\\1']}", ".blocked_patterns[0]", "cannot be used: invalid escape sequence", "RE2"),
        ("{type: content_filter, blocked_patterns: [a, '(?=b)']}", ".blocked_patterns[1]", "cannot be used", "without look-around"),
        ("{type: content_filter, blocked_patterns: ['a*']}", ".blocked_patterns[0]", "matches where there is nothing", "Write +"),
        ("{type: content_filter, blocked_patterns: ['((a{100}){100}){100}']}", ".blocked_patterns[0]", "cannot be used", "RE2"),
        ('{type: content_filter, forbidden_keywords: [a, "\\u200b "]}', ".forbidden_keywords[1]", "nothing in this word", "Remove it."),
        ("{type: topic_filter, blocked_topics: [%s]}" % ("x" * 101), ".blocked_topics[0]", "longer than 100", "Name a part of it."),
        ("{type: topic_filter, blocked_topics: [%s]}" % ("a," * 1001), ".blocked_topics", "1001 words, and 1000", "Write patterns"),
        ("{type: pii_detection, action: remove}", ".action", "one of redact, block, warn", ""),
    ],
)
def test_a_rule_that_cannot_do_what_it_says_is_a_mistake_at_its_place(rule: str, path: str, said: str, remedy: str) -> None:
    parsed = written(f"      - {{type: pii_detection}}\n      - {rule}\n")
    [mistake] = parsed.mistakes
    assert (mistake.line, mistake.path) == (9, f"spec.guardrails.input[1]{path}")
    assert said in mistake.message
    assert remedy in mistake.remedy
    assert parsed.agents == ()


@pytest.mark.parametrize(
    ("rule", "path", "said"),
    [
        ("{type: pii_detection, max_chars: 5}", ".max_chars", "is not used by a pii_detection"),
        ("{type: pii_detection, message: Hush.}", ".message", "for rules that block"),
    ],
)
def test_a_key_that_its_rule_does_not_use_is_named(rule: str, path: str, said: str) -> None:
    parsed = written(f"      - {rule}\n")
    [caution] = parsed.warnings
    assert (caution.line, caution.path) == (8, f"spec.guardrails.input[0]{path}")
    assert said in caution.message
    assert len(parsed.agents) == 1


@pytest.mark.parametrize(
    "rule",
    [
        "{type: pii_detection, action: block}",
        "{type: topic_filter, blocked_topics: [a]}",
        "{type: topic_filter, allowed_topics: [a]}",
        "{type: max_length, max_chars: 5}",
        "{type: content_filter, forbidden_keywords: [a]}",
        "{type: content_filter, blocked_patterns: ['a+'], action: redact}",
    ],
)
def test_a_rule_for_answers_that_lets_nothing_stream_says_so_and_on_questions_it_does_not(rule: str) -> None:
    [caution] = written(f"      - {rule}\n", direction="output").warnings
    assert caution.path == "spec.guardrails.output[0]"
    assert "held back until its end" in caution.message
    assert written(f"      - {rule}\n").warnings == ()


@pytest.mark.parametrize(
    "rule",
    [
        "{type: pii_detection}",
        "{type: pii_detection, action: warn}",
        "{type: topic_filter, allowed_topics: [a], action: warn}",
        "{type: max_length, max_chars: 5, action: redact}",
        "{type: content_filter, blocked_patterns: ['a{1,9}'], action: redact}",
        "{type: content_filter, blocked_patterns: ['a+'], action: warn}",
        "{type: cost_limit, max_tokens_per_turn: 5}",
    ],
)
def test_a_rule_under_which_answers_stream_is_not_spoken_of(rule: str) -> None:
    parsed = written(f"      - {rule}\n", direction="output")
    assert (parsed.mistakes, parsed.warnings) == ((), ())


def test_the_example_of_the_public_project_is_taken_with_its_own_spellings() -> None:
    rules = "      - {type: max_length, max_characters: 5000}\n      - {type: topic_filter, forbidden_topics: [war]}\n"
    [agent] = written(rules).agents
    first, second = agent.spec.guardrails.input
    assert (first.max_chars, first.does, second.blocked_topics) == (5000, "block", ("war",))


def test_the_document_of_the_documentation_works_and_each_type_and_key_has_its_row() -> None:
    text = (Path(__file__).parents[3] / "docs" / "guardrails.md").read_text()
    [example] = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    parsed = parse(example, source="guardrails.md", environment={})
    assert ([str(mistake) for mistake in parsed.mistakes], parsed.warnings) == ([], ())
    rows = {found[0]: found[1] for found in re.findall(r"(?m)^\| `(\w+)` \|(.*)$", text)}
    assert set(rows) >= set(get_args(GuardrailType))
    table = "".join(rows.values())
    keys = {*Guardrail.model_fields, *Guardrail.ALSO} - {"type", "action", "message"}
    assert [key for key in sorted(keys) if f"`{key}`" not in table] == []
