"""Which engine runs a model, as far as it is known before one is loaded."""

from __future__ import annotations

import pytest
from tests.rig.rooms import Rooms

from astromesh.inference.backends.llama_cpp.engine import LlamaCppEngine
from astromesh.inference.backends.onnx_runtime.engine import OnnxEncoder
from astromesh.inference.backends.xllamacpp.engine import XllamacppEngine
from astromesh.runtime.engines import engine_for, installed


def there(monkeypatch: pytest.MonkeyPatch, *, compiled: bool, prebuilt: bool) -> None:
    """`json` stands for a library that is installed."""
    monkeypatch.setattr(LlamaCppEngine, "needs", ("json",) if compiled else ("no_such_module",))
    monkeypatch.setattr(XllamacppEngine, "needs", ("json",) if prebuilt else ("no_such_module",))


@pytest.mark.parametrize(
    ("compiled", "prebuilt", "taken"),
    [
        (True, True, LlamaCppEngine),
        (True, False, LlamaCppEngine),
        (False, True, XllamacppEngine),
        (False, False, XllamacppEngine),  # it says which command brings one in seconds
    ],
)
def test_the_compiled_engine_is_taken_where_it_is_there_and_else_the_prebuilt_one(
    monkeypatch: pytest.MonkeyPatch, compiled: bool, prebuilt: bool, taken: type
) -> None:
    there(monkeypatch, compiled=compiled, prebuilt=prebuilt)
    assert engine_for("gguf") is taken
    assert bool(installed()) is (compiled or prebuilt)


def test_an_engine_that_is_named_is_taken_whatever_else_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    there(monkeypatch, compiled=True, prebuilt=False)
    assert engine_for("gguf", wish="xllamacpp") is XllamacppEngine


def test_an_encoder_has_an_engine_of_its_own_whatever_was_wished_for_texts() -> None:
    assert engine_for("onnx", wish="xllamacpp") is OnnxEncoder


def test_a_node_without_an_engine_says_in_its_refusals_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms = Rooms()
    there(monkeypatch, compiled=False, prebuilt=False)
    assert "astromesh-node[local-prebuilt]" in rooms.models.verdict("smollm2", [], forwarded=False).hint
    there(monkeypatch, compiled=False, prebuilt=True)
    assert "astromesh-node[local-prebuilt]" not in rooms.models.verdict("smollm2", [], forwarded=False).hint
