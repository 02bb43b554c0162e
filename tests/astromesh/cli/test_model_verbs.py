"""`models pull` and `models list` without a node: what is installed on this machine."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tests.astromesh.cli.conftest import Cli, RunningNode
from tests.astromesh.inference.gguf_files import a_gguf
from tests.rig.small_encoders import small_encoder

from astromesh.inference.backends.onnx_runtime.engine import OnnxEncoder


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
    assert "licence   apache-2.0" in answer.stdout
    assert "reading and hashing" in answer.stderr


def test_a_pull_as_json_is_a_line_for_each_step_and_one_for_the_end(cli: Cli, file: Path, tmp_path: Path) -> None:
    answer = cli("models", "pull", str(file), "--name", "mine", "--models", str(tmp_path / "store"), "--json")
    assert answer.stderr == ""
    *steps, done = (json.loads(line) for line in answer.stdout.splitlines())
    assert {step["type"] for step in steps} <= {"progress"}
    model = done["model"]
    assert (done["type"], model["name"], model["path"], model["size_bytes"]) == ("done", "mine", str(file), file.stat().st_size)


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


def test_what_is_installed_is_shown_and_removed_without_a_node(
    cli: Cli, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ASTROMESH_MODELS_DIR", str(tmp_path / "store"))
    cli("models", "pull", str(file))
    shown = cli("models", "show", "tiny").stdout
    assert f"path      {file}" in shown
    assert "kind      gguf llama Q4_1" in shown
    assert json.loads(cli("models", "show", "tiny", "--json").stdout)["here"]["name"] == "tiny"
    assert cli("models", "rm", "tiny").stdout == "tiny is removed\n"
    assert "no model 'tiny'" in cli("models", "show", "tiny").stderr
    assert cli("models", "load", "tiny").exit_code == 3  # nobody is there to load it


def test_another_digest_than_the_one_that_was_said_is_refused(cli: Cli, file: Path, tmp_path: Path) -> None:
    answer = cli("models", "pull", str(file), "--models", str(tmp_path / "store"), "--sha256", "0" * 64)
    assert answer.exit_code == 1
    assert "not 0000" in answer.stderr


# With a node: it does it itself, and says what only it knows.


def test_a_node_pulls_plans_and_removes_its_own_models(cli: Cli, node: RunningNode, file: Path) -> None:
    pulled = cli("models", "pull", str(file), "--name", "mine", "--url", node.url)
    assert pulled.exit_code == 0, pulled.stderr
    assert pulled.stdout.startswith("mine is installed\n")
    listed = next(line for line in cli("models", "list", "--url", node.url).stdout.splitlines() if line.startswith("mine"))
    assert listed.split()[:3] == ["mine", "on_disk", "solo"]
    plan = cli("models", "load", "mine", "--dry-run", "--url", node.url).stdout
    assert plan.startswith("mine on solo: ")
    assert "it fits" in plan
    assert "not measured yet" in plan
    shown = cli("models", "show", "mine", "--url", node.url).stdout
    assert "On this node" in shown
    assert f"path      {file}" in shown
    assert cli("models", "unload", "mine", "--url", node.url).stdout == "mine is unloaded on solo\n"
    assert cli("models", "rm", "mine", "--url", node.url, "--json").exit_code == 0
    gone = cli("models", "rm", "mine", "--url", node.url)
    assert (gone.exit_code, "no model 'mine'" in gone.stderr) == (1, True)


def test_what_an_encoder_can_is_listed_and_shown_and_it_is_planned_without_a_speed(cli: Cli, node: RunningNode, tmp_path: Path) -> None:
    small_encoder(tmp_path / "compass", {"east": (1.0, 0.0)})
    assert cli("models", "pull", str(tmp_path / "compass"), "--name", "compass", "--url", node.url).exit_code == 0
    head, *lines = cli("models", "list", "--url", node.url).stdout.splitlines()
    assert head.split() == ["NAME", "STATE", "NODE", "CAN", "SPEED", "SIZE"]
    assert next(line.split()[:4] for line in lines if line.startswith("compass")) == ["compass", "on_disk", "solo", "embed"]
    planned = cli("models", "load", "compass", "--dry-run", "--url", node.url).stdout
    assert "tok/s" not in planned
    assert "loaded in about" in planned
    assert cli("models", "load", "compass", "--url", node.url).stdout == "compass is loaded on solo\n"
    assert cli("models", "load", "compass", "--dry-run", "--url", node.url).stdout.endswith("that models may take: it is loaded\n")
    shown = cli("models", "show", "compass", "--url", node.url).stdout
    assert shown.startswith("compass\n  can       embed\n")
    assert "tokenizer /" in shown
    cli("models", "rm", "compass", "--force", "--url", node.url)


def test_an_encoder_without_its_engine_is_met_with_the_command_that_brings_it_by_every_verb_and_route(
    cli: Cli, node: RunningNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxEncoder, "needs", ("an_onnx_runtime_that_nobody_installed",))
    small_encoder(tmp_path / "compass", {"east": (1.0, 0.0)})
    here = cli("models", "pull", str(tmp_path / "compass"), "--name", "compass", "--models", str(tmp_path / "store"))
    there = cli("models", "pull", str(tmp_path / "compass"), "--name", "compass", "--url", node.url)
    planned = cli("models", "load", "compass", "--dry-run", "--url", node.url)
    loaded = cli("models", "load", "compass", "--url", node.url)
    assert (here.exit_code, there.exit_code, planned.exit_code, loaded.exit_code) == (0, 0, 0, 1)
    for said in (here.stdout, there.stdout, planned.stdout, loaded.stderr):
        assert "pip install 'astromesh-node[onnx]'" in said
    asked = urllib.request.Request(
        f"{node.url}/v1/embeddings", json.dumps({"model": "compass", "input": "east"}).encode(), {"Content-Type": "application/json"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(asked):
        pass
    assert (refused.value.code, "pip install 'astromesh-node[onnx]'" in refused.value.read().decode()) == (503, True)
    cli("models", "rm", "compass", "--force", "--url", node.url)


def test_a_model_that_is_no_model_fails_to_load_with_the_engines_reason(cli: Cli, node: RunningNode, file: Path) -> None:
    cli("models", "pull", str(file), "--name", "hollow", "--url", node.url)
    answer = cli("models", "load", "hollow", "--url", node.url)
    assert answer.exit_code == 1
    assert "model hollow is not loaded on solo: " in answer.stderr
    why = answer.stderr.partition("not loaded on solo: ")[2].partition(". astromesh-node")[0].strip()
    assert f"solo: {why[:40]}" in cli("models", "show", "hollow", "--url", node.url).stdout
    cli("models", "rm", "hollow", "--force", "--url", node.url)


def test_a_model_of_a_server_is_not_loaded_by_the_node(cli: Cli, node: RunningNode) -> None:
    answer = cli("models", "load", "stub", "--url", node.url)
    assert (answer.exit_code, "behind a model server" in answer.stderr) == (1, True)


def test_a_folder_here_and_a_node_elsewhere_do_not_go_together(cli: Cli, node: RunningNode) -> None:
    assert cli("models", "pull", "smollm2", "--models", "x", "--url", node.url).exit_code == 2
    assert cli("models", "load", "stub", "--context", "10", "--url", node.url).exit_code == 2
