"""What this node is told about itself: from flags, else the environment, else `runtime.yaml`, else defaults that work. Pure.

`SETTINGS` is the one table: the command line, the environment, `config show --origin` and the documentation go by it. A wrong value names
where it was said.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal, TypeVar, cast

from astromesh.errors import ConfigurationError
from astromesh.service.addresses import API_PORT, GOSSIP_PORT, LOOPBACK, HostPort, parse_address, parse_seed
from astromesh.specs.runtime import IDLE_UNLOAD_DEFAULT_S, Runtime
from astromesh.specs.section import IDLE_UNLOAD_S_MAX

Role = Literal["full", "gateway", "worker", "inference"]
Profile = Literal["lan-fast", "lan", "wan"]
MEMORY_MB_MAX = 100_000_000  # a hundred terabytes: more is bytes that were taken for MB
SEEDS_MAX = 64  # a mesh is joined by one answer; a longer list is a mistaken one
T = TypeVar("T")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_CLUSTER = re.compile(r"[A-Za-z0-9._-]{1,32}")  # it travels in the tags, which have 200 bytes
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
    Setting(
        "profile", "--profile", "ASTROMESH_PROFILE", ("spec.mesh.profile",), "timing of the mesh: lan-fast, lan or wan; default: lan-fast"
    ),
    Setting(
        "cluster_id", "--cluster-id", "ASTROMESH_CLUSTER_ID", ("spec.mesh.cluster_id",), "members of another one are refused; default: none"
    ),
    Setting(
        "keyring_file", "--keyring-file", "ASTROMESH_KEYRING_FILE", ("spec.mesh.keyring_file",), "keys that seal the gossip; default: none"
    ),
    Setting("serf", "--serf/--no-serf", "ASTROMESH_SERF", ("spec.mesh.serf",), "whether stock Serf agents belong here; default: off"),
    Setting("mdns", "--mdns/--no-mdns", "ASTROMESH_MDNS", ("spec.mesh.mdns",), "whether nodes find each other by mDNS; default: off"),
    Setting("data", "--data", "ASTROMESH_DATA", (), "the folder for models, drafts and keys"),
    Setting("models_dir", "--models", "ASTROMESH_MODELS_DIR", ("spec.inference.models_dir",), "models; default: models in the data folder"),
    Setting(
        "memory_budget_mb",
        "--memory-budget",
        "ASTROMESH_MEMORY_BUDGET_MB",
        ("spec.inference.memory_budget_mb",),
        "what all models together may take, in MB; default: half of the memory",
    ),
    Setting(
        "idle_unload_s",
        "--idle-unload",
        "ASTROMESH_IDLE_UNLOAD_SECONDS",
        ("spec.inference.idle_unload_seconds",),
        "a model that nobody asks for so many seconds is unloaded, with 0 never; default: 3600",
    ),
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
    cluster_id: str
    keyring_file: Path | None
    serf: bool
    mdns: bool
    data: Path
    models_dir: Path
    memory_budget_mb: int | None
    idle_unload_s: float


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
    api_written = None if spec.api.host is None and spec.api.port is None else str(HostPort(api_host, api_port))
    api = told.one("api", lambda text: parse_address(text, host=api_host, port=api_port), api_written, f":{API_PORT}")
    default_gossip = f"{LOOPBACK}:{GOSSIP_PORT}"
    gossip = told.one("gossip", lambda text: parse_address(text, host=LOOPBACK, port=GOSSIP_PORT), spec.mesh.bind, default_gossip)
    if told.origins["gossip"].kind == "file" and gossip.port == api.port != 0:
        # Files of versions whose gossip went over the API's own port.
        gossip = HostPort(gossip.host, GOSSIP_PORT)
        warnings.append(f"{told.origins['gossip']}: spec.mesh.bind: that is the API's port; gossip takes {gossip}. Write bind: {gossip}.")
    after = gossip.port + 1 if 0 < gossip.port < 65_535 else 0
    data = told.one("data", _path, None, str(data_default))
    mdns = told.one("mdns", _yes_or_no, _word(spec.mesh.mdns), "off")
    if mdns and told.origins["mdns"].kind != "file":  # the file's own warning says it already
        warnings.append(f"{told.origins['mdns']}: nodes are not found by mDNS yet. Use --join.")
    advertise = told.optional("advertise", _host_only, spec.mesh.advertise)
    if advertise and told.origins["advertise"].kind != "file":
        warnings.append(f"{told.origins['advertise']}: is not used yet: others are told the address that the node is bound to.")
    values = NodeSettings(
        name=told.one("name", _name, spec.mesh.node_name, _own_name(hostname)),
        role=cast(Role, told.one("role", _one_of("full", "gateway", "worker", "inference"), None, "full")),
        api=api,
        mesh=told.one("mesh", _yes_or_no, _word(spec.mesh.enabled), "on"),
        gossip=gossip,
        link=told.one("link", lambda text: parse_address(text, host=gossip.host, port=after), None, str(HostPort(gossip.host, after))),
        advertise=advertise,
        join=told.several("join", parse_seed, spec.mesh.seeds),
        profile=cast(Profile, told.one("profile", _one_of("lan-fast", "lan", "wan"), spec.mesh.profile, "lan-fast")),
        cluster_id=told.one("cluster_id", _cluster, spec.mesh.cluster_id, ""),
        keyring_file=told.optional("keyring_file", _path, _beside(folder, spec.mesh.keyring_file)),
        serf=told.one("serf", _yes_or_no, _word(spec.mesh.serf), "off"),
        mdns=mdns,
        data=data,
        models_dir=told.one("models_dir", _path, _beside(folder, spec.inference.models_dir), str(data / "models")),
        memory_budget_mb=told.optional("memory_budget_mb", _megabytes, _figure(spec.inference.memory_budget_mb)),
        idle_unload_s=told.one("idle_unload_s", _idle_s, _figure(spec.inference.idle_unload_seconds), f"{IDLE_UNLOAD_DEFAULT_S:g}"),
    )
    if values.join and not values.mesh:
        warnings.append(f"{told.origins['join']}: nobody is joined, since the mesh is off: {told.origins['mesh']}.")
    return Settled(values, told.origins, tuple(warnings))


def set_aside(folder: Path, values: NodeSettings) -> str:
    """What to say of a node whose own file has mistakes: what counts in its place."""
    seeds = f"seeds {', '.join(map(str, values.join))}" if values.join else "no seeds"
    mesh = f"gossip {values.gossip}, {seeds}" if values.mesh else "no mesh"
    return (
        f"{folder}: the node's own file has mistakes and is set aside: flags, ASTROMESH_* and defaults count, so API {values.api}, "
        f"{mesh}, data {values.data}, models {values.models_dir}. 'astromesh-node config validate {folder}' shows every mistake."
    )


class _Told:
    """Who said what about each setting, the first of flag, environment, file and default."""

    def __init__(self, flags: Mapping[str, Flag], environment: Mapping[str, str], runtime: Runtime) -> None:
        unknown = [name for name in flags if name not in _BY_NAME]
        assert not unknown, f"no such settings: {unknown}"
        self._flags = flags
        self._environment = environment
        self._runtime = runtime
        self.origins: dict[str, Origin] = {}

    def one(self, name: str, read: Callable[[str], T], written: str | None, default: str) -> T:
        origin, text = self._said(name, written)
        if text is None:
            return read(default)
        return self._read(origin, read, text)

    def optional(self, name: str, read: Callable[[str], T], written: str | None) -> T | None:
        origin, text = self._said(name, written)
        return None if text is None else self._read(origin, read, text)

    def several(self, name: str, read: Callable[[str], T], written: Sequence[str] | None) -> tuple[T, ...]:
        origin, text = self._said(name, None if written is None else ",".join(written))
        items = [item.strip() for item in (text or "").split(",") if item.strip()]
        if len(items) > SEEDS_MAX:
            raise ConfigurationError(
                f"{origin}: {len(items)} members to join by", hint=f"one that answers is enough; name at most {SEEDS_MAX}"
            )
        return tuple(dict.fromkeys(self._read(origin, read, item) for item in items))

    def _said(self, name: str, written: str | None) -> tuple[Origin, str | None]:
        setting = _BY_NAME[name]
        flag = self._flags.get(name)
        variable = self._environment.get(setting.variable, "")
        text: str | None
        if flag is not None and flag != ():
            origin = Origin("flag", _spoken(setting.flag, flag))
            text = _word(flag) if isinstance(flag, bool) else flag if isinstance(flag, str) else ",".join(flag)
        elif variable:  # set to nothing is as good as unset, as for the format's own ${VARIABLE:-default}
            origin, text = Origin("environment", setting.variable), variable
        elif written is not None:
            key = next((key for key in setting.keys if key in self._runtime.lines), setting.keys[0])
            origin, text = Origin("file", self._runtime.place(key)), written
        else:
            origin, text = Origin("default", "default"), None
        self.origins[name] = origin
        return origin, text

    def _read(self, origin: Origin, read: Callable[[str], T], text: str) -> T:
        try:
            return read(text)
        except ValueError as wrong:
            raise ConfigurationError(f"{origin}: {wrong}", hint="see 'config show --origin' for where each setting comes from") from None


def _spoken(flag: str, value: Flag) -> str:
    yes, _, no = flag.partition("/")
    return no if no and value is False else yes


def _word(value: bool | None) -> str | None:
    return None if value is None else "on" if value else "off"


def _yes_or_no(text: str) -> bool:
    if text.lower() in _YES:
        return True
    if text.lower() in _NO:
        return False
    raise ValueError(f"'{text[:20]}' is neither yes nor no: write on or off")


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"'{text[:20]}' is none of {', '.join(choices)}")
        return text

    return read


def _name(text: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise ValueError(
            f"'{text[:80]}' cannot be a node's name: use at most 63 of a-z, 0-9 and '-', with a letter or a digit first and last"
        )
    return text


def _cluster(text: str) -> str:
    if text and _CLUSTER.fullmatch(text) is None:
        raise ValueError(f"'{text[:80]}' cannot be a cluster's id: use at most 32 of A-Z, a-z, 0-9, '.', '_' and '-'")
    return text


def _own_name(hostname: str) -> str:
    """The machine's name as far as it can be a node's."""
    made = re.sub(r"[^a-z0-9]+", "-", hostname.partition(".")[0].lower()).strip("-")[:63].strip("-")
    return made or "node"


def _host_only(text: str) -> str:
    host, port = parse_address(text, host="", port=-1)
    if port != -1 or not host:
        raise ValueError(f"'{text[:60]}': write the host alone; the ports are those of --gossip, --link and --api")
    return host


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:g}"


def _megabytes(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:12]) <= MEMORY_MB_MAX:
        raise ValueError(f"'{text[:20]}' is no number of MB")
    return int(text)


def _idle_s(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= IDLE_UNLOAD_S_MAX:
        raise ValueError(f"'{text[:20]}' is no number of seconds: write 3600, or 0 for never")
    return seconds


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _beside(folder: Path, written: str | None) -> str | None:
    return None if written is None else str(folder / Path(written).expanduser())


def _misspelt(environment: Mapping[str, str]) -> Iterator[str]:
    """Variables that look like one of ours and are none. Others may be somebody's own, for `${…}` in the files."""
    known = [*(setting.variable for setting in SETTINGS), *OTHER_VARIABLES]
    for variable in sorted(environment):
        if variable.startswith("ASTROMESH_") and variable not in known and (close := get_close_matches(variable, known, n=1, cutoff=0.85)):
            yield f"the environment variable {variable} is not known. Did you mean {close[0]}?"
