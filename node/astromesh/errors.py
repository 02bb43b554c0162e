"""What can go wrong, who is to blame, and whether it certainly did not happen.

One tree. `api/errors.py` alone maps it to HTTP, `runtime/bodies.py` alone to the wire; a client library's exception stops at its backend
and is chained. A message is for the person at 3 a.m.: what and where; `hint` says what next. *Definite* means that the thing certainly did
not happen, so that trying elsewhere is safe.

What must end a run (its cancellation) is not in this tree: no script can catch it by mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

ModelFailureCode = Literal[
    "model_no_providers",
    "model_no_eligible_provider",
    "model_all_providers_failed",
    "model_dns_resolution_failed",
    "model_connection_refused",
    "model_timeout",
    "model_missing_api_key",
    "model_provider_unavailable",
]


class AstromeshError(Exception):
    """Root of the tree. `code` is stable and documented; `hint` names the knob or the command that mends it."""

    code = "internal_error"
    definite = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


# The caller's mistakes: nothing happened, and the same call will fail everywhere.


class CallersMistake(AstromeshError):
    code = "invalid_request"
    definite = True


class InvalidRequest(CallersMistake):
    """The request is well-formed and says something that cannot be meant. `param` names the key."""

    def __init__(self, message: str, *, hint: str = "", param: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.param = param


class ContextExceeded(InvalidRequest):
    """The prompt does not fit into the model's context. The code is OpenAI's: clients look for it to shorten a conversation."""

    code = "context_length_exceeded"


class MalformedBody(CallersMistake):
    """Not JSON, or not the kind of JSON that the route takes."""

    code = "malformed_body"


class BodyTooLarge(CallersMistake):
    code = "body_too_large"


class TooManyValues(CallersMistake):
    """A body of more JSON values than a node will hold the interpreter for."""

    code = "too_many_values"


class WrongMediaType(CallersMistake):
    code = "unsupported_media_type"


class ForeignPage(CallersMistake):
    """A request that a web page of another origin could have made, at a node without keys."""

    code = "foreign_origin"


class UnknownAgent(CallersMistake):
    code = "agent_not_found"


class AgentNotDeployed(UnknownAgent):
    """There is a draft of it, which answers nobody."""

    code = "agent_not_deployed"


class AgentConflict(CallersMistake):
    """An agent cannot be kept under this name, or not by this call."""

    code = "agent_conflict"


class UnsafeAgentName(AgentConflict):
    code = "unsafe_agent_name"


class AgentExists(AgentConflict):
    code = "agent_exists"


class AgentInFile(AgentConflict):
    """A file of the configuration says what this agent is, so no call may."""

    code = "agent_in_file"


class InvalidDocument(CallersMistake):
    """A document with mistakes; nothing of it was kept. `details` has all of them."""

    code = "invalid_document"

    def __init__(self, message: str, *, hint: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.details = details


class AgentUndeployable(CallersMistake):
    """The agent is as it was: this node could not run it otherwise."""

    code = "agent_undeployable"


class UnknownModel(CallersMistake):
    """Nobody in this mesh ever offered it."""

    code = "model_not_found"


class UnknownTool(CallersMistake):
    """Neither a built-in tool nor one of an agent of this node."""

    code = "tool_not_found"


class UnknownMember(CallersMistake):
    """This node knows nobody of that name in its mesh."""

    code = "member_not_found"


class UnknownKey(CallersMistake):
    """No living member holds a key of the gossip with that fingerprint."""

    code = "key_not_found"


class UnknownTrace(CallersMistake):
    code = "trace_not_found"


class UnknownRun(CallersMistake):
    """This node knows of no such run, or, where it is to be ended, of none that is under way."""

    code = "run_not_found"


class EventsGone(CallersMistake):
    """What a run told at that point is no longer kept."""

    code = "run_events_gone"


class RunUnderWay(CallersMistake):
    """A conversation over one connection has one question at a time."""

    code = "run_under_way"


# The configuration's mistakes.


class ConfigurationError(AstromeshError):
    """The node cannot run as it was told to. Exit code 78."""

    code = "bad_configuration"
    definite = True


class ReloadRefused(ConfigurationError):
    """Files have mistakes, so the node goes on as it was. `details` has all of them."""

    def __init__(self, message: str, *, hint: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.details = details


class AgentUnusable(AstromeshError):
    """The agent's document has a mistake, so it is listed and not run."""

    code = "agent_unusable"
    definite = True


class PromptUnrenderable(CallersMistake):
    """A template of the agent and what is brought along with the question do not fit. Others of its questions may be answered."""

    code = "prompt_unrenderable"


