"""An idle node is small: what weighs is loaded by the process that needs it, or when it is needed, and never before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Array libraries, engines and their kin live in worker processes; the others are loaded by the verb or the backend that uses them.
HEAVY = (
    *("numpy", "onnx", "onnxruntime", "tokenizers", "huggingface_hub", "llama_cpp", "xllamacpp", "hnswlib"),
    *("jsonschema_rs", "jmespath"),
    *("rich", "openai", "anthropic", "pandas", "torch", "transformers", "requests", "httpx", "fastapi", "uvicorn", "matplotlib"),
    *("astromesh.inference.backends.llama_cpp.library", "astromesh.inference.backends.onnx_runtime.library"),
)

# A whole node with doors and a mesh of one, opened and closed; then what it has imported.
OPENED = """
import asyncio, sys
from pathlib import Path
from astromesh.cli import surroundings
from astromesh.service.node import open_node
from tests.rig.ports import free_node_ports

async def live(folder):
    (folder / "config").mkdir()
    written = surroundings.configuration(str(folder / "config"))
    ports = free_node_ports()
    flags = {name: f"127.0.0.1:{port}" for name, port in (("api", ports.api), ("gossip", ports.gossip), ("link", ports.link))}
    settings = surroundings.settled(written, {**flags, "name": "solo", "data": str(folder / "data")}).values
    async with open_node(settings, written, doors=True):
        pass

asyncio.run(live(Path(sys.argv[1])))
print(*sys.modules)
"""


def test_an_idle_node_has_imported_nothing_that_weighs(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ASTROMESH_")} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", OPENED, str(tmp_path)], capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "astromesh.service.node" in done.stdout.split()
    assert not {*HEAVY} & {*done.stdout.split()}


def test_only_the_worker_of_an_engine_imports_its_library() -> None:
    """The sentence of each `library` and worker: nobody else has the import."""
    root = Path(__file__).resolve().parents[2] / "node" / "astromesh"
    importing = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith(
            tuple(f"{word} {name}" for word in ("import", "from") for name in ("numpy", "onnxruntime", "tokenizers", "xllamacpp"))
        )
    }
    assert importing <= {
        "inference/backends/llama_cpp/library.py",
        "inference/backends/onnx_runtime/library.py",
        "inference/backends/xllamacpp/worker.py",
    }
