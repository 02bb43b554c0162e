"""Prompts that would not render: the line of a Jinja2 mistake, found before anyone talks to the agent. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jinja2.meta import find_referenced_templates

from astromesh.specs.agent import AgentSpec
from astromesh.specs.findings import Mistake, Path, dotted
from astromesh.specs.keys import Places
from astromesh.specs.sandbox import NotATemplate, Sandbox, compiled

_environment = Sandbox()
_PROMPTS: Path = ("spec", "prompts")


def template_mistakes(spec: AgentSpec, places: Places) -> Iterator[Mistake]:
    templates = spec.prompts.templates
    includes: dict[str, tuple[str, ...]] = {}
    for path, text in _texts(spec):
        if "{" not in text:
            continue
        try:
            # Parsing alone passes a name that no filter has.
            compiled(_environment, text)
            named = tuple(name for name in find_referenced_templates(_environment.parse(text)) if name is not None)
        except NotATemplate as error:
            place = places.of(path)
            line = place.mark.text_line + error.line - 1 if place.mark.text_line else place.mark.line
            said = f"the template cannot be read: {error}"
            remedy = "It is Jinja2; write {{ '{{' }} for a literal '{{'."
            yield Mistake(places.source, line, place.mark.column, dotted(place.written), said, remedy)
            continue
        if path[:-1] == (*_PROMPTS, "templates"):
            includes[str(path[-1])] = named
        for name in named:
            if name not in templates:
                known = f"There are: {', '.join(templates)}." if templates else "There are none in spec.prompts.templates."
                yield places.mistake(path, f"includes the template '{name}', which does not exist", known)
    for name in includes:
        if _reaches_itself(name, includes):
            yield places.mistake((*_PROMPTS, "templates", name), "includes itself, directly or by way of others", "Take one include out.")


def _texts(spec: AgentSpec) -> Iterator[tuple[Path, str]]:
    yield (*_PROMPTS, "system"), spec.prompts.system
    yield (*_PROMPTS, "context"), spec.prompts.context
    for name, text in spec.prompts.templates.items():
        yield (*_PROMPTS, "templates", name), text
    for key in ("workers", "stages"):
        for number, member in enumerate(getattr(spec.orchestration, key)):
            yield ("spec", "orchestration", key, number, "prompt"), member.prompt or ""


def _reaches_itself(name: str, includes: Mapping[str, tuple[str, ...]]) -> bool:
    waiting, seen = list(includes[name]), []
    while waiting:
        if (next_ := waiting.pop()) == name:
            return True
        if next_ not in seen:
            seen.append(next_)
            waiting += includes.get(next_, ())
    return False
