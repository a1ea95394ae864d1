"""One YAML file as plain values, each with its line and column: a strict part of YAML 1.2.

Aliases, tags, merge keys and directives are refused: they make a file mean something else than what it shows,
and nine lines of aliases make a document of a billion values.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml import events as yaml
from ruamel.yaml.error import MarkedYAMLError, StringMark
from ruamel.yaml.reader import ReaderError

from connector._model import KeyPath
from connector.config._document import Document, Marks, Place, Value
from connector.config._wording import quoted

LARGEST_FILE = 256 * 1024
"""Bytes of one configuration file."""

DEEPEST = 20
"""Levels of mappings and lists inside each other."""

_BROKEN = "the YAML breaks off here; check the spaces before the key, brackets, commas and quotes"
_SURROGATE = "half a surrogate pair is no character; write the character itself"


class _RefusedError(Exception):
    """The rest of the file cannot be read."""


def read_document(path: Path, file: str) -> Document:
    """The file's values with their places; what is wrong with its YAML is in `problems`, never raised.

    Args:
        path: The file to read, at most 256 kB of UTF-8.
        file: Its name in the problems.
    """
    document = Document(file)
    with suppress(_RefusedError):
        _Composer(document, _text(path, document)).compose()
    return document


def _stopped(document: Document, place: Place, message: str) -> _RefusedError:
    document.refuse(place, message)
    document.unknown.add(())
    return _RefusedError()


def _text(path: Path, document: Document) -> str:
    start = Place(1, 1)
    try:
        if not path.is_file():  # a pipe or a device would never end
            raise _stopped(document, start, "this is no file; write the YAML into a file of this name")
        with path.open("rb") as stream:
            raw = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        problem = f"the file cannot be read ({type(error).__name__}); check its permissions"
        raise _stopped(document, start, problem) from None
    if len(raw) > LARGEST_FILE:
        raise _stopped(document, start, "the file is larger than 256 kB, the most that is read; shorten it")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = _place_after(raw[: error.start].decode("utf-8-sig", errors="replace"))
        raise _stopped(document, place, "this is not UTF-8 text; save the file as UTF-8") from None


class _Composer:
    """Builds the values of one document from ruamel's events, the level that shows aliases and places."""

    def __init__(self, document: Document, text: str) -> None:
        self._document = document
        self._text = text
        self._events: Iterator[yaml.Event] = YAML(typ="safe", pure=True).parse(text)
        self._read_up_to = Place(1, 1)

    def compose(self) -> None:
        self._next()  # the stream's start
        start = self._next()
        if isinstance(start, yaml.StreamEndEvent):
            raise self._stop(Place(1, 1), "the file is empty; write its keys or remove it")
        if isinstance(start, yaml.DocumentStartEvent) and (start.version or start.tags):
            before = re.split(r"^%", self._text, maxsplit=1, flags=re.MULTILINE)[0]
            self._document.refuse(_place_after(before), "a '%' line is not available here; remove it")
        root = self._next()
        self._document.marks[()] = Marks(_place(root), _place(root))
        self._document.value = self._value(root, ())
        if not isinstance(self._document.value, dict) and () not in self._document.unknown:
            self._document.refuse(_place(root), "the file must hold a mapping: lines of 'key: value'")
            self._document.unknown.add(())
        self._next()  # the document's end
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            raise self._stop(_place(after), "a second document begins here; one file holds one, remove this '---'")

    def _next(self) -> yaml.Event:
        try:
            event = next(self._events)
        except ReaderError as error:
            place = _place_after(self._text[: error.position])
            raise self._stop(
                place, "a control character stands here; remove it, or write it as \\x.. in double quotes"
            ) from None
        except MarkedYAMLError as error:
            raise self._stop(*_syntax(error, self._text)) from None
        except (
            ValueError,
            OverflowError,
        ):  # ruamel's own slips: a character beyond Unicode, an endless version
            raise self._stop(self._read_up_to, _BROKEN) from None
        self._read_up_to = _place(event)
        return event

    def _stop(self, place: Place, message: str) -> _RefusedError:
        return _stopped(self._document, place, message)

    def _value(self, event: yaml.Event, path: KeyPath) -> Value:
        if isinstance(event, yaml.AliasEvent):
            self._unknown(event, path, "an alias ('*') is not available here; write the value out")
            return None
        if not isinstance(event, yaml.ScalarEvent | yaml.MappingStartEvent | yaml.SequenceStartEvent):
            raise self._stop(_place(event), _BROKEN)
        if event.anchor:
            self._document.refuse(_place(event), "an anchor ('&') is not available here; write each value out")
        if event.tag:
            self._document.refuse(
                _place(event), "a tag ('!') is not available here; remove it, types follow from the key"
            )
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if len(path) >= DEEPEST:
            raise self._stop(_place(event), f"more than {DEEPEST} levels inside each other; write fewer")
        return self._mapping(path) if isinstance(event, yaml.MappingStartEvent) else self._sequence(path)

    def _unknown(self, event: yaml.Event, path: KeyPath, message: str) -> None:
        self._document.refuse(_place(event), message)
        self._document.unknown.add(path)

    def _scalar(self, event: yaml.ScalarEvent, path: KeyPath) -> Value:
        if re.search("[\ud800-\udfff]", event.value):
            self._unknown(event, path, _SURROGATE)
            return None
        return _plain(event.value) if event.implicit[0] else str(event.value)

    def _sequence(self, path: KeyPath) -> list[Value]:
        items: list[Value] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            here = (*path, len(items))
            self._document.marks[here] = Marks(_place(event), _place(event))
            items.append(self._value(event, here))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, Value]:
        pairs: dict[str, Value] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event, path)
            value = self._next()
            here = (*path, key)
            if key in pairs:
                first = self._document.marks[here].key.line
                self._document.refuse(
                    _place(event), f"the key {quoted(key)} stands twice, first in line {first}; keep one"
                )
                self._skip(value, here)
                continue
            self._document.marks[here] = Marks(_place(event), _place(value))
            pairs[key] = self._value(value, here)
        return pairs

    def _key(self, event: yaml.Event, path: KeyPath) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise self._stop(_place(event), "a key must be a plain name; put quotes around it if it holds brackets")
        if event.value == "<<" and event.implicit[0]:
            self._unknown(event, path, "a merge key ('<<') is not available here; write the keys out")
        if event.anchor or event.tag:
            self._document.refuse(_place(event), "a key takes no anchor or tag; write the name alone")
        if re.search("[\ud800-\udfff]", event.value):
            raise self._stop(_place(event), _SURROGATE)
        return str(event.value)

    def _skip(self, event: yaml.Event, path: KeyPath) -> None:
        """Read a refused value past, so that only its own mistakes of YAML are told."""
        marks = dict(self._document.marks)
        self._value(event, path)
        self._document.marks = marks


