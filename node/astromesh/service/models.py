"""Which models this node answers for: those that its configuration names, or whatever is installed where it names none.

What is installed and not named is loaded at the start as far as half of the free memory goes, and the rest when somebody asks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import psutil

from astromesh.errors import StoreError
from astromesh.fleet.offers import Capability
from astromesh.inference import registry
from astromesh.inference.backends.folder import open_store
from astromesh.inference.devices import Inventory
from astromesh.inference.encoder import MANIFEST_BYTES_MAX, read_manifest
from astromesh.inference.engines import HOW_TO_GET_ONE
from astromesh.inference.gguf import NotGguf, read_header
from astromesh.inference.manifest import StoredFile, StoredModel
from astromesh.inference.placement import Placement, plan_placement
from astromesh.inference.port import (
    DEFAULT_CONTEXT_TOKENS,
    DEFAULT_PARALLEL,
    DEFAULT_PREFIX_CACHE_BYTES,
    InferenceEngine,
    ModelSpecification,
    Progress,
)
from astromesh.inference.store import ModelStore
from astromesh.runtime.assembly import Providers
from astromesh.runtime.engines import Wish, engine_for, installed
from astromesh.runtime.health import ProviderHealth
from astromesh.runtime.local_models import LocalModels, MemoryRules
from astromesh.runtime.models import Models
from astromesh.runtime.own_model import FoundModel
from astromesh.service.settings import NodeSettings
from astromesh.service.speeds import SpeedFile
from astromesh.specs.runtime import Runtime, ServedModel

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.5  # of the machine's, for all models together where nobody says
UNASKED_MEMORY_SHARE = 0.5  # models that nobody named may take this much of the memory that is free at the start
PREFIX_SHARE = 1 / 8  # of the budget: the most that one model keeps of prompts that it has read, where nobody says
ENCODER_SHARE = 2  # an encoder's graph is kept beside its optimised copy while it loads
WORKER_BYTES = 60_000_000  # a worker process before its first weight: Python and the engine's libraries


class InstalledModels:
    """The store of this node and what comes of it: specifications, and what each would take."""

    def __init__(self, settings: NodeSettings, *, local: LocalModels, models: Models, survey: Callable[[], Inventory]) -> None:
        """`survey` tells what the engine can put layers on, with the free memory of now. It blocks."""
        self.store: ModelStore = open_store(settings.models_dir)
        self.local = local
        self.models = models
        self._survey = survey
        self._wish: Wish = "auto"
        self._wanted: dict[str, ServedModel] = {}  # what the configuration says of a model, by its name
        self._speeds = SpeedFile(settings.data)
        local.measured = self._note_speed
        total = psutil.virtual_memory().total
        written = settings.memory_budget_mb
        budget = int(total * MEMORY_SHARE) if written is None else written * 1_000_000
        local.rules = MemoryRules(budget, settings.idle_unload_s, strict=written is not None)

    def open(self, runtime: Runtime, *, providers: Providers, health: ProviderHealth) -> list[str]:
        """Gives each model to `models`. What cannot be had is returned, a sentence each, and stops nothing."""
        problems: list[str] = []
        self._wish = runtime.spec.inference.engine or "auto"
        if not installed():
            log.info("no inference engine is installed, so this node runs no models itself: %s", HOW_TO_GET_ONE)
        self._wanted = {model.name: model for model in runtime.models}
        for model in runtime.models:
            self.models.local[model.name] = self.local.add_own(model.name, partial(self._named, model), engine=self._engine)
            self.local.at_start.append(model.name)
        if not runtime.models:
            problems += self.store.problems()
            problems += self._add_installed()
        return problems + self.share(providers, health)

    def share(self, providers: Providers, health: ProviderHealth) -> list[str]:
        """Gives what these model servers offer to `models`, in the place of what those before them did. Problems as `open`."""
        problems: list[str] = []
        for name in self.local.withdraw_shared():
            del self.models.local[name]
        for provider, name, client in providers.shared():
            if name in self.models.local:
                problems.append(f"{provider.place}: model {name} is served by this node already; the first one is used")
            else:
                self.models.local[name] = self.local.add_shared(name, client, watched=health.of(provider.name))
        return problems

    def source_of(self, name: str) -> str:
        """What is pulled for a model that this node answers for under that name."""
        wanted = self._wanted.get(name)
        return wanted.pull if wanted is not None and wanted.pull is not None else name

    def stored_as(self, name: str) -> str:
        """The name in the store of a model that this node answers for."""
        source = self.source_of(name)
        if source != name:
            with suppress(StoreError):  # what it says to pull means nothing, so nothing is there under any name
                return self.store.called(source)
        return registry.parsed(name)[0]

    def add(self, model: StoredModel) -> None:
        """From now on this node answers for it, and loads it when somebody asks."""
        find = partial(self._stored, model.name)
        about = self._about(model)
        self.models.local[model.name] = self.local.add_own(model.name, find, engine=self._engine, named=False, found=about)

    def _placement(self, model: StoredModel, *, context: int, parallel: int, gpu_layers: int | None) -> Placement:
        try:
            with model.path.open("rb") as stream:
                header = read_header(stream)
        except NotGguf as mistake:
            raise StoreError(f"{model.path} is no GGUF model: {mistake}", hint=f"astromesh-node models pull {model.name}") from mistake
        return plan_placement(header, self._survey(), context=context, parallel=parallel, gpu_layers=gpu_layers)

    def _prefix_cache_bytes(self) -> int:
        return min(DEFAULT_PREFIX_CACHE_BYTES, int(self.local.rules.budget_bytes * PREFIX_SHARE))

    def _add_installed(self) -> list[str]:
        """Smallest first, as long as there is room. What cannot be had is returned."""
        problems: list[str] = []
        room = int(psutil.virtual_memory().available * UNASKED_MEMORY_SHARE)
        for model in sorted(self.store.list(), key=lambda one: (one.size_bytes, one.name)):
            try:
                self.add(model)
            except StoreError as mistake:
                problems.append(f"{mistake.message}. {mistake.hint}")
                continue
            room -= model.size_bytes
            if room >= 0:
                self.local.at_start.append(model.name)
        return problems

    def _engine(self, found: FoundModel) -> InferenceEngine:
        kind = engine_for(found.specification.kind, wish=self._wish)
        built: InferenceEngine = kind(found.specification, on_change=self.local.changed)
        return built

    def _named(self, model: ServedModel, progress: Progress) -> FoundModel:
        """A model that the configuration names: its file, or what is installed, pulled first where it says so."""
        if model.path is not None:
            stored = self.store.pull(
                model.path, name=model.name, verify=False, progress=progress
            )  # or each load would read all of it twice
        elif model.pull is not None:
            stored = self.store.pull(model.pull, verify=False, progress=progress)
        else:
            stored = self.store.resolve(model.name)
        return self.found(replace(stored, name=model.name))[0]

    def _stored(self, name: str, _progress: Progress) -> FoundModel:
        return self.found(self.store.resolve(name))[0]

    def found(self, stored: StoredModel, *, context: int | None = None) -> tuple[FoundModel, Placement | None]:
        """How it would be loaded, and where a model that writes would lie. Reads its header, looks at the cards, and blocks.

        `context` to reckon with another one than is configured.
        """
        wanted = self._wanted.get(stored.name, ServedModel(name=stored.name))
        about = self._about(stored)
        specification = replace(
            about.specification,
            context=context or wanted.context or about.specification.context,
            parallel=wanted.parallel or DEFAULT_PARALLEL,
            prefix_cache_bytes=self._prefix_cache_bytes() if wanted.prefix_cache_mb is None else wanted.prefix_cache_mb << 20,
        )
        if stored.kind != "gguf":
            specification = replace(specification, prefix_cache_bytes=0)  # it keeps nothing of what it reads
            return replace(about, specification=specification, needed_bytes=ENCODER_SHARE * stored.size_bytes + WORKER_BYTES), None
        chosen = wanted.gpu_layers if isinstance(wanted.gpu_layers, int) else None
        placement = self._placement(stored, context=specification.context, parallel=specification.parallel, gpu_layers=chosen)
        if chosen is not None:
            specification = replace(specification, gpu_layers=chosen, tensor_split=placement.tensor_split)
        elif placement.parts:
            specification = replace(specification, gpu_layers=placement.gpu_layers, tensor_split=placement.tensor_split)
        needed = placement.host_needed_bytes + specification.prefix_cache_bytes + WORKER_BYTES
        return replace(about, specification=specification, needed_bytes=needed), placement

    def _about(self, stored: StoredModel) -> FoundModel:
        """What is known of it without a look into its file."""
        file, tokenizer, encoder = stored.files[0], stored.file("tokenizer"), stored.file("encoder")
        status = file.path.stat()
        specification = ModelSpecification(
            name=stored.name,
            path=file.path,
            identity=file.sha256,
            context=_context_of(stored),
            size_bytes=file.size_bytes,
            changed_ns=status.st_mtime_ns,  # of a blob, too: from now on nobody writes to it
            kind=stored.kind,
            tokenizer=tokenizer.path if tokenizer is not None else None,
            encoder=_read(encoder) if encoder is not None else b"",
        )
        return FoundModel(
            specification,
            needed_bytes=stored.size_bytes,
            size_bytes=stored.size_bytes,
            created=int(status.st_mtime),
            capabilities=self._capabilities(specification),
            tok_s=self._speeds.of(specification.identity, engine=self._engine_name(specification)),
        )

    def _note_speed(self, found: FoundModel, tok_s: float) -> None:
        self._speeds.note(found.specification.identity, tok_s, engine=self._engine_name(found.specification))

    def _engine_name(self, specification: ModelSpecification) -> str:
        name: str = engine_for(specification.kind, wish=self._wish).__name__
        return name

    def _capabilities(self, specification: ModelSpecification) -> tuple[Capability, ...]:
        if specification.kind == "gguf":
            return ("complete", *engine_for("gguf", wish=self._wish).does)
        try:
            return (read_manifest(specification.encoder).task,)
        except ValueError as mistake:
            raise StoreError(
                f"encoder.json of model {specification.name}: {mistake}", hint="docs/embeddings.md says what may stand there"
            ) from mistake


def _read(file: StoredFile) -> bytes:
    """What stands in it, as far as it may be long."""
    try:
        with file.path.open("rb") as stream:
            return stream.read(MANIFEST_BYTES_MAX)
    except OSError as error:
        raise StoreError(f"{file.path} cannot be read: {error.strerror or error}", hint="pull the model again") from error


def _context_of(model: StoredModel) -> int:
    return min(DEFAULT_CONTEXT_TOKENS, model.context or DEFAULT_CONTEXT_TOKENS)
