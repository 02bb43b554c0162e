"""The wheel that was built from the sdist, in an environment of its own: what somebody gets who installs it."""

from __future__ import annotations

import json
import os
import pty
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


def on_a_terminal(*command: str | Path, says: bytes, cwd: Path, env: dict[str, str]) -> str:
    """What a person sees who types `says` ahead; stdout and stderr in one, as on a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([str(part) for part in command], stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=env)
    os.close(theirs)
    os.write(ours, says)
    seen = bytearray()
    try:
        while data := _read(ours):
            seen += data
        assert process.wait(timeout=30) == 0, seen.decode(errors="replace")
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait()
    return seen.decode(errors="replace")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # nobody holds the other end any more
        return b""


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


def test_from_nothing_to_an_answer_with_the_prebuilt_engine(wheel: Path, tmp_path: Path) -> None:
    """Two commands and one yes: the package with an engine, then a question. No node runs, no file is there, no model is installed."""
    run(sys.executable, "-m", "venv", tmp_path / "fresh", cwd=tmp_path)
    programs = tmp_path / "fresh" / "bin"
    run(programs / "pip", "install", "-q", f"{wheel}[local-prebuilt]", cwd=tmp_path)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ASTROMESH_", "PYTHON", "XDG_"))}
    home = {**inherited, "HOME": str(tmp_path), "TERM": "xterm"}
    seen = on_a_terminal(programs / "astromesh-node", "run", "hello", "Name a colour.", says=b"y\n", cwd=tmp_path, env=home)
    assert "Install it now?" in seen
    assert "installed smollm2, sha256 as registered" in seen
    assert "served by" in seen.splitlines()[-1], seen
    again = on_a_terminal(programs / "astromesh-node", "run", "hello", "Name a colour.", "--json", says=b"", cwd=tmp_path, env=home)
    answer = json.loads(again[again.index("{") :])
    assert answer["answer"]
    assert answer["usage"]["model"] == "smollm2"