def _plain(text: str) -> Value:
    """A plain scalar by the core schema of YAML 1.2: `no` and `1:20` are text."""
    if text in {"", "~", "null", "Null", "NULL"}:
        return None
    if text in {"true", "True", "TRUE", "false", "False", "FALSE"}:
        return text.lower() == "true"
    if re.fullmatch(r"[-+]?[0-9]{1,18}", text):  # longer ones are no setting, and Python refuses to read very long ones
        return int(text)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]{1,18}(\.[0-9]*)?)([eE][-+]?[0-9]{1,2})?", text):
        return float(text)
    return text


def _syntax(error: MarkedYAMLError, text: str) -> tuple[Place, str]:
    """Where and what a mistake of YAML is, not in ruamel's words: they quote the file, secrets too."""
    problem = error.problem or ""
    place, opening = _marked(error.problem_mark), _marked(error.context_mark)
    if "'\\t'" in problem or _char_at(text, place) == "\t":
        return place, "a tab stands here; YAML wants spaces"
    if ("end of stream" in problem or "stream end" in problem) and opening < place:
        return opening, "what opens here, a quote or a bracket, is never closed; close it"
    if "mapping values are not allowed" in problem:
        return place, "a second ': ' on this line; put the value in quotes, or check the spaces before the key"
    if "could not find expected ':'" in problem:
        return place, "a key without its ':'; write 'key: value'"
    return place, _BROKEN


def _marked(mark: object) -> Place:
    return Place(mark.line + 1, mark.column + 1) if isinstance(mark, StringMark) else Place(1, 1)


def _char_at(text: str, place: Place) -> str:
    lines = text.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    return line[place.column - 1 : place.column]


def _place(event: yaml.Event) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)


def _place_after(text: str) -> Place:
    return Place(text.count("\n") + 1, len(text) - text.rfind("\n"))
