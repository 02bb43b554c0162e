"""Models from a hub and from web servers: whole and verified, resumed where they were cut, or an error that says what next."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from tests.astromesh.inference.gguf_files import a_gguf
from tests.rig.hub_double import COMMIT, HubDouble, running

from astromesh.errors import StoreError
from astromesh.inference import sources
from astromesh.inference.backends.hub import DownloadLimits, WebFiles
from astromesh.inference.backends.packages import PythonPackages
from astromesh.inference.manifest import StoredModel
from astromesh.inference.port import Progress
from astromesh.inference.sources import HubFile, WebFile
from astromesh.inference.store import ModelStore

CONTENT = a_gguf(salt=b"hub") + bytes(200_000)
TOKEN = "hf_never_to_be_seen"
QUICK = DownloadLimits(connect_s=5.0, silence_s=10.0, attempts=2, pause_s=0.0, tick_s=0.01)


@pytest.fixture
def hub() -> Iterator[HubDouble]:
    with running(HubDouble(CONTENT), routes=lambda hub: [web.get("/{owner}/far/resolve/main/tiny.gguf", hub.elsewhere)]) as hub:
        yield hub


class Puller:
    def __init__(self, root: Path, hub: HubDouble) -> None:
        self.root = root
        self.hub = hub
        self.limits = QUICK
        self.token = ""

    def __call__(self, source: str = "hf:acme/tiny:tiny.gguf", *, sha256: str = "", progress: Progress = lambda *_: None) -> StoredModel:
        environment = {"HF_ENDPOINT": self.hub.base, "HF_TOKEN": self.token}
        files = WebFiles(environment=environment, limits=self.limits)

        def told(done: int, total: int, what: str) -> None:
            self.hub.arrived = done
            progress(done, total, what)

        return self.store(files).pull(source, sha256=sha256, progress=told)

    def store(self, files: WebFiles) -> ModelStore:
        return ModelStore(self.root, packages=PythonPackages(), remote=lambda: files)

    def refused(self, source: str = "hf:acme/tiny:tiny.gguf", **how: str) -> StoreError:
        with pytest.raises(StoreError) as raised:
            self(source, **how)
        assert ModelStore(self.root, packages=PythonPackages(), remote=WebFiles).list() == ()
        return raised.value

    @property
    def kept(self) -> int:
        """Bytes that wait for the next pull."""
        return sum(path.stat().st_size for path in self.root.glob("incoming/*/*.part"))


@pytest.fixture
def pull(hub: HubDouble, tmp_path: Path) -> Puller:
    return Puller(tmp_path / "models", hub)


# What is meant.


def test_a_file_of_a_hub_an_address_and_a_path_are_told_apart() -> None:
    assert sources.remote("hf:acme/tiny:q4/tiny.gguf") == (HubFile("acme/tiny", "q4/tiny.gguf"), "")
    assert sources.remote("hf:acme/tiny@v2:tiny.gguf") == (HubFile("acme/tiny", "tiny.gguf", "v2"), "")
    assert sources.remote(f"https://h/t.gguf#sha256={'AB' * 32}") == (WebFile("https://h/t.gguf"), "ab" * 32)
    assert sources.remote("./models/tiny.gguf") is None
    assert str(HubFile("acme/tiny", "tiny.gguf", "v2")) == "hf:acme/tiny@v2:tiny.gguf"


@pytest.mark.parametrize(
    "text",
    ["hf:tiny", "hf:acme/tiny", "hf:acme/tiny:", "hf:../tiny:t.gguf", "hf:acme/tiny:../../t.gguf", "hf:a/b@../x:t", "https://", "https://h/#md5=1",
     "https://h/t#sha256=12", "http://h:0/t", "hf:" + "a" * 5000],
)  # fmt: skip
def test_what_names_nothing_is_refused_before_anybody_is_asked(text: str) -> None:
    with pytest.raises(StoreError):
        sources.remote(text)


def test_an_address_is_told_without_its_secrets() -> None:
    secret = WebFile("https://user:pass@host/t.gguf?signature=abc")
    for text in (str(secret), repr(secret)):
        assert "https://host/t.gguf" in text
        assert "pass" not in text
        assert "abc" not in text


# When all is well.


def test_a_file_of_a_hub_is_installed_verified_and_pinned_to_its_commit(pull: Puller, hub: HubDouble) -> None:
    pulled = pull()
    assert pulled.path.read_bytes() == CONTENT
    assert (pulled.name, pulled.sha256, pulled.source) == ("tiny", hub.digest, f"hf:acme/tiny@{COMMIT}:tiny.gguf")
    assert [asked.path for asked in hub.asked] == ["/acme/tiny/resolve/main/tiny.gguf", "/cdn/tiny.gguf"]
    assert pull() == pulled
    assert len(hub.asked) == 2
    assert not (pull.root / "incoming" / "tiny").exists()


def test_an_address_needs_no_hub_and_its_digest_may_be_given_in_two_ways(pull: Puller, hub: HubDouble) -> None:
    pulled = pull(f"{hub.base}/cdn/Tiny.GGUF?signature=hidden#sha256={hub.digest}")
    assert (pulled.name, pulled.source) == ("tiny", f"{hub.base}/cdn/Tiny.GGUF")
    assert "hidden" not in (pull.root / "manifests" / "tiny.json").read_text()
    assert pull(f"{hub.base}/cdn/other.gguf", sha256=hub.digest.upper()).sha256 == hub.digest
    assert (
        "two digests" in pull.__class__(pull.root / "x", hub).refused(f"{hub.base}/cdn/t.gguf#sha256={'0' * 64}", sha256=hub.digest).message
    )


def test_a_digest_beside_an_address_is_held_to_where_the_file_is_there_already(pull: Puller, hub: HubDouble) -> None:
    address = f"{hub.base}/cdn/tiny.gguf"
    pulled = pull(address)
    for how in ({"source": f"{address}#sha256={'0' * 64}"}, {"source": address, "sha256": "0" * 64}):
        with pytest.raises(StoreError, match=f"has sha256 {pulled.sha256}, not {'0' * 64}"):
            pull(**how)
    assert pull(f"{address}#sha256={pulled.sha256}") == pulled


def test_a_file_that_was_overwritten_is_fetched_again_by_its_name(pull: Puller, hub: HubDouble) -> None:
    pulled = pull()
    pulled.path.write_bytes(bytes(len(CONTENT)))
    assert pull("tiny").path.read_bytes() == CONTENT


def test_the_name_of_another_model_is_not_taken_over(pull: Puller, hub: HubDouble) -> None:
    pull()
    with pytest.raises(StoreError, match="name of another model"):
        pull("hf:evil/tiny:tiny.gguf")
    with pytest.raises(StoreError, match="name of another model"):
        pull("hf:acme/tiny@v2:tiny.gguf")


def test_progress_is_told_from_the_first_byte_to_the_last(pull: Puller) -> None:
    seen: list[tuple[int, int, str]] = []
    pull(progress=lambda done, total, what: seen.append((done, total, what)))
    assert seen[-1] == (len(CONTENT), len(CONTENT), "downloading hf:acme/tiny:tiny.gguf")
    assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)


def test_a_file_whose_length_nobody_tells_is_read_to_its_end(pull: Puller, hub: HubDouble) -> None:
    hub.tells_length = False
    assert pull().path.read_bytes() == CONTENT


# The token.


def test_the_token_goes_to_the_hub_and_to_nobody_else(pull: Puller, hub: HubDouble) -> None:
    hub.secret = pull.token = TOKEN
    pull("hf:acme/far:tiny.gguf")
    assert [asked.authorization for asked in hub.asked] == [f"Bearer {TOKEN}", ""]


def test_a_refused_token_stands_in_no_error_and_in_no_file(pull: Puller, hub: HubDouble) -> None:
    hub.secret, pull.token = "another", TOKEN
    error = pull.refused()
    assert (TOKEN in error.message + error.hint, "HF_TOKEN" in error.hint, "401" in error.message) == (False, True, True)
    assert not [path for path in pull.root.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


def test_without_a_token_the_hint_names_the_variable(pull: Puller, hub: HubDouble) -> None:
    hub.secret = TOKEN
    assert "set HF_TOKEN" in pull.refused().hint


def test_the_token_does_not_travel_in_the_clear_over_a_network(tmp_path: Path) -> None:
    files = WebFiles(environment={"HF_ENDPOINT": "http://mirror.invalid", "HF_TOKEN": TOKEN}, limits=QUICK)
    seen: list[str] = []
    with pytest.raises(StoreError, match=r"mirror\.invalid"):
        files.fetch(
            HubFile("acme/tiny", "t.gguf"),
            folder=tmp_path,
            sha256="",
            need_room=lambda _: None,
            progress=lambda *row: seen.append(str(row)),
        )
    assert not any(TOKEN in row for row in seen)


# Cuts.


def test_a_cut_is_gone_on_with_in_the_same_pull(pull: Puller, hub: HubDouble) -> None:
    hub.cut_after = [70_000]
    assert pull().path.read_bytes() == CONTENT
    assert hub.sent == len(CONTENT)
    assert [asked.range for asked in hub.asked if asked.path.startswith("/cdn")] == ["", "bytes=70000-"]


def test_what_came_before_a_pull_gave_up_is_not_fetched_again_by_the_next(pull: Puller, hub: HubDouble) -> None:
    hub.cut_after = [50_000, 30_000]
    error = pull.refused()
    assert "0.1 MB of it are kept" in error.message
    assert "goes on where it was cut" in error.hint
    assert pull.kept == 80_000
    assert pull().path.read_bytes() == CONTENT
    assert hub.sent == len(CONTENT)


def test_a_pull_that_is_interrupted_leaves_nothing_half_installed_and_is_gone_on_with(pull: Puller, hub: HubDouble) -> None:
    hub.hang_after = 60_000

    def impatient(done: int, total: int, what: str) -> None:
        if done == 60_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(progress=impatient)
    assert pull.kept == 60_000
    hub.go_on.set()
    hub.hang_after = None
    assert pull().path.read_bytes() == CONTENT
    assert hub.asked[-1].range == "bytes=60000-"


def test_a_file_that_was_all_there_is_only_verified(pull: Puller, hub: HubDouble) -> None:
    hub.cut_after = [len(CONTENT) - 1, 0]
    pull.refused()
    part = next(pull.root.glob("incoming/*/model.part"))
    part.write_bytes(CONTENT)
    sent = hub.sent
    assert pull().sha256 == hub.digest
    assert hub.sent == sent


def test_a_source_that_changed_meanwhile_starts_anew(pull: Puller, hub: HubDouble) -> None:
    hub.cut_after = [50_000, 0]
    pull.refused()
    hub.content, hub.etag = a_gguf(salt=b"new") + bytes(300_000), '"v2"'
    assert pull().path.read_bytes() == hub.content
    assert hub.asked[-1].range == ""


def test_a_server_without_digests_that_changed_its_file_starts_anew(pull: Puller, hub: HubDouble) -> None:
    address = f"{hub.base}/cdn/tiny.gguf"
    hub.cut_after = [50_000, 0]
    pull.refused(address)
    hub.content, hub.etag = a_gguf(salt=b"new") + bytes(200_000), '"v2"'  # as long as before
    assert pull(address).path.read_bytes() == hub.content


def test_a_server_that_knows_no_parts_sends_all_of_it_again(pull: Puller, hub: HubDouble) -> None:
    hub.takes_ranges = False
    hub.cut_after = [50_000]
    assert pull().path.read_bytes() == CONTENT
    assert hub.sent == len(CONTENT) + 50_000


def test_a_part_that_cannot_be_told_from_another_file_is_not_gone_on_with(pull: Puller, hub: HubDouble) -> None:
    hub.etag, hub.cut_after = "", [50_000]
    assert pull(f"{hub.base}/cdn/tiny.gguf").path.read_bytes() == CONTENT
    assert [asked.range for asked in hub.asked] == ["", ""]


# Bad days.


def test_a_hanging_server_is_given_up_with_what_came_kept(pull: Puller, hub: HubDouble) -> None:
    hub.hang_after = 40_000
    pull.limits = replace(QUICK, silence_s=0.2)
    error = pull.refused()
    assert "nothing came for 0.2 s" in error.message
    assert pull.kept >= 40_000


def test_a_trickle_is_no_download(pull: Puller, hub: HubDouble) -> None:
    pull.limits = DownloadLimits(attempts=1, rate_window_s=0.0, rate_bytes_s_min=1e12)
    assert "almost nothing comes" in pull.refused().message


@pytest.mark.parametrize(("status", "said"), [(403, "refuses it (403)"), (404, "no such file (404)"), (418, "answers 418")])
def test_a_refusal_is_told_and_not_tried_again(pull: Puller, hub: HubDouble, status: int, said: str) -> None:
    hub.answers = [web.Response(status=status)]
    assert said in pull.refused().message
    assert len(hub.asked) == 2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again_when_it_says(pull: Puller, hub: HubDouble, status: int) -> None:
    hub.answers = [web.Response(status=status, headers={"Retry-After": "0"})]
    assert pull().path.read_bytes() == CONTENT


def test_a_server_that_wants_a_long_pause_gets_it(pull: Puller, hub: HubDouble) -> None:
    hub.answers = [web.Response(status=429, headers={"Retry-After": "3600"})]
    assert "left alone for 3600 s (429)" in pull.refused().message
    assert len(hub.asked) == 2


def test_a_server_that_stays_ill_is_given_up(pull: Puller, hub: HubDouble) -> None:
    hub.answers = [web.Response(status=502), web.Response(status=502)]
    assert "the server answers 502" in pull.refused().message


def test_redirects_without_end_are_ended(pull: Puller, hub: HubDouble) -> None:
    assert "from one address to the next" in pull.refused(f"{hub.base}/loop").message
    assert len(hub.asked) == 11


def test_nobody_there_is_said_with_the_address(pull: Puller, hub: HubDouble) -> None:
    assert "nobody answers at 127.0.0.1:1" in pull.refused("http://127.0.0.1:1/tiny.gguf?key=hidden").message


def test_another_digest_than_the_hubs_is_refused_and_nothing_is_kept(pull: Puller, hub: HubDouble) -> None:
    hub.linked = "0" * 64
    error = pull.refused()
    assert hub.digest in error.message
    assert pull.kept == 0


def test_another_digest_than_the_one_asked_for_is_known_before_a_byte_comes(pull: Puller, hub: HubDouble) -> None:
    assert "on the hub" in pull.refused(sha256="0" * 64).message
    assert hub.sent == 0


def test_a_page_instead_of_a_model_is_known_by_its_first_bytes(pull: Puller, hub: HubDouble) -> None:
    hub.content = b"<!doctype html><title>Sign in" + bytes(1000)
    assert "it begins with b'<!doctype html><'" in pull.refused().message
    assert pull.kept == 0


def test_half_a_model_with_the_right_digest_is_no_model(pull: Puller, hub: HubDouble) -> None:
    hub.content = a_gguf()[:-10]
    assert "is cut" in pull.refused().message
    assert pull.kept == 0


def test_room_is_asked_for_before_anything_is_written(pull: Puller, hub: HubDouble, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_store: ModelStore, size_bytes: int) -> None:
        raise StoreError(f"{size_bytes} bytes are needed")

    monkeypatch.setattr(ModelStore, "_need_room", full)
    assert pull.refused().message == f"{len(CONTENT)} bytes are needed"
    assert pull.kept == 0


def test_a_disk_that_becomes_full_keeps_nothing(pull: Puller, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    assert "became full" in pull.refused().message
    assert pull.kept == 0


def test_two_pulls_at_once_download_once_and_both_have_it(pull: Puller, hub: HubDouble) -> None:
    hub.hang_after = 50_000
    waits = threading.Event()
    results: list[StoredModel] = []
    patient = DownloadLimits(silence_s=30.0, tick_s=0.01, pause_s=0.0)
    pull.limits = patient
    first = threading.Thread(target=lambda: results.append(pull()))
    second = threading.Thread(
        target=lambda: results.append(pull(progress=lambda _d, _t, what: waits.set() if "waiting for another" in what else None))
    )
    first.start()
    assert hub.sends.wait(10)
    second.start()
    assert waits.wait(10)
    hub.hang_after = None
    hub.go_on.set()
    first.join(20)
    second.join(20)
    assert [model.sha256 for model in results] == [hashlib.sha256(CONTENT).hexdigest()] * 2
    assert hub.sent == len(CONTENT)
