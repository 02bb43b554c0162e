"""The files of an encoder, and what they do not say themselves: `encoder.json` beside the model. Pure but for the looks at the disk.

    model.onnx        takes token ids (and a mask, and types of tokens, where it has such inputs)
    tokenizer.json    as the `tokenizers` library writes it
    encoder.json      optional: {"task": "classify", "labels": ["calm", "angry"], "max_length": 512, …}

Without `encoder.json` a model makes embeddings: the mean of its tokens under the mask, normalised. That is how most of them were trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from astromesh.errors import StoreError
from astromesh.inference.encoding import Task

Pooling = Literal["mean", "first", "none"]
Activation = Literal["softmax", "sigmoid", "none"]
InputRole = Literal["ids", "mask", "types"]

MODEL_FILE, TOKENIZER_FILE, MANIFEST_FILE = "model.onnx", "tokenizer.json", "encoder.json"
MANIFEST_BYTES_MAX = 64 * 1024
DEFAULT_LENGTH_TOKENS = 256  # what sentence models were trained on; more tokens than a model has places for end in an error of its graph

# Under which names graphs take these; a manifest may say others.
INPUT_NAMES: Mapping[InputRole, str] = {"ids": "input_ids", "mask": "attention_mask", "types": "token_type_ids"}


@dataclass(frozen=True, slots=True)
class EncoderManifest:
    """`pooling`: from a row for each token to one for each text; none where the graph gives that already.

    `activation`: from what the graph says of each label to its score. `output`: which of its outputs; empty for the first.
    """

    task: Task = "embed"
    pooling: Pooling = "mean"
    normalise: bool = True
    max_length: int | None = None
    labels: tuple[str, ...] = ()
    activation: Activation = "none"
    output: str = ""
    inputs: Mapping[InputRole, str] = field(default_factory=lambda: dict(INPUT_NAMES))


@dataclass(frozen=True, slots=True)
class EncoderFiles:
    model: Path
    tokenizer: Path
    manifest: EncoderManifest = EncoderManifest()


def files_beside(path: Path) -> EncoderFiles:
    """The files of a model that is a folder, or a file with its tokenizer beside it. Raises `StoreError`."""
    folder, model = (path, path / MODEL_FILE) if path.is_dir() else (path.parent, path)
    for file in (model, folder / TOKENIZER_FILE):
        if not file.is_file():
            raise StoreError(f"{file} is not there", hint=f"an encoder is a folder of {MODEL_FILE} and {TOKENIZER_FILE}")
    written = folder / MANIFEST_FILE
    try:
        with written.open("rb") as stream:
            text = stream.read(MANIFEST_BYTES_MAX)
    except FileNotFoundError:
        return EncoderFiles(model, folder / TOKENIZER_FILE)
    except OSError as error:
        raise StoreError(f"{written} cannot be read: {error.strerror or error}", hint="it may be left out where a model embeds") from error
    try:
        return EncoderFiles(model, folder / TOKENIZER_FILE, read_manifest(text))
    except ValueError as mistake:
        raise StoreError(f"{written}: {mistake}", hint="docs/embeddings.md says what may stand there") from mistake


def read_manifest(text: bytes) -> EncoderManifest:
    """Raises `ValueError` that names the key at fault."""
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004  what a file says is a value
    known = [one.name for one in fields(EncoderManifest)]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{unknown[0]!r} is no key of it; there are {', '.join(known)}")
    task = _one_of(values, "task", get_args(Task), "embed")
    labels = values.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels) or len(set(labels)) < len(labels):
        raise ValueError("labels is no list of different names")
    if task == "classify" and len(labels) < 1:
        raise ValueError("labels is missing: a classifier's numbers mean nothing without their names")
    length = values.get("max_length")
    if length is not None and (type(length) is not int or length < 2):
        raise ValueError("max_length is no number of tokens from 2 on")
    normalise, output, inputs = values.get("normalise", True), values.get("output", ""), values.get("inputs", {})
    well = {
        "normalise is neither true nor false": isinstance(normalise, bool),
        "output is no name of an output": isinstance(output, str),
        f"inputs may name {', '.join(INPUT_NAMES)}": isinstance(inputs, dict)
        and all(role in INPUT_NAMES and isinstance(name, str) for role, name in inputs.items()),
    }
    if wrong := next((what for what, true in well.items() if not true), None):
        raise ValueError(wrong)
    return EncoderManifest(
        task=task,
        pooling=_one_of(values, "pooling", get_args(Pooling), "mean" if task == "embed" else "none"),
        normalise=normalise,
        max_length=length,
        labels=tuple(labels),
        activation=_one_of(values, "activation", get_args(Activation), "softmax" if task == "classify" else "none"),
        output=output,
        inputs={**INPUT_NAMES, **inputs},
    )


def _one_of(values: Mapping[str, Any], key: str, known: tuple[str, ...], default: str) -> Any:
    value = values.get(key, default)
    if value not in known:
        raise ValueError(f"{key} is {value!r}; it may be {', '.join(known)}")
    return value
