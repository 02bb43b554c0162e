"""A process for one JMESPath expression: `{"data", "expression"}` on its standard input, the result on its standard output.

Exit code 1: the expression is at fault, and the output says how. Any other: it took too much.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress

MEMORY_BYTES_MAX = 256 * 2**20
CPU_S_MAX = 2
COMPLAINT_CHARACTERS_MAX = 500


def main() -> int:
    try:
        import resource
    except ImportError:  # where there is no such thing, who waits for it ends it
        pass
    else:
        for what, most in ((resource.RLIMIT_AS, MEMORY_BYTES_MAX), (resource.RLIMIT_CPU, CPU_S_MAX), (resource.RLIMIT_CORE, 0)):
            resource.setrlimit(what, (most, most))
    import jmespath
    from jmespath.exceptions import JMESPathError

    given = json.load(sys.stdin.buffer)
    data = given["data"]
    if isinstance(data, str):
        with suppress(ValueError):  # then it is a text
            data = json.loads(data)
    try:
        result = jmespath.search(given["expression"], data)
    except (JMESPathError, TypeError, ValueError) as mistake:
        sys.stdout.buffer.write(str(mistake).encode("utf-8", "replace")[:COMPLAINT_CHARACTERS_MAX])
        return 1
    for piece in json.JSONEncoder(ensure_ascii=False).iterencode(result):
        sys.stdout.buffer.write(piece.encode("utf-8", "replace"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
