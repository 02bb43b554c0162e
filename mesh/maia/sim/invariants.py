"""What must hold, each under the name that a failure prints."""

from __future__ import annotations

from enum import StrEnum


class Invariant(StrEnum):
    """ALGORITHM.md says of each what it means and why."""

    SPARED = "spared"
    NO_GHOST = "no ghost"
    TRUSTED = "trusted again"
    OWN_WORD = "own word"
    MONOTONE = "monotone"
    NOTICED = "noticed"
    NO_LIMBO = "no limbo"
    BOUNDED = "bounded"
    UNMOVED = "unmoved"
    OWN_ERROR = "own error"
    AGREEMENT = "agreement"
