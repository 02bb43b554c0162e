"""The wheel that was built from the sdist, in an environment of its own: what somebody gets who installs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.cluster.conftest import FAST
from tests.rig.nodes import ROOT, node_process

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]


def run(*command: str | Path, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ASTROMESH_", "PYTHON"))}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=cwd, env=environment, timeout=240)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of an environment that holds nothing but the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    run(folder / "bin" / "pip", "install", "-q", wheel, cwd=folder)
    return folder / "bin"


def test_the_wheel_holds_both_roots_and_the_shipped_configuration(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {str(path.relative_to(ROOT / "config")) for path in (ROOT / "config").rglob("*") if path.is_file()}
    assert {f"astromesh/defaults/{name}" for name in shipped} <= names
    assert {"maia/core.py", "maia/py.typed", "astromesh/cli/__main__.py", "astromesh/py.typed"} <= names
    assert not [name for name in names if name.startswith("tests/")]


def test_its_programs_run_and_say_what_is_wrong_with_no_node(installed: Path, tmp_path: Path) -> None:
    assert "0.1.0" in run(installed / "astromesh-node", "--version", cwd=tmp_path)
    validated = json.loads(run(installed / "astromesh-node", "config", "validate", "--json", cwd=tmp_path))
    assert validated["mistakes"] == []


async def test_without_any_file_an_installed_node_starts_on_the_shipped_defaults(installed: Path, tmp_path: Path) -> None:
    program = (str(installed / "python"), "-P", "-m", "astromesh.cli")
    home = {"HOME": str(tmp_path), "PYTHONPATH": ""}
    async with node_process("packed", program=program, env=home, config=None, arguments=FAST) as node:
        assert (await node.get("/v1/health"))["status"] == "ok"
        where = run(installed / "python", "-P", "-c", "import astromesh; print(astromesh.__file__)", cwd=tmp_path)
        assert str(installed.parent) in where
