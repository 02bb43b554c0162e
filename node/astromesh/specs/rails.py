"""What is wrong with the guardrails of a document, and what they cost. Pure.

A rule that cannot do what it says is a mistake, for an agent that runs without it is not the one that was written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from unicodedata import normalize

from astromesh.specs.agent import Guardrail, Guardrails, GuardrailType
from astromesh.specs.findings import Caution, Mistake, Path
from astromesh.specs.keys import Places
from astromesh.specs.patterns import BadPattern, compiled, width

WORDS_MAX = 1000  # of one list: they take 0.15 s to compile when the agent is loaded
WORD_CHARACTERS_MAX = 100  # a longer phrase is never said again in the same words, and all of it would be held back

_OWN: Mapping[GuardrailType, tuple[str, ...]] = {
    "pii_detection": (),
    "topic_filter": ("blocked_topics", "allowed_topics"),
    "max_length": ("max_chars",),
    "cost_limit": ("max_tokens_per_turn", "max_tokens_per_session"),
    "content_filter": ("forbidden_keywords", "blocked_patterns"),
}
_EXAMPLES: Mapping[str, str] = {
    "blocked_topics": "[medicine]",
    "max_chars": "5000",
    "max_tokens_per_turn": "4000",
    "forbidden_keywords": "[internal_only]",
}
_STREAMS: Mapping[str, str] = dict.fromkeys(("pii_detection", "topic_filter", "content_filter"), "With 'action: redact' it would.") | {
    "max_length": "With 'action: redact', which cuts it, it would."
}
_SHARED = ("type", "action", "message")


def rail_findings(guardrails: Guardrails, places: Places) -> Iterator[Mistake | Caution]:
    for direction, rails in (("input", guardrails.input), ("output", guardrails.output)):
        for number, rail in enumerate(rails):
            path: Path = ("spec", "guardrails", direction, number)
            yield from _mistakes(rail, path, places)
            yield from _unused(rail, path, places)
            if direction == "output" and (why := _holds(rail)):
                said = f"{why}, so the whole answer is held back until its end: nothing of it streams"
                remedy = _STREAMS.get(rail.type, "") if rail.does == "block" and not rail.allowed_topics else ""
                yield places.caution(path, said, remedy)


def _mistakes(rail: Guardrail, path: Path, places: Places) -> Iterator[Mistake]:
    own = _OWN[rail.type]
    if own and not any(getattr(rail, key) for key in own):
        yield places.mistake(path, f"a {rail.type} without {' or '.join(own)} guards nothing", f"Add '{own[0]}: {_EXAMPLES[own[0]]}'.")
    if rail.does == "redact" and (rail.type == "cost_limit" or rail.allowed_topics):
        what = "a cost_limit" if rail.type == "cost_limit" else "what mentions no allowed topic"
        yield places.mistake((*path, "action"), f"there is nothing to redact in {what}", "Write 'action: block' or 'action: warn'.")
    for key in ("blocked_topics", "allowed_topics", "forbidden_keywords"):
        words: tuple[str, ...] = getattr(rail, key)
        if len(words) > WORDS_MAX:
            yield places.mistake((*path, key), f"{len(words)} words, and {WORDS_MAX} are possible", "Write patterns for groups of them.")
        for place, word in enumerate(words):
            if not any(sign.isprintable() and not sign.isspace() for sign in word):
                yield places.mistake((*path, key, place), "there is nothing in this word", "Remove it.")
            elif len(normalize("NFKD", word)) > WORD_CHARACTERS_MAX:
                yield places.mistake((*path, key, place), f"it is longer than {WORD_CHARACTERS_MAX} characters", "Name a part of it.")
    for place, pattern in enumerate(rail.blocked_patterns):
        yield from _pattern_mistakes(pattern, (*path, "blocked_patterns", place), places)


def _pattern_mistakes(pattern: str, path: Path, places: Places) -> Iterator[Mistake]:
    try:
        matches_nothing = compiled(pattern).search("") is not None
    except BadPattern as mistake:
        remedy = "It is RE2's syntax, without look-around and backreferences: github.com/google/re2/wiki/Syntax."
        yield places.mistake(path, f"this pattern cannot be used: {mistake}", remedy)
        return
    if matches_nothing:
        yield places.mistake(path, "this pattern matches where there is nothing, so everywhere", "Write + for *, or {1,9} for {0,9}.")


def _unused(rail: Guardrail, path: Path, places: Places) -> Iterator[Caution]:
    for key in sorted(rail.model_fields_set - {*_SHARED, *_OWN[rail.type]}):
        if getattr(rail, key):
            yield places.caution((*path, key), f"is not used by a {rail.type}")
    if rail.message is not None and rail.does != "block":
        yield places.caution((*path, "message"), "is never said: it is for rules that block", "Write 'action: block', or remove it.")


def _holds(rail: Guardrail) -> str:
    """Why nothing streams under this rule; empty where it does."""
    if rail.type == "cost_limit" or rail.does == "warn":
        return ""
    if rail.does == "block":
        return "what was shown cannot be taken back"
    if any(_readable(pattern) and width(pattern) is None for pattern in rail.blocked_patterns):
        return "a match of blocked_patterns can be of any length"
    return ""


def _readable(pattern: str) -> bool:
    try:
        compiled(pattern)
    except BadPattern:
        return False
    return True
