"""What a node says when it is up can be typed as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from astromesh.service.settings import settle
from astromesh.service.up import greeting
from astromesh.specs.runtime import Runtime


def greeted(api: str) -> str:
    flags = {"api": api}
    found = settle(flags=flags, environment={}, runtime=Runtime.unwritten(), folder=Path("/"), data_default=Path("/"), hostname="here")
    return greeting(found.values, ["hello", "desk"])


@pytest.mark.parametrize("api", ["127.0.77.1:8000", "127.0.0.1:8001", "[::1]:8000"])
def test_the_question_goes_to_this_node_and_not_to_the_one_at_the_usual_address(api: str) -> None:
    assert f'astromesh-node --url http://{api} run desk "What is a mesh?"' in greeted(api)


def test_at_the_usual_address_the_question_needs_no_url() -> None:
    assert '    astromesh-node run desk "What is a mesh?"\n' in greeted("127.0.0.1:8000")
