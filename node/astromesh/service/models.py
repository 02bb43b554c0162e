"""Which models this node answers for: those that its configuration names, or whatever is installed where it names none."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import psutil

from astromesh.errors import StoreError
from astromesh.inference.backends.folder import open_store
from astromesh.inference.manifest import StoredModel
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
from astromesh.runtime.builtins import lookup
from astromesh.runtime.health import ProviderHealth
from astromesh.runtime.local_models import Find, LocalModels
from astromesh.runtime.models import Models
from astromesh.service.settings import NodeSettings
from astromesh.specs.runtime import Runtime, ServedModel

UNASKED_MEMORY_SHARE = 0.5  # models that nobody named may take this much of the memory that is free at the start


def open_models(
    settings: NodeSettings, runtime: Runtime, *, providers: Providers, local: LocalModels, models: Models, health: ProviderHealth
) -> list[str]:
    """Gives each model to `models`. What cannot be had is returned, a sentence each, and stops nothing."""
    problems: list[str] = []

    def engine(specification: ModelSpecification) -> InferenceEngine:
        built: InferenceEngine = lookup("engine", "llama_cpp")(specification, on_change=local.changed)
        return built

    store = open_store(settings.models_dir)
    named: list[tuple[str, Find]] = [(model.name, partial(_named, store, model)) for model in runtime.models]
    for name, find in named or _installed(store, problems):
        models.local[name] = local.add_own(name, find, engine=engine)
    for provider, name, client in providers.shared():
        if name in models.local:
            problems.append(f"{provider.place}: model {name} is served by this node already; the first one is used")
        else:
            models.local[name] = local.add_shared(name, client, watched=health.of(provider.name))
    return problems


def _named(store: ModelStore, model: ServedModel, progress: Progress) -> ModelSpecification:
    """A model that the configuration names: its file, or what is installed, pulled first where it says so."""
    if model.path is not None:
        found = store.pull(model.path, name=model.name, progress=progress)
    elif model.pull is not None:
        found = store.pull(model.pull, progress=progress)
    else:
        found = store.resolve(model.name)
    if found.kind != "gguf":
        raise StoreError(f"model {model.name} is {found.kind}, which llama.cpp cannot load", hint="name a .gguf model")
    return ModelSpecification(
        name=model.name,
        path=found.path,
        identity=found.sha256,
        context=model.context or _context(found),
        parallel=model.parallel or DEFAULT_PARALLEL,
        gpu_layers=-1 if model.gpu_layers is None else model.gpu_layers,
        prefix_cache_bytes=DEFAULT_PREFIX_CACHE_BYTES if model.prefix_cache_mb is None else model.prefix_cache_mb << 20,
    )


def _installed(store: ModelStore, problems: list[str]) -> Iterator[tuple[str, Find]]:
    """Smallest first, as long as there is room."""
    room = int(psutil.virtual_memory().available * UNASKED_MEMORY_SHARE)
    problems += store.problems()
    for model in sorted((model for model in store.list() if model.kind == "gguf"), key=lambda one: (one.size_bytes, one.name)):
        room -= model.size_bytes
        if room < 0:
            problems.append(
                f"model {model.name} is installed and not loaded: it would take more than half of the free memory. "
                "Name it under spec.inference.models of runtime.yaml to load it all the same."
            )
            continue
        found = ModelSpecification(name=model.name, path=model.path, identity=model.sha256, context=_context(model))
        yield model.name, partial(_known, found)


def _known(specification: ModelSpecification, _progress: Progress) -> ModelSpecification:
    return specification


def _context(model: StoredModel) -> int:
    return min(DEFAULT_CONTEXT_TOKENS, model.context or DEFAULT_CONTEXT_TOKENS)
