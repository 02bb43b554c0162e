"""Who may run a model for an agent that requires something of its node."""

from __future__ import annotations

import pytest

from astromesh.routing.eligible import GB, Means, Requirements, lack

CARD = Requirements(gpu=True)
ROOM = Requirements(vram_gb=8)
SPEED = Requirements(min_tok_s=20)


@pytest.mark.parametrize(
    ("requires", "means", "said"),
    [
        (Requirements(), Means(), ""),
        (CARD, Means(), "whether it has a GPU is not known"),
        (CARD, Means(gpus=()), "it has no GPU"),
        (CARD, Means(gpus=(None,)), ""),
        (ROOM, Means(gpus=(None,)), "the memory of its GPU is not known"),
        (ROOM, Means(gpus=(4 * GB, None)), "its largest GPU has 4.0 GB"),
        (ROOM, Means(gpus=(4 * GB, 8 * GB)), ""),
        (SPEED, Means(tok_s=None), ""),
        (SPEED, Means(tok_s=20.0), ""),
        (SPEED, Means(tok_s=19.0), "it makes 19 tokens/s"),
        (Requirements(gpu=True, min_tok_s=20), Means(gpus=(), tok_s=5.0), "it has no GPU and it makes 5 tokens/s"),
    ],
)
def test_what_is_missing_is_said_and_only_what_is_known_to_be_missing(requires: Requirements, means: Means, said: str) -> None:
    assert lack(requires, means) == said


def test_requirements_are_said_in_words_and_nothing_is_required_by_default() -> None:
    assert str(Requirements(gpu=True, vram_gb=8, min_tok_s=20)) == "a GPU with 8 GB and 20 tokens/s"
    assert str(CARD) == "a GPU"
    assert not Requirements()
