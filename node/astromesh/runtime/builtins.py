"""What comes with a node, by kind and name: one literal table, each entry imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

Kind = Literal["provider", "tool", "memory"]

_OPENAI = "astromesh.providers.backends.openai_compat:OpenAICompat"

TABLE: dict[tuple[Kind, str], str] = {
    ("provider", "openai"): _OPENAI,
    ("provider", "openai_compat"): _OPENAI,
    ("provider", "openai-compat"): _OPENAI,
    ("provider", "openrouter"): _OPENAI,
    ("provider", "vllm"): _OPENAI,
    ("provider", "llamacpp"): _OPENAI,
    ("provider", "llama_cpp"): _OPENAI,
    ("provider", "hf_tgi"): _OPENAI,
    ("provider", "ollama"): _OPENAI,
    ("tool", "datetime_now"): "astromesh.tools.backends.datetime_now:DatetimeNow",
    ("memory", "in_memory"): "astromesh.memory.backends.in_memory:InMemory",
}

# Where the servers of these kinds listen when nobody says otherwise.
DEFAULT_ENDPOINTS: dict[str, str] = {
    "openai": "https://api.openai.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "ollama": "http://127.0.0.1:11434/v1",
    "vllm": "http://127.0.0.1:8000/v1",
    "llamacpp": "http://127.0.0.1:8080/v1",
    "llama_cpp": "http://127.0.0.1:8080/v1",
}


def lookup(kind: Kind, name: str) -> Any | None:
    """The class behind a name, or None where there is none."""
    where = TABLE.get((kind, name))
    if where is None:
        return None
    module, _, attribute = where.partition(":")
    return getattr(import_module(module), attribute)
