"""What the plan says that a model takes, beside what llama.cpp says that it has taken; and the real engine as devices see it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from astromesh.inference.backends.devices import machine
from astromesh.inference.backends.devices.looking import Looker, libraries
from astromesh.inference.backends.inspecting import inspect
from astromesh.inference.devices import Inventory
from astromesh.inference.gguf import read_header
from astromesh.inference.manifest import StoredModel
from astromesh.inference.placement import cells, plan_placement
from astromesh.inference.stream import CHUNK_TOKENS

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

CONTEXT, PARALLEL = 2048, 4
MIB = 2**20
# With the settings of `library.open_context`.
LOAD = """
import sys, llama_cpp
model = llama_cpp.llama_model_load_from_file(sys.argv[1].encode(), llama_cpp.llama_model_default_params())
settings = llama_cpp.llama_context_default_params()
settings.n_ctx, settings.n_batch, settings.n_ubatch = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[3])
settings.n_seq_max, settings.kv_unified = int(sys.argv[4]) + 1, True
settings.type_k = settings.type_v = 30
settings.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
assert llama_cpp.llama_init_from_model(model, settings)
"""


def test_the_plan_agrees_with_what_llama_cpp_takes(smollm2: StoredModel) -> None:
    with smollm2.path.open("rb") as stream:
        header = read_header(stream)
    plan = plan_placement(header, Inventory(), context=CONTEXT, parallel=PARALLEL)
    command = [sys.executable, "-c", LOAD, smollm2.path, cells(CONTEXT, PARALLEL), CHUNK_TOKENS, PARALLEL]
    said = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=240, check=True).stderr

    def taken(what: str) -> float:
        return sum(float(size) for size in re.findall(rf"{what} buffer size\s*=\s*([0-9.]+) MiB", said)) * MIB

    assert plan.weights_bytes == pytest.approx(taken("model"), abs=MIB / 50)
    assert plan.cache_bytes == pytest.approx(taken("KV"), abs=MIB / 50)
    rest = plan.host_needed_bytes - plan.weights_bytes - plan.cache_bytes
    assert taken("compute") + taken("output") == pytest.approx(rest, rel=0.1)
    assert plan.layers == header.layers + 1


def test_the_installed_engine_tells_what_it_was_built_for() -> None:
    assert libraries() is not None
    looker = Looker()
    status = inspect(looker, looker.inventory())
    assert "CPU" in status["backends"]
    assert status["built_for"]
    # It was compiled here: it does without nothing that this processor has.
    assert not [warning for warning in status["warnings"] if "does without" in warning], machine.processor().features
