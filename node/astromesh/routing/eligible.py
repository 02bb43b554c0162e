"""Who may be asked at all: what an agent requires of the node that runs its model. Pure."""

from __future__ import annotations

from dataclasses import dataclass

GB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Requirements:
    """`gpu`: there has to be one; `vram_gb`: one with so much memory; `min_tok_s`: no node that was seen to be slower."""

    gpu: bool = False
    vram_gb: float = 0.0
    min_tok_s: float = 0.0

    def __bool__(self) -> bool:
        return self.gpu or self.vram_gb > 0 or self.min_tok_s > 0

    def __str__(self) -> str:
        card = f"a GPU with {self.vram_gb:g} GB" if self.vram_gb else "a GPU" if self.gpu else ""
        speed = f"{self.min_tok_s:g} tokens/s" if self.min_tok_s else ""
        return " and ".join(word for word in (card, speed) if word)


@dataclass(frozen=True, slots=True)
class Means:
    """What a node says of itself and of the model. `gpus`: the memory of each card in bytes, None where that is not told.

    None instead of the cards: nobody knows whether there are any. `tok_s` is None until somebody has measured it.
    """

    gpus: tuple[int | None, ...] | None = None
    tok_s: float | None = None


def lack(requires: Requirements, means: Means) -> str:
    """What is missing, in words; empty where nothing is.

    A card that nobody knows of cannot be counted on. A speed that nobody has measured can: else it never would be.
    """
    missing = []
    if requires.gpu or requires.vram_gb:
        if means.gpus is None:
            missing.append("whether it has a GPU is not known")
        elif not means.gpus:
            missing.append("it has no GPU")
        elif requires.vram_gb:
            largest = max((size for size in means.gpus if size is not None), default=None)
            if largest is None:
                missing.append("the memory of its GPU is not known")
            elif largest < requires.vram_gb * GB:
                missing.append(f"its largest GPU has {largest / GB:.1f} GB")
    if requires.min_tok_s and means.tok_s is not None and means.tok_s < requires.min_tok_s:
        missing.append(f"it makes {means.tok_s:g} tokens/s")
    return " and ".join(missing)
