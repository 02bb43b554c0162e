"""Runs a node in the foreground until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable
from typing import NoReturn

import uvloop

from astromesh.errors import AstromeshError, ReloadRefused
from astromesh.service.addresses import API_PORT, LOOPBACK, HostPort
from astromesh.service.config_dir import Configuration
from astromesh.service.logs import open_logs
from astromesh.service.node import open_node
from astromesh.service.settings import NodeSettings

log = logging.getLogger(__name__)

YOUNG_OBJECTS = 10_000  # as many as some twenty runs make; the default of 700 looks several times in each


def serve(settings: NodeSettings, configuration: Configuration) -> int:
    """The exit code. Raises `ConfigurationError` where it cannot start as it was told to."""
    open_logs()
    # Measured beside asyncio's own loop, 16 clients on two cores: 1.6 instead of 2.2 times a bare proxy's CPU a chat.
    return uvloop.run(_serve(settings, configuration))


async def _serve(settings: NodeSettings, configuration: Configuration) -> int:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        if told.is_set():
            log.warning("told twice to stop: stopping at once")
            os._exit(128 + number)
        log.info("%s: draining and leaving; once more stops at once", number.name)
        told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    changed = asyncio.Event()
    loop.add_signal_handler(signal.SIGHUP, changed.set)
    async with open_node(settings, configuration, doors=True) as node:
        collect_seldom()
        reloading = asyncio.create_task(reload_whenever(changed, node.reload), name="reloading at SIGHUP")
        sys.stdout.write(greeting(node.settings, node.runtime.agents))
        sys.stdout.flush()
        await told.wait()
        reloading.cancel()
        await asyncio.wait([reloading])
    log.info("stopped")
    return 0


def collect_seldom() -> None:
    """What a node is made of stays as long as it runs: the collector of cycles need not look at it again and again.

    It holds the interpreter while it looks. Measured on two cores at 16 clients, it took a fifth of the CPU of an agent's run.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


async def reload_whenever(changed: asyncio.Event, reload: Callable[[], Awaitable[object]]) -> NoReturn:
    """Once for however many signals came meanwhile; whatever becomes of one, the next is heard."""
    while True:
        await changed.wait()
        changed.clear()
        try:
            await reload()
        except ReloadRefused:
            continue  # the log has it
        except AstromeshError as failure:
            log.error("SIGHUP: the files were not read again: %s. %s", failure.message, failure.hint)
        except Exception:
            log.exception("SIGHUP: the files were not read again, for a reason that nobody foresaw")


def greeting(settings: NodeSettings, agents: Iterable[str]) -> str:
    """Where the node is, and what to type next."""
    url = f"http://{settings.api}"
    lines = [f"node {settings.name} is up", f"  API     {url}", f"  look    {url}/docs"]
    if settings.mesh:
        lines += [
            f"  gossip  {settings.gossip}, links {settings.link}",
            "  one more node on this machine:",
            f"    astromesh-node up --name NAME --api 127.0.0.1:PORT --gossip 127.0.0.1:PORT --data DIR --join {settings.gossip}",
        ]
    if agent := min(agents, default=None):
        there = "" if settings.api == HostPort(LOOPBACK, API_PORT) else f"--url {url} "
        lines += ["  ask:", f'    astromesh-node {there}run {agent} "What is a mesh?"']
    return "\n".join(lines) + "\n"
