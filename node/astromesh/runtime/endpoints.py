"""What this node remembers of the model servers that it calls: their breakers, how long they let one wait, how often they were retried.

One for each server, whoever calls it: what one agent learns of it, all agents and all doors know.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from math import ceil
from time import monotonic
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from astromesh.errors import AstromeshError, ModelFailed
from astromesh.routing.breaker import Breaker, BreakerRules, Ending, Pass, State
from astromesh.routing.latency import NEVER, Latency

log = logging.getLogger(__name__)

MODELS_MEASURED_MAX = 256  # of one server: names come from documents and from requests
KNOB = "circuit_breaker in providers.yaml"
_STATES: tuple[State, ...] = ("closed", "half_open", "open")


def shown_url(url: str) -> str:
    """Without the name and password that may stand in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class Endpoint:
    """One model server."""

    def __init__(self, name: str, url: str, *, rules: BreakerRules | None = None, clock: Callable[[], float] = monotonic) -> None:
        """`name`: that of the first provider that named it."""
        self.name = name
        self.url = shown_url(url)
        self.breaker = Breaker(rules or BreakerRules())
        self.openings = 0
        self.retries = 0
        self.changed: Callable[[], None] = lambda: None  # its breaker is in another state
        self.doubt: Callable[[], None] = lambda: None  # a call failed: whoever watches its health may ask it
        self.down: Callable[[], bool] = lambda: False  # it was asked for its health, and did not answer
        self.checked_every_s: float | None = None  # as agents that name it want it
        self._clock = clock
        self._latencies: dict[str, Latency] = {}

    @property
    def state(self) -> State:
        return self.breaker.state(now=self._clock())

    @property
    def latencies(self) -> Mapping[str, Latency]:
        """By model."""
        return self._latencies

    def latency(self, model: str) -> Latency:
        return self._latencies.get(model, NEVER)

    def measured(self, model: str, *, first_token_s: float | None, total_s: float) -> None:
        if model in self._latencies or len(self._latencies) < MODELS_MEASURED_MAX:
            now = self._clock()
            self._latencies[model] = self.latency(model).measured(first_token_s=first_token_s, total_s=total_s, now=now)

    def enter(self) -> Call:
        """Leave to call it. Raises `ModelFailed` (definite: nothing is sent) while its breaker is open, or another makes the trial."""
        now = self._clock()
        breaker, leave = self.breaker.admit(now=now)
        if leave is None:
            left_s = self.breaker.closed_for_s(now=now)
            until = f"for another {ceil(left_s)} s" if left_s else "until the one call that tries it now has come back"
            raise ModelFailed(
                f"provider {self.name} failed {self.breaker.failures} times in a row, so its breaker is open: it is not asked {until}",
                code="model_provider_unavailable",
                hint=f"look at the server behind {self.url}; {KNOB} says after how many failures it is left alone, and how long",
                definite=True,
                retry_after_s=max(1, ceil(left_s)),
            )
        self._become(breaker)
        return Call(self, leave)

    def _become(self, breaker: Breaker) -> None:
        before, self.breaker = self.breaker, breaker
        if (before.opened_s, before.trying) == (breaker.opened_s, breaker.trying):
            return
        if breaker.opened_s is not None and breaker.opened_s != before.opened_s:
            self.openings += 1
            log.warning(
                "provider %s (%s) failed %d times in a row: it is not asked for %g s",
                self.name, self.url, breaker.failures, breaker.rules.recovery_timeout_s,
            )  # fmt: skip
        elif breaker.opened_s is None:
            log.info("provider %s (%s) answers again", self.name, self.url)
        self.changed()


class Call:
    """One call of a server, from the leave to make it to its end. Must be ended, however it ends; the first ending counts."""

    def __init__(self, endpoint: Endpoint, leave: Pass) -> None:
        self._endpoint = endpoint
        self._leave = leave
        self._over = False

    def began(self) -> None:
        """The server said its first word."""
        breaker, self._leave = self._endpoint.breaker.began(self._leave)
        self._endpoint._become(breaker)

    def ended(self, ending: Ending) -> None:
        if self._over:
            return
        self._over = True
        endpoint = self._endpoint
        endpoint._become(endpoint.breaker.ended(self._leave, ending, now=endpoint._clock()))
        if ending == "failure":
            endpoint.doubt()

    def explained(self, failure: AstromeshError) -> AstromeshError:
        """The same failure; its hint says so where it was the one that opened the breaker."""
        breaker = self._endpoint.breaker
        if self._over and breaker.opened_s is not None and KNOB not in failure.hint:
            left_alone = f"after {breaker.failures} failures it is not asked for {breaker.rules.recovery_timeout_s:g} s"
            failure.hint = f"{failure.hint}; {left_alone} ({KNOB})".lstrip("; ")
        return failure


class Endpoints:
    """All servers that this node calls, by address, for as long as somebody holds what is remembered of them."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[str, Endpoint] = WeakValueDictionary()

    def __iter__(self) -> Iterator[Endpoint]:
        """In the order of addresses. Of a list: agents are built, and with them endpoints, in other threads."""
        there = [endpoint for known in self._known.valuerefs() if (endpoint := known()) is not None]
        return iter(sorted(there, key=lambda endpoint: endpoint.url))

    def of(self, name: str, url: str, *, rules: BreakerRules) -> Endpoint:
        """The one at this address. One that is known keeps its rules: whoever asks may only be trying out another configuration."""
        return self._known.setdefault(shown_url(url), Endpoint(name, url, rules=rules))

    def figures(self) -> Iterator[Metric]:
        names = ["provider", "endpoint"]
        breaker = GaugeMetricFamily(
            "astromesh_provider_breaker", "1 for the state that a server's breaker is in.", labels=[*names, "state"]
        )
        openings = CounterMetricFamily("astromesh_provider_breaker_openings", "How often a server's breaker opened.", labels=names)
        retries = CounterMetricFamily("astromesh_provider_retries", "Calls of a server that were made once more.", labels=names)
        first = GaugeMetricFamily(
            "astromesh_provider_first_token_seconds", "Moving average of the time to a model's first token.", labels=[*names, "model"]
        )
        for endpoint in self:
            labels = [endpoint.name, endpoint.url]
            for state in _STATES:
                breaker.add_metric([*labels, state], float(endpoint.state == state))
            openings.add_metric(labels, endpoint.openings)
            retries.add_metric(labels, endpoint.retries)
            for model, latency in sorted(endpoint.latencies.items()):
                if latency.first_token_s is not None:
                    first.add_metric([*labels, model], latency.first_token_s)
        yield from (breaker, openings, retries, first)
