"""What this machine tells a node before it starts: the folder of its configuration, its environment, its folders.

Where a verb needs no running node, it asks here. Imports the parts of a node only when called.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from astromesh.service.config_dir import Configuration
    from astromesh.service.settings import Flag, Settled


def configuration(folder: str | None) -> Configuration:
    """Everything that was written, mistakes included. Raises `ConfigurationError` where there is no such folder."""
    from astromesh.service import config_dir
    from astromesh.service.paths import system_directories, user_directories

    found = config_dir.find(
        flag=folder,
        environment=os.environ,
        here=Path.cwd(),
        user=Path(user_directories(sys.platform, os.environ, home=Path.home()).config),
        system=Path(system_directories(sys.platform, os.environ).config),
        shipped=config_dir.shipped_folder(),
    )
    return config_dir.load(found, environment=os.environ)


def settled(configuration: Configuration, flags: Mapping[str, Flag]) -> Settled:
    """The node's settings. Raises `ConfigurationError` where a flag or a variable is wrong."""
    from astromesh.service.settings import settle
    from astromesh.specs.runtime import Runtime

    # One bad file never stops the node: without its own it runs on what else it is told, which keeps to loopback.
    set_aside: tuple[str, ...] = ()
    if configuration.runtime is None:
        what = f"{configuration.folder}: the node's own file has mistakes and is set aside: flags, ASTROMESH_* and defaults count."
        set_aside = (f"{what} 'astromesh-node config validate {configuration.folder}' shows every mistake.",)
    result = settle(
        flags=flags,
        environment=os.environ,
        runtime=configuration.runtime or Runtime.unwritten(),
        folder=configuration.folder,
        data_default=_data_folder(configuration.folder),
        hostname=socket.gethostname(),
    )
    result = replace(result, warnings=(*set_aside, *result.warnings))
    role = result.values.role
    if role == "full":
        return result
    told = (
        f"{result.origins['role']}: a node of role {role} does everything yet, as role full does: roles come with clusters beyond loopback."
    )
    return replace(result, warnings=(*result.warnings, told))


def _data_folder(folder: Path) -> Path:
    """A node that is configured for the system keeps its data there; everybody else's is the user's own."""
    from astromesh.service.paths import system_directories, user_directories

    system = system_directories(sys.platform, os.environ)
    if folder == Path(system.config):
        return Path(system.data)
    return Path(user_directories(sys.platform, os.environ, home=Path.home()).data)
