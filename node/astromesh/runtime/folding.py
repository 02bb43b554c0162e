"""Folds the turns that leave an agent's window into a summary: after an answer, beside everything else, by the agent's own model.

Nobody waits for it. While there is no summary of them, and where the model fails, the turns themselves stay in the prompt and are folded
after a later answer.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from time import time

from astromesh.dialogue import ModelReply, ModelRequest
from astromesh.errors import AstromeshError
from astromesh.memory.port import Conversation, ConversationMemory, Summary
from astromesh.memory.summary import SUMMARY_TOKENS_MAX, foldable, question
from astromesh.memory.window import outside
from astromesh.runtime.agent import Agent
from astromesh.runtime.counting import TokenCounts
from astromesh.runtime.models import Models

log = logging.getLogger(__name__)

FOLDINGS_MAX = 4  # at once: they compete with answers for the same models; a conversation that finds no place is folded after its next turn
FOLDING_S = 300.0  # a page read and ten sentences written by a small model on a laptop without a GPU take a minute


class Folding:
    def __init__(self, *, models: Models, counts: TokenCounts) -> None:
        self._models = models
        self._counts = counts
        self._under_way: dict[Conversation, asyncio.Task[None]] = {}

    def begin(self, agent: Agent, conversation: Conversation) -> None:
        """Looks whether there is something to fold, and folds it."""
        memory = agent.memory
        if memory is None or not agent.window.folds or conversation in self._under_way or len(self._under_way) >= FOLDINGS_MAX:
            return
        task = asyncio.create_task(self._fold(agent, memory, conversation), name=f"summary for {agent.name}")
        self._under_way[conversation] = task
        task.add_done_callback(lambda _: self._under_way.pop(conversation, None))

    async def settled(self) -> None:
        """Returns when none is under way."""
        if self._under_way:
            await asyncio.wait(self._under_way.values())

    async def close(self) -> None:
        """What is not done is done in another life: the turns are there."""
        for task in self._under_way.values():
            task.cancel()
        await self.settled()

    async def _fold(self, agent: Agent, memory: ConversationMemory, conversation: Conversation) -> None:
        try:
            async with asyncio.timeout(FOLDING_S):
                summary = await self._summary(agent, memory, conversation)
                if summary is not None:
                    await memory.summarise(conversation, summary)
        except (AstromeshError, TimeoutError) as failure:
            # Not its message: what a model server said may be in it, and that may be what people said.
            code = failure.code if isinstance(failure, AstromeshError) else "timeout"
            log.warning("agent %s: older turns could not be summed up (%s); they stay in the prompt as they are", agent.name, code)
        except Exception:
            log.exception("agent %s: older turns could not be summed up, for a reason that nobody foresaw", agent.name)

    async def _summary(self, agent: Agent, memory: ConversationMemory, conversation: Conversation) -> Summary | None:
        """None where nothing has left the window, or the model had nothing to say."""
        window = agent.window
        newest = await memory.recall(conversation, now=time(), turns_max=window.turns_max + 1)
        if not outside(newest, window, await self._counts.costs(newest.turns, agent=agent)):
            return None
        history = await memory.recall(conversation, now=time())
        turns = foldable(outside(history, window, await self._counts.costs(history.turns, agent=agent)))
        choice = agent.choice("summary").aside(SUMMARY_TOKENS_MAX)
        request = ModelRequest(choice.first.model, question(history.summary, turns), stream=False)
        async with aclosing(self._models.complete(request, timeout_s=FOLDING_S, choice=choice)) as stream:
            async for event in stream:
                if isinstance(event, ModelReply) and event.text.strip():
                    return Summary(event.text.strip(), through=turns[-1].id)
        log.warning("agent %s: its model answered nothing when asked to sum up older turns; they stay in the prompt", agent.name)
        return None
