"""What an encoder's files say, and how a mistake in them is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from astromesh.errors import StoreError
from astromesh.inference.encoder import EncoderManifest, files_beside, read_manifest


def a_folder(path: Path, *, manifest: str | None = None) -> Path:
    for name in ("model.onnx", "tokenizer.json"):
        (path / name).touch()
    if manifest is not None:
        (path / "encoder.json").write_text(manifest)
    return path


def test_without_a_manifest_a_model_makes_embeddings_by_the_mean(tmp_path: Path) -> None:
    files = files_beside(a_folder(tmp_path))
    assert (files.model, files.tokenizer) == (tmp_path / "model.onnx", tmp_path / "tokenizer.json")
    assert (files.manifest.task, files.manifest.pooling, files.manifest.normalise) == ("embed", "mean", True)


def test_a_file_finds_its_tokenizer_beside_it(tmp_path: Path) -> None:
    (a_folder(tmp_path) / "model.onnx").rename(tmp_path / "minilm.onnx")
    assert files_beside(tmp_path / "minilm.onnx").tokenizer == tmp_path / "tokenizer.json"


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    (a_folder(tmp_path) / "tokenizer.json").unlink()
    with pytest.raises(StoreError, match=r"tokenizer\.json is not there"):
        files_beside(tmp_path)


def test_a_classifier_tells_shares_of_its_labels_and_pools_nothing() -> None:
    manifest = read_manifest(b'{"task": "classify", "labels": ["calm", "angry"], "inputs": {"ids": "tokens"}}')
    assert manifest == EncoderManifest(
        task="classify",
        pooling="none",
        labels=("calm", "angry"),
        activation="softmax",
        inputs={"ids": "tokens", "mask": "attention_mask", "types": "token_type_ids"},
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[]", "no JSON object"),
        ("{", "Expecting"),
        ('{"tusk": "embed"}', "'tusk' is no key"),
        ('{"task": "dream"}', "task is 'dream'"),
        ('{"task": "classify"}', "labels is missing"),
        ('{"labels": ["a", "a"]}', "labels is no list of different names"),
        ('{"pooling": "max"}', "pooling is 'max'"),
        ('{"max_length": true}', "max_length is no number"),
        ('{"normalise": 1}', "normalise is neither"),
        ('{"inputs": {"word": "x"}}', "inputs may name ids, mask, types"),
    ],
)
def test_a_mistake_in_a_manifest_is_named_with_its_file(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(StoreError, match=named) as mistake:
        files_beside(a_folder(tmp_path, manifest=text))
    assert "encoder.json" in mistake.value.message
