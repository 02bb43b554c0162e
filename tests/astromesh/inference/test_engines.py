"""What a build of the engine can do here, what would be built, and what somebody is told to do about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from astromesh.inference.devices import Accelerator, Inventory, Look, Processor
from astromesh.inference.engines import (
    BACKENDS,
    Backend,
    EngineFacts,
    Machine,
    advice,
    best_backend,
    built_for,
    plan_build,
    status_document,
)

MACHINE = Machine("linux", "x86_64", "3.11.7", "avx2 fma", "c++ 12.2.0")
WHOLE = replace(MACHINE, nvcc="/usr/local/cuda/bin/nvcc", glslc="/usr/bin/glslc", vulkan_headers="/usr/include")
PROCESSOR = Processor("A processor", 4, 8, ("avx2", "fma"))
CPU_ONLY = EngineFacts((("llama-cpp-python", "0.3.36"),), ("CPU",), ("AVX2", "FMA"))
CARD = Look("nvidia", "ok", found=(Accelerator("GPU-1", "NVIDIA RTX", "nvidia", pci="0:1"),))
USED = Look("engine", "ok", found=(Accelerator("0:1", "NVIDIA RTX", "engine", pci="0:1", engine="CUDA0"),))


def told(facts: EngineFacts, *looks: Look, processor: Processor = PROCESSOR) -> str:
    return "\n".join(advice(facts, Inventory(looks), processor, platform="linux"))


def test_what_the_build_says_of_itself_is_read() -> None:
    system = "CUDA : ARCHS = 890 | USE_GRAPHS = 1 | CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 0 | OPENMP = 1 | REPACK = 1 | "
    assert built_for(system) == ("SSE3", "AVX2", "OPENMP", "REPACK")
    assert built_for("CPU : NEON = 1 | DOTPROD = 1 |") == ("NEON", "DOTPROD")
    assert built_for("") == built_for("nothing to see") == ()
    facts = EngineFacts.of((("llama-cpp-python", "1"),), {"backends": ["CUDA", "CPU", 7], "system": system})
    assert facts.backends == ("CUDA", "CPU")


def test_all_is_well_where_the_engine_uses_what_is_here() -> None:
    assert told(CPU_ONLY) == ""
    assert told(replace(CPU_ONLY, backends=("CUDA", "CPU")), CARD, USED) == ""


def test_a_card_beside_an_engine_for_the_processor_alone_is_a_warning_with_the_command_that_mends_it() -> None:
    assert "NVIDIA RTX" in told(CPU_ONLY, CARD)
    assert "'astromesh-node engine install --cuda'" in told(CPU_ONLY, CARD)
    radeon = Look("amd", "ok", found=(Accelerator("1", "Radeon", "amd"),))
    assert "'astromesh-node engine install --vulkan'" in told(CPU_ONLY, radeon)


def test_a_card_that_an_engine_for_cards_does_not_see_is_a_matter_of_its_driver() -> None:
    said = told(replace(CPU_ONLY, backends=("CUDA", "CPU")), CARD)
    assert "driver" in said
    assert "install" not in said


def test_without_an_engine_it_is_said_how_to_get_one() -> None:
    assert "astromesh-node engine install" in told(EngineFacts(), CARD)


def test_an_engine_that_dies_on_this_processor_is_to_be_compiled_anew() -> None:
    said = told(replace(CPU_ONLY, backends=(), built_for=(), problem="the process that looked met an instruction"), CARD)
    assert "astromesh-node engine install" in said
    assert said.count("\n") == 0


def test_an_engine_that_leaves_features_unused_is_told_with_their_names() -> None:
    said = told(replace(CPU_ONLY, built_for=("SSE3",)))
    assert "avx2, fma" in said
    assert told(CPU_ONLY, processor=replace(PROCESSOR, features=("avx2", "fma", "avx512f"))).startswith("the engine does without avx512f")


def test_a_look_that_failed_is_among_the_warnings() -> None:
    assert "nvidia: it hangs" in told(CPU_ONLY, Look("nvidia", "failed", "it hangs"))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_missing_for_a_build_is_named_with_what_brings_it(backend: Backend) -> None:
    bare = plan_build(backend, replace(MACHINE, compiler=""))
    assert any("C++ compiler" in missing and "apt-get install g++" in missing for missing in bare.missing)
    named = {"cpu": "C++", "cuda": "nvcc", "vulkan": "glslc", "metal": "macOS"}[backend]
    assert any(named in missing for missing in bare.missing)


def test_with_all_tools_nothing_is_missing() -> None:
    assert [plan_build(backend, WHOLE).missing for backend in ("cpu", "cuda", "vulkan")] == [(), (), ()]
    assert plan_build("metal", replace(WHOLE, platform="darwin", xcrun="/usr/bin/xcrun")).missing == ()


def test_each_backend_is_built_with_its_own_options_behind_those_of_the_user() -> None:
    args = {backend: plan_build(backend, WHOLE).cmake_args for backend in BACKENDS}
    assert args == {"cpu": "", "cuda": "-DGGML_CUDA=on", "vulkan": "-DGGML_VULKAN=on", "metal": "-DGGML_METAL=on"}
    own = plan_build("cuda", replace(WHOLE, cmake_args="-DGGML_NATIVE=OFF"))
    assert own.environment == (("CMAKE_ARGS", "-DGGML_NATIVE=OFF -DGGML_CUDA=on"), ("CUDACXX", "/usr/local/cuda/bin/nvcc"))
    assert plan_build("cpu", replace(WHOLE, platform="darwin")).cmake_args == "-DGGML_METAL=off"


def test_the_cache_is_keyed_by_all_that_a_build_depends_on() -> None:
    changed = (
        replace(MACHINE, flags="avx2"),
        replace(MACHINE, compiler="c++ 13"),
        replace(MACHINE, python="3.12.1"),
        replace(MACHINE, machine="aarch64"),
        replace(MACHINE, cmake_args="-DGGML_NATIVE=OFF"),
    )
    folders = {plan_build(backend, MACHINE).folder for backend in BACKENDS} | {plan_build("cpu", other).folder for other in changed}
    assert len(folders) == len(BACKENDS) + len(changed)
    assert plan_build("cpu", MACHINE).folder == plan_build("cpu", WHOLE).folder  # a toolkit that it does not use is no matter


def test_without_a_choice_the_cards_decide() -> None:
    amd = Look("amd", "ok", found=(Accelerator("1", "Radeon", "amd"),))
    assert best_backend(Inventory(), platform="linux") == "cpu"
    assert best_backend(Inventory((CARD, amd)), platform="linux") == "cuda"
    assert best_backend(Inventory((amd,)), platform="linux") == "vulkan"
    assert best_backend(Inventory(), platform="darwin") == "metal"


def test_the_status_names_engine_build_processor_and_what_is_kept() -> None:
    shown = status_document(CPU_ONLY, Inventory((CARD,)), PROCESSOR, cached={"cpu": "/cache/a.whl"}, platform="linux")
    assert shown["installed"] == [{"name": "llama-cpp-python", "version": "0.3.36"}]
    assert (shown["backends"], shown["built_for"], shown["cached"]) == (["CPU"], ["AVX2", "FMA"], {"cpu": "/cache/a.whl"})
    assert shown["processor"]["features"] == ["avx2", "fma"]
    assert len(shown["warnings"]) == 1
