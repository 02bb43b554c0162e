"""What an encoder's files do not say themselves: `encoder.json` beside the model. Pure.

    model.onnx        takes token ids (and a mask, and types of tokens, where it has such inputs)
    tokenizer.json    as the `tokenizers` library writes it
    encoder.json      optional: {"task": "classify", "labels": ["calm", "angry"], "max_length": 512, …}

Without `encoder.json` a model makes embeddings: the mean of its tokens under the mask, normalised. That is how most of them were trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from astromesh.dialogue import EncodingTask

Pooling = Literal["mean", "first", "none"]
Activation = Literal["softmax", "sigmoid", "none"]
InputRole = Literal["ids", "mask", "types"]

MANIFEST_BYTES_MAX = 64 * 1024  # a thousand labels have 20 KiB
DEFAULT_LENGTH_TOKENS = 256  # what sentence models were trained on; more tokens than a model has places for end in an error of its graph

# Under which names graphs take these; a manifest may say others.
INPUT_NAMES: Mapping[InputRole, str] = {"ids": "input_ids", "mask": "attention_mask", "types": "token_type_ids"}


@dataclass(frozen=True, slots=True)
class EncoderManifest:
    """`pooling`: from a row for each token to one for each text; none where the graph gives that already.

    `activation`: from what the graph says of each label to its score. `output`: which of its outputs; empty for the first.
    """

    task: EncodingTask = "embed"
    pooling: Pooling = "mean"
    normalise: bool = True
    max_length: int | None = None
    labels: tuple[str, ...] = ()
    activation: Activation = "none"
    output: str = ""
    inputs: Mapping[InputRole, str] = field(default_factory=lambda: dict(INPUT_NAMES))


def read_manifest(text: bytes) -> EncoderManifest:
    """Nothing written is the default. Raises `ValueError` that names the key at fault."""
    if not text:
        return EncoderManifest()
    values = json.loads(text)
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004  what a file says is a value
    known = [one.name for one in fields(EncoderManifest)]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f"{unknown[0]!r} is no key of it; there are {', '.join(known)}")
    task = _one_of(values, "task", get_args(EncodingTask), "embed")
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
