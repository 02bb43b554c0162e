"""Every mistake is told with its line and with what to write instead."""

from __future__ import annotations

import pytest

from astromesh.specs.parse import Parsed, parse

HEAD = "apiVersion: astromesh/v1\nkind: Agent\nmetadata:\n  name: desk\nspec:\n"  # five lines
MODEL = "  model:\n    primary: {provider: local, model: smollm2}\n"  # two more
GOOD = HEAD + MODEL


def read(text: str, **environment: str) -> Parsed:
    return parse(text, source="agents/desk.agent.yaml", environment=environment)


BROKEN: dict[str, tuple[str, int, str, str]] = {
    # sentence: (text, line, what the message says, what the remedy says)
    "a tab": ("apiVersion: astromesh/v1\nspec:\n\tmodel: x\n", 3, "tab", "Use spaces"),
    "an open quote": ('kind: "Agent\n', 1, "never closed", "quotes"),
    "a colon inside plain text": ("kind: Agent: x\n", 1, "mapping values", "quotes"),
    "an unquoted variable inside braces": ("a: {b: ${HOME}}\n", 1, "", "${…} needs quotes"),
    "an unquoted template": (HEAD + "  prompts: {{ x }}\n", 6, "plain text", "quotes"),
    "a list at the top": ("# agents\n- kind: Agent\n", 2, "found a list", "---"),
    "a single word": ("hello\n", 1, "single value", "apiVersion"),
    "an empty file": ("", 1, "nothing in it", "delete the file"),
    "only comments": ("# one\n# two\n", 1, "nothing in it", "delete the file"),
    "a binary file": ("GGUF\x00\x01", 1, "U+0000", "UTF-8"),
    "a control character further down": ("a: 1\nb: \x1b[0m\n", 2, "U+001B", "UTF-8"),
    "an unknown tag": ("kind: !!python/object:os.system []\n", 1, "tag", "Remove it"),
    "deep nesting": ("a: " + "[" * 1000 + "]" * 1000, 1, "nested deeper than 32", "brackets"),
    "an alias inside itself": ("a: &a [1, *a]\n", 1, "inside what it stands for", "Write the value out"),
    "an alias of nothing": ("a: *b\n", 1, "b", ""),
    "a duplicate key": (GOOD + "  prompts: {}\n  prompts: {}\n", 9, "twice, first in line 8", "Keep one"),
    "a key in two spellings": (GOOD + "  orchestration:\n    timeout: 3\n    timeoutSeconds: 4\n", 10, "the same as 'timeout'", "Keep one"),
    "no apiVersion": ("kind: Agent\nmetadata: {name: a}\n", 1, "missing", "apiVersion: astromesh/v1"),
    "another apiVersion": ("apiVersion: v1\nkind: Agent\n", 1, "not known", "apiVersion: astromesh/v1"),
    "no kind": ("apiVersion: astromesh/v1\nmetadata: {}\n", 1, "missing", "Agent"),
    "a misspelt kind": ("apiVersion: astromesh/v1\nkind: Agnet\n", 2, "not known", "Did you mean 'Agent'?"),
    "no name": (GOOD.replace("  name: desk\n", "  version: 1\n"), 3, "missing", "Add 'name: support-desk'"),
    "a name with blanks": (GOOD.replace("desk", "My Desk"), 4, "cannot be a name", "a-z"),
    "a name that is no text": (GOOD.replace("desk", "[a]"), 4, "expected text, found a list", "name: support-desk"),
    "no spec": ("apiVersion: astromesh/v1\nkind: Agent\nmetadata: {name: a}\n", 1, "missing", "Add 'spec"),
    "a spec that says nothing": (HEAD, 1, "missing", "Add 'spec"),
    "no model": (HEAD + "  prompts: {system: x}\n", 5, "missing", "Add 'model"),
    "a model without a primary": (HEAD + "  model: {routing: {strategy: round_robin}}\n", 6, "no model is named", "primary"),
    "a target without a provider": (HEAD + "  model: {primary: {model: x}}\n", 6, "no provider", "provider: local"),
    "a target without a model": (HEAD + "  model:\n    primary:\n      provider: local\n", 7, "missing", "Add 'model: smollm2'"),
    "an unknown key at the top": ("metdata: {}\n" + GOOD, 1, "unknown key", "Did you mean 'metadata'?"),
    "an unknown key of metadata": (GOOD.replace("  name: desk", "  name: desk\n  lables: {}"), 5, "unknown key", "'labels'"),
    "an unknown key of the spec": (GOOD + "  tool: []\n", 8, "unknown key", "Did you mean 'tools'?"),
    "an unknown key further in": (GOOD + "  orchestration:\n    patern: react\n", 9, "unknown key", "Did you mean 'pattern'?"),
    "an unknown key in a list": (GOOD + "  tools:\n    - {type: rag,\n       descripton: y}\n", 10, "unknown key", "'description'"),
    "a key of another level": (GOOD + "  max_iterations: 3\n", 8, "unknown key", "It belongs at spec.orchestration.max_iterations"),
    "text for a whole number": (GOOD + "  orchestration:\n    max_iterations: ten\n", 9, "whole number, found 'ten'", "iterations: 10"),
    "a fraction for a whole number": (GOOD + "  orchestration: {max_iterations: 1.5}\n", 8, "whole number, found 1.5", "iterations: 10"),
    "a number out of bounds": (GOOD + "  orchestration: {max_iterations: 0}\n", 8, "at least 1, found 0", "iterations: 10"),
    "a list for a mapping": (GOOD + "  memory: [sqlite]\n", 8, "a mapping (key: value), found a list", ""),
    "a mapping for a list": (GOOD + "  tools: {name: x}\n", 8, "a list, found a mapping", "[first, second]"),
    "yes or no for text": (GOOD + "  prompts: {system: true}\n", 8, "text, found true", 'system: "true"'),
    "an unknown value": (GOOD + "  orchestration: {pattern: reakt}\n", 8, "swarm, team, found 'reakt'", "Did you mean 'react'?"),
    "a duration in no unit": (GOOD + "  orchestration: {timeout: 5 parsecs}\n", 8, "seconds", "500ms"),
    "an endpoint without a scheme": (HEAD + "  model: {primary: {provider: vllm, model: m, endpoint: gpu:8000}}\n", 6, "address", "http://"),
    "an infinite number": (GOOD[:-2] + ", parameters: {temperature: 1e999}}\n", 7, "a number", "temperature: 0.7"),
    "an unset variable": (GOOD + "  prompts:\n    system: ${TONE}\n", 9, "TONE is not set", "${TONE:-default}"),
    "an unset variable for a number": (GOOD + "  orchestration:\n    timeout: ${SECONDS}\n", 9, "SECONDS is not set", "Set it"),
    "an unset variable inside a block": (GOOD + "  prompts:\n    system: |\n      Be kind.\n      ${TONE}\n", 11, "TONE", "Set it"),
    "a template that does not parse": (GOOD + "  prompts:\n    system: |\n      Hello.\n      {% if x %}\n", 11, "template", "Jinja2"),
    "an unknown filter": (GOOD + "  prompts:\n    context: '{{ x | shuot }}'\n", 9, "shuot", "Jinja2"),
    "a swarm of one": (GOOD + "  orchestration:\n    pattern: swarm\n", 9, "a swarm needs peers, and there are none", "Add 'peers: [NAME"),
    "a tool without a type": (GOOD + "  tools:\n    - name: x\n", 9, "missing", "Add 'type: builtin'"),
    "a built-in tool without a name": (GOOD + "  tools:\n    - type: builtin\n", 9, "no name", "name: datetime_now"),
}  # fmt: skip


