"""Guards what goes into a run and what comes out of it, and keeps account of what was found.

The rules are pure (`guardrails`); here long texts are given to them in parts, between which the node does other things.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from astromesh.dialogue import Message, Transcript
from astromesh.effects import Screen, Screened
from astromesh.guardrails.budget import Budget, Direction
from astromesh.guardrails.rails import Rails
from astromesh.guardrails.release import BLOCKED, Block, Release
from astromesh.guardrails.rules import Rule

PART_CHARACTERS = 2048  # rules look at so much at once: personal data takes 2 ms of CPU, 10 where no letter is Latin


@dataclass(slots=True)
class Guarding:
    """Of one run. What it tells holds kinds and numbers of rules, never text."""

    rails: Rails
    callers: tuple[Rails, ...] = ()  # of those for whom the agent acts, nearest first: what is told of it, they tell
    block: dict[str, str] | None = None  # `direction`, `rule`, `reason`: what blocked the run
    warnings: list[dict[str, str]] = field(default_factory=list)

    @property
    def output(self) -> tuple[Rule, ...]:
        """Its own rules, then those of its callers: each reads what the one before it lets through."""
        return (*self.rails.output, *(rule for rails in self.callers for rule in rails.output))

    async def screened(self, effect: Screen, attributes: dict[str, Any]) -> Screened:
        """What is asked, and all that is brought along with it, as the agent may see it."""
        query = await self.whole(self.rails.input, effect.query, direction="input", attributes=attributes)
        if isinstance(query, Block):
            return Screened(refusal=query.message)
        brought = _Brought(self, attributes)
        context = await brought.variables(effect.context)
        history = None if effect.history is None else tuple([await brought.message(message) for message in effect.history])
        if brought.block is not None:
            return Screened(refusal=brought.block.message)
        return Screened(query, context, history)

    async def whole(self, rules: Sequence[Rule], text: str, *, direction: Direction, attributes: dict[str, Any]) -> str | Block:
        release = Release(rules)
        shown = await fed(release, text) + release.finish()
        self.account(release, direction=direction, attributes=attributes)
        return release.block or shown

    def account(self, release: Release, *, direction: Direction, attributes: dict[str, Any]) -> None:
        """Takes down what was found, here and in the attributes of a span."""
        for finding in release.warnings:
            self.warn(direction, finding.rule, finding.reason)
        if release.redacted:
            redacted = attributes.setdefault("redacted", {})
            for found, count in sorted(release.redacted.items()):
                redacted[found] = redacted.get(found, 0) + count
        if release.warnings:
            attributes.setdefault("warned", []).extend(finding.rule for finding in release.warnings)
        if release.block is not None:
            self.blocked(direction, release.block, attributes)

    def join(self, other: Guarding) -> None:
        """What was found in the words of one who spoke for this agent."""
        self.join_warnings(other)
        self.block = self.block or other.block

    def join_warnings(self, other: Guarding) -> None:
        """What was found in the words of one who worked for this agent."""
        self.warnings.extend(warning for warning in other.warnings if warning not in self.warnings)

    def blocked(self, direction: Direction, block: Block, attributes: dict[str, Any]) -> None:
        self.block = self.block or {"direction": direction, "rule": block.rule, "reason": block.reason}
        attributes["blocked"] = block.rule

    def warn(self, direction: Direction, rule: str, reason: str) -> None:
        warning = {"direction": direction, "rule": rule, "reason": reason}
        if warning not in self.warnings:
            self.warnings.append(warning)

    def spent(self, *, turn_tokens: int, session_tokens: int, attributes: dict[str, Any]) -> Block | None:
        """The limit that lets nothing more be asked; one that only warns does so."""
        for budget in self.rails.budgets:
            block = budget.spent(turn_tokens=turn_tokens, session_tokens=session_tokens)
            if block is not None and budget.blocks:
                self.blocked(budget.direction, block, attributes)
                return block
            if block is not None:
                self.warn(budget.direction, block.rule, block.reason)
        return None

    def tokens_left(self, *, turn_tokens: int, session_tokens: int) -> int | None:
        def left(budget: Budget) -> int | None:
            return budget.left(turn_tokens=turn_tokens, session_tokens=session_tokens)

        return min((rest for rest in map(left, self.rails.budgets) if rest is not None), default=None)

    async def shown(self, text: str) -> str:
        """What of a text that no answer is may be looked at, and kept: of tools, what they were asked and what they said."""
        release = Release(self.output)
        shown = await fed(release, text) + release.finish(remark=True)
        return BLOCKED if release.block is not None else shown

    async def shown_json(self, text: str) -> str:
        """The same of JSON, which stays JSON. What is none is text."""
        return await in_json(text, self.shown) if self.output else text

    async def noted(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """A step as its watcher may see it. A thought is not guarded yet, where it was a decision made aside; nor is, for its callers,
        the result of a task that it was given."""
        if not self.output:
            return data
        guarded = dict(data)
        if isinstance(asked := data.get("action_input"), str):
            guarded["action_input"] = await self.shown_json(asked)
        for key in ("thought", "observation", "result"):
            if isinstance(seen := data.get(key), str):
                guarded[key] = await self.shown(seen)
        return guarded

    async def kept(self, turn: Transcript) -> Transcript:
        """What of a turn is remembered. The question and the answer are guarded already; guarding what is guarded changes nothing."""
        if not self.output:
            return turn
        question, *work, answer = turn
        return (question, *await self.handed(tuple(work)), answer)

    async def handed(self, work: Transcript) -> Transcript:
        """Calls of tools and their results, on their way out of this agent: to a memory, or to the home of the run."""
        return tuple([await self._kept(message) for message in work]) if self.output else work

    async def _kept(self, message: Message) -> Message:
        calls = tuple([replace(call, arguments=await self.shown_json(call.arguments)) for call in message.tool_calls])
        return replace(message, content=await self.shown(message.content), tool_calls=calls)


async def fed(release: Release, text: str) -> str:
    """All of it, part by part: a guard that looks at a book must not keep the node from everything else."""
    shown = [release.feed(text[:PART_CHARACTERS])]
    for start in range(PART_CHARACTERS, len(text), PART_CHARACTERS):
        await asyncio.sleep(0)
        shown.append(release.feed(text[start : start + PART_CHARACTERS]))
    return "".join(shown)


async def _each(value: Any, guarded: Callable[[str], Awaitable[str]]) -> Any:
    """Every text in JSON, keys too, and every number that is not let through as text."""
    match value:
        case str():
            return await guarded(value)
        case bool() | None:
            return value
        case int() | float():
            written = str(value)
            return value if (shown := await guarded(written)) == written else shown
        case Mapping():
            return {await guarded(key): await _each(inner, guarded) for key, inner in value.items()}
        case _:
            return [await _each(inner, guarded) for inner in value]


class _Brought:
    """What a caller brings along with a question: variables and earlier turns. The first block stands."""

    def __init__(self, guarding: Guarding, attributes: dict[str, Any]) -> None:
        self.block: Block | None = None
        self._guarding = guarding
        self._attributes = attributes

    async def text(self, text: str) -> str:
        if not text or self.block is not None:
            return text
        guarded = await self._guarding.whole(self._guarding.rails.past, text, direction="input", attributes=self._attributes)
        if isinstance(guarded, Block):
            self.block = guarded
            return ""
        return guarded

    async def variables(self, context: Mapping[str, Any]) -> Mapping[str, Any]:
        guarded: Mapping[str, Any] = await _each(context, self.text)
        return guarded

    async def message(self, message: Message) -> Message:
        calls = tuple([replace(call, arguments=await self._arguments(call.arguments)) for call in message.tool_calls])
        return replace(message, content=await self.text(message.content), tool_calls=calls)

    async def _arguments(self, arguments: str) -> str:
        return await in_json(arguments, self.text)


async def in_json(text: str, guarded: Callable[[str], Awaitable[str]]) -> str:
    """JSON that stays JSON. What is none is text."""
    try:
        value = json.loads(text)
    except ValueError:
        return await guarded(text)
    shown = await _each(value, guarded)
    return text if shown == value else json.dumps(shown, ensure_ascii=False)
