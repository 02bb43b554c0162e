"""The state of this node's engine, for whoever asks. Looked at when somebody does, and not more than once a minute."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic
from typing import Any

from astromesh.inference.backends.inspecting import inspect
from astromesh.service.devices import DeviceWatch

KEPT_S = 60.0  # a look costs two processes, and what they say changes with an installation


class EngineStatus:
    def __init__(self, watch: DeviceWatch) -> None:
        self._watch = watch
        self._known: Mapping[str, Any] | None = None
        self._known_at_s = 0.0
        self._looking = asyncio.Lock()

    async def __call__(self) -> Mapping[str, Any]:
        async with self._looking:
            if self._known is None or monotonic() >= self._known_at_s + KEPT_S:
                self._known = await asyncio.to_thread(inspect, self._watch.looker, self._watch.inventory)
                self._known_at_s = monotonic()
            return self._known
