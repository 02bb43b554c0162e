"""The keyring file is read as Serf writes it, refused where others could read it, and never quoted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from astromesh.errors import ConfigurationError
from astromesh.service.keyring_file import FILE_BYTES_MAX, read_keyring
from astromesh.service.settings import settle
from astromesh.specs.runtime import Runtime
from maia.keyring import Keyring, text_of

KEY, OLDER = b"k" * 32, b"o" * 16


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_serf_s_own_file_is_read_with_its_primary_first(tmp_path: Path) -> None:
    path = written(tmp_path / "keys", json.dumps([text_of(KEY), text_of(OLDER)]))
    assert read_keyring(path) == Keyring((KEY, OLDER))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o660])
def test_a_file_that_is_open_to_others_is_refused_with_what_mends_it(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "keys", json.dumps([text_of(KEY)]), mode)
    with pytest.raises(ConfigurationError, match=f"{mode:04o}") as refusal:
        read_keyring(path)
    assert refusal.value.hint.endswith(f"chmod 600 {path}")


@pytest.mark.parametrize("text", ["", "[]", "{}", text_of(KEY), json.dumps([text_of(KEY)[:-8]]), " " * (FILE_BYTES_MAX + 1)])
def test_what_is_no_keyring_is_refused_by_the_file_s_name_and_not_quoted(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "keys", text)
    with pytest.raises(ConfigurationError) as refusal:
        read_keyring(path)
    assert str(path) in str(refusal.value)
    assert text_of(KEY)[:8] not in f"{refusal.value} {refusal.value.hint}"


def test_a_missing_file_a_folder_and_a_pipe_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "missing", tmp_path, tmp_path / "pipe"):
        with pytest.raises(ConfigurationError, match=str(path)):
            read_keyring(path)


def test_a_cluster_s_id_that_cannot_travel_is_refused_where_it_was_said() -> None:
    for text in ("two words", "x" * 33, "käse"):
        with pytest.raises(ConfigurationError, match="--cluster-id"):
            settle(
                flags={"cluster_id": text},
                environment={},
                runtime=Runtime.unwritten(),
                folder=Path("/"),
                data_default=Path("/"),
                hostname="a",
            )
