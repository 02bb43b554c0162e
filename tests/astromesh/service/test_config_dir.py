"""The folder of the configuration: which one, what is read of it, and what only the whole of it can show."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

import astromesh
from astromesh.errors import ConfigurationError
from astromesh.service import config_dir
from astromesh.service.config_dir import FILE_BYTES_MAX, Configuration, Found, find, load, shipped_folder
from astromesh.specs.members import peers_of, workers_of
from astromesh.specs.runtime import Runtime

AGENT = (
    "apiVersion: astromesh/v1\nkind: Agent\nmetadata:\n  name: {name}\nspec:\n  model: {{primary: {{provider: {provider}, model: m}}}}\n"
)
PROVIDERS = (
    "apiVersion: astromesh/v1\nkind: ProviderConfig\nspec:\n  providers:\n    {name}: {{type: vllm, endpoint: 'http://{name}:8000'}}\n"
)
RUNTIME = "apiVersion: astromesh/v1\nkind: RuntimeConfig\nspec: {api: {port: 9000}}\n"


def put(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def read(folder: Path, **environment: str) -> Configuration:
    return load(Found(folder, "here"), environment=environment)


def agent(name: str, provider: str = "local") -> str:
    return AGENT.format(name=name, provider=provider)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    return {name: tmp_path / name for name in ("here", "user", "system", "shipped")}


def found(places: dict[str, Path], flag: str | None = None, **environment: str) -> Found:
    return find(flag=flag, environment=environment, **places)


def test_the_folder_is_looked_for_in_the_order_of_the_contract(places: dict[str, Path], tmp_path: Path) -> None:
    assert found(places) == Found(places["shipped"], "the defaults that come with the program")
    put(places["system"], {"runtime.yaml": ""})
    assert found(places).folder == places["system"]
    put(places["user"], {"agents/a.agent.yaml": ""})
    assert found(places).folder == places["user"]
    put(places["here"], {"config/agents/a.agent.yaml": ""})
    assert found(places).folder == places["here"] / "config"
    told = put(tmp_path / "told", {"x": ""})
    assert found(places, ASTROMESH_CONFIG_DIR=str(told)) == Found(told, "ASTROMESH_CONFIG_DIR")
    named = put(tmp_path / "named", {"x": ""})
    assert found(places, flag=str(named), ASTROMESH_CONFIG_DIR=str(told)) == Found(named, "--config")


def test_a_folder_that_holds_neither_the_node_nor_agents_is_passed_over(places: dict[str, Path]) -> None:
    put(places["here"], {"config/webpack.yaml": "a: 1"})
    put(places["user"], {"notes.txt": ""})
    assert found(places).folder == places["shipped"]


@pytest.mark.parametrize("by", ["--config", "ASTROMESH_CONFIG_DIR"])
def test_a_named_folder_that_does_not_exist_is_refused(places: dict[str, Path], tmp_path: Path, by: str) -> None:
    put(tmp_path, {"runtime.yaml": ""})
    for path, said in ((tmp_path / "nowhere", "does not exist"), (tmp_path / "runtime.yaml", "is a file")):
        with pytest.raises(ConfigurationError, match=said) as refusal:
            found(places, flag=str(path)) if by == "--config" else found(places, ASTROMESH_CONFIG_DIR=str(path))
        assert by in refusal.value.message
        assert "runtime.yaml" in refusal.value.hint


def test_the_defaults_lie_beside_the_package_or_in_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (shipped_folder() / "runtime.yaml").is_file()
    package = put(tmp_path / "lib" / "astromesh", {"__init__.py": ""})
    monkeypatch.setattr(astromesh, "__file__", str(package / "__init__.py"))
    assert shipped_folder() == tmp_path / "config"
    put(package, {"defaults/runtime.yaml": ""})
    assert shipped_folder() == package / "defaults"


def test_the_shipped_folder_works_alone_without_a_warning() -> None:
    configuration = read(shipped_folder())
    assert [str(finding) for finding in (*configuration.mistakes, *configuration.warnings)] == []
    assert configuration.runtime is not None
    assert configuration.runtime.models == ()
    assert configuration.providers == {}
    agents = {agent.name: agent for agent in configuration.agents}
    hello = agents["hello"]
    assert (hello.name, hello.model.model, hello.model.is_local, hello.sampling.max_tokens) == ("hello", "smollm2", True, 128)
    assert hello.remembering


def test_the_shipped_agents_are_of_every_kind_and_work_with_nobody_who_is_not_shipped() -> None:
    agents = {agent.name: agent for agent in read(shipped_folder()).agents}
    patterns = {name: agent.limits().pattern for name, agent in agents.items()}
    assert patterns == {
        "hello": "react",
        "report-editor": "supervisor",
        "report-researcher": "react",
        "studio": "team",
        "support-agent": "react",
        "support-billing": "swarm",
        "support-desk": "swarm",
    }
    members = [member for agent in agents.values() for member in (*workers_of(agent.spec), *peers_of(agent.spec))]
    named = [member.agent_named for member in members if member.agent_named is not None]
    assert sorted(named) == ["report-researcher", "support-billing", "support-desk"]
    assert len(agents["studio"].spec.orchestration.workers) == 4  # and the orchestrator, the agent itself
    assert all(agent.model.is_local for agent in agents.values())


def test_a_node_without_any_file_has_defaults(tmp_path: Path) -> None:
    configuration = read(tmp_path)
    assert configuration.runtime == Runtime.unwritten()
    assert (configuration.agents, configuration.mistakes, configuration.warnings) == ((), (), ())


def test_everything_in_the_folder_is_read(tmp_path: Path) -> None:
    put(
        tmp_path,
        {
            "runtime.yaml": RUNTIME,
            "providers.yaml": PROVIDERS.format(name="box"),
            "providers-attic.yaml": PROVIDERS.format(name="attic"),
            "channels.yaml": "channels: {whatsapp: {default_agent: b}}\n",
            "agents/b.agent.yaml": agent("b", "attic"),
            "agents/a.agent.yaml": agent("a", "box"),
            "rag/kb.rag.yaml": "apiVersion: astromesh/v1\nkind: RAGPipeline\nmetadata: {name: kb}\n",
        },
    )
    configuration = read(tmp_path)
    assert configuration.mistakes == ()
    assert configuration.runtime is not None
    assert configuration.runtime.spec.api.port == 9000
    assert list(configuration.providers) == ["attic", "box"]
    assert [agent.name for agent in configuration.agents] == ["a", "b"]
    assert [(listed.kind, listed.name) for listed in configuration.listed] == [("Channel", "whatsapp"), ("RAGPipeline", "kb")]
    assert [caution.source for caution in configuration.warnings] == ["channels.yaml", "rag/kb.rag.yaml"]


BAD_FILES: dict[str, tuple[bytes, int, str]] = {
    "unreadable YAML": (b"a: b: c\n", 1, "mapping values"),
    "not UTF-8": (b"# fine\nname: caf\xe9\n", 2, "not UTF-8"),
    "UTF-16": ("name: x\n".encode("utf-16"), 1, "not UTF-8"),
    "binary": (b"\x00\x01", 1, "U+0000"),
    "too large": (b"#" * (FILE_BYTES_MAX + 1), 0, "larger than"),
    "empty": (b"", 1, "nothing in it"),
}


@pytest.mark.parametrize("sentence", BAD_FILES)
def test_a_bad_file_is_listed_under_its_name_and_hides_no_other(tmp_path: Path, sentence: str) -> None:
    content, line, said = BAD_FILES[sentence]
    configuration = read(put(tmp_path, {"agents/bad.agent.yaml": content, "agents/good.agent.yaml": agent("good")}))
    assert [agent.name for agent in configuration.agents] == ["good"]
    [broken] = configuration.broken
    assert (broken.kind, broken.name, broken.namespace) == ("Agent", "bad", "default")
    assert [(mistake.source, mistake.line) for mistake in configuration.mistakes] == [("agents/bad.agent.yaml", line)]
    assert said in configuration.mistakes[0].message


def test_what_is_no_file_is_named_and_waits_for_no_one(tmp_path: Path) -> None:
    put(tmp_path, {"agents/good.agent.yaml": agent("good")})
    os.mkfifo(tmp_path / "agents" / "pipe.agent.yaml")
    (tmp_path / "agents" / "folder.agent.yaml").mkdir()
    (tmp_path / "agents" / "gone.agent.yaml").symlink_to(tmp_path / "nowhere")
    configuration = read(tmp_path)
    assert [agent.name for agent in configuration.agents] == ["good"]
    assert [broken.name for broken in configuration.broken] == ["folder", "gone", "pipe"]


def test_a_bad_file_of_the_node_itself_leaves_no_runtime(tmp_path: Path) -> None:
    configuration = read(put(tmp_path, {"runtime.yaml": RUNTIME.replace("9000", "ninety"), "agents/a.agent.yaml": agent("a")}))
    assert configuration.runtime is None
    assert [str(mistake)[:34] for mistake in configuration.mistakes] == ["runtime.yaml:3: spec.api.port: exp"]
    assert [agent.name for agent in configuration.agents] == ["a"]


@pytest.mark.parametrize("file", ["runtime.yaml", "providers.yaml"])
def test_what_was_meant_for_the_node_is_never_taken_for_nothing(tmp_path: Path, file: str) -> None:
    assert read(put(tmp_path, {file: RUNTIME.replace("9000", "ninety")})).runtime is None
    assert (read(put(tmp_path, {file: "a: b: c"})).runtime is None) is (file == "runtime.yaml")


def test_a_file_of_comments_means_the_defaults(tmp_path: Path) -> None:
    configuration = read(put(tmp_path, {"runtime.yaml": "# all of it\n", "providers.yaml": ""}))
    assert configuration.runtime == Runtime.unwritten()
    assert configuration.mistakes == ()
    assert [(caution.source, caution.remedy) for caution in configuration.warnings] == [
        ("providers.yaml", "The defaults are used."),
        ("runtime.yaml", "The defaults are used."),
    ]


def test_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    files = ("agents/desk.yaml", "agents/till.agent.yml", "runtime.yml", "provider.yaml", "agents/.hidden.yaml")
    configuration = read(put(tmp_path, dict.fromkeys(files, agent("x"))))
    assert [caution.source for caution in configuration.warnings] == [
        "agents/desk.yaml",
        "agents/till.agent.yml",
        "provider.yaml",
        "runtime.yml",
    ]
    assert "*.agent.yaml" in configuration.warnings[0].remedy
    assert configuration.agents == ()


def test_the_same_provider_twice_is_a_mistake_that_names_both_places(tmp_path: Path) -> None:
    files = {"providers.yaml": PROVIDERS.format(name="box"), "providers-2.yaml": "# second\n" + PROVIDERS.format(name="box")}
    configuration = read(put(tmp_path, files))
    [mistake] = configuration.mistakes
    assert str(mistake).startswith("providers.yaml:5: spec.providers.box: the provider 'box' is in providers-2.yaml:6 already")
    assert configuration.providers["box"].source == "providers-2.yaml"


def test_the_same_agent_twice_is_a_mistake_that_names_both_places_and_two_namespaces_are_kept_apart(tmp_path: Path) -> None:
    elsewhere = agent("desk").replace("name: desk", "name: desk\n  namespace: sales")
    files = {"agents/1.agent.yaml": agent("desk"), "agents/2.agent.yaml": agent("desk"), "agents/3.agent.yaml": elsewhere}
    configuration = read(put(tmp_path, files))
    assert [(agent.key, agent.source) for agent in configuration.agents] == [
        ("desk", "agents/1.agent.yaml"),
        ("sales/desk", "agents/3.agent.yaml"),
    ]
    (broken,) = configuration.broken
    assert str(broken.mistakes[0]).startswith("agents/2.agent.yaml:4: metadata.name: there is an agent 'desk' already, in agents/1")


def test_two_configurations_of_one_node_are_a_mistake(tmp_path: Path) -> None:
    configuration = read(put(tmp_path, {"runtime.yaml": RUNTIME + "---\n" + RUNTIME}))
    assert configuration.runtime is None
    assert "it is in runtime.yaml:2" in configuration.mistakes[0].message
    configuration = read(put(tmp_path, {"runtime.yaml": RUNTIME, "providers.yaml": RUNTIME}))
    assert configuration.runtime is None
    assert str(configuration.mistakes[0]).startswith("providers.yaml:1: kind: a node has one RuntimeConfig, and it is in runtime.yaml:2")


def test_routing_is_read_from_all_files_of_providers_and_said_once(tmp_path: Path) -> None:
    routing = "apiVersion: astromesh/v1\nkind: ProviderConfig\nspec:\n  routing:\n    {said}\n"
    files = {
        "providers.yaml": routing.format(said="circuit_breaker: {failure_threshold: 5}"),
        "providers-2.yaml": routing.format(said="default_strategy: round_robin"),
    }
    configuration = read(put(tmp_path, files))
    assert configuration.mistakes == ()
    assert configuration.routing.default_strategy == "round_robin"
    assert configuration.routing.circuit_breaker is not None
    assert configuration.routing.circuit_breaker.failure_threshold == 5
    assert configuration.routing.fallback_enabled is None
    configuration = read(put(tmp_path, {"providers-3.yaml": routing.format(said="default_strategy: quality_first")}))
    [mistake] = configuration.mistakes
    assert str(mistake).startswith("providers-3.yaml:5: spec.routing.default_strategy: is said in providers-2.yaml:5 already")
    assert configuration.routing.default_strategy == "round_robin"


def fallback(name: str, primary: str, provider: str) -> str:
    more = f"    fallback:\n      - {{provider: {provider}, model: n}}\n"
    return agent(name, primary).replace("{primary: {", "\n    primary: {").replace("}}\n", "}\n") + more


def test_a_model_of_a_type_that_is_not_called_yet_is_left_out_with_a_warning_where_another_can_be_asked(tmp_path: Path) -> None:
    files = {"agents/a.agent.yaml": fallback("a", "local", "anthropic"), "agents/b.agent.yaml": fallback("b", "anthropic", "onnx")}
    configuration = read(put(tmp_path, files))
    [left] = configuration.agents
    [warning] = left.warnings
    assert left.name == "a"
    assert str(warning).startswith("agents/a.agent.yaml:9: spec.model.fallback[0].provider: this version does not call servers of type")
    assert warning in configuration.warnings
    [broken] = configuration.broken
    assert broken.name == "b"


def test_a_fallback_whose_provider_is_nowhere_breaks_its_agent(tmp_path: Path) -> None:
    configuration = read(
        put(tmp_path, {"agents/a.agent.yaml": fallback("a", "local", "bax"), "providers.yaml": PROVIDERS.format(name="box")})
    )
    [broken] = configuration.broken
    assert str(broken.mistakes[0]).startswith("agents/a.agent.yaml:9: spec.model.fallback[0].provider: no provider 'bax'")


def test_an_agent_whose_provider_is_nowhere_is_broken_and_told_what_there_is(tmp_path: Path) -> None:
    configuration = read(put(tmp_path, {"agents/a.agent.yaml": agent("a", "bax"), "providers.yaml": PROVIDERS.format(name="box")}))
    assert configuration.agents == ()
    [broken] = configuration.broken
    assert str(broken.mistakes[0]).startswith("agents/a.agent.yaml:6: spec.model.primary.provider: no provider 'bax'. Did you mean 'box'?")


def test_a_key_that_is_not_in_the_environment_is_a_warning_of_the_agent(tmp_path: Path) -> None:
    put(tmp_path, {"agents/a.agent.yaml": agent("a", "openai")})
    [without] = read(tmp_path).agents
    assert "OPENAI_API_KEY is not set" in without.warnings[0].message
    assert read(tmp_path, OPENAI_API_KEY="sk-1").warnings == ()


def test_variables_are_read_from_the_environment_that_was_passed(tmp_path: Path) -> None:
    put(tmp_path, {"agents/a.agent.yaml": agent("a") + "  prompts: {system: '${TONE}'}\n"})
    assert read(tmp_path, TONE="Be kind.").agents[0].system_prompt == "Be kind."
    assert read(tmp_path).broken[0].name == "a"


def test_the_number_of_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_dir, "FILES_MAX", 2)
    configuration = read(put(tmp_path, {f"agents/{name}.agent.yaml": agent(name) for name in "abc"}))
    assert [agent.name for agent in configuration.agents] == ["a", "b"]
    assert "3 files are too many" in configuration.mistakes[0].message


def test_a_folder_that_is_gone_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such folder"):
        read(tmp_path / "gone")


def test_paths_of_models_are_relative_to_the_folder(tmp_path: Path) -> None:
    models = "[{name: a, path: models/a.gguf}, {name: b, path: /srv/b.gguf}, {name: c}]"
    configuration = read(put(tmp_path, {"runtime.yaml": RUNTIME.replace("api: {port: 9000}", f"inference: {{models: {models}}}")}))
    assert configuration.runtime is not None
    assert [model.path for model in configuration.runtime.models] == [str(tmp_path / "models" / "a.gguf"), "/srv/b.gguf", None]
    assert configuration.runtime.place("spec.inference.models[0].path") == "runtime.yaml:3"


def test_a_function_of_a_module_that_the_node_does_not_list_breaks_its_agent_at_its_line(tmp_path: Path) -> None:
    wanting = agent("desk") + "  tools:\n    - type: internal\n      function: Shop.tools:count\n"
    put(tmp_path, {"runtime.yaml": RUNTIME, "agents/desk.agent.yaml": wanting})
    configuration = read(tmp_path)
    [mistake] = configuration.mistakes
    assert (mistake.source, mistake.line, mistake.path) == ("agents/desk.agent.yaml", 9, "spec.tools[0].function")
    assert mistake.remedy == "Add 'spec.tools.modules: [Shop.tools]' to the node's runtime.yaml."
    assert (configuration.agents, [broken.name for broken in configuration.broken]) == ((), ["desk"])

    put(tmp_path, {"runtime.yaml": RUNTIME.replace("spec: {", "spec: {tools: {modules: [Shop.tools]}, ")})
    assert read(tmp_path).mistakes == ()
