"""Where a node keeps its things, for each system, for one user and for all.

Pure: the platform and the environment are arguments, so that all three systems are tested on one. The paths are names; none need exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath, PurePosixPath, PureWindowsPath


@dataclass(frozen=True, slots=True)
class Directories:
    config: PurePath
    data: PurePath  # models, drafts of agents, keys
    logs: PurePath
    program: PurePath | None = None  # of a package; None for one user's own installation

    @property
    def models(self) -> PurePath:
        return self.data / "models"


def system_directories(platform: str, environment: Mapping[str, str]) -> Directories:
    """`platform` as `sys.platform` has it."""
    if platform == "darwin":
        shared = PurePosixPath("/Library/Application Support/Astromesh")
        return Directories(shared / "config", shared / "data", PurePosixPath("/Library/Logs/Astromesh"), shared / "program")
    if platform == "win32":
        shared_data = PureWindowsPath(environment.get("ProgramData") or r"C:\ProgramData") / "Astromesh"
        program = PureWindowsPath(environment.get("ProgramFiles") or r"C:\Program Files") / "Astromesh"
        return Directories(shared_data / "config", shared_data / "data", shared_data / "logs", program)
    return Directories(
        PurePosixPath("/etc/astromesh"),
        PurePosixPath("/var/lib/astromesh"),
        PurePosixPath("/var/log/astromesh"),
        PurePosixPath("/opt/astromesh"),
    )


def user_directories(platform: str, environment: Mapping[str, str], *, home: PurePath) -> Directories:
    """One user's: the XDG folders, also on macOS; on Windows its own."""
    if platform == "win32":
        roaming = PureWindowsPath(environment.get("APPDATA") or home / "AppData" / "Roaming") / "Astromesh"
        local = PureWindowsPath(environment.get("LOCALAPPDATA") or home / "AppData" / "Local") / "Astromesh"
        return Directories(roaming / "config", local / "data", local / "logs")

    def folder(variable: str, otherwise: str) -> PurePath:
        told = PurePosixPath(environment.get(variable, ""))
        # The specification has relative values ignored: they would mean another folder wherever the program is started.
        return (told if told.is_absolute() else home / otherwise) / "astromesh"

    return Directories(
        folder("XDG_CONFIG_HOME", ".config"), folder("XDG_DATA_HOME", ".local/share"), folder("XDG_STATE_HOME", ".local/state") / "logs"
    )
