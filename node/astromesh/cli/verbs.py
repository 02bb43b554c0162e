"""A group of verbs that knows what was meant."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import click


class NoSuchVerb(click.UsageError):
    def __init__(self, message: str, context: click.Context, *, hint: str) -> None:
        super().__init__(message, context)
        self.hint = hint


class Verbs(click.Group):
    def __init__(self, *given: Any, **attributes: Any) -> None:
        super().__init__(*given, **{**attributes, "invoke_without_command": True})

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if not word.startswith("-") and self.get_command(ctx, word) is None:
            close = get_close_matches(word, self.list_commands(ctx), n=1)
            hint = f"Did you mean '{close[0]}'?" if close else f"Verbs: {', '.join(self.list_commands(ctx))}."
            raise NoSuchVerb(f"there is no verb '{word}'", ctx, hint=hint)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which people need them."""
        return list(self.commands)


def help_unless_verb(context: click.Context) -> None:
    """What a group does by itself: nothing where a verb follows, else it says which there are."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
