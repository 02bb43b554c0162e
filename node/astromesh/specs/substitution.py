"""`${VARIABLE}` and `${VARIABLE:-default}` in a document's texts. Pure.

The default also stands in for a variable that is set to nothing, as in a shell. `$${` is a literal `${`. What comes in stays text: where a
number or a yes is wanted, text that reads as one is taken. The value of a variable appears in no message, so no secret leaks by a mistake.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from astromesh.specs.documents import Mark
from astromesh.specs.findings import FINDINGS_MAX, Caution, Mistake, Path, dotted

_DEFAULT = r"[^}$]*(?:\$(?!\{)[^}$]*)*"  # up to the next "${": references do not nest, and the search stays linear
_REFERENCE = re.compile(
    rf"\$\$\{{|\$\{{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>{_DEFAULT}))?\}}|\$\{{(?P<other>[^}}\n]{{0,40}}\}}?)"
)


class Substitution:
    """One document's pass; the findings gather here."""

    def __init__(self, environment: Mapping[str, str], *, source: str, marks: Mapping[Path, Mark]) -> None:
        self._environment = environment
        self._source = source
        self._marks = marks
        self.mistakes: list[Mistake] = []
        self.cautions: list[Caution] = []

    def of(self, value: Any, path: Path = ()) -> Any:
        match value:
            case str() if "${" in value:
                return self._text(value, path)
            case dict():
                return {key: self.of(inner, (*path, key)) for key, inner in value.items()}
            case list():
                return [self.of(inner, (*path, number)) for number, inner in enumerate(value)]
            case _:
                return value

    def _text(self, text: str, path: Path) -> str:
        mark = self._marks.get(path, Mark(0, 0))

        def line_of(found: re.Match[str]) -> int:
            return mark.text_line + text.count("\n", 0, found.start()) if mark.text_line else mark.line

        def meant(found: re.Match[str]) -> str:
            name, default = found["name"], found["default"]
            if found.group() == "$${":
                return "${"
            if name is not None:
                known = self._environment.get(name)
                if known or (known is not None and default is None):
                    return known
                if default is not None:
                    return default
            if len(self.cautions if name is None else self.mistakes) > FINDINGS_MAX:
                return found.group()
            if name is None:
                said = f"'${{{found['other']}' names no variable and stays as it is"
                remedy = "Write ${NAME} or ${NAME:-default}; $${ for a literal ${."
                self.cautions.append(Caution(self._source, line_of(found), mark.column, dotted(path), said, remedy))
                return found.group()
            remedy = f"Set it, write ${{{name}:-default}}, or $${{{name}}} for the text itself."
            said = f"the environment variable {name} is not set"
            self.mistakes.append(Mistake(self._source, line_of(found), mark.column, dotted(path), said, remedy))
            return ""

        return _REFERENCE.sub(meant, text)
