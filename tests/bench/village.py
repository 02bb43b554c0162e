"""Many meshes in one process, each the shipped driver on an address and a socket of its own: the company for the one that is measured.

    python -m tests.bench.village --members 99 --join HOST:PORT [--sealed] [--changes-per-second 0]

Says `complete` once every one of them knows all the others and the one that they joined. With changes, somebody's offer changes so often a
second, one member after the other. It ends with its stdin.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from tests.bench.mesh_process import FULL_LOAD, address_of, config_of

from maia.config import PROFILES, Address
from maia.drivers.driver import MeshDriver

JOIN_S = 60.0
LOOK_S = 0.1
VALUE_BYTES = 150  # what a loaded model with its figures takes


async def change(drivers: list[MeshDriver], per_second: float) -> None:
    number = 0
    while True:
        await asyncio.sleep(1 / per_second)
        drivers[number % len(drivers)].offer("models/0", str(number).encode().ljust(VALUE_BYTES))
        number += 1


async def main(arguments: argparse.Namespace) -> None:
    places = [Address(f"127.1.{index // 200}.{index % 200 + 1}", arguments.join.port) for index in range(arguments.members)]
    drivers = [
        MeshDriver(config_of(f"v{index}", place, profile=arguments.profile, life=1, sealed=arguments.sealed))
        for index, place in enumerate(places)
    ]
    for driver in drivers:
        driver.report_load(FULL_LOAD)
        await driver.start()
        await driver.join([arguments.join], timeout_s=JOIN_S)
    while any(sum(member.status == "alive" for member in driver.view.peers) < len(drivers) for driver in drivers):
        await asyncio.sleep(LOOK_S)
    print("complete", flush=True)
    changing = asyncio.create_task(change(drivers, arguments.changes_per_second)) if arguments.changes_per_second else None
    told = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
    await told.read()
    if changing is not None:
        changing.cancel()
    # Its threads are daemons: a goodbye of ninety-nine would only be heard by somebody who is about to be killed.


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=99)
    parser.add_argument("--join", type=address_of, required=True)
    parser.add_argument("--profile", choices=PROFILES, default="lan-fast")
    parser.add_argument("--sealed", action="store_true", help="gossip under AES-GCM")
    parser.add_argument("--changes-per-second", type=float, default=0.0, help="of offers, in the whole village")
    asyncio.run(main(parser.parse_args()))
