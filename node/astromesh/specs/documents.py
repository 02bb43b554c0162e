"""YAML text to values that know their lines. Pure.

PyYAML gives the events; what becomes of them is decided here, since its own constructors keep no lines, let the last of two equal keys
win, read `1:30` as 90 and `no` as false, and recurse as deep as a document likes. Plain words other than null, true, false and decimal
numbers are text. Fractions become `Decimal`, so that `version: 1.10` can still be read as the text it is.

Documents of one file are cut apart before parsing (a line that begins with `---` is a boundary everywhere in YAML), so that one that does
not parse takes no other with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

import yaml

from astromesh.specs.findings import Mistake, Path, dotted, unforeseen

TEXT_MAX = 2**20  # characters of one file: the longest real ones hold prompts of some 20,000
VALUES_MAX = 5_000  # of one document with its aliases followed: ten times what real ones have, and read in 0.2 s; stops alias bombs
DOCUMENTS_MAX = 200  # of one file
DEPTH_MAX = 32  # the deepest key of any resource lies at 8; JSON Schema in a tool may go on from there
KEY_SHOWN_MAX = 40

_BOUNDARY = re.compile(r"^---(?=\s|\Z)", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff]")
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FRACTION = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{0,18})?|\.[0-9]{1,18})(?:[eE][-+]?[0-9]{1,3})?")
_WORDS: Mapping[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_TAG_PREFIX = "tag:yaml.org,2002:"
_KNOWN_TAGS = ("null", "bool", "int", "float", "seq", "map")
# The C parser where PyYAML was built with it (all its wheels are): ten times as fast, and a file is read while the node may be serving.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a value stands: its key's place, or its own. `written`: a scalar as the file has it; `text_line`: where that begins."""

    line: int
    column: int
    written: str | None = None
    text_line: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """A value of `None`, `bool`, `int`, `Decimal`, `str`, `list` and `dict` with text keys, and a mark for every path in it."""

    value: Any
    marks: Mapping[Path, Mark]
    mistakes: tuple[Mistake, ...] = ()


def read_documents(text: str, *, source: str) -> tuple[tuple[Document, ...], tuple[Mistake, ...]]:
    """The documents that can be read, and why the others cannot. A document without any content is left out."""
    if len(text) > TEXT_MAX:
        remedy = f"A file holds at most {TEXT_MAX:,} characters: split it."
        return (), (Mistake(source, 1, 1, "", f"{len(text):,} characters are too many", remedy),)
    if strange := _CONTROL.search(text):
        line = text.count("\n", 0, strange.start()) + 1
        column = strange.start() - (text.rfind("\n", 0, strange.start()) + 1) + 1
        said = f"the character U+{ord(strange.group()):04X} does not belong in a text file"
        return (), (Mistake(source, line, column, "", said, "Save it as UTF-8 text, without control characters."),)
    documents: list[Document] = []
    mistakes: list[Mistake] = []
    for number, (first_line, chunk) in enumerate(_chunks(text)):
        if number == DOCUMENTS_MAX:
            said = f"more than {DOCUMENTS_MAX} documents in one file: the rest is not read"
            mistakes.append(Mistake(source, first_line, 1, "", said, "Split it."))
            break
        try:
            documents += _Builder(chunk, source=source, first_line=first_line).documents()
        except _Unreadable as unreadable:
            mistakes.append(unreadable.mistake)
        except Exception as failure:  # noqa: BLE001  one document never keeps the node from the others
            mistakes.append(Mistake(source, first_line, 1, "", *unforeseen(failure)))
    return tuple(documents), tuple(mistakes)