class MissingExtra(AstromeshError):
    """A part that is not installed. `hint` is the command that brings it."""

    code = "missing_extra"
    definite = True


# Models and the machines that serve them.


class ModelFailed(AstromeshError):
    """A model's server did not do it. `code` is one of the eight that the contract names.

    `retry_after_s`: it may do it so much later; None: nothing is known of that.
    """

    def __init__(
        self, message: str, *, code: ModelFailureCode, hint: str = "", definite: bool = False, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.definite = definite
        self.retry_after_s = retry_after_s


class ModelRefused(CallersMistake):
    """The model's server says that the request itself is at fault (its 4xx): no other server will like it better."""

    code = "model_refused_request"


class ModelUnavailable(AstromeshError):
    """Somebody offered it and is gone, or is still loading it: worth another try after `retry_after_s`."""

    code = "model_unavailable"
    definite = True

    def __init__(self, message: str, *, hint: str = "", retry_after_s: int = 5) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class ModelBusy(AstromeshError):
    """Done now, it would break off answers that others are reading."""

    code = "model_busy"
    definite = True


class AgentUnavailable(AstromeshError):
    """A node that hosts the agent was here and is gone."""

    code = "agent_unavailable"
    definite = True

    def __init__(self, message: str, *, hint: str = "", retry_after_s: int = 5) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class AgentPaused(AstromeshError):
    """It is here and answers nobody until it is deployed again."""

    code = "agent_paused"
    definite = True


class AgentsUnwritable(AstromeshError):
    """What agents there are cannot be kept on disk."""

    code = "agents_unwritable"


class SessionHomeUnreachable(AstromeshError):
    """What was said in this session is kept by a node that cannot be reached, and nobody else may go on with it."""

    code = "session_home_unreachable"
    definite = True

    def __init__(self, message: str, *, hint: str = "", retry_after_s: int = 5) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Overloaded(AstromeshError):
    """A bounded queue is full: refused at once, nothing was begun."""

    code = "overloaded"
    definite = True

    def __init__(self, message: str, *, hint: str = "", retry_after_s: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_s = retry_after_s


class Draining(AstromeshError):
    """The node is on its way out and takes nothing new."""

    code = "draining"
    definite = True


class RunCancelled(AstromeshError):
    """A run was ended before its answer, by the one who asked or by a node on its way out. It happened in part."""

    code = "run_cancelled"


class PeerLost(AstromeshError):
    """Another node went away in the middle of its part."""

    code = "peer_lost"


class DeadlineExceeded(AstromeshError):
    """The time allowed for it is over; it may have happened in part. `details` says which part, for an agent's run."""

    code = "timeout"

    def __init__(self, message: str, *, hint: str = "", details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.details = details


class TurnsExhausted(AstromeshError):
    """A pattern used up the turns that it was given without an answer."""

    code = "turns_exhausted"


class DelegationRefused(AstromeshError):
    """Agents that would wait for each other in a circle, or too many of them in a row. Nobody was asked."""

    code = "delegation_refused"
    definite = True


class UnusableReply(AstromeshError):
    """A model was asked twice for something of a given shape (a plan, a decision, an answer under a schema) and wrote something else."""

    code = "unusable_reply"


class WorkFailed(AstromeshError):
    """A pattern divided the work, and every part of it failed. The message says how each did."""

    code = "work_failed"


# The store of models.


class StoreError(AstromeshError):
    """A model could not be installed; nothing half-installed is left."""

    code = "model_store"
    definite = True


class StoreRefused(StoreError, CallersMistake):
    """It was asked for something that cannot be: a name that is taken, a file that is not there, two digests for one file."""


# What agents remember.


class MemoryUnavailable(AstromeshError):
    """Conversations can be neither read nor kept now. A run that had begun did happen, and its turn is not part of the history."""

    code = "memory_unavailable"


class TurnTooLarge(CallersMistake):
    """More was said in one turn than a history keeps."""

    code = "turn_too_large"
    definite = False


class NothingRemembered(CallersMistake):
    """The agent has no memory, so there is no history of it."""

    code = "agent_without_memory"


# The mesh.


class MeshOff(AstromeshError):
    """This node keeps to itself: it was told so."""

    code = "mesh_off"
    definite = True


class JoinRefused(AstromeshError):
    """No member was found at that address, or it may not be joined from here."""

    code = "join_failed"
    definite = True


class KeysRefused(AstromeshError):
    """Done now, it would cut members off: they could not open what is sealed then. Or there are no keys at all."""

    code = "keys_refused"
    definite = True
