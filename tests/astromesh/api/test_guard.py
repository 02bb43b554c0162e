"""Whom a node without keys lets in. Pure."""

from __future__ import annotations

import pytest

from astromesh.api.guard import check_host, check_media_type, check_origin
from astromesh.errors import ForeignPage, WrongMediaType

OWN = frozenset({"Lab", "desk.example"})


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000",
        "127.0.0.1",
        "127.8.8.8:80",
        "localhost:8000",
        "LOCALHOST",
        "node.localhost",
        "[::1]:8000",
        "lab:8000",
        "LAB",
        "Desk.Example:80",
    ],
)
def test_loopback_and_the_nodes_own_names_are_let_in(host: str) -> None:
    check_host(host, own_names=OWN)


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:8000",
        "192.168.1.7:8000",
        "0.0.0.0:8000",
        "[::]:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "[::1",
        "[zz]",
        "a b",
        "::1::",
        "2130706433",
    ],
)
def test_any_other_host_is_a_page_that_rebinds_names(host: str | None) -> None:
    with pytest.raises(ForeignPage) as raised:
        check_host(host, own_names=OWN)
    assert raised.value.hint


@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:8000", "https://127.0.0.1:8000", "HTTP://127.0.0.1:8000"])
def test_programs_and_pages_of_the_node_itself_are_let_in(origin: str | None) -> None:
    check_origin(origin, "127.0.0.1:8000")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", "http://127.0.0.1:9000", "http://localhost:8000", "http://[::1", "file://"]
)
def test_pages_of_other_origins_are_not(origin: str) -> None:
    with pytest.raises(ForeignPage):
        check_origin(origin, "127.0.0.1:8000")


def test_without_a_host_no_origin_is_the_nodes_own() -> None:
    with pytest.raises(ForeignPage):
        check_origin("null", None)


@pytest.mark.parametrize("declared", ["application/json", "Application/JSON; charset=utf-8", "application/json ;x=y"])
def test_json_is_taken(declared: str) -> None:
    check_media_type(declared)


@pytest.mark.parametrize(
    "declared", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=json", "application/jsonp"]
)
def test_what_a_page_could_send_without_asking_is_not(declared: str) -> None:
    with pytest.raises(WrongMediaType):
        check_media_type(declared)