def too_large(value: Any) -> str:
    """Why JSON values from elsewhere cannot be a document; empty where they can. Level by level: it must not recurse to find out."""
    level, depth, count = [value], 0, 0
    while level:
        depth, count = depth + 1, count + len(level)
        if count > VALUES_MAX or depth > DEPTH_MAX:
            return f"more than {VALUES_MAX:,} values or {DEPTH_MAX} levels"
        nested = [inner.values() if isinstance(inner, dict) else inner for inner in level if isinstance(inner, dict | list)]
        level = [inner for values in nested for inner in values]
    return ""


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    starts = [0, *(match.start() for match in _BOUNDARY.finditer(text) if match.start() > 0)]
    line = 1
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        yield line, text[start:end]
        line += text.count("\n", start, end)


class _Unreadable(Exception):
    def __init__(self, mistake: Mistake) -> None:
        super().__init__(str(mistake))
        self.mistake = mistake


@dataclass(slots=True)
class _Node:
    mark: Mark
    value: Any = None  # of a scalar
    items: list[_Node] | None = None
    pairs: list[tuple[_Node, _Node]] | None = None
    closed: bool = True


class _Builder:
    """One chunk. First a tree of what is written, with aliases as shared nodes; then its value, with aliases followed."""

    def __init__(self, chunk: str, *, source: str, first_line: int) -> None:
        self._source = source
        self._offset = first_line - 1
        self._lines = chunk.splitlines()
        self._events = self._parsed(chunk)
        self._anchors: dict[str, _Node] = {}
        self._written = 0
        self._spent = 0
        self._marks: dict[Path, Mark] = {}
        self._mistakes: list[Mistake] = []

    def documents(self) -> list[Document]:
        found: list[Document] = []
        for event in self._events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            self._anchors, self._marks, self._mistakes, self._written, self._spent = {}, {}, [], 0, 0
            node = self._node(next(self._events), depth=1)
            if node.items is None and node.pairs is None and node.value is None:
                continue
            value = self._value(node, path=(), mark=node.mark)
            found.append(Document(value, self._marks, tuple(self._mistakes)))
        return found

    def _parsed(self, chunk: str) -> Iterator[Any]:
        try:
            yield from yaml.parse(chunk, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            self._explain(error)
        except yaml.YAMLError as error:
            self._refuse(Mark(1 + self._offset, 1), str(error), "Check the text around it.")

    def _explain(self, error: yaml.MarkedYAMLError) -> NoReturn:
        place = error.problem_mark or error.context_mark
        line, column = (place.line, place.column) if place else (0, 0)
        if line >= len(self._lines):  # it ended too soon: the last line there is
            line, column = max(len(self._lines) - 1, 0), 0
        earliest = error.context_mark.line if error.context_mark else line
        for number in range(min(earliest, line), min(line + 1, len(self._lines))):
            indent = self._lines[number][: len(self._lines[number]) - len(self._lines[number].lstrip())]
            if "\t" in indent:
                self._refuse(Mark(number + 1 + self._offset, indent.index("\t") + 1), "a tab in the indentation", "Use spaces.")
        if "quoted scalar" in (error.context or "") and error.context_mark:
            start = error.context_mark
            self._refuse(
                Mark(start.line + 1 + self._offset, start.column + 1),
                "this quote is never closed",
                "Close it, with quotes of the same kind.",
            )
        problem = error.problem or "cannot be read"
        remedy = "Check the indentation; a text with ': ', ' #' or one of {[&*!|>%@` at its start needs quotes."
        if error.context_mark and error.context_mark.line != line:
            remedy = f"It belongs to what begins in line {error.context_mark.line + 1 + self._offset}. {remedy}"
        if line < len(self._lines) and "${" in self._lines[line]:
            remedy = "Inside { } and [ ], a ${…} needs quotes."
        self._refuse(Mark(line + 1 + self._offset, column + 1), problem, remedy)

    def _refuse(self, mark: Mark, message: str, remedy: str, *, path: Path = ()) -> NoReturn:
        raise _Unreadable(Mistake(self._source, mark.line, mark.column, dotted(path), message, remedy))

    def _node(self, event: Any, *, depth: int) -> _Node:
        mark = Mark(event.start_mark.line + 1 + self._offset, event.start_mark.column + 1)
        self._written += 1
        if self._written > VALUES_MAX:
            self._refuse(mark, f"more than {VALUES_MAX:,} values in one document", "Split it.")
        if isinstance(event, yaml.AliasEvent):
            target = self._anchors.get(str(event.anchor))
            if target is None:
                self._refuse(mark, f"nothing above is anchored as &{event.anchor}", "Define it before it is used.")
            if not target.closed:
                self._refuse(mark, f"*{event.anchor} lies inside what it stands for", "Write the value out.")
            return target
        if depth > DEPTH_MAX:
            self._refuse(mark, f"nested deeper than {DEPTH_MAX} levels", "No resource needs that: check the brackets and the indentation.")
        node = _Node(mark)
        if event.anchor:
            self._anchors[event.anchor] = node
        if isinstance(event, yaml.ScalarEvent):
            node.value = self._scalar(event, mark)
            block = event.style in ("|", ">")
            node.mark = Mark(mark.line, mark.column, event.value, mark.line + 1 if block else mark.line)
            return node
        if event.tag and event.tag.removeprefix(_TAG_PREFIX) not in _KNOWN_TAGS:
            self._refuse(mark, f"the tag {event.tag!r} means nothing here", "Remove it.")
        node.closed = False
        if isinstance(event, yaml.SequenceStartEvent):
            node.items = []
            while not isinstance(inner := next(self._events), yaml.SequenceEndEvent):
                node.items.append(self._node(inner, depth=depth + 1))
        else:
            node.pairs = []
            while not isinstance(inner := next(self._events), yaml.MappingEndEvent):
                key = self._node(inner, depth=depth + 1)
                node.pairs.append((key, self._node(next(self._events), depth=depth + 1)))
        node.closed = True
        return node

    def _scalar(self, event: Any, mark: Mark) -> Any:
        text: str = event.value
        tag = str(event.tag or "").removeprefix(_TAG_PREFIX)
        if tag and tag not in ("!", "str", *_KNOWN_TAGS):
            self._refuse(mark, f"the tag {event.tag!r} means nothing here", "Remove it.")
        if event.style not in (None, "") or tag in ("!", "str"):
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _WHOLE.fullmatch(text):
            return int(text)
        return Decimal(text) if _FRACTION.fullmatch(text) else text

    def _value(self, node: _Node, *, path: Path, mark: Mark) -> Any:
        self._spent += 1
        if self._spent > VALUES_MAX or len(path) > DEPTH_MAX:
            self._refuse(mark, f"more than {VALUES_MAX:,} values or {DEPTH_MAX} levels once its aliases are followed", "Use fewer aliases.")
        self._marks[path] = mark
        if node.items is not None:
            return [self._value(item, path=(*path, number), mark=item.mark) for number, item in enumerate(node.items)]
        if node.pairs is None:
            self._marks[path] = Mark(mark.line, mark.column, node.mark.written, node.mark.text_line)
            return node.value
        value: dict[str, Any] = {}
        merged: list[_Node] = []
        for key, inner in node.pairs:
            name = key.mark.written
            if key.items is not None or key.pairs is not None or name is None:
                self._refuse(key.mark, "a key has to be plain text", "A text that begins with '{' or '[' needs quotes.", path=path)
            if name == "<<" and (inner.pairs is not None or inner.items is not None):
                merged += inner.items if inner.items is not None else [inner]
            elif name in value:
                said = f"the key {name[:KEY_SHOWN_MAX]!r} is here twice, first in line {self._marks[(*path, name)].line}"
                self._mistakes.append(
                    Mistake(self._source, key.mark.line, key.mark.column, dotted((*path, name)), said, "Keep one of them.")
                )
            else:
                value[name] = self._value(inner, path=(*path, name), mark=key.mark)
        for source in merged:  # YAML's merge key: what is written here wins, and an earlier source wins over a later one
            for key, inner in source.pairs or []:
                if (name := key.mark.written) is not None and name not in value:
                    value[name] = self._value(inner, path=(*path, name), mark=key.mark)
        return value
