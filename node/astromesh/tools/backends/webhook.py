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
SECRET_CHARACTERS_MIN = 6  # a shorter value stands in answers by chance, and is too short to keep anything secret

_NO_SECRETS = ("accept", "accept-language", "content-type", "user-agent")  # headers that say nothing of who calls
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
        text = self._without_secrets(answer.text)
        if answer.status >= 300:
            said = text.strip()[:COMPLAINT_CHARACTERS_MAX]
            told = f"{self.schema.name} answered {answer.status} {answer.reason}".rstrip()
            raise ToolFailed(f"{told}: {said}" if said else told)
        return text if text.strip() else "done"

    def _without_secrets(self, text: str) -> str:
        """Some servers repeat what they were sent, and what a tool says goes to models, to who watches, and into memory."""
        for secret in _secrets(self._headers):
            text = text.replace(secret, "***")
        return text


def _secrets(headers: Mapping[str, SecretStr]) -> tuple[str, ...]:
    """Texts that no answer may repeat, the longest first: whole values, and of `Bearer TOKEN` the token alone, too."""
    values = [value.get_secret_value().strip() for name, value in headers.items() if name.lower() not in _NO_SECRETS]
    found = {text for value in values for text in (value, value.rpartition(" ")[2]) if len(text) >= SECRET_CHARACTERS_MIN}
    return tuple(sorted(found, key=lambda text: (-len(text), text)))


def _in_query(value: Any) -> str:
    return value if isinstance(value, str) else as_json(value).decode()