@pytest.mark.parametrize("sentence", BROKEN)
def test_a_mistake_is_told_with_its_line_and_its_remedy(sentence: str) -> None:
    text, line, message, remedy = BROKEN[sentence]
    parsed = read(text)
    assert len(parsed.mistakes) == 1, [str(mistake) for mistake in parsed.mistakes]
    [mistake] = parsed.mistakes
    assert mistake.line == line, str(mistake)
    assert message in mistake.message, str(mistake)
    assert remedy in mistake.remedy, str(mistake)
    assert not parsed.agents


def test_a_mistake_reads_as_one_good_line() -> None:
    [mistake] = read(GOOD + "  orchestration:\n    patern: react\n").mistakes
    line = str(mistake)
    assert line.startswith(
        "agents/desk.agent.yaml:9: spec.orchestration.patern: unknown key. Did you mean 'pattern'? Known here: pattern, "
    )
    assert "\n" not in line


def test_all_mistakes_of_a_document_are_told_in_the_order_of_the_file() -> None:
    text = GOOD + "  prompts: {sytem: hi}\n  orchestration: {max_iterations: ten}\n  memory: [x]\n  skils: []\n"
    assert [mistake.line for mistake in read(text).mistakes] == [8, 9, 10, 11]


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    levels = [f"k{n}: &k{n} [{', '.join([f'*k{n - 1}'] * 9)}]" for n in range(1, 30)]
    [mistake] = read("k0: &k0 [x, x, x, x, x, x, x, x, x]\n" + "\n".join(levels)).mistakes
    assert "aliases" in mistake.message


