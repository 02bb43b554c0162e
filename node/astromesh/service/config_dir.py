"""Finds the folder of the configuration and reads what is in it.

The only place that opens these files. What a text means is for `specs` to say; here is which files there are, how much is read of them,
and what no single file can know: that a name is taken twice, or that an agent's provider is nowhere. One bad file never keeps the others
from being read: what is wrong lies beside what is right, and the caller decides whether it can go on (`runtime` is None where the node's
own file is bad).
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import astromesh
from astromesh.errors import ConfigurationError
from astromesh.specs.agent import Agent
from astromesh.specs.findings import Caution, Finding, Mistake
from astromesh.specs.parse import Parsed, parse
from astromesh.specs.protections import protections
from astromesh.specs.provider import Provider, ProviderConfig, ProviderResource, ProviderRouting, Unresolved, server_of
from astromesh.specs.resource import Broken, Listed
from astromesh.specs.runtime import Runtime
from astromesh.tools.backends.python_function import FunctionUnusable, check_listed

FILE_BYTES_MAX = 2**20
FILES_MAX = 1000  # of one folder; a node with more agents than this needs another design, not a longer start

# Which files are read, in this order. Where a resource stands does not matter, its kind does.
_FILES: tuple[tuple[str, str], ...] = (
    ("", "runtime.yaml"),
    ("", "providers*.yaml"),
    ("", "channels.yaml"),
    ("agents", "*.agent.yaml"),
    ("rag", "*.rag.yaml"),
    ("workflows", "*.workflow.yaml"),
    ("templates", "*.template.yaml"),
)
_MEANT: Mapping[str, str] = {"runtime.yaml": "RuntimeConfig"}  # what a file holds that cannot be read


@dataclass(frozen=True, slots=True)
class Found:
    folder: Path
    origin: str  # what led to it, in words for `config show --origin`


@dataclass(frozen=True, slots=True)
class Configuration:
    """All that was read. `mistakes` and `warnings` are all of them, also those that an agent or a broken document carries."""

    folder: Path
    origin: str
    runtime: Runtime | None  # paths of models in it are absolute
    providers: Mapping[str, Provider]
    routing: ProviderRouting  # of all files together
    agents: tuple[Agent, ...]  # by namespace and name
    broken: tuple[Broken, ...]
    listed: tuple[Listed, ...]
    mistakes: tuple[Mistake, ...]
    warnings: tuple[Caution, ...]
    digests: Mapping[str, bytes]  # of each file's text, by its source; empty for one that cannot be read
    lost: tuple[str, ...] = ()  # where `runtime` is None: what its file asks for that the node must not start without

    @property
    def own_mistakes(self) -> tuple[Mistake, ...]:
        """Those of the node's own file."""
        sources = {item.source for item in self.broken if _is_own(item)}
        return tuple(mistake for mistake in self.mistakes if mistake.source in sources or mistake.path == "kind")


def shipped_folder() -> Path:
    """The defaults that come with the program: beside the package in a wheel, else the checkout's."""
    package = Path(astromesh.__file__).parent
    inside = package / "defaults"
    return inside if inside.is_dir() else package.parent.parent / "config"


def find(*, flag: str | None, environment: Mapping[str, str], here: Path, user: Path, system: Path, shipped: Path) -> Found:
    """Where the configuration is. Raises `ConfigurationError` where a folder that was named does not exist."""
    for told, origin in ((flag, "--config"), (environment.get("ASTROMESH_CONFIG_DIR") or None, "ASTROMESH_CONFIG_DIR")):
        if told is not None:
            folder = Path(told).expanduser()
            if not folder.is_dir():
                what = "is a file, not a folder" if folder.exists() else "does not exist"
                raise ConfigurationError(f"{origin}: {folder} {what}", hint="name the folder that holds runtime.yaml and agents/")
            return Found(folder, origin)
    for folder, origin in ((here / "config", "./config"), (user, "the user's folder"), (system, "the system's folder")):
        if (folder / "runtime.yaml").is_file() or (folder / "agents").is_dir():
            return Found(folder, origin)
    return Found(shipped, "the defaults that come with the program")


def load(found: Found, *, environment: Mapping[str, str]) -> Configuration:
    """Reads everything. Raises nothing for what the files say, `ConfigurationError` where the folder itself cannot be read."""
    reading = _Reading(environment)
    try:
        for path, source in _files(found.folder, reading):
            reading.take(path, source)
    except OSError as failure:
        raise ConfigurationError(
            f"{found.folder}: {failure.strerror or failure}", hint="check that the folder exists and that the node's user may read it"
        ) from failure
    return reading.configuration(found)


