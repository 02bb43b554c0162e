"""What is shown of a document: what was written, and no secret, whichever way it came."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from astromesh.specs.masking import shown
from astromesh.specs.parse import parse
from astromesh.specs.submitted import mistakes_of_origin

SPEC = """\
  model: {primary: {provider: openai, model: m, api_key: '${TOK}'}}
  prompts: {system: 'Say ${TOK} to {{ name }}.'}
  tools: [{type: webhook, name: w, url: 'https://h/p?key=${TOK}&q=${TOK}'}]
  channels: [{type: chat, bot_token: '${TOK}', number: '${TOK}'}]
  observability: {dsn: '${TOK}', at: '${TOK}'}
"""


def test_of_a_file_nothing_is_shown_that_came_out_of_the_environment() -> None:
    text = f"apiVersion: astromesh/v1\nkind: Agent\nmetadata: {{name: desk, version: 1.10}}\nspec:\n{SPEC}"
    parsed = parse(text, source="f.yaml", environment={"TOK": "hunter2"})
    [desk] = parsed.agents
    assert desk.system_prompt == "Say hunter2 to {{ name }}."
    document = desk.as_document()
    assert "hunter2" not in json.dumps(document)
    assert document["metadata"] == {"name": "desk", "version": "1.10", "namespace": "default"}
    assert document["spec"]["prompts"] == {"system": "Say ${TOK} to {{ name }}."}
    assert document["spec"]["channels"] == yaml.safe_load(SPEC)["channels"]


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ({"api_key": "a"}, {"api_key": "***"}),
        ({"apiKey": "a", "verify-token": "b", "DSN": "c"}, {"apiKey": "***", "verify-token": "***", "DSN": "***"}),
        ({"token": 12345, "max_tokens": 5, "on_token": True}, {"token": "***", "max_tokens": 5, "on_token": True}),
        ({"connection": "redis://:pw@h"}, {"connection": "***"}),
        ({"password": {"value": "a"}}, {"password": {"value": "***"}}),
        ({"headers": {"X-A": "b", "X-B": "${B}"}}, {"headers": {"X-A": "***", "X-B": "${B}"}}),
        ({"a": ["https://me:pw@h/x"]}, {"a": ["https://***@h/x"]}),
        ({"url": "https://h/?token=S&v=1&k=${K}#a=b"}, {"url": "https://h/?token=***&v=***&k=${K}#a=***"}),
        ({"system": "Call https://h/?token=S&page=1 and say it."}, {"system": "Call https://h/?token=***&page=1 and say it."}),
        ({"system": "Is 1 < 2? Say token=S."}, {"system": "Is 1 < 2? Say token=S."}),
        (
            {"type": "webhook", "parameters": {"token": {"type": "string"}}, "x": {"token": {"type": "string"}}},
            {"type": "webhook", "parameters": {"token": {"type": "string"}}, "x": {"token": {"type": "***"}}},
        ),
        ({"output_schema": {"password": "string"}}, {"output_schema": {"password": "string"}}),
        ({"parameters": {"token": "a"}}, {"parameters": {"token": "***"}}),
    ],
    ids=str,
)
def test_a_secret_is_masked_wherever_it_stands(written: Any, seen: Any) -> None:
    assert shown(written) == seen


@pytest.mark.parametrize("text", ["***", "https://***@h/", "https://h/?token=***&v=1", "Call https://h/?token=*** and say it."])
def test_what_was_masked_cannot_be_sent_back(text: str) -> None:
    [mistake] = mistakes_of_origin({"spec": {"prompts": {"system": text}}})
    assert "stands for a secret" in str(mistake)


@pytest.mark.parametrize("text", ["a *** b", "***bold***", "x=***y"])
def test_stars_that_stand_for_nothing_are_text(text: str) -> None:
    assert mistakes_of_origin({"spec": {"prompts": {"system": text}}}) == ()
