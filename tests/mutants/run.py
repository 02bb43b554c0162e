"""Breaks the code on purpose, one mutant at a time, and asks whether the test that should notice does.

    python tests/mutants/run.py [--only NAME]…      exits 1 unless every mutant applies and is caught

Each mutant of `mutants.yaml` is applied to a private copy of the tree. Its test runs on an unchanged copy first and must be green (once for
all mutants that share it), then on the broken one, and must be red for a reason that a reader would accept: a failed assertion or an
exception of the domain, not a name or an import that the mutant tore out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from xml.etree import ElementTree as ET

import psutil
import yaml

ROOT = Path(__file__).resolve().parents[2]
# What a test needs of the checkout. What is absent is left out.
COPIED = ("mesh", "node", "config", "tests", "installers", "systemd", "README.md", "CHANGELOG.md", "pyproject.toml")
SOURCES = ("mesh", "node", "")
# Two cores: a third job would only make the first two time out.
JOBS_MAX = 2
# A mutant may make code wait for what never comes: its test has this many times what the green run took, and a little.
PATIENCE = 4
PATIENCE_S = 30.0
GREEN_S = 180.0
# Words for "torn to pieces" instead of "wrong": caught by any test that touches the file, so they prove nothing.
TORN = ("NameError", "UnboundLocalError", "ImportError", "ModuleNotFoundError", "SyntaxError", "IndentationError")
PYTEST_FAILED = 1
# In the environment of a test and of all that it starts, so that what a mutant leaves behind is found even after its parents are gone.
MARK = "MUTANT_RUN"
_marks = itertools.count()


class Verdict(StrEnum):
    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    DOES_NOT_APPLY = "DOES NOT APPLY"
    NOT_GREEN = "TEST NOT GREEN"
    TORN = "TORN, NOT WRONG"
    HUNG = "HUNG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    name: str
    sentence: str
    file: str
    find: str
    replace: str
    test: str


@dataclass(frozen=True, slots=True)
class Finding:
    mutant: Mutant
    verdict: Verdict
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TestRun:
    """How pytest ended: its exit code (None when it was cut), the reasons of its failures, and how long it took."""

    __test__ = False

    code: int | None
    reasons: tuple[str, ...]
    output: str
    seconds: float


class CannotApply(Exception):
    """The mutant does not fit the code any more; the message says how."""


def read_mutants(path: Path) -> list[Mutant]:
    """Raises `ValueError` for two of one name."""
    mutants = [Mutant(**entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8")) or []]
    names = [mutant.name for mutant in mutants]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path}: two mutants have the name {', '.join(twice)}")
    return mutants


def mutated(mutant: Mutant, text: str) -> str:
    """The text of the file with the mutant in it. Raises `CannotApply`."""
    times = text.count(mutant.find)
    if times != 1:
        raise CannotApply(f"{mutant.file} holds what to find {times} times instead of once")
    changed = text.replace(mutant.find, mutant.replace)
    if changed == text:
        raise CannotApply("what is found and what replaces it are the same")
    if mutant.file.endswith(".py"):
        try:
            compile(changed, mutant.file, "exec")
        except SyntaxError as error:
            raise CannotApply(f"{mutant.file} does not compile with it: {error}") from error
    return changed


def copy_tree(root: Path, copy: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__", ".*_cache", "*.gguf", "*.onnx")
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=ignore, symlinks=True)
        elif source.exists():
            shutil.copy2(source, copy / name)


def environment(copy: Path) -> dict[str, str]:
    """PYTHONPATH comes before site-packages, so that the copy is imported even where the checkout is installed editable."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "ASTROMESH_"))}
    return {**kept, "PYTHONPATH": os.pathsep.join(str(copy / source) for source in SOURCES)}


async def imported_from(copy: Path, package: str) -> Path:
    """Where Python finds a package when it runs in the copy."""
    code = f"import {package}; print({package}.__file__)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=copy, env=environment(copy), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, complaint = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{package} cannot be imported in the copy: {complaint.decode(errors='replace').strip()[-500:]}")
    return Path(out.decode().strip())


async def prove_that_the_copy_runs(copy: Path) -> None:
    """Raises `RuntimeError` when an import in the copy would reach the checkout instead."""
    for root in SOURCES:
        for package in sorted((copy / root).glob("*/__init__.py")) if root else []:
            origin = await imported_from(copy, package.parent.name)
            if not origin.resolve().is_relative_to(copy.resolve()):
                raise RuntimeError(f"in the copy, {package.parent.name} is imported from {origin}: every mutant would survive")


async def run_test(copy: Path, test: str, *, limit_s: float) -> TestRun:
    """One pytest id in a copy. Whatever it left running is killed."""
    mark = f"{os.getpid()}-{next(_marks)}"
    report = copy / f"report-{mark}.xml"
    options = ("-x", "-q", "-p", "no:cacheprovider", f"--junitxml={report}")
    started = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", *options, test),
        cwd=copy,
        env={**environment(copy), MARK: mark},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    code = None
    output = b""
    try:
        output, _ = await asyncio.wait_for(process.communicate(), limit_s)
        code = process.returncode
    except TimeoutError:
        pass
    finally:
        await asyncio.to_thread(kill_marked, mark)
        await process.wait()
    return TestRun(code, reasons(report), output.decode(errors="replace"), time.monotonic() - started)


