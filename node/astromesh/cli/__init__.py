"""The command line: one file for each family of verbs, `program` which joins them, and what they share.

Verbs that talk to a running node import nothing of it: `client` speaks HTTP with the standard library, so that `members` answers before a
server could have been imported. What runs a node (`up`, `run` without a node, `config`) imports its parts when it is asked to.

Results go to stdout, everything else to stderr, so that both can be piped. Nobody is asked anything unless a person sits there.
"""

from __future__ import annotations

import sys


def main() -> None:
    """`astromesh-node` and `astromeshctl`."""
    from astromesh.cli.program import program

    program.main(prog_name="astromesh-node")


def daemon() -> None:
    """`astromeshd`, which is `astromesh-node up`."""
    from astromesh.cli.program import program

    program.main(args=["up", *sys.argv[1:]], prog_name="astromesh-node")
