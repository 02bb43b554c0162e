"""The verbs of the gossip's keys: a table, a rotation in three steps, and no key on the command line, on the screen or on the way."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.astromesh.cli.conftest import START_S, Cli, RunningNode
from tests.astromesh.cli.test_node_verbs import columns
from tests.rig.doors import Membership, open_doors
from tests.rig.key_members import KeyMembers, shown
from tests.rig.mesh_view import member, mesh_view
from tests.rig.rooms import Rooms

from astromesh.service.keys import ClusterKeys
from maia.keyring import Keyring, fingerprint_of, keyring_text, text_of

OLD, NEW, THIRD = b"o" * 32, b"n" * 32, b"t" * 16
OLD_NAME, NEW_NAME, THIRD_NAME = map(fingerprint_of, (OLD, NEW, THIRD))


@dataclass(frozen=True)
class Sealed:
    url: str
    them: KeyMembers


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[Sealed]:
    """The doors of a node whose mesh is three members in memory, on a thread of its own."""
    opened, over = Future[Sealed](), threading.Event()
    file = tmp_path / "keys.json"
    file.write_text(keyring_text(Keyring((OLD,))))
    file.chmod(0o600)
    them = KeyMembers({name: Keyring((OLD,)) for name in ("attic", "barn", "cellar")}, me="attic")

    async def live() -> None:
        rooms = Rooms()
        rooms.view = mesh_view(
            member("garage-000001", status="dead"), member("shed-000002", status="left"), member("living-000003", status="suspect")
        )
        keys = ClusterKeys(file, driver=lambda: them, label=str, members=str)
        async with open_doors(rooms, mesh=Membership(keys=keys)) as doors:
            opened.set_result(Sealed(doors.url, them))
            await asyncio.to_thread(over.wait)
        await keys.close()

    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    try:
        yield opened.result(START_S)
    finally:
        over.set()
        thread.join(START_S)


@pytest.fixture
def keys(cli: Cli, sealed: Sealed) -> Cli:
    return lambda *words, stdin=None: cli("keys", *words, "--url", sealed.url, stdin=stdin)


def key_file(path: Path, text: str, *, mode: int = 0o600) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_the_list_is_a_table_with_who_lacks_and_who_seals_and_warns_of_the_silent(keys: Cli, sealed: Sealed) -> None:
    sealed.them.rings["barn"] = Keyring((NEW, OLD))
    sealed.them.silent = ["cellar"]
    answer = keys("list")
    assert answer.exit_code == 0
    assert [columns(line) for line in answer.stdout.splitlines()] == [
        ["KEY", "NODES", "PRIMARY ON", "LACKED BY"],
        [OLD_NAME, "2 of 3", "attic", "-"],
        [NEW_NAME, "1 of 3", "barn", "attic"],
    ]
    assert answer.stderr == "warning: cellar did not answer: which keys it holds is not known\n"


def test_a_rotation_is_three_commands_and_each_says_what_comes_next(keys: Cli, sealed: Sealed) -> None:
    said = keys("install", "--generate")
    new = said.stdout.strip()
    assert (said.exit_code, len(new)) == (0, 8)
    assert f"{new} is installed on 3 of 3 nodes\nNext: astromesh-node keys use {new}" in said.stderr
    used = keys("use", new)
    assert (used.exit_code, used.stdout) == (0, f"{new} is the primary on 3 of 3 nodes\n")
    assert "keys remove" in used.stderr
    assert keys("remove", OLD_NAME).stdout == f"{OLD_NAME} is removed on 3 of 3 nodes\n"
    (left,) = {ring.keys for ring in sealed.them.rings.values()}
    assert [fingerprint_of(key) for key in left] == [new]
    assert keys("list").stdout.splitlines()[1].split() == [new, "3", "of", "3", "all", "-"]


def test_who_is_away_during_a_rotation_is_named(keys: Cli) -> None:
    new = keys("install", "--generate").stdout.strip()
    for verb, key in (("use", new), ("remove", OLD_NAME)):
        answer = keys(verb, key)
        assert answer.exit_code == 0
        assert "warning: away and not asked: garage, shed. " in answer.stderr
        assert "living" not in answer.stderr


def test_a_new_key_is_never_shown_as_words_or_as_json(keys: Cli, sealed: Sealed) -> None:
    answers = [keys("install", "--generate"), keys("install", "--generate", "--json"), keys("list"), keys("list", "--json")]
    everything = {key for ring in sealed.them.rings.values() for key in ring.keys}
    assert len(everything) == 3
    assert shown(sorted(everything), "".join(answer.stdout + answer.stderr for answer in answers)) == []
    document = json.loads(answers[1].stdout)
    assert (document["operation"], document["complete"], document["confirmed"]) == ("install", True, ["attic", "barn", "cellar"])


@pytest.mark.parametrize("text", [text_of(NEW), text_of(NEW) + "\n", keyring_text(Keyring((NEW,)))])
def test_a_key_comes_from_stdin_or_from_a_file(keys: Cli, sealed: Sealed, tmp_path: Path, text: str) -> None:
    for answer in (keys("install", "--key-file", "-", stdin=text), keys("install", "--key-file", key_file(tmp_path / "key", text))):
        assert (answer.exit_code, answer.stdout) == (0, f"{NEW_NAME} is installed on 3 of 3 nodes\n")
    assert sealed.them.rings["cellar"] == Keyring((OLD, NEW))


def test_of_a_keyring_file_with_several_the_fingerprint_says_which(keys: Cli, sealed: Sealed) -> None:
    text = keyring_text(Keyring((NEW, THIRD)))
    unsaid = keys("install", "--key-file", "-", stdin=text)
    assert unsaid.exit_code == 1
    assert f"{NEW_NAME}, {THIRD_NAME}" in unsaid.stderr
    assert keys("install", THIRD_NAME, "--key-file", "-", stdin=text).exit_code == 0
    assert sealed.them.rings["barn"] == Keyring((OLD, THIRD))
    assert keys("install", "0" * 8, "--key-file", "-", stdin=text).exit_code == 1


@pytest.mark.parametrize("text", ["", "no key", text_of(NEW)[:-4], f'["{text_of(NEW)}"', text_of(NEW) * 500])
def test_what_is_no_key_is_refused_and_not_quoted(keys: Cli, sealed: Sealed, text: str) -> None:
    answer = keys("install", "--key-file", "-", stdin=text)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert text_of(NEW)[:8] not in answer.stderr
    assert sealed.them.asked == []


def test_a_file_that_others_can_read_is_refused_with_what_mends_it(keys: Cli, tmp_path: Path) -> None:
    path = key_file(tmp_path / "key", text_of(NEW), mode=0o644)
    answer = keys("install", "--key-file", path)
    assert answer.exit_code == 1
    assert answer.stderr.endswith(f"chmod 600 {path}\n")


def test_a_file_that_is_missing_is_said(keys: Cli, tmp_path: Path) -> None:
    answer = keys("install", "--key-file", str(tmp_path / "nothing"))
    assert answer.exit_code == 1
    assert "No such file" in answer.stderr


def test_a_key_does_not_travel_in_the_clear_to_another_machine(cli: Cli) -> None:
    answer = cli("keys", "install", "--key-file", "-", "--url", "http://192.0.2.1:8000", stdin=text_of(NEW))
    assert answer.exit_code == 1
    assert "in the clear" in answer.stderr


def test_every_address_of_loopback_is_this_machine(cli: Cli) -> None:
    with socket.socket() as nobody:  # bound and not listening: refused at once, and nobody else's
        nobody.bind(("127.0.77.3", 0))
        url = f"http://127.0.77.3:{nobody.getsockname()[1]}"
        answer = cli("keys", "install", "--key-file", "-", "--url", url, stdin=text_of(NEW))
    assert answer.exit_code == 3, answer.stderr
    assert "no node answers" in answer.stderr


@pytest.mark.parametrize(("verb", "said"), [("use", "barn and cellar lack it"), ("remove", "attic seals with it")])
def test_what_would_cut_nodes_off_exits_1_and_says_what_to_do(keys: Cli, sealed: Sealed, verb: str, said: str) -> None:
    sealed.them.rings["attic"] = Keyring((NEW, OLD))
    answer = keys(verb, NEW_NAME)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert said in answer.stderr
    assert "astromesh-node keys" in answer.stderr
    refusal = json.loads(keys(verb, NEW_NAME, "--json").stderr)
    assert refusal["code"] == "keys_refused"
    assert sealed.them.rings["attic"] == Keyring((NEW, OLD))


def test_force_does_it_all_the_same_and_exits_1_where_some_did_not(keys: Cli, sealed: Sealed) -> None:
    sealed.them.rings["attic"] = sealed.them.rings["barn"] = Keyring((OLD, NEW))
    answer = keys("use", NEW_NAME, "--force")
    assert (answer.exit_code, answer.stdout) == (1, f"{NEW_NAME} is the primary on 2 of 3 nodes\n")
    assert "cellar could not: this key is not in the keyring" in answer.stderr
    assert sealed.them.rings["barn"].primary == NEW


def test_a_node_that_did_not_answer_is_named_and_the_command_may_be_said_again(keys: Cli, sealed: Sealed) -> None:
    sealed.them.silent = ["barn"]
    answer = keys("install", "--generate")
    assert answer.exit_code == 1
    assert f"barn did not answer. 'keys install {answer.stdout.strip()}' may be said again" in answer.stderr
    document = json.loads(keys("install", answer.stdout.strip(), "--json").stdout)
    assert (document["complete"], document["unanswered"]) == (False, ["barn"])


@pytest.mark.parametrize("words", [("install",), ("use",), ("remove",), ("install", "--generate", "0" * 8)])
def test_which_key_must_be_said_once(keys: Cli, words: tuple[str, ...]) -> None:
    assert keys(*words).exit_code == 2


def test_a_key_in_the_place_of_a_fingerprint_is_refused_and_not_repeated(keys: Cli) -> None:
    for words in (("install", text_of(NEW)), ("install", text_of(NEW), "--key-file", "-"), ("use", text_of(NEW))):
        answer = keys(*words, stdin=text_of(NEW))
        assert answer.exit_code == 1
        assert "no fingerprint" in answer.stderr
        assert text_of(NEW)[:8] not in answer.stderr


def test_a_mesh_in_the_clear_says_how_it_gets_keys(cli: Cli, node: RunningNode) -> None:
    answer = cli("keys", "list", "--url", node.url)
    assert answer.exit_code == 0
    assert "in the clear" in answer.stdout
    assert "--keyring-file" in answer.stdout
    assert json.loads(cli("keys", "list", "--json", "--url", node.url).stdout)["sealed"] is False
    refused = cli("keys", "install", "--generate", "--url", node.url)
    assert refused.exit_code == 1
    assert "--keyring-file" in refused.stderr


def test_the_order_of_a_rotation_stands_in_the_help(cli: Cli) -> None:
    told = cli("keys", "--help").stdout
    assert told.index("keys install --generate") < told.index("keys use FINGERPRINT") < told.index("keys remove OLD")
