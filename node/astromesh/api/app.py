"""All doors in one application: the table of routes, and what every request passes through."""

from __future__ import annotations

import logging
import re
from uuid import uuid4

from aiohttp import web

from astromesh.api import (
    agents,
    documentation,
    encodings,
    engine,
    gpus,
    keys,
    lifecycle,
    member,
    memory,
    mesh,
    mesh_events,
    models,
    openai,
    providers,
    runs,
    system,
    talk,
    tools,
)
from astromesh.api.agent_names import NAMESPACE_QUERY
from astromesh.api.bodies import BODY_BYTES_MAX
from astromesh.api.errors import http_problem, openai_http_problem, openai_response, problem
from astromesh.api.guard import check_host, check_media_type, check_origin
from astromesh.api.house import HOUSE, House
from astromesh.api.openai_bodies import ChatBody, CompletionBody
from astromesh.api.replies import REQUEST_ID
from astromesh.api.route import EVENTS, JSON, Handler, Route, check_query, speaks_openai
from astromesh.errors import AstromeshError, CallersMistake

log = logging.getLogger(__name__)

BEGUN = web.RequestKey("begun", bool)  # the head of the answer is out

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


ROUTES: tuple[Route, ...] = (
    Route("GET", "/v1/health", system.health, "Is the process alive? Never tied to the mesh.", answer=system.Health),
    Route(
        "GET",
        "/v1/ready",
        system.ready,
        "Are the doors open? With a parameter: could it be served now, here or on a peer?",
        codes=(200, 422, 503),
        own_shape=(503,),
        query=(("agent", "an agent's name"), ("model", "a model's name")),
    ),
    Route("GET", "/v1/system/status", system.status, "What this node is and how it is."),
    Route(
        "POST",
        "/v1/system/reload",
        lifecycle.reload,
        "Read the files of the configuration again and take over what changed: all of it, or nothing where a changed file has a mistake.",
        answer=lifecycle.FilesReloaded,
        codes=(200, 415, 422, 429),
    ),
    Route(
        "GET",
        "/v1/agents",
        agents.listing,
        "The agents of the mesh.",
        answer=agents.AgentList,
        codes=(200, 422),
        query=(("scope", "mesh, or local"), ("namespace", "only its agents; all where it is left out")),
    ),
    Route(
        "POST",
        "/v1/agents",
        lifecycle.create,
        "A new agent, as a draft on this node. Its mistakes are told all at once, and nothing is stored then.",
        body=lifecycle.AgentBody,
        answer=lifecycle.AgentRegistered,
        codes=(201, 400, 409, 413, 415, 422, 429, 503),
        query=(NAMESPACE_QUERY,),
    ),
    Route(
        "GET",
        "/v1/agents/{name}",
        agents.show,
        "An agent's document, secrets masked, from whichever node has it.",
        codes=(200, 404, 422, 502, 503, 504),
        query=(NAMESPACE_QUERY, ("state", "draft: what was put and not deployed yet")),
    ),
    Route(
        "PUT",
        "/v1/agents/{name}",
        lifecycle.update,
        "A draft of another version, on every node that holds the agent; what is deployed goes on answering.",
        body=lifecycle.AgentBody,
        answer=lifecycle.AgentChanged,
        codes=(200, 400, 404, 409, 413, 415, 422, 429, 502, 503, 504),
        query=(NAMESPACE_QUERY,),
    ),
    Route(
        "DELETE",
        "/v1/agents/{name}",
        lifecycle.remove,
        "Remove an agent from every node that holds it; runs under way end as they began. What it remembers stays.",
        answer=lifecycle.AgentChanged,
        codes=(200, 404, 409, 415, 422, 429, 502, 503, 504),
        query=(NAMESPACE_QUERY,),
    ),
    Route(
        "POST",
        "/v1/agents/{name}/deploy",
        lifecycle.deploy,
        "Let an agent answer: its draft where there is one, or as it was before a pause. On all nodes that hold it, or on none.",
        answer=lifecycle.AgentChanged,
        codes=(200, 400, 404, 415, 422, 429, 502, 503, 504),
        query=(NAMESPACE_QUERY,),
    ),
    Route(
        "POST",
        "/v1/agents/{name}/pause",
        lifecycle.pause,
        "Let an agent answer nobody, on every node that holds it, until it is deployed again; runs under way end as they began.",
        answer=lifecycle.AgentChanged,
        codes=(200, 400, 404, 409, 415, 422, 429, 502, 503, 504),
        query=(NAMESPACE_QUERY,),
    ),
    Route(
        "POST",
        "/v1/agents/{name}/run",
        runs.run,
        "Ask an agent. JSON, or an event stream with stream: true or Accept: text/event-stream.",
        body=runs.RunBody,
        answer=runs.RunResult,
        codes=(200, 400, 403, 404, 413, 415, 422, 429, 502, 503, 504),
        media=(JSON, EVENTS),
        query=(NAMESPACE_QUERY,),
        headers=((runs.RESUMABLE, "true: the run waits for whoever lost its stream"),),
    ),
    Route(
        "GET",
        "/v1/ws/agent/{name}",
        talk.talk,
        'A WebSocket: send {"query": …} or {"cancel": true}, read the events of the run as {"type": …}. One run at a time; the connection '
        "is a session.",
        codes=(101, 404, 422, 426, 429),
        query=(("session_id", "a conversation to go on with"), NAMESPACE_QUERY),
    ),
    Route(
        "GET",
        "/v1/runs/{id}/events",
        runs.events,
        "What a run tells, as an event stream, from behind the event that Last-Event-ID names; 204 where nothing more will come.",
        codes=(200, 204, 404, 410, 422, 429),
        media=(EVENTS,),
        headers=(("Last-Event-ID", "the id of the last event that was seen"),),
    ),
    Route(
        "DELETE",
        "/v1/runs/{id}",
        runs.cancel,
        "Cancel a run, on whichever node it runs.",
        answer=runs.CancelBegun,
        codes=(202, 404),
    ),
    Route("GET", "/v1/tools", tools.listing, "The built-in tools, and those of this node's agents.", answer=tools.ToolList),
    Route("GET", "/v1/tools/builtin", tools.builtin, "The built-in tools alone.", answer=tools.ToolList),
    Route(
        "POST",
        "/v1/tools/execute",
        tools.execute,
        "Call a tool of this node by hand; one of an agent's on that agent's terms.",
        body=tools.ExecuteBody,
        answer=tools.Executed,
        codes=(200, 400, 403, 404, 413, 415, 422),
    ),
    Route("GET", "/v1/models", openai.models, "The models of the mesh, in OpenAI's shape; agents among them as agent:NAME."),
    Route("GET", "/v1/models/{name}", models.model, "One model; with what this node has of it, as here.", codes=(200, 404)),
    Route(
        "POST",
        "/v1/models/pull",
        models.pull,
        "Install a model on this node: an event stream of progress {done, total, what, rate, eta_s}, then done {model}, or error.",
        body=models.PullBody,
        codes=(200, 413, 415, 422, 429, 502),
        media=(EVENTS,),
    ),
    Route(
        "POST",
        "/v1/models/{name}/load",
        models.load,
        "Begin to load a model on this node; GET /v1/models/{name} says how far it is. With dry_run: whether it fits, and what it takes.",
        body=models.LoadBody,
        codes=(200, 202, 404, 415, 422, 502),
    ),
    Route(
        "POST",
        "/v1/models/{name}/unload",
        models.unload,
        "Free the memory of a model on this node; it stays on disk. Refused while somebody reads from it, unless by force.",
        body=models.UnloadBody,
        codes=(200, 404, 409, 415, 422),
    ),
    Route(
        "DELETE",
        "/v1/models/{name}",
        models.remove,
        "Forget a model on this node, and its files unless they are the user's own. Refused while it is loaded, unless by force.",
        codes=(200, 404, 409, 422, 502),
        query=(("force", "true: unload it first"),),
    ),
    Route(
        "POST",
        "/v1/chat/completions",
        openai.chat,
        "OpenAI's chat completions, streaming and tools included.",
        body=ChatBody,
        codes=(200, 400, 403, 404, 413, 415, 429, 502, 503, 504),
        media=(JSON, EVENTS),
        headers=((openai.SESSION, "of an agent: the conversation to go on with"),),
    ),
    Route(
        "POST",
        "/v1/completions",
        openai.completions,
        "OpenAI's completions of a prompt, without roles or template.",
        body=CompletionBody,
        codes=(200, 400, 403, 404, 413, 415, 429, 502, 503, 504),
        media=(JSON, EVENTS),
    ),
    Route(
        "POST",
        "/v1/embeddings",
        encodings.embeddings,
        "OpenAI's embeddings: texts into vectors of length 1, by whoever has the model.",
        body=encodings.EmbeddingsBody,
        codes=(200, 400, 403, 404, 413, 415, 429, 502, 503, 504),
    ),
    Route(
        "POST",
        "/v1/rerank",
        encodings.rerank,
        "Which documents answer a query best, in the shape of Cohere, Jina and llama.cpp's server, by whoever has the cross-encoder.",
        body=encodings.RerankBody,
        codes=(200, 400, 403, 404, 413, 415, 429, 502, 503, 504),
    ),
    Route(
        "POST",
        "/v1/classify",
        encodings.classify,
        "How likely each label is for a text, in the shape of vLLM, by whoever has the classifier.",
        body=encodings.ClassifyBody,
        codes=(200, 400, 403, 404, 413, 415, 429, 502, 503, 504),
    ),
    Route("GET", "/v1/providers", providers.listing, "The model servers behind the nodes of the mesh.", answer=providers.ProviderList),
    Route("GET", "/v1/engine", engine.status, "The engine of this node: build, backends, processor, kernels.", answer=engine.EngineStatus),
    Route("GET", "/v1/gpus", gpus.listing, "The cards of the mesh: what each is, its memory, how busy it is.", answer=gpus.GpuList),
    Route("GET", "/v1/nodes", mesh.nodes, "The nodes of the mesh and what each offers.", codes=(200, 503)),
    Route("GET", "/v1/mesh/state", mesh.state, "The mesh as this node sees it.", codes=(200, 503)),
    Route(
        "GET",
        "/v1/mesh/members/{name}",
        member.member,
        "One member, and the evidence for its status: who accused it, how, when, and how well this node was when it believed that.",
        answer=member.MemberShown,
        codes=(200, 404, 503),
    ),
    Route(
        "GET",
        "/v1/mesh/events",
        mesh_events.events,
        "Changes of the mesh as an event stream: members (everyone, at first), then joined, suspected, cleared, died, left, returned, "
        "changed, forgotten; each with at, name, accuser and the member as it is now.",
        codes=(200, 429, 503),
        media=(EVENTS,),
    ),
    Route("POST", "/v1/mesh/join", mesh.join, "Join the mesh of another node.", body=mesh.JoinBody, codes=(200, 422, 502, 503)),
    Route("POST", "/v1/mesh/leave", mesh.leave, "Say goodbye to the mesh and stay alone.", codes=(200, 503)),
    Route(
        "GET",
        "/v1/mesh/keys",
        keys.listing,
        "The keys that seal the gossip, by fingerprint: who holds each, who lacks it, who seals with it, who did not answer.",
        answer=keys.KeyList,
        codes=(200, 409, 429, 503, 504),
    ),
    Route(
        "POST",
        "/v1/mesh/keys/install",
        keys.install,
        "Give every member a key that opens: a new one, one that is sent, or one that some member has. The first step of a rotation.",
        body=keys.InstallBody,
        answer=keys.KeyChanged,
        codes=(200, 404, 409, 422, 429, 503, 504),
    ),
    Route(
        "POST",
        "/v1/mesh/keys/use",
        keys.use,
        "Have every member seal with a key. Refused until all hold it. The second step.",
        body=keys.ForceBody,
        answer=keys.KeyChanged,
        codes=(200, 404, 409, 422, 429, 503, 504),
    ),
    Route(
        "POST",
        "/v1/mesh/keys/remove",
        keys.remove,
        "Have every member forget a key. Refused while any seals with it. The last step.",
        body=keys.ForceBody,
        answer=keys.KeyChanged,
        codes=(200, 404, 409, 422, 429, 503, 504),
    ),
    Route(
        "GET",
        "/v1/memory/{agent}/history/{session}",
        memory.show,
        "What an agent remembers of a session, asked of the session's home: its export.",
        answer=memory.HistoryShown,
        codes=(200, 404, 422, 502, 503, 504),
        query=(("limit", "turns at most, the newest; 1 to 1000"), NAMESPACE_QUERY),
    ),
    Route(
        "DELETE",
        "/v1/memory/{agent}/history/{session}",
        memory.clear,
        "Delete what an agent remembers of a session, at the session's home.",
        answer=memory.HistoryCleared,
        codes=(200, 404, 422, 502, 503, 504),
        query=(NAMESPACE_QUERY,),
    ),
    Route(
        "GET",
        "/v1/traces",
        system.traces,
        "The course of recent runs.",
        answer=system.TraceList,
        codes=(200, 422),
        query=(("agent", "an agent's name"), ("limit", "1 to 256")),
    ),
    Route("GET", "/v1/traces/{id}", system.trace, "The course of one run.", answer=system.TraceShown, codes=(200, 404)),
    Route("GET", "/v1/metrics", system.figures, "The figures of /metrics as JSON.", answer=system.Figures),
    Route("GET", "/metrics", system.metrics, "Figures for Prometheus.", media=("text/plain",)),
)


