"""A node of ours in a process of its own, to be killed: `python -m tests.interop.one_node NAME HOST PORT SEED_HOST SEED_PORT`.

Says "joined" once it has, and then nothing until it is ended.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

from tests.maia.talk import config_of

from maia.config import Address
from maia.drivers.driver import MeshDriver


async def main(name: str, gossip: Address, seed: Address) -> None:
    driver = MeshDriver(replace(config_of(name, number=77), gossip=gossip, serf=True))
    await driver.start()
    await driver.join([seed], timeout_s=10.0)
    print("joined", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    own_name, host, port, seed_host, seed_port = sys.argv[1:]
    asyncio.run(main(own_name, Address(host, int(port)), Address(seed_host, int(seed_port))))
