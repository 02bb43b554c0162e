"""ONNX Runtime and the tokenizer behind Python values. The only file that imports `onnxruntime` and `tokenizers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import onnxruntime
from tokenizers import Encoding, Tokenizer

from astromesh.inference.encoder import EncoderManifest

_QUIET = 3  # errors only: what the parent keeps for an error message should be about the error
# Tables of places end at 512 in nearly all models that have one. A text of 2,048 tokens takes some 200 MB for its attention: to try more
# of them at the load would cost what longer texts cost, and perhaps none comes.
PROBED_TOKENS_MAX = 2048
_TOLD_CHARACTERS = 300  # of an error of the runtime, which goes on with the names of all that it was built of


class EncoderUnusable(Exception):
    """These files do not make an encoder, or not of these texts; in words."""


@dataclass(frozen=True, slots=True)
class Read:
    """A text, or a pair of texts, as tokens."""

    encoding: Encoding
    truncated: bool

    @property
    def tokens(self) -> int:
        return len(self.encoding.ids)


class Encoder:
    def __init__(self, model: Path, tokenizer: Path, *, manifest: EncoderManifest, length: int, threads: int) -> None:
        """`length`: what the model is to read of a text, in tokens; what it does read is in `length` then. Raises `EncoderUnusable`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _QUIET
        # Threads that spin for their next work take the processor from the node, which is niced above them and shares the machine.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:
            raise EncoderUnusable(f"{type(error).__name__}: {error}") from error
        # A file carries the truncation and the padding of whoever saved it; ours are the model's length and the longest of a batch.
        self._tokenizer.no_padding()
        self._manifest = manifest
        taken = [one.name for one in self._session.get_inputs()]
        self._inputs = {role: name for role, name in manifest.inputs.items() if name in taken}
        if "ids" not in self._inputs or len(self._inputs) < len(taken):
            raise EncoderUnusable(f"its graph takes {', '.join(taken)}; name them under inputs of encoder.json: ids, mask, types")
        given = [one.name for one in self._session.get_outputs()]
        if manifest.output and manifest.output not in given:
            raise EncoderUnusable(f"its graph has no output {manifest.output!r} but {', '.join(given)}")
        self._output = manifest.output or given[0]
        self.columns = self.encode(self.read(["a"])).shape[1]
        self.length = self._readable(length)
        self._tokenizer.enable_truncation(self.length)
        if manifest.labels and self.columns != len(manifest.labels):
            raise EncoderUnusable(f"its graph tells {self.columns} numbers a text, and its manifest names {len(manifest.labels)} labels")
        if manifest.task == "rerank" and self.columns != 1:
            raise EncoderUnusable(f"its graph tells {self.columns} numbers a pair, and a ranking is made of one")

    def read(self, texts: Sequence[str] | Sequence[tuple[str, str]]) -> list[Read]:
        return [Read(encoding, bool(encoding.overflowing)) for encoding in self._tokenizer.encode_batch(list(texts))]

    def encode(self, rows: Sequence[Read]) -> Any:
        """`(rows, columns)` float32."""
        width = max(row.tokens for row in rows)
        ids = np.zeros((len(rows), width), dtype=np.int64)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : row.tokens] = row.encoding.ids
            mask[index, : row.tokens] = 1
            types[index, : row.tokens] = row.encoding.type_ids
        return self._finished(self._run(ids, mask, types), mask)

    def _run(self, ids: Any, mask: Any, types: Any) -> Any:
        given = {"ids": ids, "mask": mask, "types": types}
        try:
            (told,) = self._session.run([self._output], {name: given[role] for role, name in self._inputs.items()})
        except Exception as error:  # the runtime has a class for each of its codes, and no common one
            raise EncoderUnusable(f"its graph failed of {ids.shape[1]} tokens: {str(error)[:_TOLD_CHARACTERS]}") from error
        return np.asarray(told, dtype=np.float32)

    def _readable(self, length: int) -> int:
        """So many tokens, or as many as the graph has places for: of one more it would fail."""
        if self._takes(most := min(length, PROBED_TOKENS_MAX)):
            return length
        least = 1
        while most - least > 1:
            middle = (least + most) // 2
            least, most = (middle, most) if self._takes(middle) else (least, middle)
        return least

    def _takes(self, tokens: int) -> bool:
        row = np.zeros((1, tokens), dtype=np.int64)
        try:
            self._run(row, np.ones_like(row), row)
        except EncoderUnusable:
            return False
        return True

    def _finished(self, told: Any, mask: Any) -> Any:
        """From what the graph says to what is asked: one row for each text."""
        manifest = self._manifest
        match manifest.pooling:
            case "mean":
                if told.ndim != 3:
                    raise EncoderUnusable(f"its graph tells {told.ndim - 1} dimensions a text, and a mean is made of rows of tokens")
                weights = mask[:, :, None].astype(np.float32)
                told = (told * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1.0)
            case "first":
                told = told[:, 0]
        told = told.reshape(len(mask), -1)
        if manifest.task == "embed" and manifest.normalise:
            return told / np.maximum(np.linalg.norm(told, axis=1, keepdims=True), 1e-12)
        match manifest.activation:
            case "softmax":
                raised = np.exp(told - told.max(axis=1, keepdims=True))
                return raised / raised.sum(axis=1, keepdims=True)
            case "sigmoid":
                return 1.0 / (1.0 + np.exp(-told))
            case "none":
                return told
            case other:
                assert_never(other)


def as_bytes(rows: Any) -> bytes:
    """Row after row, float32, little-endian."""
    data: bytes = np.ascontiguousarray(rows, dtype="<f4").tobytes()
    return data


def manifest_of(frame: Mapping[str, Any]) -> EncoderManifest:
    return EncoderManifest(**{**frame, "labels": tuple(frame["labels"])})
