"""What comes with a node, by kind and name: one literal table, each entry imported when it is first used."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

Kind = Literal["engine", "memory", "provider", "tool"]

TABLE: dict[tuple[Kind, str], str] = {
    ("engine", "llama_cpp"): "astromesh.inference.backends.llama_cpp.engine:LlamaCppEngine",
    ("engine", "onnx_runtime"): "astromesh.inference.backends.onnx_runtime.engine:OnnxEncoder",
    ("engine", "xllamacpp"): "astromesh.inference.backends.xllamacpp.engine:XllamacppEngine",
    ("memory", "in_memory"): "astromesh.memory.backends.in_memory:InMemory",
    ("memory", "sqlite"): "astromesh.memory.backends.sqlite:Sqlite",
    ("provider", "openai_compat"): "astromesh.providers.backends.openai_compat:OpenAICompat",
    ("tool", "datetime_now"): "astromesh.tools.backends.datetime_now:DatetimeNow",
    ("tool", "http_request"): "astromesh.tools.backends.http_request:HttpRequest",
    ("tool", "json_transform"): "astromesh.tools.backends.json_transform:JsonTransform",
    ("tool", "webhook"): "astromesh.tools.backends.webhook:Webhook",
}


def lookup(kind: Kind, name: str) -> Any:
    """The class behind a name. What the specs let through is in the table."""
    module, _, attribute = TABLE[kind, name].partition(":")
    return getattr(import_module(module), attribute)
