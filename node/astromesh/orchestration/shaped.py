"""An answer under a schema: read, checked, and mended once by the model that wrote it. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from astromesh.dialogue import Message, ModelReply, Transcript
from astromesh.effects import AskModel, Script
from astromesh.errors import UnusableReply
from astromesh.orchestration.decision import REPLY_CHARACTERS_MAX, Misfit, Stopped, parsed, within_characters
from astromesh.orchestration.plan import Part
from astromesh.specs.schemas import Schema

_MEND = """\
Write your answer as JSON that obeys this schema, and nothing else:
{schema}
What you wrote does not: {mistakes}."""


def shaped(part: Part, schema: Schema, opening: Transcript, text: str) -> Script[tuple[str, Any]]:
    """The JSON text of the answer, and its value."""
    try:
        return _checked(ModelReply(text), schema)
    except Misfit as misfit:
        mistakes = str(misfit)
    wrote = within_characters(text, REPLY_CHARACTERS_MAX) or "(nothing)"
    request = _MEND.format(schema=orjson.dumps(schema.document).decode(), mistakes=mistakes)
    transcript = (*opening, Message("assistant", wrote), Message("user", request))
    reply = yield from AskModel(transcript, role="reasoner", shape=schema.document, aside=True)
    try:
        return _checked(reply, schema)
    except Misfit as misfit:
        if reply.finish_reason == "content_filter" and reply.text:
            raise Stopped(reply.text) from misfit
        raise UnusableReply(
            f"the answer of agent {part.agent} does not obey its output_schema, and did not after it was asked to mend it: {misfit}",
            hint="simplify spec.output_schema, show an example of it in prompts.system, or use a more capable model",
        ) from misfit


def reread(text: str, schema: Schema) -> Any:
    """The value of an answer that its guards have changed; None where it is no answer under the schema any more."""
    try:
        return _checked(ModelReply(text), schema)[1]
    except Misfit:
        return None


def _checked(reply: ModelReply, schema: Schema) -> tuple[str, Any]:
    value = parsed(reply)
    if complaints := schema.complaints(value):
        raise Misfit("; ".join(complaints))
    return orjson.dumps(value).decode(), value
