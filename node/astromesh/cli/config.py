"""What was written, and what comes of it: every mistake with its line, every setting with its origin, and what a node takes over."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from astromesh.cli import failures, surroundings
from astromesh.cli.options import Chosen, config_option, examples, json_option, print_json, url_option
from astromesh.cli.terminal import table, warn
from astromesh.cli.verbs import Verbs, help_unless_verb
from astromesh.errors import ConfigurationError

if TYPE_CHECKING:
    from astromesh.service.config_dir import Configuration


@click.group(cls=Verbs)
@click.pass_context
def config(context: click.Context) -> None:
    """The configuration: checked and shown, which needs no running node, and read again by one that runs."""
    help_unless_verb(context)


@config.command(epilog=examples("config validate", "config validate /etc/astromesh", "config validate --json"))
@click.argument("folder", metavar="[DIR]", required=False)
@config_option
@json_option
@click.pass_context
def validate(context: click.Context, *, folder: str | None, config: str | None, as_json: bool) -> None:
    """Every mistake and every warning, with file, line and what to write instead. DIR is the folder that --config names elsewhere."""
    found = surroundings.configuration(_one_folder(folder, config))
    mistakes, warnings = _findings(found)
    if as_json:
        print_json(
            {
                "valid": not mistakes,
                "folder": str(found.folder),
                "origin": found.origin,
                "mistakes": mistakes,
                "warnings": warnings,
                "agents": [agent.name for agent in found.agents],
                "providers": list(found.providers),
            }
        )
    else:
        for kind, findings in (("mistake", mistakes), ("warning", warnings)):
            for finding in findings:
                click.echo(f"{kind}: {finding['text']}")
        click.echo(f"{found.folder} ({found.origin}): {_verdict(found, mistakes=len(mistakes), warnings=len(warnings))}")
    if mistakes:
        context.exit(failures.BAD_CONFIGURATION)


@config.command(epilog=examples("config show", "config show /etc/astromesh", "config show --origin", "config show --json"))
@click.argument("folder", metavar="[DIR]", required=False)
@click.option("--origin", is_flag=True, help="Also where each setting comes from.")
@config_option
@json_option
def show(*, folder: str | None, origin: bool, config: str | None, as_json: bool) -> None:
    """The settings that a node started here would have. Flags win over ASTROMESH_*, that over the file, that over defaults.

    DIR is the folder that --config names elsewhere.
    """
    found = surroundings.configuration(_one_folder(folder, config))
    result = surroundings.settled(found, {})
    values = {name: _plain(getattr(result.values, name)) for name in result.origins}
    if as_json:
        settings = {
            name: {"value": value, "origin": {"kind": result.origins[name].kind, "place": str(result.origins[name])}}
            for name, value in values.items()
        }
        print_json(
            {
                "folder": str(found.folder),
                "origin": found.origin,
                "settings": settings,
                "runtime": None if found.runtime is None else found.runtime.as_document(),
                "warnings": list(result.warnings),
            }
        )
        return
    click.echo(f"{found.folder} ({found.origin})\n")
    rows = [(name, _in_words(value), str(result.origins[name])) for name, value in values.items()]
    head = ("SETTING", "VALUE", "ORIGIN")
    columns = 3 if origin else 2
    click.echo(table(head[:columns], (row[:columns] for row in rows), sys.stdout))
    warn(result.warnings)


@config.command(epilog=examples("config reload", "config reload --json"))
@url_option
@json_option
def reload(*, node: Chosen, as_json: bool) -> None:
    """Have a running node read its files again: it takes over all that changed, or nothing where a changed file has a mistake.

    Runs under way end as they began. SIGHUP does the same.
    """
    answer = node.client.post("/v1/system/reload").body
    if as_json:
        print_json(answer)
        return
    told = [f"{what} {family}: {', '.join(names)}" for family in ("agents", "providers") for what, names in answer[family].items() if names]
    click.echo("\n".join(told) or "nothing is another than before")
    warn([*answer["restart_needed"], *answer["mistakes"], *answer["warnings"]])


def _one_folder(argument: str | None, option: str | None) -> str | None:
    if argument is not None and option is not None:
        raise click.UsageError("DIR and --config are the same folder: leave one out", click.get_current_context())
    return argument if argument is not None else option


def _findings(found: Configuration) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    mistakes = [asdict(mistake) | {"text": str(mistake)} for mistake in found.mistakes]
    warnings = [asdict(caution) | {"text": str(caution)} for caution in found.warnings]
    if found.runtime is not None:
        # What the files alone cannot show: values that clash with a variable, or that only the node can read.
        try:
            warnings += [_settings_finding(warning, "") for warning in surroundings.settled(found, {}).warnings]
        except ConfigurationError as error:
            mistakes.append(_settings_finding(error.message, error.hint))
    return mistakes, warnings


def _settings_finding(message: str, remedy: str) -> dict[str, Any]:
    text = failures.in_words(message, remedy)
    return {"source": "", "line": 0, "column": 0, "path": "", "message": message, "remedy": remedy, "text": text}


def _verdict(found: Configuration, *, mistakes: int, warnings: int) -> str:
    if mistakes:
        return f"{_counted(mistakes, 'mistake')}, {_counted(warnings, 'warning')}"
    what = f"{_counted(len(found.agents), 'agent')}, {_counted(len(found.providers), 'provider')}"
    return f"fine, with {_counted(warnings, 'warning')}; {what}" if warnings else f"fine; {what}"


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _plain(value: Any) -> Any:
    """As JSON has it: addresses and paths as people write them."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, tuple) and not hasattr(value, "port"):
        return [str(item) for item in value]
    return str(value)


def _in_words(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "on" if value else "off"
        case list():
            return ", ".join(value)
        case _:
            return str(value)
