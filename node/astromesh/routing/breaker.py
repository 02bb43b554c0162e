"""When a model server is left alone for a while: a circuit breaker as a value. Pure.

closed → open after so many failures one after the other → half open when it has cooled down: one call is let through, a trial. Its first
word closes the breaker on probation, so that nobody waits for the end of a long answer; its failure opens it again.

A call gets a `Pass` and gives it back with how it ended. What a call brings back from before the breaker last opened or closed says nothing
of now, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from astromesh.errors import AstromeshError, CallersMistake, Overloaded

State = Literal["closed", "open", "half_open"]
# neither: it was cancelled, or it was refused as the caller's mistake; that says nothing of the server.
Ending = Literal["success", "failure", "neither"]


@dataclass(frozen=True, slots=True)
class BreakerRules:
    failure_threshold: int = 3
    recovery_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Pass:
    """Leave to call a server once."""

    epoch: int
    trial: bool


@dataclass(frozen=True, slots=True)
class Breaker:
    rules: BreakerRules = BreakerRules()
    failures: int = 0  # one after the other
    opened_s: float | None = None  # None: closed
    trying: bool = False  # the one trial is under way
    epoch: int = 0  # how often it has opened or closed

    def state(self, *, now: float) -> State:
        if self.opened_s is None:
            return "closed"
        return "open" if now < self.opened_s + self.rules.recovery_timeout_s else "half_open"

    def closed_for_s(self, *, now: float) -> float:
        """How long nobody may call; 0 where somebody may, or a trial is just being made."""
        return 0.0 if self.opened_s is None else max(0.0, self.opened_s + self.rules.recovery_timeout_s - now)

    def admit(self, *, now: float) -> tuple[Breaker, Pass | None]:
        """Leave to call, or None."""
        match self.state(now=now):
            case "closed":
                return self, Pass(self.epoch, trial=False)
            case "half_open" if not self.trying:
                return replace(self, trying=True), Pass(self.epoch, trial=True)
            case _:
                return self, None

    def began(self, leave: Pass) -> tuple[Breaker, Pass]:
        """The server said its first word. After a trial the next failure opens it again: it has proved itself only once it has finished."""
        if not leave.trial or leave.epoch != self.epoch:
            return self, leave
        epoch = self.epoch + 1
        return Breaker(self.rules, failures=self.rules.failure_threshold - 1, epoch=epoch), Pass(epoch, trial=False)

    def ended(self, leave: Pass, ending: Ending, *, now: float) -> Breaker:
        if leave.epoch != self.epoch:
            return self
        match ending:
            case "success":
                return Breaker(self.rules, epoch=self.epoch + leave.trial)
            case "neither":
                return replace(self, trying=False) if leave.trial else self
            case "failure":
                failures = self.failures + 1
                if leave.trial or failures >= self.rules.failure_threshold:
                    return Breaker(self.rules, failures, opened_s=now, epoch=self.epoch + 1)
                return replace(self, failures=failures)


_ANSWERED = ("model_missing_api_key", "model_no_eligible_provider")


def ending_of(failure: AstromeshError) -> Ending:
    """A server that refuses a request, a key or the name of a model is there, and so is one that asks for patience (429).

    Another caller, with another key, may be served at once: what one caller gets wrong must not take the server from all.
    """
    refused = isinstance(failure, CallersMistake | Overloaded) or failure.code in _ANSWERED
    return "neither" if refused else "failure"
