"""`models pull` and `models list` without a node: what is installed on this machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from tests.astromesh.cli.conftest import Cli
from tests.astromesh.inference.gguf_files import a_gguf


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "Tiny.gguf"
    path.write_bytes(a_gguf())
    return path


def test_a_file_of_ones_own_is_installed_where_it_is(cli: Cli, file: Path, tmp_path: Path) -> None:
    answer = cli("models", "pull", str(file), "--models", str(tmp_path / "store"))
    assert answer.exit_code == 0, answer.stderr
    assert answer.stdout.startswith("tiny is installed\n")
    assert hashlib.sha256(file.read_bytes()).hexdigest() in answer.stdout
    assert "licence  apache-2.0" in answer.stdout
    assert "reading and hashing" in answer.stderr


def test_a_pull_as_json_is_one_document(cli: Cli, file: Path, tmp_path: Path) -> None:
    answer = cli("models", "pull", str(file), "--name", "mine", "--models", str(tmp_path / "store"), "--json")
    assert answer.stderr == ""
    document = json.loads(answer.stdout)
    assert (document["name"], document["path"], document["size_bytes"]) == ("mine", str(file), file.stat().st_size)


def test_without_a_node_the_list_is_what_is_installed_here(cli: Cli, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASTROMESH_MODELS_DIR", str(tmp_path / "store"))
    assert "models pull smollm2" in cli("models", "list").stdout
    cli("models", "pull", str(file))
    answer = cli("models", "list")
    assert answer.stdout.splitlines()[1].split()[:2] == ["tiny", "on_disk"]
    assert "installed here" in answer.stderr
    assert [model["name"] for model in json.loads(cli("models", "list", "--json").stdout)["models"]] == ["tiny"]


def test_a_model_that_is_registered_nowhere_exits_1_and_says_which_are(cli: Cli, tmp_path: Path) -> None:
    answer = cli("models", "pull", "gpt-17", "--models", str(tmp_path / "store"), "--json")
    assert answer.exit_code == 1
    assert json.loads(answer.stderr) == {
        "code": "model_store",
        "message": "'gpt-17' is neither a file nor a registered model",
        "hint": "registered models: smollm2, gemma3-270m, minilm; others by hf:OWNER/REPO:FILE.gguf, an address or a path",
    }
