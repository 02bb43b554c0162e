"""The worker process of one model under llama.cpp's own server: `python -m astromesh.inference.backends.xllamacpp.worker`.

The server batches and caches by itself; each request waits in a thread of its own for what the server tells it. It insists on listening
somewhere: that is a socket in a folder that only this user can enter, behind a key that nobody knows.

In:   load (first, once) · complete · cancel
Out:  loaded | unusable · then step (one for each piece) · refused · failed · cancelled
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

from astromesh.inference.backends.child import Send, begin
from astromesh.inference.gguf import NotGguf, read_header
from astromesh.inference.schedule import CONTEXT_HINT

# Between two streams the pool has one context to spare, as with the compiled engine.
CONTEXTS_OF_CELLS = 2
# Tokens of a prompt between two signs of life, and between two looks at whether it is still wanted.
CHUNK_TOKENS = 256

_CALLERS_MISTAKE = range(400, 500)
_EXCEEDS = "exceed_context_size_error"  # as its server calls it


def main() -> None:
    arrived, send = begin()
    load = arrived.get()
    try:
        tokens = _tokens(Path(load["path"]))
        server = _open(load)
    except RuntimeError as error:
        send("unusable", message=f"llama.cpp cannot load {load['path']}: {error}")
        return
    send("loaded", context=load["context"], kernel="")
    running: dict[int, _Completion] = {}
    while True:
        frame = arrived.get()
        number = frame["number"]
        match frame["kind"]:
            case "complete":
                if (unknown := _unknown_token(frame["body"], tokens)) is not None:
                    said = f"logit_bias names token {unknown}, and the tokens of this model are 0 to {tokens - 1}"
                    send("refused", number=number, message=said, hint="", param="logit_bias", exceeds=False)
                    continue
                running = {other: one for other, one in running.items() if one.is_alive()}
                running[number] = _Completion(server, frame, send)
                running[number].start()
            case "cancel":
                if number in running:
                    running[number].unwanted.set()
            case other:
                raise AssertionError(f"the node sent a frame of kind {other!r}")


def _tokens(model: Path) -> int:
    """How many the model has; 0 where its file does not tell."""
    try:
        with model.open("rb") as stream:
            return read_header(stream).vocabulary
    except (OSError, NotGguf):
        return 0  # the server says what is wrong with it


def _unknown_token(body: dict[str, Any], tokens: int) -> int | None:
    """The first one of a bias that the model has not: the server would pass over it without a word."""
    return next((token for token, _ in body["logit_bias"] if tokens and not 0 <= token < tokens), None)


def _open(load: dict[str, Any]) -> Any:
    """The server with its model. Raises `RuntimeError`; why is on stderr."""
    import xllamacpp

    folder = Path(tempfile.mkdtemp(prefix="astromesh-"))
    try:
        wishes = xllamacpp.CommonParams()
        wishes.model.path = load["path"]
        wishes.n_parallel = load["parallel"]
        wishes.n_ctx = load["context"] * min(load["parallel"], CONTEXTS_OF_CELLS)
        wishes.kv_unified = True
        wishes.n_batch = wishes.n_ubatch = CHUNK_TOKENS
        wishes.cpuparams.n_threads = wishes.cpuparams_batch.n_threads = load["threads"]
        wishes.cache_ram_mib = load["prefix_cache_bytes"] >> 20
        wishes.fit_params = False  # what a model takes is decided before it is loaded
        wishes.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_NONE
        if load["gpu_layers"] >= 0:
            wishes.n_gpu_layers = load["gpu_layers"]
        if split := load["tensor_split"]:
            wishes.tensor_split = [*map(float, split), *[0.0] * (len(wishes.tensor_split) - len(split))]
        wishes.hostnames = [str(folder / "s.sock")]
        wishes.api_keys = [secrets.token_hex(32)]
        wishes.ui = wishes.endpoint_slots = wishes.endpoint_props = wishes.endpoint_metrics = False
        wishes.verbosity = 1  # errors: what the parent keeps should be about the error
        return xllamacpp.Server(wishes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # nobody is ever to find the socket, not even we


class _Completion(threading.Thread):
    """One request and what the server tells of it."""

    def __init__(self, server: Any, frame: dict[str, Any], send: Send) -> None:
        super().__init__(name=f"completion-{frame['number']}", daemon=True)
        self.unwanted = threading.Event()
        self._server = server
        self._number: int = frame["number"]
        self._body: dict[str, Any] = frame["body"]
        self._top: int | None = frame["top"]
        self._send = send
        self._reason = "stop"
        self._last: dict[str, Any] = {}
        self._error: dict[str, Any] | None = None

    def run(self) -> None:
        ask = self._server.handle_chat_completions if "messages" in self._body else self._server.handle_completions
        try:
            if (said := ask(self._body, self._hear)) is not None:
                self._hear(said)
        except Exception as error:  # noqa: BLE001  whatever the binding raises ends this request and no other
            self._error = {"code": 500, "message": f"{type(error).__name__}: {error}"}
        if self.unwanted.is_set():
            self._send("cancelled", number=self._number)
        elif self._error is None:
            self._send("step", began=[], pieces=[], ended=[self._account()])
        elif self._error.get("code") in _CALLERS_MISTAKE:
            exceeds = self._error.get("type") == _EXCEEDS
            message, hint = self._error.get("message", ""), CONTEXT_HINT if exceeds else ""
            self._send("refused", number=self._number, message=message, hint=hint, param="messages", exceeds=exceeds)
        else:
            self._send("failed", number=self._number, message=self._error.get("message", ""))

    def _hear(self, told: dict[str, Any]) -> bool:
        """One piece of the server's stream. True ends it."""
        if "error" in told:
            self._error = told["error"]
            return True
        if "usage" in told or "timings" in told:
            self._last = {**self._last, **told}
        pieces = [piece for choice in told.get("choices", ()) for piece in self._pieces(choice)]
        if pieces or "prompt_progress" in told:
            self._send("step", began=[], pieces=pieces, ended=[])
        return self.unwanted.is_set()

    def _pieces(self, choice: dict[str, Any]) -> list[list[Any]]:
        self._reason = choice.get("finish_reason") or self._reason
        delta = choice.get("delta") or {}
        pieces: list[list[Any]] = []
        if text := choice.get("text") or delta.get("content"):
            logprobs = (choice.get("logprobs") or {}).get("content", ()) if self._top is not None else ()
            pieces.append([self._number, text, [], [self._logprob(row) for row in logprobs], None])
        for call in delta.get("tool_calls") or ():
            function = call.get("function") or {}
            told = [call["index"], call.get("id") or "", function.get("name") or "", function.get("arguments") or ""]
            pieces.append([self._number, "", [], [], told])
        return pieces

    def _logprob(self, row: dict[str, Any]) -> list[Any]:
        others = row.get("top_logprobs", ())[: self._top]
        return [bytes(row["bytes"]), row["logprob"], [[bytes(other["bytes"]), other["logprob"]] for other in others]]

    def _account(self) -> dict[str, Any]:
        usage, timings = self._last.get("usage", {}), self._last.get("timings", {})
        return {
            "number": self._number,
            "finish_reason": self._reason,
            "tokens_in": usage.get("prompt_tokens", 0),
            "tokens_out": usage.get("completion_tokens", 0),
            "cached_tokens": (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
            "timings": {
                "queue_ms": 0.0,
                "prefill_ms": float(timings.get("prompt_ms", 0.0)),
                "decode_tok_s": float(timings.get("predicted_per_second", 0.0)),
            },
        }


if __name__ == "__main__":
    main()
