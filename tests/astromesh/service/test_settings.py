"""Flags win over the environment, the environment over the file, the file over defaults; and each value knows where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from astromesh.errors import ConfigurationError
from astromesh.service.addresses import HostPort, parse_address, parse_seed
from astromesh.service.settings import SETTINGS, Flag, Settled, settle
from astromesh.specs.parse import parse
from astromesh.specs.runtime import Runtime

FILE = """\
apiVersion: astromesh/v1
kind: RuntimeConfig
spec:
  api:
    port: 9000
  mesh:
    node_name: kitchen
    bind: 192.168.1.20
    seeds: [http://gateway:8000, "attic:7000", cellar]
    profile: wan
    enabled: true
    cluster_id: home
    keyring_file: keys.json
    serf: true
  inference:
    models_dir: models
"""


def settled(flags: Mapping[str, Flag] | None = None, file: str | None = None, **environment: str) -> Settled:
    runtime = Runtime.unwritten()
    if file is not None:
        parsed = parse(file, source="runtime.yaml", environment={})
        assert [str(mistake) for mistake in parsed.mistakes] == []
        [resource] = parsed.resources
        assert isinstance(resource, Runtime)
        runtime = resource
    return settle(
        flags=flags or {},
        environment=environment,
        runtime=runtime,
        folder=Path("/etc/x"),
        data_default=Path("/var/x"),
        hostname="My_Box.lan",
    )


def test_without_anything_there_are_defaults_that_work() -> None:
    values = settled().values
    assert (values.name, values.role, values.profile, values.mesh, values.mdns) == ("my-box", "full", "lan-fast", True, False)
    assert [str(address) for address in (values.api, values.gossip, values.link)] == ["127.0.0.1:8000", "127.0.0.1:7946", "127.0.0.1:7947"]
    assert all(address.is_loopback for address in (values.api, values.gossip, values.link))
    assert (values.advertise, values.join, values.data, values.models_dir) == (None, (), Path("/var/x"), Path("/var/x/models"))
    assert {origin.kind for origin in settled().origins.values()} == {"default"}


def test_memory_and_idleness_of_models_are_read_from_wherever_they_are_said() -> None:
    assert (settled().values.memory_budget_mb, settled().values.idle_unload_s) == (None, 3600.0)
    told = settled(file=f"{FILE}    memory_budget_mb: 4096\n    idle_unload_seconds: 30m\n").values
    assert (told.memory_budget_mb, told.idle_unload_s) == (4096, 1800.0)
    flags = settled(flags={"memory_budget_mb": "512", "idle_unload_s": "0"}).values
    assert (flags.memory_budget_mb, flags.idle_unload_s) == (512, 0.0)
    for wrong in ({"memory_budget_mb": "much"}, {"memory_budget_mb": "0"}, {"idle_unload_s": "-1"}, {"idle_unload_s": "nan"}):
        with pytest.raises(ConfigurationError, match=r"--(memory-budget|idle-unload)"):
            settled(flags=wrong)


def test_every_setting_has_an_origin() -> None:
    assert sorted(settled().origins) == sorted(setting.name for setting in SETTINGS)


def test_the_file_is_read_and_gives_its_lines() -> None:
    found = settled(file=FILE)
    values = found.values
    assert [str(address) for address in (values.api, values.gossip, values.link)] == [
        "127.0.0.1:9000",
        "192.168.1.20:7946",
        "192.168.1.20:7947",
    ]
    assert [str(seed) for seed in values.join] == ["gateway:7946", "attic:7000", "cellar:7946"]
    assert (values.name, values.profile, values.models_dir) == ("kitchen", "wan", Path("/etc/x/models"))
    assert (values.cluster_id, values.keyring_file, values.serf) == ("home", Path("/etc/x/keys.json"), True)
    places = {name: str(origin) for name, origin in found.origins.items() if origin.kind == "file"}
    assert places == {
        "api": "runtime.yaml:5", "name": "runtime.yaml:7", "gossip": "runtime.yaml:8", "join": "runtime.yaml:9",
        "profile": "runtime.yaml:10", "mesh": "runtime.yaml:11", "cluster_id": "runtime.yaml:12", "keyring_file": "runtime.yaml:13",
        "serf": "runtime.yaml:14", "models_dir": "runtime.yaml:16",
    }  # fmt: skip


def test_the_environment_wins_over_the_file_and_a_flag_over_both() -> None:
    environment = {"ASTROMESH_NAME": "attic", "ASTROMESH_API": "9001", "ASTROMESH_JOIN": "a, b:1", "ASTROMESH_MESH": "off"}
    found = settled(None, FILE, **environment)
    assert (found.values.name, found.values.api, found.values.mesh) == ("attic", HostPort("127.0.0.1", 9001), False)
    assert found.values.join == (HostPort("a", 7946), HostPort("b", 1))
    assert str(found.origins["name"]) == "ASTROMESH_NAME"
    found = settled({"name": "cellar", "api": "0.0.0.0:9002", "join": ("c", "d"), "mesh": True}, FILE, **environment)
    assert (found.values.name, found.values.api, found.values.mesh) == ("cellar", HostPort("0.0.0.0", 9002), True)
    assert found.values.join == (HostPort("c", 7946), HostPort("d", 7946))
    assert [str(found.origins[name]) for name in ("name", "mesh", "profile")] == ["--name", "--mesh", "runtime.yaml:10"]
    assert str(settled({"mesh": False}).origins["mesh"]) == "--no-mesh"


def test_a_flag_that_was_not_given_and_a_variable_set_to_nothing_say_nothing() -> None:
    found = settled({"name": None, "join": ()}, FILE, ASTROMESH_NAME="")
    assert (found.values.name, len(found.values.join)) == ("kitchen", 3)


@pytest.mark.parametrize(
    ("flags", "environment", "file", "said"),
    [
        ({"api": "80000"}, {}, None, "--api: '80000' is no port"),
        ({}, {"ASTROMESH_GOSSIP": "a b"}, None, "ASTROMESH_GOSSIP: 'a b' is no host"),
        ({}, {}, "bind: 'x:y'", "runtime.yaml:3: 'y' is no port"),
        ({}, {}, "seeds: ['ftp://x']", "runtime.yaml:3: write HOST:PORT"),
        ({"role": "king"}, {}, None, "--role: 'king' is none of full, gateway, worker, inference"),
        ({}, {"ASTROMESH_PROFILE": "moon"}, None, "ASTROMESH_PROFILE: 'moon' is none of lan-fast, lan, wan"),
        ({"name": "My Box"}, {}, None, "--name: 'My Box' cannot be a node's name"),
        ({}, {"ASTROMESH_MESH": "maybe"}, None, "ASTROMESH_MESH: 'maybe' is neither yes nor no"),
        ({"advertise": "box:1"}, {}, None, "--advertise: 'box:1': write the host alone"),
        ({"join": ["x"] * 65}, {}, None, "--join: 65 members to join by"),
    ],
)
def test_a_wrong_value_names_where_it_was_said(flags: dict[str, Flag], environment: dict[str, str], file: str | None, said: str) -> None:
    text = None if file is None else f"apiVersion: astromesh/v1\nkind: RuntimeConfig\nspec: {{mesh: {{{file}}}}}\n"
    with pytest.raises(ConfigurationError) as refusal:
        settled(flags, text, **environment)
    assert refusal.value.message.startswith(said)


def test_a_bind_at_the_apis_port_moves_the_gossip_and_says_so() -> None:
    found = settled(file="apiVersion: astromesh/v1\nkind: RuntimeConfig\nspec: {mesh: {bind: '0.0.0.0:8000'}}\n")
    assert (str(found.values.gossip), str(found.values.link)) == ("0.0.0.0:7946", "0.0.0.0:7947")
    assert found.warnings[0].startswith("runtime.yaml:3: spec.mesh.bind: that is the API's port; gossip takes 0.0.0.0:7946")


def test_any_free_port_stays_any_free_port() -> None:
    values = settled({"api": ":0", "gossip": "127.0.0.1:0"}).values
    assert (values.api.port, values.gossip.port, values.link.port) == (0, 0, 0)


def test_a_variable_that_is_nearly_one_of_ours_is_asked_about() -> None:
    [warning] = settled(ASTROMESH_GOSIP="x", ASTROMESH_CONFIG_DIR="y", ASTROMESH_OF_SOMEONE_ELSE="z", PATH="p").warnings
    assert warning == "the environment variable ASTROMESH_GOSIP is not known. Did you mean ASTROMESH_GOSSIP?"


def test_what_does_not_work_yet_is_said() -> None:
    assert settled({"mdns": True}).warnings == ("--mdns: nodes are not found by mDNS yet. Use --join.",)
    assert settled({"mdns": False}).warnings == ()
    assert settled(ASTROMESH_ADVERTISE="10.0.0.1").warnings[0].startswith("ASTROMESH_ADVERTISE: is not used yet")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8000", HostPort("h", 8000)),
        (":8000", HostPort("h", 8000)),
        ("box", HostPort("box", 1)),
        ("box:2", HostPort("box", 2)),
        ("10.0.0.1:2", HostPort("10.0.0.1", 2)),
        ("::1", HostPort("::1", 1)),
        ("[::1]", HostPort("::1", 1)),
        ("[FE80::0:1]:2", HostPort("fe80::1", 2)),
        (" box.lan ", HostPort("box.lan", 1)),
    ],
)
def test_an_address_may_leave_out_what_is_clear(text: str, address: HostPort) -> None:
    assert parse_address(text, host="h", port=1) == address


@pytest.mark.parametrize(
    "text", ["", "box:", "box:x", "box:70000", "[::1", "[::1]8", "::zz", "a/b", "http://box:1", "box:-1", "box:²", "-box", "x:1:2"]
)
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|closed"):
        parse_address(text, host="h", port=1)


def test_a_seed_by_the_api_means_that_hosts_gossip() -> None:
    assert parse_seed("http://[::1]:8000") == HostPort("::1", 7946)
    assert str(parse_seed("https://box:8000/v1")) == "box:7946"
    assert str(HostPort("::1", 7946)) == "[::1]:7946"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_loopback_is_what_only_this_machine_reaches(host: str) -> None:
    assert HostPort(host, 1).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "box"])
def test_all_else_may_be_reached_by_others(host: str) -> None:
    assert not HostPort(host, 1).is_loopback


def test_seeds_beside_a_mesh_that_is_off_are_warned_about() -> None:
    told = settled({"mesh": False, "join": ["127.0.0.1:7956"]}).warnings
    assert any("nobody is joined" in warning and "--join" in warning for warning in told)
    assert not settled({"join": ["127.0.0.1:7956"]}).warnings
