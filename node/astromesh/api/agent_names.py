"""Which agent a request means: its name in the path, its namespace in the query."""

from __future__ import annotations

from aiohttp import web

from astromesh.errors import InvalidRequest, UnknownAgent
from astromesh.specs.resource import DEFAULT_NAMESPACE, qualified
from astromesh.specs.section import is_name

NAMESPACE_QUERY = ("namespace", "the agent's; default where it is left out")
SHOWN_MAX = 64


def asked_namespace(request: web.Request) -> str | None:
    """None where the request says none. Raises `InvalidRequest`."""
    said = request.query.get("namespace")
    if said is not None and not is_name(said):
        raise InvalidRequest(f"namespace={said[:SHOWN_MAX]!r} cannot be one", hint="leave it out for the default one", param="namespace")
    return said


def asked_agent(request: web.Request, *, variable: str = "name") -> tuple[str, str]:
    """Name and namespace. Raises `InvalidRequest`, and `UnknownAgent` for what nobody can be called."""
    name, namespace = request.match_info[variable], asked_namespace(request) or DEFAULT_NAMESPACE
    if not is_name(name):
        raise UnknownAgent(
            f"no node of this mesh has an agent named {name[:SHOWN_MAX]!r}", hint="astromesh-node agents list shows what there is"
        )
    return name, namespace


def asked_key(request: web.Request, *, variable: str = "name") -> str:
    """The same as one text, as the runtime and the other nodes know it."""
    return qualified(*asked_agent(request, variable=variable))
