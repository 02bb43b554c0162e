"""Each contract of import-linter is broken on purpose, in a copy of the sources, and must be seen to be broken.

A contract can hold for the wrong reason: a `forbidden` one whose target lies inside its own source is never broken by anything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT = Path(sys.executable).with_name("lint-imports")
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]

# Contract, where one import too many is written, and what it imports.
BREACHES = [
    ("The rooms of astromesh, from the doors down", "node/astromesh/runtime/planted.py", "astromesh.api.app"),
    ("The rooms of astromesh, from the doors down", "node/astromesh/tools/planted.py", "astromesh.memory.port"),
    ("The rooms of astromesh, from the doors down", "node/astromesh/errors.py", "astromesh.dialogue"),
    ("The rooms of maia, from the world down", "mesh/maia/wire/planted.py", "maia.links.frames"),
    ("The rooms of maia, from the world down", "mesh/maia/links/planted.py", "maia.drivers.link"),
    ("Pure rooms touch no world", "node/astromesh/orchestration/patterns/planted.py", "time"),
    ("Pure rooms touch no world", "node/astromesh/routing/planted.py", "random"),
    ("Pure rooms touch no world", "node/astromesh/guardrails/planted.py", "asyncio"),
    ("The rooms of astromesh, from the doors down", "node/astromesh/guardrails/planted.py", "astromesh.orchestration.plan"),
    ("Pure rooms touch no world", "mesh/maia/wire/planted.py", "asyncio"),
    ("The mesh knows nothing of agents", "mesh/maia/drivers/planted.py", "astromesh.dialogue"),
    ("Only fleet, runtime, service, api and cli know maia", "node/astromesh/inference/planted.py", "maia.view"),
]


def copy_of_the_sources(directory: Path) -> Path:
    for root in ("mesh/maia", "node/astromesh"):
        shutil.copytree(ROOT / root, directory / root, ignore=shutil.ignore_patterns("__pycache__", "*.md"))
    shutil.copy(ROOT / "pyproject.toml", directory)
    return directory


def lint(directory: Path) -> str:
    """What import-linter says of the copy, as one line: it breaks long ones."""
    paths = os.pathsep.join(str(directory / root) for root in ("mesh", "node"))
    done = subprocess.run(
        [LINT, "--no-cache"], cwd=directory, env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"}, capture_output=True, text=True
    )
    return " ".join((done.stdout + done.stderr).split())


def test_every_contract_is_broken_by_some_breach() -> None:
    assert {contract["name"] for contract in CONTRACTS} == {contract for contract, _, _ in BREACHES}


@pytest.mark.parametrize(("contract", "where", "imported"), BREACHES, ids=lambda text: text.rpartition("/")[2] if "/" in text else None)
def test_an_import_too_many_breaks_its_contract(contract: str, where: str, imported: str, tmp_path: Path) -> None:
    sources = copy_of_the_sources(tmp_path)
    with (sources / where).open("a") as file:
        file.write(f"\nimport {imported}\n")
    importer = where.split("/", 1)[1].removesuffix(".py").replace("/", ".")

    said = lint(sources)

    assert f"{contract} BROKEN" in said
    broken = said[said.index("Broken contracts") :]
    assert f"{importer} -> {imported}" in broken


def test_a_room_that_no_layer_names_is_noticed(tmp_path: Path) -> None:
    sources = copy_of_the_sources(tmp_path)
    (sources / "node/astromesh/cellar").mkdir()
    (sources / "node/astromesh/cellar/__init__.py").touch()
    assert "cellar" in lint(sources)
