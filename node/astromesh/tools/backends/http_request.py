"""Any address of the web, called by the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from astromesh.dialogue import ToolSchema
from astromesh.tools.backends.http_calls import HttpCall, as_json, exchange, url_of
from astromesh.tools.port import ToolFailed
from astromesh.tools.reach import Reach

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

# The connection's own: whoever could set them could make the server read one request as two.
_NOT_THEIRS = ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect", "keep-alive")


class HttpRequest:
    schema = ToolSchema(
        name="http_request",
        description="Sends an HTTP request to a public address and returns the status and the body of the answer.",
        parameters={
            "type": "object",
            "properties": {
                "method": {"type": "string", "enum": list(METHODS)},
                "url": {"type": "string", "description": "https://host/path?query"},
                "headers": {"type": "object", "additionalProperties": {"type": "string"}},
                "body": {"description": "sent as JSON; text is sent as it is"},
            },
            "required": ["method", "url"],
            "additionalProperties": False,
        },
    )

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    async def call(self, arguments: Mapping[str, Any]) -> str:
        headers = dict(arguments.get("headers") or {})
        for name in headers:
            if name.lower() in _NOT_THEIRS or name.lower().startswith("proxy-"):
                raise ToolFailed(f"the header {name} is not for callers to set; leave it out")
        body = arguments.get("body")
        if body is not None and not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = "text/plain; charset=utf-8" if isinstance(body, str) else "application/json"
        sent = None if body is None else body.encode("utf-8", "replace") if isinstance(body, str) else as_json(body)
        answer = await exchange(HttpCall(arguments["method"], url_of(arguments["url"]), headers, body=sent), self._reach)
        told = f"HTTP {answer.status} {answer.reason}".rstrip()
        kind = f", {answer.kind}" if answer.kind else ""
        return f"{told}{kind}{', only the beginning' if answer.cut else ''}\n\n{answer.text}"
