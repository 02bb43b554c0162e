"""A model for a role that nothing plays is told, and which roles are played is what the scripts say."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import astromesh.orchestration.patterns as patterns
from astromesh.runtime import folding
from astromesh.specs.parse import Parsed, parse
from astromesh.specs.roles import PLAYED, SUMMARY

FOLDER = Path(patterns.__file__).parent


def roles_in(script: ast.Module) -> set[str]:
    """Every role that a script names outright."""
    constants = {
        target.id: statement.value.value
        for statement in script.body
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)
        for target in statement.targets
        if isinstance(target, ast.Name)
    }
    constants |= {"REASONER": "reasoner"}  # what other scripts import
    defaults = [
        (argument.arg, default)
        for node in ast.walk(script)
        if isinstance(node, ast.FunctionDef)
        for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    ]
    calls = [(keyword.arg, keyword.value) for node in ast.walk(script) if isinstance(node, ast.Call) for keyword in node.keywords]
    found = set()
    for name, value in (*defaults, *calls):
        if name == "role" and isinstance(value, ast.Constant):
            found.add(value.value)
        elif name == "role" and isinstance(value, ast.Name) and value.id in constants:
            found.add(constants[value.id])
    return found


@pytest.mark.parametrize("pattern", PLAYED)
def test_the_table_names_the_roles_that_the_script_of_a_pattern_plays(pattern: str) -> None:
    script = ast.parse((FOLDER / f"{pattern}.py").read_text())
    assert set(PLAYED[pattern]) == roles_in(script)  # type: ignore[index]


def test_summaries_are_written_in_their_role() -> None:
    assert f'choice("{SUMMARY}")' in Path(folding.__file__).read_text()


def document(roles: str, more: str = "") -> Parsed:
    model = f"  model:\n    primary: {{provider: local, model: m}}\n    roles:\n{roles}"
    return parse(
        f"apiVersion: astromesh/v1\nkind: Agent\nmetadata: {{name: a}}\nspec:\n{model}{more}", source="a.agent.yaml", environment={}
    )


def role(name: str) -> str:
    return f'      "{name}": {{candidates: [{{provider: local, model: n}}]}}\n'


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("reasoner", ""),
        ("planner", "  orchestration: {pattern: plan_and_execute}\n"),
        ("editor", "  orchestration: {pattern: supervisor, workers: [{name: editor, prompt: Edit.}]}\n"),
        ("stage:draft", "  orchestration: {pattern: pipeline, stages: [{name: draft, prompt: Draft.}]}\n"),
        ("poet", "  orchestration: {pattern: pipeline, stages: [{name: draft, prompt: Draft., role: poet}]}\n"),
        ("summary", "  memory: {conversational: {strategy: summary}}\n"),
        ("reasoner", "  orchestration: {pattern: plan_and_execute}\n  output_schema: {a: {type: string}}\n"),
    ],
)
def test_a_role_that_is_played_is_not_mentioned(name: str, more: str) -> None:
    parsed = document(role(name), more)
    assert ([str(one) for one in parsed.mistakes], [str(one) for one in parsed.warnings]) == ([], [])


def test_a_role_that_nothing_plays_is_told_at_its_line_with_those_that_there_are() -> None:
    [caution] = document(role("plannr"), "  orchestration: {pattern: plan_and_execute}\n").warnings
    assert str(caution) == (
        "a.agent.yaml:8: spec.model.roles.plannr: no step of this agent plays this role, so its models are never asked. "
        "Did you mean 'planner'? Roles of this agent: planner, synthesizer, worker."
    )
    [caution] = document(role("summary")).warnings  # nothing is summed up without a memory
    assert caution.path == "spec.model.roles.summary"


def test_the_default_is_no_role_of_its_own() -> None:
    [mistake] = document(role("default")).mistakes
    assert "roles.default" in mistake.message
    assert "spec.model.default" in mistake.remedy
