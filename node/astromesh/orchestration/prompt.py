"""Prompts as templates: Jinja2 in its sandbox, where an undefined variable is empty. Pure.

The sandbox forbids private attributes and mutation of what it is given; what it cannot forbid, a text that grows without end, is bounded
here. What an expression computes on the way is not: prompts are written by who runs the agent, and what others say fills them in only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from jinja2 import ChainableUndefined, DictLoader, TemplateSyntaxError
from jinja2.exceptions import SecurityError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from astromesh.errors import AgentUnusable

RENDERED_CHARACTERS_MAX = 400_000  # about 100,000 tokens: more than any context window that a LAN serves


class _Sandbox(ImmutableSandboxedEnvironment):
    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        """Says so: an undefined that chains would swallow the refusal, and the prompt would silently lack a part."""
        raise SecurityError(f"{attribute} of a {type(obj).__name__} is out of reach of templates")


_environment = _Sandbox(undefined=ChainableUndefined, autoescape=False, keep_trailing_newline=False)


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
            self._compiled = environment.from_string(text)
            if self._constant is None:
                self.mentions = frozenset(find_undeclared_variables(environment.parse(text)))
        except TemplateSyntaxError as mistake:
            raise AgentUnusable(
                f"{where}: line {mistake.lineno} of the template: {mistake.message}", hint="see the template syntax of Jinja2"
            ) from mistake

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text, cut of surrounding white space. Raises `AgentUnusable` where the template itself fails or grows beyond the limit."""
        if self._constant is not None:
            return self._constant.strip()
        written: list[str] = []
        length = 0
        try:
            # As one mapping: a caller's variable may be called `self`, too.
            for piece in self._compiled.generate(variables):
                length += len(piece)
                if length > RENDERED_CHARACTERS_MAX:
                    raise AgentUnusable(
                        f"{self.where}: renders to more than {RENDERED_CHARACTERS_MAX} characters", hint="bound the template's loops"
                    )
                written.append(piece)
        except AgentUnusable:
            raise
        except Exception as failure:
            raise AgentUnusable(
                f"{self.where}: cannot be rendered: {type(failure).__name__}: {failure}", hint="check the template's expressions"
            ) from failure
        return "".join(written).strip()
