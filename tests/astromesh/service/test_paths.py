"""Where things are kept, on every system and for one user."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest

from astromesh.service.paths import system_directories, user_directories

HOME = PurePosixPath("/home/ada")


@pytest.mark.parametrize(
    ("platform", "config", "data", "logs", "program"),
    [
        ("linux", "/etc/astromesh", "/var/lib/astromesh", "/var/log/astromesh", "/opt/astromesh"),
        (
            "darwin",
            "/Library/Application Support/Astromesh/config",
            "/Library/Application Support/Astromesh/data",
            "/Library/Logs/Astromesh",
            "/Library/Application Support/Astromesh/program",
        ),
        (
            "win32",
            r"D:\ProgramData\Astromesh\config",
            r"D:\ProgramData\Astromesh\data",
            r"D:\ProgramData\Astromesh\logs",
            r"C:\Program Files\Astromesh",
        ),
    ],
)
def test_the_systems_folders(platform: str, config: str, data: str, logs: str, program: str) -> None:
    found = system_directories(platform, {"ProgramData": r"D:\ProgramData"})
    assert [str(path) for path in (found.config, found.data, found.logs, found.program)] == [config, data, logs, program]
    assert found.models == found.data / "models"


def test_one_users_folders_follow_xdg() -> None:
    found = user_directories("linux", {}, home=HOME)
    assert [str(path) for path in (found.config, found.data, found.logs, found.program)] == [
        "/home/ada/.config/astromesh", "/home/ada/.local/share/astromesh", "/home/ada/.local/state/astromesh/logs", "None",
    ]  # fmt: skip
    told = {"XDG_CONFIG_HOME": "/x/config", "XDG_DATA_HOME": "/x/data", "XDG_STATE_HOME": "relative"}
    found = user_directories("darwin", told, home=HOME)
    assert [str(path) for path in (found.config, found.data, found.logs)] == [
        "/x/config/astromesh", "/x/data/astromesh", "/home/ada/.local/state/astromesh/logs",
    ]  # fmt: skip


def test_one_users_folders_on_windows() -> None:
    found = user_directories("win32", {"APPDATA": r"C:\Users\Ada\AppData\Roaming"}, home=PureWindowsPath(r"C:\Users\Ada"))
    assert str(found.config) == r"C:\Users\Ada\AppData\Roaming\Astromesh\config"
    assert str(found.data) == r"C:\Users\Ada\AppData\Local\Astromesh\data"
