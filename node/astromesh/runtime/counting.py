"""What turns cost in tokens: by the model's own tokenizer where the model is loaded here, by an estimate elsewhere.

A turn never changes, so it is counted once for each model and its count is kept for a while.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import orjson

from astromesh.dialogue import Message, ModelRequest
from astromesh.errors import AstromeshError
from astromesh.inference.port import Counting
from astromesh.memory.port import Turn
from astromesh.memory.window import TOKENS_A_MESSAGE, estimated_tokens, texts
from astromesh.providers.port import ModelProvider

if TYPE_CHECKING:
    from astromesh.runtime.agent import Agent
    from astromesh.runtime.models import LocalModel

COUNTS_KEPT_MAX = 20_000  # some 4 MB
TURNS_AT_ONCE = 16  # asked of a worker between two of its steps
PATIENCE_S = 2.0  # a worker answers between two steps; one that does not is not waited for: the estimate errs on the safe side


async def prompt_tokens(request: ModelRequest, tokenizer: object) -> int:
    """What a request has to be read, tools included: by the tokenizer of its model, where there is one, by an estimate elsewhere."""
    said = request.transcript
    tools = "".join(f"{tool.name} {tool.description} {orjson.dumps(dict(tool.parameters)).decode()}\n" for tool in request.tools)
    if isinstance(tokenizer, Counting):
        try:
            lengths = await tokenizer.count_tokens([*texts(said), tools], timeout_s=PATIENCE_S)
            return sum(lengths) + TOKENS_A_MESSAGE * len(said)
        except AstromeshError:
            pass  # the estimate errs on the safe side
    return estimated_tokens((*said, Message("system", tools)) if tools else said)


class TokenCounts:
    def __init__(self, local: Mapping[str, LocalModel]) -> None:
        """`local`: the models that this node answers for, as they are at any time."""
        self._local = local
        self._known: OrderedDict[tuple[str, str], int] = OrderedDict()  # by the model's identity and the turn's id

    async def costs(self, turns: Sequence[Turn], *, agent: Agent) -> Callable[[Turn], int]:
        """What a turn costs the agent's prompt. Only as many of the newest are counted as its budget holds."""
        counts: dict[str, int] = {}
        provider = self._tokenizer(agent) if agent.window.tokens_max is not None else None
        room, end = agent.window.tokens_max or 0, len(turns)
        while provider is not None and end and room >= 0:
            part = turns[max(0, end - TURNS_AT_ONCE) : end]
            try:
                counts |= await self._count(provider, part)
            except AstromeshError:
                break
            room -= sum(counts[turn.id] for turn in part)
            end -= len(part)
        return lambda turn: counts[turn.id] if turn.id in counts else estimated_tokens(turn.said)

    def _tokenizer(self, agent: Agent) -> ModelProvider | None:
        target = agent.choice().first
        here = self._local.get(target.model) if target.provider is None else None
        return here.provider if here is not None and here.ready() and isinstance(here.provider, Counting) else None

    async def _count(self, provider: ModelProvider, turns: Sequence[Turn]) -> dict[str, int]:
        assert isinstance(provider, Counting), "_tokenizer chose it"
        identity = str(getattr(provider, "identity", ""))
        unknown = [turn for turn in turns if (identity, turn.id) not in self._known]
        said = [text for turn in unknown for text in texts(turn.said)]
        lengths = iter(await provider.count_tokens(said, timeout_s=PATIENCE_S) if said else ())
        for turn in unknown:
            self._known[identity, turn.id] = sum(TOKENS_A_MESSAGE + next(lengths) for _ in turn.said)
        found = {turn.id: self._known[identity, turn.id] for turn in turns}
        while len(self._known) > COUNTS_KEPT_MAX:
            self._known.popitem(last=False)
        return found
