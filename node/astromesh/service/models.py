"""Which models this node answers for: those that its configuration names, or whatever is installed where it names none."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import psutil

from astromesh.errors import StoreError
from astromesh.inference.backends.packages import PythonPackages
from astromesh.inference.port import DEFAULT_CONTEXT_TOKENS, DEFAULT_PARALLEL, ModelSpecification
from astromesh.inference.store import ModelStore, StoredModel
from astromesh.runtime.assembly import Providers
from astromesh.runtime.builtins import lookup
from astromesh.runtime.local_models import LocalModels
from astromesh.runtime.models import Models
from astromesh.service.settings import NodeSettings
from astromesh.specs.runtime import Runtime, ServedModel

log = logging.getLogger(__name__)

UNASKED_MEMORY_SHARE = 0.5  # models that nobody named may take this much of the memory that is free at the start


def open_models(settings: NodeSettings, runtime: Runtime, *, providers: Providers, local: LocalModels, models: Models) -> list[str]:
    """Gives each model to `models`. What cannot be had is returned, a sentence each, and stops nothing."""
    problems: list[str] = []
    store = ModelStore(settings.models_dir, packages=PythonPackages())
    for specification in _specifications(store, runtime.models, problems):
        engine = lookup("engine", "llama_cpp")(specification, on_change=local.changed)
        models.local[specification.name] = local.add_engine(engine, created=int(os.stat(specification.path).st_mtime))
    for provider, name, client in providers.shared():
        if name in models.local:
            problems.append(f"{provider.place}: model {name} is served by this node already; the first one is used")
        else:
            models.local[name] = local.add_shared(name, client)
    return problems


def _specifications(store: ModelStore, named: tuple[ServedModel, ...], problems: list[str]) -> Iterator[ModelSpecification]:
    if not named:
        yield from _installed(store, problems)
        return
    for model in named:
        try:
            found = store.pull(model.path, name=model.name) if model.path is not None else store.resolve(model.pull or model.name)
        except StoreError as failure:
            problems.append(f"model {model.name}: {failure.message}. {failure.hint}")
            continue
        yield ModelSpecification(
            name=model.name,
            path=found.path,
            identity=found.sha256,
            context=model.context or _context(found),
            parallel=model.parallel or DEFAULT_PARALLEL,
            gpu_layers=-1 if model.gpu_layers is None else model.gpu_layers,
        )


def _installed(store: ModelStore, problems: list[str]) -> Iterator[ModelSpecification]:
    """Smallest first, as long as there is room."""
    room = int(psutil.virtual_memory().available * UNASKED_MEMORY_SHARE)
    problems += store.problems()
    for model in sorted(store.list(), key=lambda one: (one.size_bytes, one.name)):
        room -= model.size_bytes
        if room < 0:
            problems.append(
                f"model {model.name} is installed and not loaded: it would take more than half of the free memory. "
                "Name it under spec.inference.models of runtime.yaml to load it all the same."
            )
            continue
        yield ModelSpecification(name=model.name, path=model.path, identity=model.sha256, context=_context(model))


def _context(model: StoredModel) -> int:
    return min(DEFAULT_CONTEXT_TOKENS, model.context or DEFAULT_CONTEXT_TOKENS)
