"""The node's side of an encoder: what it is asked, and what its numbers mean."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from astromesh.dialogue import EncodingTask
from astromesh.inference.backends.encoding import EncodingEngine
from astromesh.inference.backends.supervised import EngineLimits, nobody
from astromesh.inference.encoder import DEFAULT_LENGTH_TOKENS, read_manifest
from astromesh.inference.port import ModelSpecification


class OnnxEncoder(EncodingEngine):
    """A `TextEncoder` over ONNX Runtime. Its one task is the one of its manifest."""

    command: ClassVar[Sequence[str]] = (sys.executable, "-P", "-m", "astromesh.inference.backends.onnx_runtime.worker")
    needs: ClassVar[tuple[str, ...]] = ("onnxruntime", "tokenizers")
    absent: ClassVar[str] = "this node has no ONNX Runtime, so it cannot run encoders itself"
    extra_hint: ClassVar[str] = "pip install 'astromesh-node[onnx]'"
    context_hint: ClassVar[str] = "write that as max_length into its encoder.json"

    def __init__(
        self,
        model: ModelSpecification,
        *,
        limits: EngineLimits | None = None,
        command: Sequence[str] = (),
        on_change: Callable[[], None] = nobody,
    ) -> None:
        """Raises `ValueError` where what stands in its `encoder.json` cannot be."""
        super().__init__(model, limits=limits, command=command, on_change=on_change)
        self._manifest = read_manifest(model.encoder)

    @property
    def tasks(self) -> tuple[EncodingTask, ...]:
        return (self._manifest.task,)

    @property
    def labels(self) -> tuple[str, ...]:
        return self._manifest.labels if self._manifest.task == "classify" else ()

    def _load_frame(self) -> dict[str, Any]:
        manifest = self._manifest
        length = manifest.max_length or min(self._model.context, DEFAULT_LENGTH_TOKENS)
        return {**super()._load_frame(), "tokenizer": str(self._model.tokenizer), "manifest": asdict(manifest), "context": length}
