"""The keys of a node's cluster: asked of everybody, kept in the file whoever changes them, and named when they are missing."""

from __future__ import annotations

import asyncio
import logging
import stat
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.rig.eventually import eventually
from tests.rig.key_members import KeyMembers, shown

from astromesh.errors import DeadlineExceeded, KeysRefused, Overloaded, UnknownKey
from astromesh.fleet.keyrings import GivenKey, NamedKey, NewKey
from astromesh.service.keyring_file import read_keyring
from astromesh.service.keys import (
    MISSING_LOGGED_EVERY_S,
    MISSING_MAX,
    MISSING_SHOWN_S,
    NEW_KEY_BYTES,
    ClusterKeys,
    MissingKeys,
)
from maia.keyring import Keyring, fingerprint_of, keyring_text
from maia.view import KeyMissing, KeyOperation, KeyQueryEnded, KeyringChanged

OLD, NEW = b"o" * 32, b"n" * 32
OLD_NAME, NEW_NAME = fingerprint_of(OLD), fingerprint_of(NEW)


@pytest.fixture
def them() -> KeyMembers:
    return KeyMembers({name: Keyring((OLD,)) for name in ("a", "b", "c")}, me="a")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "keys.json"
    file.write_text(keyring_text(Keyring((OLD,))))
    file.chmod(0o600)
    return file


@pytest.fixture
async def keys(them: KeyMembers, path: Path) -> AsyncIterator[ClusterKeys]:
    opened = ClusterKeys(path, driver=lambda: them, label=str, members=lambda: "b or c")
    them.hear = opened.hear
    yield opened
    await opened.close()


async def test_a_rotation_is_three_steps_and_each_is_on_disk_when_it_is_confirmed(keys: ClusterKeys, them: KeyMembers, path: Path) -> None:
    new = (await keys.install(NewKey())).fingerprint
    ring = read_keyring(path)
    assert (ring.primary, fingerprint_of(ring.keys[1]), len(ring.keys[1])) == (OLD, new, NEW_KEY_BYTES)
    assert (await keys.use(NamedKey(new), force=False)).complete
    assert [fingerprint_of(key) for key in read_keyring(path).keys] == [new, OLD_NAME]
    assert (await keys.remove(NamedKey(OLD_NAME), force=False)).complete
    assert [fingerprint_of(key) for key in read_keyring(path).keys] == [new]
    assert {ring.keys for ring in them.rings.values()} == {read_keyring(path).keys}


async def test_a_key_that_somebody_brought_is_installed_as_it_is_and_installing_it_again_changes_nothing(
    keys: ClusterKeys, them: KeyMembers
) -> None:
    assert (await keys.install(GivenKey(NEW))).fingerprint == NEW_NAME
    first = dict(them.rings)
    assert (await keys.install(NamedKey(NEW_NAME))).complete
    assert them.rings == first


async def test_a_member_that_lacks_a_key_gets_it_by_its_fingerprint(keys: ClusterKeys, them: KeyMembers) -> None:
    them.rings["b"] = Keyring((OLD, NEW))
    assert (await keys.install(NamedKey(NEW_NAME))).complete
    assert {ring.keys for ring in them.rings.values()} == {(OLD, NEW)}


async def test_what_would_cut_members_off_is_refused_before_anybody_is_asked_to_do_it(keys: ClusterKeys, them: KeyMembers) -> None:
    them.rings["b"] = Keyring((OLD, NEW))
    with pytest.raises(KeysRefused, match="a and c lack it"):
        await keys.use(NamedKey(NEW_NAME), force=False)
    with pytest.raises(KeysRefused, match="seal with it"):
        await keys.remove(GivenKey(OLD), force=False)
    with pytest.raises(UnknownKey):
        await keys.use(NamedKey("0" * 8), force=False)
    assert set(them.asked) == {"list"}


async def test_force_does_what_can_be_done_and_says_who_could_not(keys: ClusterKeys, them: KeyMembers) -> None:
    them.rings |= {"a": Keyring((OLD, NEW)), "b": Keyring((OLD, NEW))}
    used = await keys.use(NamedKey(NEW_NAME), force=True)
    assert (used.confirmed, [name for name, _ in used.failed]) == (("a", "b"), ["c"])
    removed = await keys.remove(NamedKey(OLD_NAME), force=True)
    assert (removed.confirmed, [name for name, _ in removed.failed]) == (("a", "b"), ["c"])