def test_too_many_values_and_too_long_a_text_are_refused() -> None:
    assert "5,000 values" in read("a: [" + "1," * 5_001 + "]").mistakes[0].message
    assert "too many" in read("# " + "x" * 2**20).mistakes[0].message


def test_a_document_that_does_not_parse_hides_no_other() -> None:
    parsed = read(GOOD + "---\nkind: Agent: broken\n---\n" + GOOD.replace("desk", "till") + "---\n" + HEAD.replace("desk", "void"))
    assert [agent.name for agent in parsed.agents] == ["desk", "till"]
    assert [(broken.name, broken.line) for broken in parsed.broken] == [("", 9), ("void", 19)]
    assert [mistake.line for mistake in parsed.mistakes] == [9, 19]


def test_a_broken_agent_keeps_its_name() -> None:
    [broken] = read(GOOD.replace("name: desk", "name: desk\n  namespace: sales") + "  nonsense: 1\n").broken
    assert (broken.kind, broken.name, broken.namespace, broken.line) == ("Agent", "desk", "sales", 1)


def test_no_secret_is_ever_in_a_message() -> None:
    text = HEAD + (
        "  model:\n    primary:\n      provider: openai\n      model: gpt\n      api_key: [sk-in-the-file]\n      timeout: ${HUSH}\n"
        "      endpoint: ftp://user:sk-in-the-url@host\n      api_key_env: [x]\n"
        "  orchestration: {max_iterations: '${HUSH}', pattern: '${HUSH}'}\n"
    )
    said = "\n".join(str(mistake) for mistake in read(text, HUSH="sk-from-the-environment").mistakes)
    assert len(said.splitlines()) == 6
    assert "sk-" not in said
    assert "HUSH" in said


def test_thousands_of_mistakes_are_told_by_the_first_hundred() -> None:
    for text in (
        GOOD + "".join(f"  k{number}: 1\n" for number in range(2000)),
        GOOD.replace("name: desk", "name: desk\n  labels: {" + ",".join(f"k{number}: []" for number in range(2000)) + "}"),
        GOOD + "  prompts:\n    system: |\n" + "      ${UNSET}\n" * 2000,
        "a: 1\n" * 2000,
    ):
        mistakes = read(text).mistakes
        assert len(mistakes) == 101
        assert mistakes[-1].message == "there is more of this further down"


def test_an_unset_variable_is_a_mistake_behind_any_number_of_odd_texts() -> None:
    parsed = read(GOOD + "  prompts: {system: '" + "${a b} " * 200 + "${UNSET}'}\n")
    assert [mistake.message for mistake in parsed.mistakes] == ["the environment variable UNSET is not set"]
    assert len(parsed.warnings) == 101


def test_many_documents_of_one_file_are_bounded() -> None:
    assert "more than 200 documents" in read("---\n" * 1000).mistakes[0].message


def test_a_text_cannot_make_its_mistake_two_lines() -> None:
    [mistake] = read(GOOD + '  "un\\nknown\\e[31m": 1\n').mistakes
    assert str(mistake).startswith("agents/desk.agent.yaml:8: spec.un known [31m: unknown key.")
