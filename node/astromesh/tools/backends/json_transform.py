"""JSON in, an expression over it, JSON out: what a model would otherwise do by hand, and badly.

JMESPath: specified, with a library that is one small wheel, known to models from the command line of a cloud, and unable to touch
anything. What it cannot bound is its own work: `[@,@][]` said thirty times over is a list of a billion. So it runs in a process of its own,
with little memory and little time.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astromesh.dialogue import ToolSchema
from astromesh.tools.backends.http_calls import as_json
from astromesh.tools.port import ToolFailed

DATA_BYTES_MAX = 2**20
RESULT_BYTES_MAX = 2**20
TRANSFORM_TIMEOUT_S = 10.0
PROCESSES_MAX = 2  # at once; others wait for their turn, within the time of their call

_PROCESS = Path(__file__).with_name("transform_process.py")
_turns = asyncio.Semaphore(PROCESSES_MAX)


class JsonTransform:
    schema = ToolSchema(
        name="json_transform",
        description="Selects and reshapes JSON with a JMESPath expression, such as people[?age > `30`].{name: name, city: address.city}.",
        parameters={
            "type": "object",
            "properties": {
                "data": {"description": "the JSON, or text that holds it"},
                "expression": {"type": "string", "description": "JMESPath", "minLength": 1, "maxLength": 2000},
            },
            "required": ["data", "expression"],
            "additionalProperties": False,
        },
    )

    async def call(self, arguments: Mapping[str, Any]) -> str:
        given = as_json({"data": arguments["data"], "expression": arguments["expression"]})
        if len(given) > DATA_BYTES_MAX:
            raise ToolFailed(f"the data has {len(given)} bytes, and {DATA_BYTES_MAX} are possible; give it a part")
        async with _turns:
            return await _transformed(given)


async def _transformed(given: bytes) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        str(_PROCESS),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(TRANSFORM_TIMEOUT_S):
            process.stdin.write(given)
            process.stdin.close()
            try:
                await process.stdout.readexactly(RESULT_BYTES_MAX + 1)
            except asyncio.IncompleteReadError as whole:
                result = whole.partial
            else:
                raise ToolFailed(f"the result has more than {RESULT_BYTES_MAX} bytes; select less")
            code = await process.wait()
    except TimeoutError:
        raise ToolFailed(f"the expression took longer than {TRANSFORM_TIMEOUT_S:g} s; select less") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = result.decode("utf-8", "replace")
    if code == 1 and text:
        raise ToolFailed(f"the expression cannot be used: {text}")
    if code:
        raise ToolFailed("the expression needed more memory or time than there is; select less")
    return text
