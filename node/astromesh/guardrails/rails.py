"""All guards of one agent. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from astromesh.guardrails.budget import Budget, budgets
from astromesh.guardrails.rules import Rule, rules
from astromesh.specs.agent import Guardrail, Guardrails


@dataclass(frozen=True, slots=True)
class Rails:
    """What is asked goes through `input`, earlier turns that a caller brings along through `past`, what models write through `output`."""

    input: tuple[Rule, ...] = ()
    past: tuple[Rule, ...] = ()
    output: tuple[Rule, ...] = ()
    budgets: tuple[Budget, ...] = ()
    written: tuple[Guardrail, ...] = ()  # the output rules as in the document: they go along to other nodes

    @property
    def screens(self) -> bool:
        """Whether a run has to be looked at before it begins."""
        return bool(self.input) or self.limits_sessions

    @property
    def limits_sessions(self) -> bool:
        return any(budget.session_tokens_max is not None for budget in self.budgets)


def rails_of(guardrails: Guardrails) -> Rails:
    asked = rules(guardrails.input)
    return Rails(
        input=asked,
        past=tuple(rule for rule in asked if not rule.of_answers),
        output=rules(guardrails.output),
        budgets=(*budgets(guardrails.input, direction="input"), *budgets(guardrails.output, direction="output")),
        written=tuple(rail for rail in guardrails.output if rail.type != "cost_limit"),
    )


def rails_from(written: tuple[Guardrail, ...]) -> Rails:
    """Of somebody elsewhere, whose words these rules bind as they bind its own."""
    return Rails(output=rules(written), written=written)
