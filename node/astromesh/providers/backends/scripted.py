"""A model that says what it was told to say: the in-memory twin of a model server, for tests and rehearsals."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncGenerator, Iterable

from astromesh.dialogue import ModelEvent, ModelReply, ModelRequest, TextDelta, ToolCallDelta, Usage
from astromesh.errors import AstromeshError, ModelFailed


class Scripted:
    """Gives its replies in their order, each streamed word by word; an exception among them is raised when its turn comes.

    `asked` holds every request as it came, so that a test can say what the model was really sent.
    """

    def __init__(self, replies: Iterable[ModelReply | AstromeshError | str]) -> None:
        self._replies = deque(replies)
        self.asked: list[ModelRequest] = []
        self.cancelled = 0

    async def complete(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
        self.asked.append(request)
        if not self._replies:
            raise ModelFailed("the script has no more replies", code="model_provider_unavailable", definite=True)
        reply = self._replies.popleft()
        if isinstance(reply, AstromeshError):
            raise reply
        if isinstance(reply, str):
            words = len(reply.split())
            reply = ModelReply(
                reply, model=request.model, usage=Usage(tokens_in=sum(len(m.content.split()) for m in request.transcript), tokens_out=words)
            )
        finished = False
        try:
            for word in re.findall(r"\S+\s*|\s+", reply.text):
                yield TextDelta(word)
            for index, call in enumerate(reply.tool_calls):
                yield ToolCallDelta(index, id=call.id, name=call.name, arguments=call.arguments)
            finished = True
            yield reply
        finally:
            self.cancelled += not finished

    async def close(self) -> None:
        """Nothing is open."""
