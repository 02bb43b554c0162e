"""What `engine status` says of this machine's engine: asked of the build itself, in a process that may die of it. Blocks."""

from __future__ import annotations

import sys
from typing import Any

from astromesh.inference.backends.building import cached_wheels, installed_engines, this_machine
from astromesh.inference.backends.devices import machine
from astromesh.inference.backends.devices.looking import Looker, LookFailed
from astromesh.inference.devices import Inventory
from astromesh.inference.engines import PACKAGE, EngineFacts, status_document


def inspect(looker: Looker, inventory: Inventory) -> dict[str, Any]:
    """`engines.status_document` of this machine."""
    packages = installed_engines()
    facts = EngineFacts(packages)
    if any(name == PACKAGE for name, _ in packages):
        try:
            facts = EngineFacts.of(packages, looker.report())
        except LookFailed as failure:
            facts = EngineFacts(packages, problem=str(failure))
    cached = {backend: str(wheel) for backend, wheel in cached_wheels(this_machine()).items()}
    return status_document(facts, inventory, machine.processor(), cached=cached, platform=sys.platform)
