"""A network of its own for a benchmark: loopback in a fresh namespace, where packets are lost and counted without touching the machine's.

Needs `nft`, `ip` and `unshare`, and root or unprivileged user namespaces.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

INSIDE = "BENCH_NETWORK"
PROGRAMS = ("unshare", "ip", "nft")


def enter_own_network() -> None:
    """Replaces this program by itself in a network namespace of its own; returns at once where it is inside already."""
    if INSIDE not in os.environ:
        if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
            sys.exit(f"a network of its own needs {', '.join(missing)}: apt-get install nftables iproute2 util-linux")
        flags = ["--net"] if os.geteuid() == 0 else ["--map-root-user", "--net"]
        os.environ[INSIDE] = "1"
        sys.stdout.flush()
        os.execvp("unshare", ["unshare", *flags, sys.executable, *sys.orig_argv[1:]])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def lose(percent: int) -> None:
    """From now on this share of all packets is lost, whatever they carry; 0 ends that."""
    _replace("loss", "input", [f"numgen random mod 100 < {percent} drop"] if percent else [])


def cut(ports: Sequence[int]) -> None:
    """From now on nothing arrives at these ports or comes from them, as if the machine behind them had lost its power; none ends that."""
    both = ", ".join(map(str, ports))
    _replace("cut", "input", [f"th {way} {{ {both} }} drop" for way in ("sport", "dport")] if ports else [])


def count(hosts: Iterable[str]) -> None:
    """From now on, from zero, count what each of these hosts sends."""
    _replace("sent", "output", [f"ip saddr {host} counter" for host in hosts])


def sent_bytes() -> dict[str, int]:
    """What each counted host sent since, IP and UDP or TCP headers included, lost or not."""
    listing = subprocess.run(["nft", "--json", "list", "table", "inet", "sent"], check=True, capture_output=True, text=True).stdout
    return counted(json.loads(listing))


def counted(listing: dict[str, Any]) -> dict[str, int]:
    """Bytes by source address, from nft's JSON of a table whose rules match an address and count."""
    found: dict[str, int] = {}
    for item in listing["nftables"]:
        terms = item.get("rule", {}).get("expr", [])
        host = next((term["match"]["right"] for term in terms if "match" in term), None)
        size = next((term["counter"]["bytes"] for term in terms if "counter" in term), None)
        if host is not None and size is not None:
            found[host] = size
    return found


def _replace(table: str, hook: str, rules: Sequence[str]) -> None:
    # Naming a table first makes deleting it no error where there is none; the whole script is one transaction.
    chain = "\n".join([f"type filter hook {hook} priority 0;", *rules])
    script = f"table inet {table} {{}}\ndelete table inet {table}\ntable inet {table} {{\nchain only {{\n{chain}\n}}\n}}\n"
    subprocess.run(["nft", "-f", "-"], input=script, text=True, check=True)