async def test_a_change_that_another_asked_for_is_kept_too(keys: ClusterKeys, them: KeyMembers, path: Path) -> None:
    them.rings["a"] = Keyring((NEW, OLD))
    keys.hear(KeyringChanged())
    await keys.close()
    assert read_keyring(path) == keys.ring == Keyring((NEW, OLD))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_file_that_cannot_be_written_is_said_aloud_and_written_once_it_can_be(
    keys: ClusterKeys, them: KeyMembers, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (path.parent / f"{path.name}.part").mkdir()  # in the way of the new one, for root too
    assert (await keys.install(GivenKey(NEW))).complete
    assert keys.ring == Keyring((OLD, NEW))
    (warning,) = keys.warnings()
    assert str(path) in warning
    assert "would start with the old ones" in warning
    assert warning in caplog.text
    assert read_keyring(path) == Keyring((OLD,))
    (path.parent / f"{path.name}.part").rmdir()
    await keys.close()
    assert read_keyring(path) == Keyring((OLD, NEW))
    assert keys.warnings() == ()
    assert shown((OLD, NEW), caplog.text) == []


async def test_a_change_that_was_taken_back_before_it_could_be_written_is_no_worry_any_more(keys: ClusterKeys, path: Path) -> None:
    (path.parent / f"{path.name}.part").mkdir()
    await keys.install(GivenKey(NEW))
    assert len(keys.warnings()) == 1
    await keys.remove(GivenKey(NEW), force=False)
    assert keys.warnings() == ()


async def test_who_leaves_in_the_middle_does_not_keep_a_change_from_the_file(keys: ClusterKeys, them: KeyMembers, path: Path) -> None:
    them.hear = lambda event: None  # so that only who asked for the change can have it written
    go_on = threading.Event()
    with ThreadPoolExecutor(1) as only_thread:
        asyncio.get_running_loop().set_default_executor(only_thread)
        only_thread.submit(go_on.wait)  # the disk is slow
        asking = asyncio.create_task(keys.install(GivenKey(NEW)))
        while them.asked != ["install"]:
            await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        go_on.set()

        async def written() -> bool:
            return read_keyring(path) == Keyring((OLD, NEW))

        await eventually(written, 1.0, what="the change is in the file")


async def test_a_missing_key_is_named_with_where_to_get_it_until_it_is_there(
    keys: ClusterKeys, them: KeyMembers, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        keys.hear(KeyMissing(NEW_NAME))
    (warning,) = keys.warnings()
    assert f"lacks the key {NEW_NAME}" in warning
    assert "b or c" in warning
    assert f"keys use {NEW_NAME}" in warning
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [warning]
    await keys.install(GivenKey(NEW))
    assert keys.warnings() == ()


async def test_a_missing_key_that_nobody_could_tell_is_said_to_be_unknown(keys: ClusterKeys) -> None:
    keys.hear(KeyMissing(""))
    assert "nobody could tell which" in keys.warnings()[0]


async def test_a_node_in_the_clear_has_no_keys_to_change_and_says_how_it_gets_some() -> None:
    plain = ClusterKeys(None, driver=lambda: KeyMembers({}, me=""), label=str, members=str)
    assert await plain.list() is None
    with pytest.raises(KeysRefused) as refusal:
        await plain.install(NewKey())
    assert "keyring" in refusal.value.hint
    plain.hear(KeyMissing(""))
    assert "has no keys" in plain.warnings()[0]


async def test_one_question_is_asked_at_a_time_one_waits_and_more_are_refused(path: Path) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    class Slow(KeyMembers):
        async def ask_keys(self, operation: KeyOperation, key: bytes | None, *, timeout_s: float) -> KeyQueryEnded:
            asked.set()
            await answer.wait()
            return await super().ask_keys(operation, key, timeout_s=timeout_s)

    slow = Slow({"a": Keyring((OLD,))}, me="a")
    keys = ClusterKeys(path, driver=lambda: slow, label=str, members=str)
    first = asyncio.create_task(keys.list())
    await asked.wait()
    second = asyncio.create_task(keys.list())
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await keys.list()
    assert slow.asked == []
    answer.set()
    assert [len(held.holders) for held in (await first, await second) if held is not None] == [1, 1]


class Ending(KeyMembers):
    """A mesh that ends in the middle of a question, or never comes to an end with one."""

    def __init__(self, end: type[BaseException]) -> None:
        super().__init__({"a": Keyring((OLD,))}, me="a")
        self._end = end

    async def ask_keys(self, operation: KeyOperation, key: bytes | None, *, timeout_s: float) -> KeyQueryEnded:
        raise self._end


@pytest.mark.parametrize("end", [TimeoutError, asyncio.CancelledError])
async def test_a_question_that_the_mesh_does_not_end_is_an_error_and_no_silence(path: Path, end: type[BaseException]) -> None:
    keys = ClusterKeys(path, driver=lambda: Ending(end), label=str, members=str)
    with pytest.raises(DeadlineExceeded) as failure:
        await keys.install(NewKey())
    assert "keys list" in failure.value.hint


def test_a_missing_key_is_logged_once_a_minute_however_often_it_is_heard_of() -> None:
    missing = MissingKeys()
    logged = [at for at in range(0, 200, 5) if missing.heard(NEW_NAME, now=float(at))]
    assert logged == [0, 60, 120, 180]
    assert MISSING_LOGGED_EVERY_S == 60


def test_a_missing_key_is_forgotten_some_minutes_after_it_was_last_heard_of() -> None:
    missing = MissingKeys()
    missing.heard(NEW_NAME, now=0.0)
    assert missing.now_missing(now=MISSING_SHOWN_S - 1) == (NEW_NAME,)
    assert missing.now_missing(now=MISSING_SHOWN_S) == ()


def test_of_many_missing_keys_the_longest_unheard_is_forgotten() -> None:
    missing = MissingKeys()
    for number in range(MISSING_MAX + 1):
        missing.heard(f"{number:08x}", now=float(number))
    assert missing.now_missing(now=20.0) == tuple(f"{number:08x}" for number in range(1, MISSING_MAX + 1))
