"""The runner of mutants, tried on a tree of three files: each verdict is reached by a mutant that deserves it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import yaml
from tests.mutants import run
from tests.mutants.run import CannotApply, Mutant, Verdict, mutated, read_mutants

CODE = """
def total(prices):
    return sum(prices)


def count(prices):
    return len(prices)
"""
TESTS = """
import pathlib
import subprocess
import sys

import shop

with open(RUNS, "a") as runs:
    runs.write("run\\n")


def test_a_total_is_the_sum():
    assert shop.total([1, 2]) == 3


def test_a_count_is_at_least_one():
    assert shop.count([5]) >= 1


def test_is_red_anyway():
    assert shop.total([]) == 1


def test_leaves_a_process_behind():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
    pathlib.Path(CHILD).write_text(str(child.pid))
    assert shop.total([1]) == 1
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for folder in ("mesh/shop", "tests"):
        (root / folder).mkdir(parents=True)
    (root / "mesh/shop/__init__.py").write_text(CODE)
    (root / "tests/test_shop.py").write_text(
        TESTS.replace("CHILD", repr(str(tmp_path / "child"))).replace("RUNS", repr(str(tmp_path / "runs")))
    )
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    return root


def mutant(name: str, find: str, replace: str, test: str = "test_a_total_is_the_sum") -> dict[str, str]:
    keys = {"name": name, "sentence": f"The promise of {name}.", "file": "mesh/shop/__init__.py", "find": find, "replace": replace}
    return {**keys, "test": f"tests/test_shop.py::{test}"}


def run_on(tree: Path, entries: list[dict[str, str]], *arguments: str) -> int:
    listed = tree.parent / "mutants.yaml"
    listed.write_text(yaml.safe_dump(entries))
    return run.main(["--root", str(tree), "--mutants", str(listed), *arguments])


def test_mutants_are_caught_with_one_green_run_between_them_and_the_tree_untouched(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [mutant("product", "sum(prices)", "max(prices)"), mutant("nothing", "sum(prices)", "0")]
    assert run_on(tree, entries) == 0
    out = capsys.readouterr().out
    assert out.count("caught  ") == 2
    assert "2 of 2 mutants caught" in out
    assert len((tree.parent / "runs").read_text().splitlines()) == 3
    assert (tree / "mesh/shop/__init__.py").read_text() == CODE


def test_each_mutant_that_proves_nothing_is_told_by_name_and_reason(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deserved = {
        "bigger": (mutant("bigger", "len(prices)", "len(prices) + 1", "test_a_count_is_at_least_one"), Verdict.SURVIVED),
        "stale": (mutant("stale", "median(prices)", "0"), Verdict.DOES_NOT_APPLY),
        "twice": (mutant("twice", "prices", "p"), Verdict.DOES_NOT_APPLY),
        "unchanged": (mutant("unchanged", "sum(prices)", "sum(prices)"), Verdict.DOES_NOT_APPLY),
        "unparsable": (mutant("unparsable", "sum(prices)", "sum(prices"), Verdict.DOES_NOT_APPLY),
        "homeless": ({**mutant("homeless", "sum(prices)", "0"), "file": "mesh/gone.py"}, Verdict.DOES_NOT_APPLY),
        "nameless": (mutant("nameless", "sum(prices)", "add_up(prices)"), Verdict.TORN),
        "unimportable": (mutant("unimportable", "def total(prices):", "import no_such_module\ndef total(prices):"), Verdict.TORN),
        "red": (mutant("red", "sum(prices)", "0", "test_is_red_anyway"), Verdict.NOT_GREEN),
        "testless": (mutant("testless", "sum(prices)", "0", "test_that_nobody_wrote"), Verdict.NOT_GREEN),
    }
    assert run_on(tree, [entry for entry, _ in deserved.values()]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "0 of 10 mutants caught"
    for name, (_, verdict) in deserved.items():
        assert any(line.startswith(f"{verdict.value} ") and f" {name} " in line for line in told), (name, verdict, told)


def test_a_mutant_that_hangs_is_cut_and_proves_nothing(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "PATIENCE_S", 0.1)
    assert run_on(tree, [mutant("endless", "    return sum(prices)", "    import time; time.sleep(300)")]) == 1
    assert capsys.readouterr().out.startswith(Verdict.HUNG.value)


def test_what_a_test_leaves_running_is_killed_although_its_parent_is_gone(tree: Path) -> None:
    run_on(tree, [mutant("nothing", "sum(prices)", "0", "test_leaves_a_process_behind")])
    child = int((tree.parent / "child").read_text())
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_only_the_named_mutants_run_and_an_unknown_name_is_refused(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [mutant("nothing", "sum(prices)", "0"), mutant("stale", "median(prices)", "0")]
    assert run_on(tree, entries, "--only", "nothing") == 0
    assert "1 of 1 mutants caught" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run_on(tree, entries, "--only", "something")
    assert "there are: nothing, stale" in capsys.readouterr().err


def test_a_copy_that_would_import_the_checkout_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "environment", lambda copy: {"PYTHONPATH": str(tree / "mesh")})
    with pytest.raises(RuntimeError, match="every mutant would survive"):
        run_on(tree, [mutant("nothing", "sum(prices)", "0")])


def test_two_mutants_of_one_name_are_refused(tmp_path: Path) -> None:
    listed = tmp_path / "mutants.yaml"
    listed.write_text(yaml.safe_dump([mutant("nothing", "a", "b")] * 2))
    with pytest.raises(ValueError, match="two mutants have the name nothing"):
        read_mutants(listed)


def test_every_mutant_of_this_project_fits_its_code_and_names_a_test_file() -> None:
    unfit: dict[str, str] = {}
    for each in read_mutants(Path(run.__file__).with_name("mutants.yaml")):
        try:
            mutated(each, (run.ROOT / each.file).read_text(encoding="utf-8"))
        except (OSError, CannotApply) as why:
            unfit[each.name] = str(why)
        if not (run.ROOT / each.test.split("::")[0]).is_file():
            unfit[each.name] = f"{each.test} is in no file"
    assert unfit == {}


def test_a_mutant_of_another_language_need_not_compile() -> None:
    of_yaml = Mutant(name="n", sentence="s", file="config/runtime.yaml", find="a: 1", replace="a: {", test="t")
    assert mutated(of_yaml, "a: 1\n") == "a: {\n"
