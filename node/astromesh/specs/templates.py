"""Prompts that would not render: the line of a Jinja2 mistake, found before anyone talks to the agent. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from jinja2 import TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from astromesh.specs.agent import Prompts
from astromesh.specs.findings import Mistake, Path, dotted
from astromesh.specs.keys import Places

_environment = ImmutableSandboxedEnvironment()


def template_mistakes(prompts: Prompts, places: Places) -> Iterator[Mistake]:
    texts: list[tuple[Path, str]] = [(("spec", "prompts", "system"), prompts.system), (("spec", "prompts", "context"), prompts.context)]
    for path, text in texts:
        if "{" not in text:
            continue
        try:
            _environment.compile(text, raw=True)
        except TemplateSyntaxError as error:
            place = places.of(path)
            line = place.mark.text_line + error.lineno - 1 if place.mark.text_line else place.mark.line
            said = f"the template cannot be read: {error.message}"
            remedy = "It is Jinja2; write {{ '{{' }} for a literal '{{'."
            yield Mistake(places.source, line, place.mark.column, dotted(place.written), said, remedy)
