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

from astromesh.errors import ConfigurationError

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
    from astromesh.service.settings import set_aside, settle
    from astromesh.specs.runtime import Runtime

    result = settle(
        flags=flags,
        environment=os.environ,
        runtime=configuration.runtime or Runtime.unwritten(),
        folder=configuration.folder,
        data_default=_data_folder(configuration.folder),
        hostname=socket.gethostname(),
    )
    # A bad file does not stop the node by itself: without its own it runs on what else it is told, which keeps to loopback.
    if configuration.runtime is None:
        result = replace(result, warnings=(set_aside(configuration.folder, result.values), *result.warnings))
    role = result.values.role
    if role == "full":
        return result
    told = (
        f"{result.origins['role']}: a node of role {role} does everything yet, as role full does: roles come with clusters beyond loopback."
    )
    return replace(result, warnings=(*result.warnings, told))


def refuse_unprotected(configuration: Configuration) -> None:
    """Raises `ConfigurationError` where a mistake would have a node start without what keeps others out."""
    if not configuration.lost:
        return
    own = "\n".join(str(mistake) for mistake in configuration.own_mistakes)
    raise ConfigurationError(
        f"{configuration.folder}: the node's own file has mistakes, and it names {', '.join(configuration.lost)}: "
        f"this node does not start without that\n{own}",
        hint=f"mend them: astromesh-node config validate {configuration.folder}",
    )


def _data_folder(folder: Path) -> Path:
    """A node that is configured for the system keeps its data there; everybody else's is the user's own."""
    from astromesh.service.paths import system_directories, user_directories

    system = system_directories(sys.platform, os.environ)
    if folder == Path(system.config):
        return Path(system.data)
    return Path(user_directories(sys.platform, os.environ, home=Path.home()).data)
