"""One bare `MeshDriver` in a process of its own, to be killed, paused, told things and weighed.

    python -m tests.bench.mesh_process NAME HOST:PORT [--join HOST:PORT] [--profile lan-fast] [--life 1] [--sealed]

It says `up` once others can join it. Each event of its mesh is a line on stdout, written on the process's own loop as a node would hear
it: `joined NAME`, `died NAME`, `doubted NAME` (by a probe of its own), `offers NAME`. On stdin it takes `offer KEY VALUE`, and `figures`,
which it answers with a line `figures {…}`: CPU seconds of the whole process and the counters of the mesh. It ends with its stdin.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict

from tests.maia.keys import key_of

from maia.config import LOAD_BYTES_MAX, PROFILES, Address, MeshConfig
from maia.drivers.driver import MeshDriver
from maia.keyring import Keyring
from maia.view import MemberDied, MemberJoined, MemberReturned, MemberSuspected, MeshEvent, OffersChanged

JOIN_S = 30.0
FULL_LOAD = b"l" * LOAD_BYTES_MAX  # every ack says how busy its node is, in as many bytes as that may take
SEAL_KEY = b"benchmarks only!" * 2


def address_of(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return Address(host, int(port))


def config_of(name: str, gossip: Address, *, profile: str, life: int, sealed: bool) -> MeshConfig:
    return MeshConfig(
        name=name,
        title=name,
        signer=key_of(name),
        generation=life,
        gossip=gossip,
        profile=PROFILES[profile],
        keyring=Keyring((SEAL_KEY,)) if sealed else None,
    )


def line_of(event: MeshEvent, *, me: str) -> str | None:
    match event:
        case MemberJoined(name) | MemberReturned(name):
            return f"joined {name}"
        case MemberDied(name):
            return f"died {name}"
        case MemberSuspected(name, accuser):
            return f"doubted {name}" if accuser == me else None
        case OffersChanged(name):
            return f"offers {name}"
        case _:
            return None


async def main(config: MeshConfig, seed: Address | None) -> None:
    driver = MeshDriver(config)

    def tell(event: MeshEvent) -> None:
        if (line := line_of(event, me=config.name)) is not None:
            print(line, flush=True)

    driver.subscribe(tell)
    driver.report_load(FULL_LOAD)
    await driver.start()
    print("up", flush=True)
    if seed is not None:
        await driver.join([seed], timeout_s=JOIN_S)
    told = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    while line := (await told.readline()).decode().rstrip("\n"):
        match line.split(" ", 2):
            case ["offer", key, value]:
                driver.offer(key, value.encode())
            case ["figures"]:
                print("figures", json.dumps({"cpu_s": time.process_time(), "counters": asdict(driver.counters())}), flush=True)
            case _:
                raise ValueError(f"nobody taught this process {line!r}")
    await driver.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("gossip", type=address_of)
    parser.add_argument("--join", type=address_of)
    parser.add_argument("--profile", choices=PROFILES, default="lan-fast")
    parser.add_argument("--life", type=int, default=1, help="higher after each restart")
    parser.add_argument("--sealed", action="store_true", help="gossip under AES-GCM")
    given = parser.parse_args()
    asyncio.run(main(config_of(given.name, given.gossip, profile=given.profile, life=given.life, sealed=given.sealed), given.join))