_QUERIES = {(route.method, route.path): tuple(name for name, _ in route.query) for route in ROUTES if route.query}


def build(house: House) -> web.Application:
    """The application of a node. Every route answers with and without a trailing slash."""
    app = web.Application(middlewares=[_door], client_max_size=BODY_BYTES_MAX)
    app[HOUSE] = house
    for route in (*ROUTES, *documentation.routes(ROUTES)):
        app.router.add_route(route.method, route.path, route.handler, name=None)
        app.router.add_route(route.method, f"{route.path}/", route.handler, name=None)
    app.router.add_get("/", _to_the_page)
    app.on_response_prepare.append(_begin)
    app[mesh_events.WATCHERS] = mesh_events.Watchers()
    app.on_shutdown.append(app[mesh_events.WATCHERS].close)
    app[talk.TALKS] = talk.Talks()
    app.on_shutdown.append(app[talk.TALKS].close)
    return app


async def _to_the_page(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "/docs"})


@web.middleware
async def _door(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The guard in front of every handler, the mapping of errors behind it, and a count."""
    house = request.app[HOUSE]
    given = request.headers.get("X-Request-Id", "")
    request[REQUEST_ID] = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
    resource = request.match_info.route.resource
    route = resource.canonical.rstrip("/") if resource is not None else "none"
    to_openai = speaks_openai(request.method, request.path)
    try:
        check_host(request.headers.get("Host"), own_names=house.hosts_allowed)
        check_origin(request.headers.get("Origin"), request.headers.get("Host"))
        if request.body_exists:
            check_media_type(request.headers.get("Content-Type", ""))
        if (known := _QUERIES.get((request.method, route))) is not None:
            check_query(request, known)
        response = await handler(request)
    except AstromeshError as error:
        if not isinstance(error, CallersMistake):
            # Not its message: what a model server said may be in it, and that may be what it was asked.
            log.info("%s %s: %s, request %s", request.method, route, error.code, request[REQUEST_ID])
        response = openai_response(error) if to_openai else problem(error)
    except web.HTTPException as error:
        hint = "GET /openapi.json lists every route and its methods"
        response = openai_http_problem(error, hint=hint) if to_openai else http_problem(error, hint=hint)
    except (ConnectionResetError, BrokenPipeError):
        raise  # the client has left in the middle of a stream: nobody is there to be told
    except Exception:
        log.exception("%s %s failed in a way that nobody foresaw; request %s", request.method, route, request[REQUEST_ID])
        if request.get(BEGUN):
            raise  # half an answer is out: a second one would be read as its end, a connection that breaks is not
        failure = AstromeshError("the node made a mistake of its own", hint=f"its log has the details under {request[REQUEST_ID]}")
        response = openai_response(failure) if to_openai else problem(failure)
    house.metrics.http_requests.labels(route, str(response.status)).inc()
    return response


async def _begin(request: web.Request, response: web.StreamResponse) -> None:
    request[BEGUN] = True
    if REQUEST_ID in request:
        response.headers["X-Request-Id"] = request[REQUEST_ID]
