"""What keeps others out is found in a file, however broken the file is."""

import pytest

from astromesh.specs.protections import protections

HEAD = "apiVersion: astromesh/v1\nkind: RuntimeConfig\nspec:\n"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (HEAD + "  mesh: {keyring_file: keys.json, seeds: 3}\n", ("mesh.keyring_file",)),
        (HEAD + "  mesh:\n    keyringFile: keys.json\n    clusterId: home\n", ("mesh.keyring_file", "mesh.cluster_id")),
        (HEAD + "  mesh:\n    keyring_fle: keys.json\n", ("mesh.keyring_file",)),
        (HEAD + "  api: {tls: {cert: a}}\n  auth: {enabled: true}\n", ("api.tls", "auth")),
        (HEAD + "  mesh:\n    keyring_file: keys.json\n  api: [\n", ("mesh.keyring_file",)),
        (HEAD + "  mesh:\n\tkeyring_file keys.json\n", ("mesh.keyring_file",)),
    ],
)
def test_what_keeps_others_out_is_found_in_whatever_can_be_read_or_not(text: str, named: tuple[str, ...]) -> None:
    assert protections(text) == named


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "  api: {port: none}\n",
        HEAD + "  # keyring_file: keys.json\n  api: [\n",
        HEAD + '  mesh: {cluster_id: "", keyring_file: null}\n  api: {tls: off, port: x}\n  auth:\n',
        "kind: [\n",
    ],
)
def test_a_file_that_asks_for_nothing_of_it_names_nothing(text: str) -> None:
    assert protections(text) == ()
