"""The key of a node: made once, kept to itself, never replaced."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from astromesh.errors import ConfigurationError
from astromesh.service.identity import KEY_FILE, read_key
from astromesh.service.record import RecordFile
from maia.identity import node_id_of


def test_a_node_that_never_ran_gets_a_key_and_keeps_it(tmp_path: Path) -> None:
    first = read_key(tmp_path)
    written = (tmp_path / KEY_FILE).read_bytes()
    assert read_key(tmp_path).public_key == first.public_key
    assert (tmp_path / KEY_FILE).read_bytes() == written
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_every_node_has_a_key_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    assert read_key(tmp_path / "one").public_key != read_key(tmp_path / "other").public_key


def test_nobody_else_may_read_the_key_even_where_everything_is_shared(tmp_path: Path) -> None:
    code = f"import os, pathlib; os.umask(0); from astromesh.service.identity import read_key; read_key(pathlib.Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600


def test_a_key_that_others_may_read_is_refused_with_what_mends_it(tmp_path: Path) -> None:
    read_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(ConfigurationError, match="mode 0640") as refusal:
        read_key(tmp_path)
    assert f"chmod 600 {tmp_path / KEY_FILE}" in refusal.value.hint


FOREIGN = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "damaged", [b"", b"-----BEGIN PRIVATE KEY-----\nsecret", b"\xff" * 200, FOREIGN], ids=["empty", "cut", "noise", "no Ed25519"]
)
def test_a_damaged_key_is_refused_with_a_remedy_and_neither_replaced_nor_repeated(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / KEY_FILE
    path.write_bytes(damaged)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="damaged") as refusal:
        read_key(tmp_path)
    assert "move it away to start as a new one" in refusal.value.hint
    assert "secret" not in f"{refusal.value} {refusal.value.__cause__} {refusal.value.__context__}"
    assert path.read_bytes() == damaged


def test_a_start_that_was_cut_short_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / f"{KEY_FILE}.part").write_bytes(b"half of a")
    read_key(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_a_record_of_before_there_were_keys_keeps_its_lives_and_gets_a_new_identity(tmp_path: Path) -> None:
    said = {"node_id": "a1b2c3" + "0" * 26, "generation": 5, "incarnation": 3, "joined": ["127.0.0.1:7946"], "left": False}
    (tmp_path / "node.json").write_text(json.dumps(said))
    file = RecordFile(tmp_path)
    record, key = file.read(), file.key()
    assert (record.generation, record.incarnation, record.joined) == (5, 3, ("127.0.0.1:7946",))
    assert node_id_of(key.public_key) != said["node_id"]
    file.write(record)
    assert "node_id" not in json.loads((tmp_path / "node.json").read_text())