def _files(folder: Path, reading: _Reading) -> Iterator[tuple[Path, str]]:
    for below in dict.fromkeys(below for below, _ in _FILES):
        if not (folder / below).is_dir():
            if not below:
                raise FileNotFoundError(2, "no such folder")
            continue
        patterns = [pattern for place, pattern in _FILES if place == below]
        names = sorted(entry.name for entry in os.scandir(folder / below) if entry.name.endswith((".yaml", ".yml")))
        wanted = [(name, pattern) for pattern in patterns for name in names if fnmatch.fnmatchcase(name, pattern)]
        taken = [name for name, _ in wanted]
        for name in names:
            if name not in taken and not name.startswith("."):
                remedy = f"Files that are read here: {', '.join(patterns)}."
                reading.warnings.append(Caution(f"{below}/{name}".lstrip("/"), 0, 0, "", "this file is not read", remedy))
        if len(wanted) > FILES_MAX:
            said = f"{len(wanted)} files are too many: the first {FILES_MAX} are read"
            reading.mistakes.append(Mistake(below or ".", 0, 0, "", said, "Spread them over several nodes."))
        for name, _ in wanted[:FILES_MAX]:
            yield folder / below / name, f"{below}/{name}".lstrip("/")


@dataclass(slots=True)
class _Reading:
    """What has been read so far."""

    environment: Mapping[str, str]
    runtimes: list[Runtime] = field(default_factory=list)
    providers: dict[str, Provider] = field(default_factory=dict)
    routing: dict[str, Any] = field(default_factory=dict)
    routing_places: dict[str, str] = field(default_factory=dict)
    agents: dict[tuple[str, str], Agent] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    listed: list[Listed] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    warnings: list[Caution] = field(default_factory=list)
    digests: dict[str, bytes] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def take(self, path: Path, source: str) -> None:
        text = _text(path, source)
        self.digests[source] = b"" if isinstance(text, Mistake) else sha256(text.encode()).digest()
        if isinstance(text, Mistake):
            self._break(Broken("", "", "", source, text.line, (text,)))
            return
        self.texts[source] = text
        parsed = parse(text, source=source, environment=self.environment)
        if parsed.empty and not source.startswith("agents/"):
            # A file of which everything is commented out means the defaults; an agent's file means an agent.
            self.warnings += [Caution(m.source, m.line, m.column, m.path, m.message, "The defaults are used.") for m in parsed.mistakes]
            return
        if parsed.empty:
            self._break(Broken("", "", "", source, 1, parsed.mistakes))
        self._take_resources(parsed)

    def _take_resources(self, parsed: Parsed) -> None:
        for broken in parsed.broken:
            self._break(broken)
        self.warnings += parsed.warnings
        for resource in parsed.resources:
            match resource:
                case Agent():
                    self._take_agent(resource)
                case ProviderConfig():
                    self._take_providers(resource.providers)
                    self._take_routing(resource)
                case ProviderResource():
                    self._take_providers(resource.providers)
                case Runtime():
                    if self.runtimes:
                        first = self.runtimes[0].place("kind")
                        said = f"a node has one RuntimeConfig, and it is in {first}"
                        self.mistakes.append(Mistake(resource.source, resource.line, 1, "kind", said, "Keep one of them."))
                    self.runtimes.append(resource)
                case Listed():
                    self.listed.append(resource)

    def _take_agent(self, agent: Agent) -> None:
        first = self.agents.setdefault((agent.namespace, agent.name), agent)
        if first is not agent:
            said = f"there is an agent '{agent.key}' already, in {first.place('metadata.name')}"
            self._break(_broken(agent, "metadata.name", said, "Give one of them another name, or another metadata.namespace."))

    def _take_providers(self, providers: Sequence[Provider]) -> None:
        for provider in providers:
            first = self.providers.setdefault(provider.name, provider)
            if first is not provider:
                said = f"the provider '{provider.name}' is in {first.place} already, which is used"
                self.mistakes.append(
                    Mistake(provider.source, provider.line, 1, f"spec.providers.{provider.name}", said, "Keep one of them.")
                )
            elif not provider.called:
                said = f"this version does not call servers of type '{provider.spec.type}'"
                path = f"spec.providers.{provider.name}"
                remedy = "Use one that speaks OpenAI's API: type openai_compat."
                self.warnings.append(Caution(provider.source, provider.line, 1, path, said, remedy))

    def _take_routing(self, config: ProviderConfig) -> None:
        """All files together say it once."""
        said = config.spec.routing
        if said is None:
            return
        for key in sorted(said.model_fields_set):
            path = f"spec.routing.{key}"
            first = self.routing_places.setdefault(key, config.place(path))
            if first == config.place(path):
                self.routing[key] = getattr(said, key)
            else:
                message = f"is said in {first} already, and that is used"
                self.mistakes.append(Mistake(config.source, config.lines.get(path, config.line), 1, path, message, "Keep one of them."))

    def _break(self, broken: Broken) -> None:
        """Keeps what is broken, under the name of its file where it could not be read."""
        folder, _, file = broken.source.rpartition("/")
        if not broken.kind and folder == "agents":
            broken = replace(broken, kind="Agent", name=file.removesuffix(".agent.yaml"), namespace="default")
        self.broken.append(broken)
        self.mistakes += broken.mistakes

    def configuration(self, found: Found) -> Configuration:
        for key, agent in list(self.agents.items()):
            self._look_up_provider(key, agent)
        own_file_is_bad = len(self.runtimes) > 1 or any(_is_own(item) for item in self.broken)
        runtime = None if own_file_is_bad else _located(self.runtimes[0], found.folder) if self.runtimes else Runtime.unwritten()
        if runtime is not None:
            for key, agent in list(self.agents.items()):
                self._look_up_functions(key, agent, runtime.spec.tools.modules)
        return Configuration(
            folder=found.folder,
            origin=found.origin,
            runtime=runtime,
            providers=dict(sorted(self.providers.items())),
            routing=ProviderRouting.model_construct(**self.routing),
            agents=tuple(agent for _, agent in sorted(self.agents.items())),
            broken=tuple(self.broken),
            listed=tuple(self.listed),
            mistakes=tuple(sorted(self.mistakes, key=_order)),
            warnings=tuple(sorted(self.warnings, key=_order)),
            digests=self.digests,
            lost=self._lost() if own_file_is_bad else (),
        )

    def _lost(self) -> tuple[str, ...]:
        """What nobody can read might ask for anything."""
        sources = dict.fromkeys((*(item.source for item in self.broken if _is_own(item)), *(runtime.source for runtime in self.runtimes)))
        told = [name for source in sources if source in self.texts for name in protections(self.texts[source])]
        unread = [f"what stands in {source}" for source in sources if source not in self.texts]
        return tuple(dict.fromkeys((*told, *unread)))

    def _look_up_provider(self, key: tuple[str, str], agent: Agent) -> None:
        """A model whose server is of a type that is not called yet is left out, where another can take its place in the same role."""
        cautions: list[Caution] = []
        for role in agent.spec.model.by_role:
            found = [(placed, server_of(placed.target, self.providers)) for placed in role.targets if not placed.target.is_local]
            left_out = [placed for placed, server in found if isinstance(server, Unresolved) and server.not_called]
            for placed, server in found:
                path = f"{placed.path}.{'provider_ref' if placed.target.provider_ref is not None else 'provider'}"
                line = agent.lines.get(path, agent.line)
                if isinstance(server, Unresolved) and (not server.not_called or len(left_out) == len(role.targets)):
                    del self.agents[key]
                    self._break(_broken(agent, path, server.message, server.remedy))
                    return
                if isinstance(server, Unresolved):
                    said = f"{server.message}, so this model is left out"
                    cautions.append(Caution(agent.source, line, 1, path, said, server.remedy))
                elif server.api_key is None and server.api_key_env is not None and not self.environment.get(server.api_key_env):
                    said = f"the environment variable {server.api_key_env} is not set, so {server.name} is called without a key"
                    cautions.append(Caution(agent.source, line, 1, path, said, "Set it where the node is started."))
        if cautions:
            self.agents[key] = replace(agent, warnings=(*agent.warnings, *cautions))
            self.warnings += cautions

    def _look_up_functions(self, key: tuple[str, str], agent: Agent, modules: tuple[str, ...]) -> None:
        for number, tool in enumerate(agent.spec.tools):
            if tool.type == "internal" and tool.function is not None:
                try:
                    check_listed(tool.function, modules=modules)
                except FunctionUnusable as mistake:
                    del self.agents[key]
                    self._break(
                        _broken(agent, f"spec.tools[{number}].function", mistake.message, f"{mistake.hint[:1].upper()}{mistake.hint[1:]}.")
                    )
                    return


