"""Prompts as templates, where an undefined variable is empty. Pure; what they may do, and how much, stands in `specs.sandbox`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import DictLoader
from jinja2.meta import find_undeclared_variables

from astromesh.errors import AgentUnusable, PromptUnrenderable
from astromesh.specs.sandbox import NotATemplate, Sandbox, TakesTooMuch, compiled, metered

RENDERED_CHARACTERS_MAX = 400_000  # about 100,000 tokens: more than any context window that a LAN serves
FAILURE_CHARACTERS_MAX = 200  # Jinja repeats what it could not use, whatever its length

_environment = Sandbox()


class Template:
    """A prompt, compiled once. Its agent's named templates can be included: `{% include "greeting" %}`."""

    __slots__ = ("_compiled", "_constant", "mentions", "where")

    def __init__(self, text: str, *, where: str, named: Mapping[str, str] | None = None) -> None:
        """`where` names the key for messages ("prompts.system of agent hello"). Raises `AgentUnusable` with the line of a syntax error."""
        self.where = where
        self.mentions: frozenset[str] = frozenset()  # the variables that it asks for itself, those of what it includes aside
        # Most prompts have nothing to fill in: they are themselves.
        self._constant = text if "{" not in text else None
        environment = _environment.overlay(loader=DictLoader(dict(named))) if named and self._constant is None else _environment
        try:
            self._compiled = compiled(environment, text)
        except NotATemplate as mistake:
            raise AgentUnusable(
                f"{where}: line {mistake.line} of the template: {mistake}", hint="see the template syntax of Jinja2"
            ) from mistake
        if self._constant is None:
            self.mentions = frozenset(find_undeclared_variables(environment.parse(text)))

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text, cut of surrounding white space. Raises `PromptUnrenderable` where that fails or grows beyond the limit."""
        if self._constant is not None:
            return self._constant.strip()
        written: list[str] = []
        length = 0
        try:
            with metered():
                # As one mapping: a caller's variable may be called `self`, too.
                for piece in self._compiled.generate(variables):
                    length += len(piece)
                    if length > RENDERED_CHARACTERS_MAX:
                        raise PromptUnrenderable(
                            f"{self.where}: renders to more than {RENDERED_CHARACTERS_MAX} characters", hint="bound the template's loops"
                        )
                    written.append(piece)
        except PromptUnrenderable:
            raise
        except TakesTooMuch as much:
            raise PromptUnrenderable(f"{self.where}: cannot be rendered: {much}", hint="bound the template's loops and numbers") from much
        except Exception as failure:
            raise PromptUnrenderable(
                f"{self.where}: cannot be rendered: {type(failure).__name__}: {str(failure)[:FAILURE_CHARACTERS_MAX]}",
                hint="check the template's expressions, and the types of what context brings along",
            ) from failure
        return "".join(written).strip()
