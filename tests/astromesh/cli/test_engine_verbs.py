"""`engine status` and `engine install`: what is here, what would be built, what is missing, and a build whose tools are doubles."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.astromesh.cli.conftest import Cli, RunningNode

from astromesh.inference.backends import building

pytestmark = pytest.mark.processes  # each asks a compiler for its version

PIP = """#!{python}
import os, sys
from pathlib import Path
if "wheel" in sys.argv:
    print("[1/2] a\\n[2/2] b", flush=True)
    if os.environ.get("BROKEN"):
        sys.exit("undefined reference to common sense")
    assert os.environ.get("CMAKE_ARGS") == {cmake_args!r}, os.environ.get("CMAKE_ARGS")
    folder = sys.argv[sys.argv.index("--wheel-dir") + 1]
    Path(folder, "llama_cpp_python-0.3.36-py3-none-any.whl").write_text("a wheel")
else:
    Path({log!r}).open("a").write(" ".join(sys.argv[1:]) + "\\n")
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with a C++ compiler and nothing else; a folder to put more tools into. The cache is empty."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "c++").write_text("#!/bin/sh\necho c++ 99.1\n")
    (folder / "c++").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("CXX", "CMAKE_ARGS", "CUDACXX", "CUDA_HOME", "CUDA_PATH", "VULKAN_SDK"):
        monkeypatch.delenv(variable, raising=False)
    return folder


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Whatever pip is told to install is written down here instead; what it is told to build is built at once."""
    log, program = tmp_path / "installed", tmp_path / "python"
    program.write_text(PIP.format(python=sys.executable, log=str(log), cmake_args=None))
    program.chmod(0o755)
    monkeypatch.setattr(building.sys, "executable", str(program))
    return log


def test_the_plan_is_shown_without_doing_anything(cli: Cli, tools: Path) -> None:
    shown = cli("engine", "install", "--vulkan", "--dry-run", "--json")
    plan = json.loads(shown.stdout)
    assert (shown.exit_code, plan["backend"], plan["environment"]) == (0, "vulkan", {"CMAKE_ARGS": "-DGGML_VULKAN=on"})
    assert any("glslc" in missing for missing in plan["missing"])
    assert plan["cached"] is None
    assert not building.cache_root().exists()
    in_words = cli("engine", "install", "--vulkan", "--dry-run").stdout
    assert "-DGGML_VULKAN=on" in in_words
    assert "glslc" in in_words


def test_where_a_tool_is_missing_it_is_named_and_nothing_begins(cli: Cli, tools: Path) -> None:
    answer = cli("engine", "install", "--vulkan")
    assert answer.exit_code == 1
    assert "glslc" in answer.stderr
    (tools / "c++").unlink()
    answer = cli("engine", "install", "--cpu")
    assert answer.exit_code == 1
    assert "apt-get install g++" in answer.stderr
    assert not building.cache_root().exists()


def test_an_engine_is_compiled_once_kept_and_installed(cli: Cli, tools: Path, pip: Path) -> None:
    assert cli("engine", "install", "--cpu", "--cached").exit_code == 1
    first = cli("engine", "install", "--cpu")
    assert first.exit_code == 0, first.stderr
    assert "compiling llama-cpp-python 0.3.36 for cpu, once" in first.stderr
    assert "for cpu is installed" in first.stdout
    (wheel,) = building.cache_root().glob("*/*.whl")
    installed = pip.read_text().splitlines()
    assert [str(wheel) in line for line in installed] == [True, True]
    assert "--force-reinstall --no-deps" in installed[1]
    assert cli("engine", "install", "--cpu", "--cached", "--dry-run").exit_code == 0
    again = cli("engine", "install", "--cpu", "--json")
    assert json.loads(again.stdout)["wheel"] == str(wheel)
    assert "compiling" not in again.stderr
    assert len(pip.read_text().splitlines()) == 4
    assert str(wheel) in cli("engine", "status").stdout


def test_a_build_that_fails_shows_its_last_words_and_leaves_nothing(
    cli: Cli, tools: Path, pip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN", "1")
    answer = cli("engine", "install", "--cpu")
    assert answer.exit_code == 1
    assert "common sense" in answer.stderr
    assert list(building.cache_root().iterdir()) == []
    assert not pip.exists()


def test_the_status_of_this_machine_is_told_where_no_node_runs(cli: Cli) -> None:
    shown = cli("engine", "status", "--json")
    assert shown.exit_code == 0
    status = json.loads(shown.stdout)
    assert status["processor"]["threads"] >= 1
    assert status["models"] == []
    assert "this is the engine of this machine" in cli("engine", "status").stderr


def test_the_status_of_a_node_is_its_own(cli: Cli, node: RunningNode) -> None:
    assert json.loads(cli("engine", "status", "--json", "--url", node.url).stdout)["node"] == "solo"
    assert cli("engine", "status", "--url", node.url).stdout.split()[:2] == ["node", "solo"]


def test_without_any_engine_the_status_says_how_to_get_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building.importlib.util, "find_spec", lambda _name: None)
    shown = cli("engine", "status")
    assert "no engine is installed" in shown.stderr
    assert "'astromesh-node engine install'" in shown.stderr


def test_a_compiler_that_is_broken_is_as_good_as_none(cli: Cli, tools: Path) -> None:
    (tools / "c++").write_text("#!/bin/sh\nexit 1\n")
    assert "C++ compiler" in cli("engine", "install", "--cpu").stderr
