"""Which of an agent's models are tried, and in which order: what `routing.strategy` needs to know, remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from astromesh.dialogue import ModelRequest
from astromesh.errors import AstromeshError, ModelFailed
from astromesh.routing.latency import NEVER, Latency
from astromesh.routing.strategy import Option, Skill, preferred
from astromesh.runtime.counting import prompt_tokens
from astromesh.runtime.endpoints import Endpoint
from astromesh.runtime.targets import Choice, Target

CHOICES_MAX = 4096  # of which it is known whose turn it is
MODELS_MEASURED_MAX = 1024  # of the mesh


class Preferences:
    def __init__(self, tokenizer: Callable[[Target], object]) -> None:
        """`tokenizer` gives what may be able to count for a model."""
        self._tokenizer = tokenizer
        self._turns: OrderedDict[str, int] = OrderedDict()  # requests so far, by the name of the choice
        self._latencies: dict[str, Latency] = {}  # of models of the mesh, whoever makes the tokens

    async def order(self, choice: Choice, request: ModelRequest) -> tuple[list[Target], list[AstromeshError]]:
        """Who is tried, and why the others are not."""
        if len(choice.targets) == 1 and choice.first.context_window is None and not request.tools:
            return [choice.first], []  # most have one model, and nothing that it could lack
        refusals: list[AstromeshError] = []
        fitting: list[Target] = []
        for target in choice.targets:
            if (too_large := await self._too_large(target, request)) is None:
                fitting.append(target)
            else:
                refusals.append(too_large)
        needs: tuple[Skill, ...] = ("tools",) if request.tools else ()
        options = [Option(one.merits, self._latency(one), down=one.endpoint is not None and one.endpoint.down()) for one in fitting]
        places = preferred(options, choice.strategy, turn=self._turn(choice), watched=request.stream, needs=needs)
        refusals += [_unable(target, needs) for place, target in enumerate(fitting) if place not in places]
        return [fitting[place] for place in places[: None if choice.falls_back else 1]], refusals

    def measured(self, target: Target, endpoint: Endpoint | None, *, first_token_s: float | None, total_s: float) -> None:
        """One answer took so long; `endpoint` is the server that made it, if one did."""
        if endpoint is not None:
            endpoint.measured(target.model, first_token_s=first_token_s, total_s=total_s)
        if target.provider is None and (target.model in self._latencies or len(self._latencies) < MODELS_MEASURED_MAX):
            before = self._latencies.get(target.model, NEVER)
            self._latencies[target.model] = before.measured(first_token_s=first_token_s, total_s=total_s, now=monotonic())

    def _latency(self, target: Target) -> Latency:
        if target.endpoint is not None:
            return target.endpoint.latency(target.model)
        return self._latencies.get(target.model, NEVER) if target.provider is None else NEVER

    def _turn(self, choice: Choice) -> int:
        """How many requests of this choice were there before."""
        turn = self._turns.pop(choice.name, 0)
        self._turns[choice.name] = turn + 1
        if len(self._turns) > CHOICES_MAX:
            self._turns.popitem(last=False)
        return turn

    async def _too_large(self, target: Target, request: ModelRequest) -> ModelFailed | None:
        """Why the request does not fit into the window of the model that its document gives it."""
        if target.context_window is None:
            return None
        prompt, answer = await prompt_tokens(request, self._tokenizer(target)), target.sampling.max_tokens or 1
        if prompt + answer <= target.context_window:
            return None
        return ModelFailed(
            f"the request has about {prompt} tokens and asks for {answer} more, and model {target.model} of {target.source} "
            f"holds {target.context_window}",
            code="model_no_eligible_provider",
            hint=f"raise {target.place}.context_window if the model holds more, lower its max_tokens, or add a model that holds more",
            definite=True,
        )


def _unable(target: Target, needs: tuple[Skill, ...]) -> ModelFailed:
    return ModelFailed(
        f"model {target.model} of {target.source} is said to lack {' and '.join(needs)}, which this request needs",
        code="model_no_eligible_provider",
        hint="correct models[].capabilities of the provider, or add a model that has them to spec.model.fallback",
        definite=True,
    )
