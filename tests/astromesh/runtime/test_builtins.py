"""The table of what comes with a node is true, and loads nothing before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from astromesh.runtime.builtins import TABLE, Kind, lookup

HEAVY = ("llama_cpp", "numpy", "astromesh.inference.backends.llama_cpp.engine", "astromesh.providers.backends.openai_compat")


@pytest.mark.parametrize(("kind", "name"), TABLE)
def test_every_entry_names_a_class_that_is_there(kind: Kind, name: str) -> None:
    assert isinstance(lookup(kind, name), type)


def test_the_table_itself_imports_none_of_them() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import sys, astromesh.runtime.builtins; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert not {*HEAVY} & {*said.stdout.split()}
