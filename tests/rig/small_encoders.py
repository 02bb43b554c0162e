"""Encoders that one can compute in one's head: a table of numbers for each word, and a graph that adds them up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from astromesh.inference.port import ModelSpecification

IDS, MASK, TYPES = "input_ids", "attention_mask", "token_type_ids"
PADDED_WITH = "[PAD]"


def small_encoder(
    folder: Path,
    words: Mapping[str, Sequence[float]],
    *,
    nodes: str = "rows",
    manifest: Mapping[str, Any] | None = None,
    places: int = 0,
    unmade: Sequence[str] = (),
    takes: int = TensorProto.INT64,
) -> ModelSpecification:
    """A model over these words, in files. `nodes`: "rows" gives the numbers of each token, "sums" adds them up, and "second" adds up those
    of a pair's second text. Padding has numbers of its own, large ones: whoever forgets the mask sees it.

    `places`: it has so many for tokens, as most have, and fails beyond. `unmade`: words that its tokenizer knows and its table does not.
    `takes`: the type of its token ids.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {PADDED_WITH: 0, "[UNK]": 1, **{word: index for index, word in enumerate((*words, *unmade), start=2)}}
    width = len(next(iter(words.values())))
    table = np.array([[1000.0] * width, [0.0] * width, *words.values()], dtype=np.float32)
    _write_tokenizer(folder / "tokenizer.json", vocabulary)
    onnx.save(_graph(table, nodes, places=places, takes=takes), str(folder / "model.onnx"))
    written = json.dumps(manifest).encode() if manifest is not None else b""
    if written:
        (folder / "encoder.json").write_bytes(written)
    return ModelSpecification(
        "small",
        folder / "model.onnx",
        "0" * 64,
        context=64,
        parallel=2,
        threads=1,
        kind="onnx",
        tokenizer=folder / "tokenizer.json",
        encoder=written,
    )


def _write_tokenizer(path: Path, vocabulary: dict[str, int]) -> None:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
    # What a saved tokenizer often has, and what must not decide: a padding to a fixed length and a truncation.
    tokenizer.enable_padding(pad_id=0, pad_token=PADDED_WITH, length=7)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(path))


def _graph(table: Any, nodes: str, *, places: int, takes: int) -> Any:
    def taken(name: str) -> Any:
        return helper.make_tensor_value_info(name, takes, ["batch", "sequence"])

    constants = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1], dtype=np.int64), "axis")]
    gather = helper.make_node("Gather", ["table", IDS], ["found"])
    weights = TYPES if nodes == "second" else MASK
    steps = [
        gather,
        helper.make_node("Cast", [weights], ["weights"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["weights", "last"], ["column"]),
        helper.make_node("Mul", ["found", "column"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "axis"], ["told"], keepdims=0),
    ]
    if nodes == "rows":
        steps = [gather, helper.make_node("Identity", ["found"], ["told"])]
    if places:
        numbers = {"none": 0, "one": 1}
        constants += [numpy_helper.from_array(np.array(number, dtype=np.int64), name) for name, number in numbers.items()]
        constants.append(numpy_helper.from_array(np.zeros((places, table.shape[1]), dtype=np.float32), "places"))
        gather.output[0] = "meant"
        steps[1:1] = [
            helper.make_node("Shape", [IDS], ["shape"]),
            helper.make_node("Gather", ["shape", "one"], ["length"]),
            helper.make_node("Range", ["none", "length", "one"], ["numbers"]),
            helper.make_node("Gather", ["places", "numbers"], ["placed"]),
            helper.make_node("Add", ["meant", "placed"], ["found"]),
        ]
    constants.append(numpy_helper.from_array(np.array([2], dtype=np.int64), "last"))
    inputs = [taken(IDS), taken(MASK), *([taken(TYPES)] if nodes == "second" else [])]
    output = helper.make_tensor_value_info("told", TensorProto.FLOAT, None)
    graph = helper.make_graph(steps, "small", inputs, [output], initializer=constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
