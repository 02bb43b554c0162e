"""What a function says of itself and of its parameters. Pure.

Two ways of writing are read: Google's (`Args:`, then `name: text` or `name (type): text`) and Sphinx's (`:param name: text`).
"""

from __future__ import annotations

import re
from inspect import cleandoc

_SECTION = re.compile(r"(Args|Arguments|Parameters|Returns|Return|Raises|Yields|Examples?|Notes?):\s*$", re.IGNORECASE)
_OF_PARAMETERS = ("args", "arguments", "parameters")
_GOOGLE = re.compile(r"\*{0,2}(?P<name>\w+)\s*(\([^)]*\))?\s*:\s*(?P<text>.*)")
_SPHINX = re.compile(r":param\s+(?:[^:]*\s)?(?P<name>\w+):\s*(?P<text>.*)")


def description_of(docstring: str) -> str:
    """The text before the first section, as one paragraph after the other."""
    lines: list[str] = []
    for line in cleandoc(docstring).splitlines():
        if _SECTION.fullmatch(line.strip()) or line.lstrip().startswith(":"):
            break
        lines.append(line)
    paragraphs = "\n".join(lines).strip().split("\n\n")
    return "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def parameters_of(docstring: str) -> dict[str, str]:
    """What is said of each parameter, by its name."""
    said: dict[str, str] = {}
    section, name, depth = "", "", 0
    for line in cleandoc(docstring).splitlines():
        text = line.strip()
        indent = len(line) - len(line.lstrip())
        if found := _SECTION.fullmatch(text):
            section, name, depth = found[1].lower(), "", 0
        elif found := _SPHINX.fullmatch(text):
            name = found["name"]
            said[name] = found["text"]
        elif section in _OF_PARAMETERS and text and (not depth or indent <= depth) and (found := _GOOGLE.fullmatch(text)):
            name, depth = found["name"], indent
            said[name] = found["text"]
        elif text and name and indent > depth and not text.startswith(":"):
            said[name] = f"{said[name]} {text}".strip()
        else:
            name = ""
    return said
