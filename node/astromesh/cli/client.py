"""A running node, as the verbs see it: JSON over HTTP, and event streams line by line.

The standard library's client, because it is imported in a fraction of the time that a server's takes, and a verb does one thing at a time.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlsplit

from astromesh.cli.failures import NodeRefused, NodeUnreachable, refusal
from astromesh.errors import AstromeshError

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE = "ASTROMESH_DAEMON_URL"
KEY_VARIABLE = "ASTROMESH_API_KEY"
ANSWER_S = 30.0  # a join waits for a seed that may be slow; everything else answers in milliseconds
# A run is silent until its model's first token, behind others and a long prompt. Its node ends it earlier: this is for a node that hangs.
RUN_SILENCE_S = 900.0
WATCH_SILENCE_S = 50.0  # a node fills the silence of a stream every 15 s: nothing for three times that long is a node that hangs
ANSWER_BYTES_MAX = 32 * 2**20  # the largest is a list of agents of a large mesh
LINE_BYTES_MAX = 16 * 2**20  # the `done` event of a run with long tool results


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream, of a run or of the mesh: `kind` and `data` as every door has them."""

    kind: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """`at` is the node's own time of its answer, in seconds since the epoch: times inside are to be compared with this, not with ours."""

    body: Any
    at: float


def api_url(text: str) -> str:
    """A node's address as people write it. Raises `ValueError` with what to write instead."""
    whole = text if "://" in text else f"http://{text}"
    parts = urlsplit(whole)
    try:
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(f"{text!r} is no address of a node; write http://HOST:PORT")
    return whole.rstrip("/")


def agent_path(agent: str, verb: str = "") -> str:
    """The route of an agent, which is named NAME, or NAMESPACE/NAME outside the default one."""
    namespace, slash, name = agent.rpartition("/")
    where = f"/v1/agents/{quote(name, safe='')}" + (f"/{verb}" if verb else "")
    return f"{where}?namespace={quote(namespace, safe='')}" if slash else where


