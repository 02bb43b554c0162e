"""Acts of agents as the bodies of link calls, and back: the part of `bodies` that is about runs over several nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, get_args

from astromesh.dialogue import Answer, FinishReason, HandOff, Outcome, Transcript, Usage
from astromesh.effects import Delegate, TakeOver
from astromesh.errors import AstromeshError
from astromesh.guardrails.budget import Budget, Direction
from astromesh.runtime.acts import ActAsks, ActBegan, ActEnded, ActFrame, ActReply, ActRequest, Asked
from astromesh.runtime.bodies import Body, from_error, from_message, to_error, to_message, to_run_event
from astromesh.runtime.course import Used
from astromesh.runtime.reading import Reading, a_number, a_text, an_object, one_of, wrong
from astromesh.specs.agent import Guardrail
from astromesh.telemetry.traces import Span


def from_act_request(request: ActRequest) -> dict[str, Any]:
    return {
        "act": _from_asked(request.act),
        "act_id": request.act_id,
        "run_id": request.run_id,
        "home": request.home,
        "session_id": request.session_id,
        "path": list(request.path),
        "watched": request.watched,
        "budgets": _from_budgets(request.budgets),
        "rules": _from_rules(request.rules),
    }


def to_act_request(body: Body) -> ActRequest:
    with Reading("an act"):
        return ActRequest(
            act=_to_asked(body["act"]),
            act_id=a_text(body["act_id"]),
            run_id=a_text(body["run_id"]),
            home=a_text(body["home"]),
            session_id=a_text(body["session_id"]),
            path=_texts(body["path"]),
            watched=bool(body.get("watched", True)),
            budgets=_to_budgets(body.get("budgets", ())),
            rules=_to_rules(body),
        )


def _from_budgets(budgets: tuple[Budget, ...]) -> list[list[Any]]:
    return [[budget.direction, budget.message, budget.turn_tokens_max] for budget in budgets]


def _to_budgets(rows: Any) -> tuple[Budget, ...]:
    return tuple(
        Budget(cast("Direction", one_of(get_args(Direction), direction)), True, a_text(message), a_number(left), None)
        for direction, message, left in rows
    )


def _from_asked(asked: Asked) -> dict[str, Any]:
    if isinstance(asked, Delegate):
        return {"agent": asked.agent, "task": asked.task}
    return {
        "agent": asked.agent,
        "transcript": [from_message(message) for message in asked.transcript],
        "by": asked.by,
        "reason": asked.reason,
        "context": dict(asked.context),
        "last": asked.last,
    }


def _to_asked(body: Body) -> Asked:
    if (task := body.get("task")) is not None:
        return Delegate(a_text(body["agent"]), a_text(task))
    return TakeOver(
        a_text(body["agent"]),
        tuple(to_message(message) for message in body["transcript"]),
        by=a_text(body.get("by", "")),
        reason=a_text(body.get("reason", "")),
        context=an_object(body.get("context", {})),
        last=bool(body.get("last", False)),
    )


# What an act tells before, between and after the events of its run: kinds that no door ever sees.
_BEGAN, _USED, _ASKS, _ENDED = "act.began", "act.used", "act.asks", "act.ended"
Told = tuple[str, Mapping[str, Any]]


def from_act_began(began: ActBegan) -> Told:
    return _BEGAN, {"pid": began.pid}


def from_used(used: Used) -> Told:
    usage = [used.usage.tokens_in, used.usage.tokens_out, used.usage.cached_tokens]
    return _USED, {"source": used.source, "model": used.model, "role": used.role, "usage": usage, "cost": used.cost}


def from_act_asks(asks: ActAsks) -> Told:
    asked = {"agent": asks.asked.agent, "task": asks.asked.task}
    return _ASKS, {"number": asks.number, **asked, "budgets": _from_budgets(asks.budgets), "rules": _from_rules(asks.rules)}


def from_act_ended(ended: ActEnded) -> Told:
    return _ENDED, {
        **_from_outcome(ended.outcome),
        "spans": [[span.id, span.parent, span.name, span.node, span.start_ms, span.duration_ms, span.attributes] for span in ended.spans],
        "spans_dropped": ended.spans_dropped,
        "block": ended.block,
        "warnings": list(ended.warnings),
        "finish_reason": ended.finish_reason,
    }


def to_act_frame(body: Body) -> ActFrame:
    event = to_run_event(body)
    with Reading("what an act tells"):
        data = event.data
        match event.kind:
            case "act.began":
                return ActBegan(a_number(data["pid"]))
            case "act.used":
                tokens_in, tokens_out, cached, *_ = data["usage"]
                usage = Usage(a_number(tokens_in), a_number(tokens_out), a_number(cached))
                return Used(a_text(data["source"]), a_text(data["model"]), a_text(data["role"]), usage, float(data.get("cost", 0.0)))
            case "act.asks":
                asked = Delegate(a_text(data["agent"]), a_text(data["task"]))
                return ActAsks(a_number(data["number"]), asked, budgets=_to_budgets(data.get("budgets", ())), rules=_to_rules(data))
            case "act.ended":
                return ActEnded(
                    outcome=_to_outcome(data),
                    spans=tuple(_to_span(row) for row in data.get("spans", ())),
                    spans_dropped=a_number(data.get("spans_dropped", 0)),
                    block=None if data.get("block") is None else _found(data["block"]),
                    warnings=tuple(_found(warning) for warning in data.get("warnings", ())),
                    finish_reason=cast("FinishReason", one_of(get_args(FinishReason), data.get("finish_reason", "stop"))),
                )
            case "route":
                known = {"node": a_text(data["node"]), "route": a_text(data["route"]), "attempts": a_number(data["attempts"])}
                return replace(event, data={**data, **known})
            case _:
                return event


def _from_outcome(outcome: Outcome | AstromeshError) -> dict[str, Any]:
    match outcome:
        case Answer():
            work = [from_message(message) for message in outcome.work]
            return {"answer": {"text": outcome.text, "by": outcome.by, "work": work, "data": outcome.data}}
        case HandOff():
            work = [from_message(message) for message in outcome.work]
            return {"hand_off": {"to": outcome.to, "by": outcome.by, "reason": outcome.reason, "work": work}}
        case AstromeshError():
            return {"error": from_error(outcome)}


def _to_outcome(body: Body) -> Outcome | AstromeshError:
    if (error := body.get("error")) is not None:
        return to_error(an_object(error))
    if (told := body.get("hand_off")) is not None:
        return HandOff(a_text(told["to"]), a_text(told["by"]), a_text(told.get("reason", "")), _to_messages(told.get("work", ())))
    told = body["answer"]
    return Answer(a_text(told["text"]), a_text(told["by"]), _to_messages(told.get("work", ())), told.get("data"))


def _to_span(row: Sequence[Any]) -> Span:
    number, parent, name, node, start_ms, duration_ms, attributes, *_ = row
    return Span(
        a_text(name),
        float(start_ms),
        None if duration_ms is None else float(duration_ms),
        an_object(attributes),
        a_text(number),
        a_text(parent),
        a_text(node),
    )


def from_act_reply(reply: ActReply) -> dict[str, Any]:
    return {"act_id": reply.act_id, "number": reply.number, "tokens": reply.tokens, **_from_outcome(reply.outcome)}


def to_act_reply(body: Body) -> ActReply:
    with Reading("a reply to an act"):
        return ActReply(a_text(body["act_id"]), a_number(body["number"]), _to_outcome(body), a_number(body.get("tokens", 0)))


def _from_rules(rules: tuple[Guardrail, ...]) -> list[dict[str, Any]]:
    return [rule.model_dump(mode="json", exclude_defaults=True) for rule in rules]


def _to_rules(body: Body) -> tuple[Guardrail, ...]:
    return tuple(Guardrail.model_validate(rule) for rule in body.get("rules", ()))


def _to_messages(bodies: Any) -> Transcript:
    return tuple(to_message(body) for body in bodies)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(map(a_text, value)) if isinstance(value, list) else wrong("no list of texts")


def _found(value: Any) -> dict[str, str]:
    """What a guardrail found: names of rules, never text that was said."""
    return {a_text(key): a_text(said) for key, said in an_object(value).items()}
