"""What this node is told about itself: from flags, else the environment, else `runtime.yaml`, else defaults that work. Pure.

`SETTINGS` is the one table: the command line, the environment, `config show --origin` and the documentation go by it. A wrong value names where
it was said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from astromesh.service.addresses import API_PORT, GOSSIP_PORT, LOOPBACK, HostPort, parse_address, parse_seed
from astromesh.specs.runtime import Runtime

Role = Literal["full", "gateway", "worker", "inference"]
Profile = Literal["lan-fast", "lan", "wan"]
SEEDS_MAX = 64  # a mesh is joined by one answer; a longer list is a mistaken one
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class Setting:
    """One row. `keys`: where it stands in runtime.yaml, the first that is written gives its line."""

    name: str
    flag: str
    variable: str
    keys: tuple[str, ...]
    meaning: str


SETTINGS: tuple[Setting, ...] = (
    Setting("name", "--name", "ASTROMESH_NAME", ("spec.mesh.node_name",), "what people call this node; default: the machine's name"),
    Setting("role", "--role", "ASTROMESH_ROLE", (), "full, gateway, worker or inference; default: full"),
    Setting("api", "--api", "ASTROMESH_API", ("spec.api.host", "spec.api.port"), "HOST:PORT of the API; default: 127.0.0.1:8000"),
    Setting("mesh", "--mesh/--no-mesh", "ASTROMESH_MESH", ("spec.mesh.enabled",), "whether there is a mesh at all; default: on"),
    Setting("gossip", "--gossip", "ASTROMESH_GOSSIP", ("spec.mesh.bind",), "HOST:PORT of the gossip; default: 127.0.0.1:7946"),
    Setting("link", "--link", "ASTROMESH_LINK", (), "HOST:PORT of the links; default: the gossip's host, the port after it"),
    Setting("advertise", "--advertise", "ASTROMESH_ADVERTISE", ("spec.mesh.advertise",), "the address that others reach this node by"),
    Setting("join", "--join", "ASTROMESH_JOIN", ("spec.mesh.seeds",), "members to join by; several are separated by commas"),
    Setting("profile", "--profile", "ASTROMESH_PROFILE", ("spec.mesh.profile",), "timing of the mesh: lan-fast, lan or wan; default: lan"),
    Setting("mdns", "--mdns/--no-mdns", "ASTROMESH_MDNS", ("spec.mesh.mdns",), "whether nodes find each other by mDNS; default: off"),
    Setting("data", "--data", "ASTROMESH_DATA", (), "the folder for models, drafts and keys"),
    Setting("models_dir", "--models-dir", "ASTROMESH_MODELS_DIR", ("spec.inference.models_dir",), "models; default: models in the data folder"),
    Setting("token_file", "--token-file", "ASTROMESH_TOKEN_FILE", (), "a file with an invitation to a mesh"),
    Setting("demo", "--demo", "ASTROMESH_DEMO", (), "whether the commands that break things on purpose are allowed; default: off"),
)
OTHER_VARIABLES = ("ASTROMESH_CONFIG_DIR", "ASTROMESH_DAEMON_URL", "ASTROMESH_API_KEY")
_BY_NAME: Mapping[str, Setting] = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class Origin:
    kind: Literal["flag", "environment", "file", "default"]
    place: str  # "--api", "ASTROMESH_API", "runtime.yaml:12", or why this is the default

    def __str__(self) -> str:
        return self.place


@dataclass(frozen=True, slots=True)
class NodeSettings:
    name: str
    role: Role
    api: HostPort
    mesh: bool
    gossip: HostPort
    link: HostPort
    advertise: str | None
    join: tuple[HostPort, ...]
    profile: Profile
    mdns: bool
    data: Path
    models_dir: Path
    token_file: Path | None
    demo: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """The settings, where each came from (by its name in `SETTINGS`), and what to warn about."""

    values: NodeSettings
    origins: Mapping[str, Origin]
    warnings: tuple[str, ...]


Flag = str | bool | Sequence[str] | None


def settle(
    *, flags: Mapping[str, Flag], environment: Mapping[str, str], runtime: Runtime, folder: Path, data_default: Path, hostname: str
) -> Settled:
    """`flags` by the names in `SETTINGS`, None or absent where not given. Relative paths of the file are relative to `folder`.

    Raises `ConfigurationError` that names the flag, the variable or the line.
    """
    told = _Told(flags, environment, runtime)
    spec = runtime.spec
    warnings = list(_misspelt(environment))
    api_host, api_port = spec.api.host or LOOPBACK, API_PORT if spec.api.port is None else spec.api.port
    api = told.one("api", lambda text: parse_address(text, host=api_host, port=api_port), f"{_bracketed(api_host)}:{api_port}")
    gossip = told.one("gossip", lambda text: parse_address(text, host=LOOPBACK, port=GOSSIP_PORT), spec.mesh.bind, f"{LOOPBACK}:{GOSSIP_PORT}")
    if told.origins["gossip"].kind == "file" and gossip.port == api.port != 0:
        # Files of versions whose gossip went over the API's own port.
        gossip = HostPort(gossip.host, GOSSIP_PORT)
        warnings.append(f"{told.origins['gossip']}: spec.mesh.bind: that is the API's port; gossip takes {gossip}. Write bind: {gossip}.")
    after = gossip.port + 1 if 0 < gossip.port < 65_535 else 0
    data = told.one("data", _path, None, str(data_default))
    values = NodeSettings(
        name=told.one("name", _name, spec.mesh.node_name, _own_name(hostname)),
        role=cast(Role, told.one("role", _one_of("full", "gateway", "worker", "inference"), None, "full")),
        api=api,
        mesh=told.one("mesh", _yes_or_no, _word(spec.mesh.enabled), "on"),
        gossip=gossip,
        link=told.one("link", lambda text: parse_address(text, host=gossip.host, port=after), None, str(HostPort(gossip.host, after))),
        advertise=told.optional("advertise", _host_only, spec.mesh.advertise),
        join=told.several("join", parse_seed, spec.mesh.seeds),
        profile=cast(Profile, told.one("profile", _one_of("lan-fast", "lan", "wan"), spec.mesh.profile, "lan")),
        mdns=told.one("mdns", _yes_or_no, _word(spec.mesh.mdns), "off"),
        data=data,
        models_dir=told.one("models_dir", _path, _beside(folder, spec.inference.models_dir), str(data / "models")),
        token_file=told.optional("token_file", _path, None),
        demo=told.one("demo", _yes_or_no, None, "off"),
    )
    return Settled(values, told.origins, tuple(warnings))


class _Told:
    """Who said what about each setting."""

    def __init__(self, flags: Mapping[str, Flag], environment: Mapping[str, str], runtime: Runtime) -> None:
        unknown = [name for name in flags if name not in _BY_NAME]
        assert not unknown, f"no such settings: {unknown}"
        self._flags = flags
        self._environment = environment
        self._runtime = runtime
        self.origins: dict[str, Origin] = {}

    def one[T](self, name: str, read: Callable[[str], T], written: str | None, default: str = "") -> T:
        ...
