"""Agents with guardrails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from astromesh.guardrails.rails import rails_of
from astromesh.runtime.agent import Agent
from astromesh.specs.agent import Guardrails

Written = Sequence[Mapping[str, Any]]


def guarded(agent: Agent, *, input: Written = (), output: Written = ()) -> Agent:  # noqa: A002  as documents call it
    """`agent` with these rules, written as in a document."""
    rails = rails_of(Guardrails.model_validate({"input": input, "output": output}))
    return replace(agent, rails=rails, part=replace(agent.part, screened=rails.screens))