def kill_marked(mark: str) -> None:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                process.kill()


def reasons(report: Path) -> tuple[str, ...]:
    """The messages of failures and errors in a JUnit report; none when there is no report."""
    if not report.exists():
        return ()
    found = ET.parse(report).getroot().iter()
    return tuple(str(each.get("message")) for each in found if each.tag in {"failure", "error"})


@dataclass(slots=True)
class Trial:
    """Mutants on trial: the copies, and the green runs that mutants of one test share."""

    root: Path
    scratch: Path
    jobs: asyncio.Semaphore
    _green: dict[str, asyncio.Task[TestRun]] = field(default_factory=dict)

    @property
    def unchanged(self) -> Path:
        return self.scratch / "unchanged"

    async def open(self) -> None:
        await asyncio.to_thread(copy_tree, self.root, self.unchanged)
        await prove_that_the_copy_runs(self.unchanged)

    async def green(self, test: str) -> TestRun:
        if test not in self._green:
            self._green[test] = asyncio.create_task(self._one(self.unchanged, test, GREEN_S), name=f"green {test}")
        return await self._green[test]

    async def _one(self, copy: Path, test: str, limit_s: float) -> TestRun:
        async with self.jobs:
            return await run_test(copy, test, limit_s=limit_s)

    async def judge(self, mutant: Mutant) -> Finding:
        original = self.unchanged / mutant.file
        if not original.is_file():
            return Finding(mutant, Verdict.DOES_NOT_APPLY, f"there is no file {mutant.file}")
        try:
            changed = mutated(mutant, original.read_text(encoding="utf-8"))
        except CannotApply as error:
            return Finding(mutant, Verdict.DOES_NOT_APPLY, str(error))
        before = await self.green(mutant.test)
        if before.code != 0:
            detail = before.reasons[0] if before.reasons else before.output[-300:]
            ended = f"exit code {before.code}" if before.code is not None else f"cut after {GREEN_S:g} s"
            return Finding(mutant, Verdict.NOT_GREEN, f"{mutant.test}: {ended}: {detail}", before.seconds)
        copy = self.scratch / mutant.name
        await asyncio.to_thread(copy_tree, self.root, copy)
        (copy / mutant.file).write_text(changed, encoding="utf-8")
        try:
            after = await self._one(copy, mutant.test, PATIENCE * before.seconds + PATIENCE_S)
        finally:
            await asyncio.to_thread(shutil.rmtree, copy, ignore_errors=True)
        return Finding(mutant, *verdict(after), after.seconds)


def verdict(after: TestRun) -> tuple[Verdict, str]:
    """What the test's run on the broken tree says of the mutant."""
    reason = after.reasons[0] if after.reasons else ""
    if after.code is None:
        return Verdict.HUNG, "the test was cut: a hang proves less than a failure"
    if after.code == 0:
        return Verdict.SURVIVED, "the test is green with it"
    if after.code != PYTEST_FAILED or not reason:
        return Verdict.TORN, f"pytest ended with {after.code}: {after.output[-300:]}"
    if reason.startswith(TORN):
        return Verdict.TORN, reason
    return Verdict.CAUGHT, reason


async def try_all(mutants: Sequence[Mutant], *, root: Path, jobs: int) -> list[Finding]:
    """A finding for each mutant, in their order."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        trial = Trial(root, Path(scratch), asyncio.Semaphore(min(jobs, JOBS_MAX)))
        await trial.open()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(trial.judge(mutant), name=mutant.name) for mutant in mutants]
        return [task.result() for task in tasks]


def table(findings: Sequence[Finding]) -> str:
    width = max((len(finding.mutant.name) for finding in findings), default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.verdict:16} {finding.mutant.name:{width}} {finding.seconds:6.1f} s  {finding.mutant.sentence}")
        if finding.verdict is not Verdict.CAUGHT:
            lines.append(f"{'':16} {finding.detail.strip()}")
    caught = sum(finding.verdict is Verdict.CAUGHT for finding in findings)
    return "\n".join([*lines, f"{caught} of {len(findings)} mutants caught"])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this mutant; may be given again")
    parser.add_argument("--mutants", type=Path, default=Path(__file__).with_name("mutants.yaml"))
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree to copy")
    parser.add_argument("--jobs", type=int, default=JOBS_MAX, choices=range(1, JOBS_MAX + 1))
    given = parser.parse_args(arguments)
    by_name: Mapping[str, Mutant] = {mutant.name: mutant for mutant in read_mutants(given.mutants)}
    if unknown := sorted(set(given.only) - set(by_name)):
        parser.error(f"no mutant is called {', '.join(unknown)}; there are: {', '.join(sorted(by_name))}")
    chosen = [by_name[name] for name in given.only] or list(by_name.values())
    findings = asyncio.run(try_all(chosen, root=given.root, jobs=given.jobs))
    print(table(findings))
    return 0 if all(finding.verdict is Verdict.CAUGHT for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