class NodeClient:
    def __init__(self, url: str) -> None:
        """`url` as `api_url` returns it."""
        self.url = url
        self._parts = urlsplit(url)

    def listens(self) -> bool:
        """Whether anybody at all takes connections there."""
        try:
            with closing(self._connection(ANSWER_S)) as connection:
                connection.connect()
        except OSError:
            return False
        return True

    def get(self, path: str, *, silence_s: float = ANSWER_S) -> Answer:
        return self._ask("GET", path, None, silence_s=silence_s)

    def post(self, path: str, body: object = None, *, silence_s: float = ANSWER_S) -> Answer:
        return self._ask("POST", path, body, silence_s=silence_s)

    def put(self, path: str, body: object) -> Answer:
        return self._ask("PUT", path, body, silence_s=ANSWER_S)

    def delete(self, path: str) -> Answer:
        return self._ask("DELETE", path, None, silence_s=ANSWER_S)

    def pull(self, body: object) -> Generator[Event, None, None]:
        """The steps of an installation on the node, to its `done`. Closing the iterator ends it."""
        with self._exchange("POST", "/v1/models/pull", body, silence_s=WATCH_SILENCE_S) as response:
            for event in events(response):
                if event.kind == "error":
                    raise _refused(event)
                yield event
                if event.kind == "done":
                    return
        raise self._lost("the stream ended in the middle")

    def run(self, agent: str, query: str, *, session_id: str | None) -> Generator[Event, None, None]:
        """The events of a run as they happen, to its `done`. Closing the iterator cancels the run."""
        body = {"query": query, "session_id": session_id, "stream": True}
        with self._exchange("POST", agent_path(agent, "run"), body, silence_s=RUN_SILENCE_S) as response:
            for event in events(response):
                if event.kind == "error":
                    raise _refused(event)
                yield event
                if event.kind == "done":
                    return
        raise self._lost("the stream ended in the middle")

    def mesh_events(self) -> Generator[Event, None, None]:
        """Everyone in the mesh, and what changes as it happens, until the node goes away, which is `NodeUnreachable`."""
        with self._exchange("GET", "/v1/mesh/events", None, silence_s=WATCH_SILENCE_S) as response:
            yield from events(response)
        raise self._lost("the stream ended")

    def remembers(self, agent: str) -> bool | None:
        """Whether the agent knows earlier questions of a session; None where its document is not on this node."""
        try:
            document = self.get(agent_path(agent)).body
        except NodeRefused:
            return None
        return "conversational" in document["spec"].get("memory", {})

    def _ask(self, method: str, path: str, body: object, *, silence_s: float) -> Answer:
        with self._exchange(method, path, body, silence_s=silence_s) as response:
            raw = response.read(ANSWER_BYTES_MAX + 1)
            if len(raw) > ANSWER_BYTES_MAX:
                raise NodeRefused(f"the answer to {path} is larger than {ANSWER_BYTES_MAX >> 20} MiB", code="body_too_large", hint="")
            try:
                at = parsedate_to_datetime(response.headers["Date"]).timestamp()
                return Answer(json.loads(raw), at)
            except (ValueError, TypeError):
                raise self._no_node() from None

    @contextmanager
    def _exchange(self, method: str, path: str, body: object, *, silence_s: float) -> Iterator[http.client.HTTPResponse]:
        """An answer that is fine. Raises `NodeRefused` for one that is not, `NodeUnreachable` where there is none."""
        headers = {"Accept": "application/json, text/event-stream"}
        if key := os.environ.get(KEY_VARIABLE):
            headers["Authorization"] = f"Bearer {key}"
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body).encode()
        with closing(self._connection(ANSWER_S)) as connection:
            try:
                connection.connect()
            except OSError as failure:
                raise NodeUnreachable(
                    f"no node answers at {self.url} ({failure.strerror or failure})",
                    hint=f"start one with 'astromesh-node up', or name another with --url or {URL_VARIABLE}",
                ) from failure
            connection.sock.settimeout(silence_s)
            try:
                connection.request(method, self._parts.path + path, body=content, headers=headers)
                response = connection.getresponse()
                if response.status >= 400:
                    raise self._refusal(response)
                yield response
            except TimeoutError as failure:
                raise self._lost(f"nothing came for {silence_s:g} s") from failure
            except (OSError, http.client.HTTPException) as failure:
                raise self._lost(str(failure) or type(failure).__name__) from failure

    def _refusal(self, response: http.client.HTTPResponse) -> AstromeshError:
        try:
            said = json.loads(response.read(ANSWER_BYTES_MAX))
        except ValueError:
            return self._no_node()
        return refusal(response.status, said)

    def _lost(self, why: str) -> NodeUnreachable:
        return NodeUnreachable(f"the node at {self.url} was lost in the middle of its answer: {why}", hint="is it still running?")

    def _no_node(self) -> NodeUnreachable:
        return NodeUnreachable(
            f"something answers at {self.url}, but it is no astromesh node", hint=f"name the node with --url or {URL_VARIABLE}"
        )

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        assert self._parts.hostname is not None, "api_url has seen to it"
        return kind(self._parts.hostname, self._parts.port, timeout=timeout_s)


def _refused(event: Event) -> NodeRefused:
    return NodeRefused(str(event.data.get("message")), code=str(event.data.get("code")), hint=str(event.data.get("hint", "")))


def events(response: http.client.HTTPResponse) -> Iterator[Event]:
    """Server-sent events with JSON in them. Comments, which only keep the line alive, are left out."""
    kind, data = "", ""
    while line := response.readline(LINE_BYTES_MAX):
        field, _, value = line.decode().rstrip("\r\n").partition(": ")
        match field:
            case "event":
                kind = value
            case "data":
                data += value
            case "" if data:
                yield Event(kind, json.loads(data))
                kind, data = "", ""
