"""What an encoder's files say, and how a mistake in them is named."""

from __future__ import annotations

import pytest

from astromesh.inference.encoder import EncoderManifest, read_manifest


def test_without_a_manifest_a_model_makes_embeddings_by_the_mean() -> None:
    manifest = read_manifest(b"")
    assert (manifest.task, manifest.pooling, manifest.normalise) == ("embed", "mean", True)


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
def test_a_mistake_in_a_manifest_is_named(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        read_manifest(text.encode())
