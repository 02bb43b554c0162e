"""The keyring file is read as Serf writes it, refused where others could read it, and never quoted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.rig.key_members import shown

from astromesh.errors import ConfigurationError
from astromesh.service.keyring_file import FILE_BYTES_MAX, KeyringFile, read_keyring
from astromesh.service.settings import settle
from astromesh.specs.runtime import Runtime
from maia.keyring import KEYS_MAX, Keyring, fingerprint_of, keyring_text, text_of

KEY, OLDER, HANDS = b"k" * 32, b"o" * 16, b"h" * 24


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


def test_a_key_in_the_place_of_the_file_s_name_is_refused_and_not_repeated() -> None:
    for key in (KEY, OLDER):
        with pytest.raises(ConfigurationError, match="is a key") as refusal:
            read_keyring(Path(text_of(key)))
        assert text_of(key)[:8] not in f"{refusal.value} {refusal.value.hint}"


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


@pytest.fixture
def kept(tmp_path: Path) -> KeyringFile:
    return KeyringFile(written(tmp_path / "keys", keyring_text(Keyring((OLDER,)))))


def edited(file: KeyringFile, *keys: bytes) -> None:
    file.path.write_text(keyring_text(Keyring(keys)))


def test_a_change_is_written_whole_for_the_owner_alone_and_nothing_is_left_beside_it(kept: KeyringFile) -> None:
    inode = kept.path.stat().st_ino
    assert kept.write(Keyring((KEY, OLDER))) == ()
    assert read_keyring(kept.path) == Keyring((KEY, OLDER))
    assert kept.path.stat().st_ino != inode, "it was written over, so that a crash could have left half of it"
    assert [other.name for other in kept.path.parent.iterdir()] == ["keys"]


def test_a_write_that_was_cut_short_before_is_no_hindrance(kept: KeyringFile) -> None:
    written(kept.path.parent / "keys.part", "half a", mode=0o644)
    kept.write(Keyring((KEY,)))
    assert read_keyring(kept.path) == Keyring((KEY,))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(kept: KeyringFile) -> None:
    before = kept.path.read_bytes()
    (kept.path.parent / "keys.part").mkdir()
    with pytest.raises(OSError):
        kept.write(Keyring((KEY,)))
    assert kept.path.read_bytes() == before
    assert kept.kept == Keyring((OLDER,))


def test_a_link_to_the_file_goes_on_being_one(tmp_path: Path) -> None:
    target = written(tmp_path / "target", keyring_text(Keyring((OLDER,))))
    (tmp_path / "link").symlink_to(target)
    KeyringFile(tmp_path / "link").write(Keyring((KEY,)))
    assert (tmp_path / "link").is_symlink()
    assert read_keyring(target) == Keyring((KEY,))


def test_the_file_stays_its_owner_s(kept: KeyringFile) -> None:
    owner = (4242, 4243) if os.geteuid() == 0 else (os.geteuid(), os.getegid())  # only root can give files away
    os.chown(kept.path, *owner)
    kept.write(Keyring((KEY,)))
    assert (kept.path.stat().st_uid, kept.path.stat().st_gid, kept.path.stat().st_mode & 0o777) == (*owner, 0o600)


def test_a_key_that_was_added_by_hand_stays_and_is_said_once(kept: KeyringFile) -> None:
    edited(kept, OLDER, HANDS)
    (note,) = kept.write(Keyring((OLDER, KEY)))
    assert fingerprint_of(HANDS) in note
    assert "next start" in note
    assert read_keyring(kept.path) == Keyring((OLDER, KEY, HANDS))
    assert kept.write(Keyring((KEY, OLDER))) == ()
    assert read_keyring(kept.path) == Keyring((KEY, OLDER, HANDS))


def test_a_key_that_was_removed_everywhere_leaves_the_file_and_one_that_was_taken_out_by_hand_comes_back(kept: KeyringFile) -> None:
    kept.write(Keyring((KEY, OLDER)))
    assert kept.write(Keyring((KEY,))) == ()
    assert read_keyring(kept.path) == Keyring((KEY,))
    edited(kept, HANDS)
    added, restored = kept.write(Keyring((KEY, OLDER)))
    assert fingerprint_of(HANDS) in added
    assert fingerprint_of(KEY) in restored
    assert read_keyring(kept.path) == Keyring((KEY, OLDER, HANDS))


@pytest.mark.parametrize("text", ["[", "half an edit", keyring_text(Keyring(tuple(bytes([n]) * 32 for n in range(KEYS_MAX))))])
def test_an_edit_that_cannot_be_kept_in_the_file_is_kept_beside_it(kept: KeyringFile, text: str) -> None:
    kept.path.write_text(text)
    (note,) = kept.write(Keyring((KEY,)))
    assert read_keyring(kept.path) == Keyring((KEY,))
    (aside,) = (other for other in kept.path.parent.iterdir() if other != kept.path)
    assert str(aside) in note
    assert (aside.read_text(), aside.stat().st_mode & 0o777) == (text, 0o600)


def test_a_file_that_is_gone_or_was_opened_to_others_is_mended_and_said(kept: KeyringFile) -> None:
    kept.path.unlink()
    assert "gone" in kept.write(Keyring((KEY,)))[0]
    kept.path.chmod(0o644)
    assert "0644" in kept.write(Keyring((KEY, OLDER)))[0]
    assert read_keyring(kept.path) == Keyring((KEY, OLDER))


def test_no_note_quotes_a_key(kept: KeyringFile) -> None:
    edited(kept, HANDS)
    notes = kept.write(Keyring((KEY, OLDER)))
    kept.path.write_text(keyring_text(Keyring((HANDS,)))[:-3])
    notes += kept.write(Keyring((KEY,)))
    assert len(notes) == 3
    assert shown((KEY, OLDER, HANDS), "".join(notes)) == []
