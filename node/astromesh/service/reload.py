"""What another state of the files means for a node that runs: whether it may be taken over, what it changes, what waits for a start. Pure.

A mistake that was there before and whose file has not changed keeps its own document from being used and nothing else, as at the start.
Any other one keeps everything as it is: whoever changed the files meant all of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from astromesh.errors import ReloadRefused
from astromesh.service.config_dir import Configuration
from astromesh.service.standings import Standing, findings
from astromesh.specs.findings import Mistake
from astromesh.specs.runtime import Runtime, RuntimeSpec

V = TypeVar("V")
_TAKEN_OVER = ("defaults", "tools")  # of a RuntimeConfig's spec; all else is read at the start


def new_mistakes(before: Configuration, after: Configuration) -> tuple[Mistake, ...]:
    known = set(before.mistakes)

    def is_new(mistake: Mistake) -> bool:
        return mistake not in known or before.digests.get(mistake.source) != after.digests.get(mistake.source)

    return tuple(mistake for mistake in after.mistakes if is_new(mistake))


def newly_broken(before: Mapping[str, Standing], after: Mapping[str, Standing], *, said: Sequence[Mistake]) -> tuple[str, ...]:
    """Agents that could not run any more, beside what is said of their files."""
    texts = set(map(str, said))
    return tuple(
        f"agent {key}: {one.broken}"
        for key, one in after.items()
        if one.broken and one.broken not in texts and (key not in before or before[key].broken != one.broken)
    )


def refusal(mistakes: tuple[Mistake, ...], broken: tuple[str, ...]) -> ReloadRefused:
    texts = [*map(str, mistakes), *broken]
    rows = [
        *findings(mistakes),
        *({"source": "", "line": 0, "column": 0, "path": "", "message": text, "remedy": "", "text": text} for text in broken),
    ]
    counted = "a mistake" if len(texts) == 1 else f"{len(texts)} mistakes"
    return ReloadRefused(
        "\n".join((f"nothing was changed, because of {counted}:", *texts)),
        hint="mend the files and reload them again; astromesh-node config validate looks at them, too",
        details={"mistakes": rows},
    )


def written_agents(configuration: Configuration) -> Mapping[str, object]:
    """What the files say of agents, by key, wherever in them it stands."""
    return {agent.key: (agent.metadata, agent.spec) for agent in configuration.agents}


def written_providers(configuration: Configuration) -> Mapping[str, object]:
    return {name: provider.spec for name, provider in configuration.providers.items()}


def same_surroundings(before: Configuration, after: Configuration, *, running: Runtime) -> bool:
    """Whether an agent of the same document would call the same servers and functions in the same way."""

    def of(configuration: Configuration) -> tuple[object, ...]:
        spec = (configuration.runtime or running).spec
        return written_providers(configuration), configuration.routing, spec.defaults, spec.tools

    return of(before) == of(after)


def difference(before: Mapping[str, V], after: Mapping[str, V]) -> dict[str, list[str]]:
    return {
        "added": sorted(after.keys() - before.keys()),
        "changed": sorted(key for key in after.keys() & before.keys() if after[key] != before[key]),
        "removed": sorted(before.keys() - after.keys()),
    }


def restart_needed(running: Runtime, written: Runtime) -> list[str]:
    """Sections of the node's own file that say something else than what it runs on."""
    return [
        f"{written.place(f'spec.{section}')}: spec.{section} counts from the next start"
        for section in RuntimeSpec.model_fields
        if section not in _TAKEN_OVER and getattr(running.spec, section) != getattr(written.spec, section)
    ]


def in_a_line(answer: Mapping[str, Any]) -> str:
    """What was reloaded, for the log."""
    parts = [
        f"{family} {what}: {', '.join(names)}" for family in ("agents", "providers") for what, names in answer[family].items() if names
    ]
    return "; ".join((*parts, *answer["restart_needed"])) or "nothing is another than before"