def _located(runtime: Runtime, folder: Path) -> Runtime:
    """With the paths of its models made absolute: a relative one is relative to the file that says it, wherever the node is started."""
    models = tuple(
        model if model.path is None else model.model_copy(update={"path": str((folder / Path(model.path).expanduser()).absolute())})
        for model in runtime.models
    )
    inference = runtime.spec.inference.model_copy(update={"models": models})
    return replace(runtime, spec=runtime.spec.model_copy(update={"inference": inference})) if models else runtime


def _is_own(item: Broken) -> bool:
    return "RuntimeConfig" in (item.kind, _MEANT.get(item.source))


def _broken(agent: Agent, path: str, message: str, remedy: str) -> Broken:
    mistake = Mistake(agent.source, agent.lines.get(path, agent.line), 1, path, message, remedy)
    return Broken("Agent", agent.name, agent.namespace, agent.source, agent.line, (mistake,))


def _order(finding: Finding) -> tuple[str, int, int, str]:
    return finding.source, finding.line, finding.column, finding.path


def _text(path: Path, source: str) -> str | Mistake:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return Mistake(source, 0, 0, "", "is not a file", "Put a text file in its place.")
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as failure:
        return Mistake(source, 0, 0, "", f"cannot be read: {failure.strerror}", "Check that the node's user may read it.")
    if len(raw) > FILE_BYTES_MAX:
        return Mistake(source, 0, 0, "", f"larger than {FILE_BYTES_MAX:,} bytes", "Split it.")
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return Mistake(source, line, 0, "", "is not UTF-8 text", "Save it as UTF-8.")


def _open_at_once(path: str, flags: int) -> int:
    """Without waiting: a pipe of this name would hold the start of the node for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
