"""An HTTP endpoint as a tool: the document says where, the model with which arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from astromesh.dialogue import ToolSchema
from astromesh.tools.backends.http_calls import HttpCall, as_json, exchange, url_of
from astromesh.tools.port import ToolFailed
from astromesh.tools.reach import Reach

COMPLAINT_CHARACTERS_MAX = 2000  # of what an endpoint says when it refuses: enough for a list of fields

_WITHOUT_BODY = ("GET", "DELETE")


class Webhook:
    def __init__(self, schema: ToolSchema, url: str, *, method: str, headers: Mapping[str, SecretStr], reach: Reach) -> None:
        self.schema = schema
        self._url = url
        self._method = method.upper()
        self._headers = headers
        self._reach = reach

    async def call(self, arguments: Mapping[str, Any]) -> str:
        url, body = url_of(self._url), None
        headers = {name: value.get_secret_value().strip() for name, value in self._headers.items()}
        if self._method in _WITHOUT_BODY:
            url = url.update_query({key: _in_query(value) for key, value in arguments.items() if value is not None})
        else:
            body = as_json(arguments)
            headers = {"Content-Type": "application/json", **headers}
        call = HttpCall(self._method, url, headers, secret=frozenset(self._headers), body=body)
        answer = await exchange(call, self._reach)
        if answer.status >= 300:
            said = self._without_secrets(answer.text.strip())[:COMPLAINT_CHARACTERS_MAX]
            told = f"{self.schema.name} answered {answer.status} {answer.reason}".rstrip()
            raise ToolFailed(f"{told}: {said}" if said else told)
        return answer.text if answer.text.strip() else "done"

    def _without_secrets(self, text: str) -> str:
        """Some servers repeat what they refuse."""
        for value in self._headers.values():
            if secret := value.get_secret_value().strip():
                text = text.replace(secret, "***")
        return text


def _in_query(value: Any) -> str:
    return value if isinstance(value, str) else as_json(value).decode()
