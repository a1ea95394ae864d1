"""Nested values from JSON text, which warehouses have for their semi-structured types; and the names inside objects.

Plain Python, text by text: no expression can tell a key that is there twice, or half a surrogate pair.
"""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from json import JSONDecoder, JSONEncoder
from typing import Any, Literal, NamedTuple, cast

import polars as pl

from connector.rules import ARRAY_MAX, OBJECT_ATTRIBUTES_MAX, OBJECT_DEPTH_MAX, TEXT_MAX, URL_MAX, Rule, Typed

Wrapper = Literal["date", "url"]
Shape = Literal["object", "objects", "texts"]

NAMES_ALLOWED = "1 to 30 of a-z, 0-9 and _"

_NAME = re.compile(
    r"(?P<wrapper>date|url)(?:__(?P<prefixed>[a-z0-9_]{1,30})|\((?P<wrapped>[a-z0-9_]{1,30})\))"
    r"|(?P<plain>[a-z0-9_]{1,30})"
)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://(?:[^\s/?#@]*@)?[^\s/?#@:]\S*")  # as `rules.url_rules`
_DAY, _TIME, _ZONE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}", r"[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?", r"[+-][0-9]{2}:[0-9]{2}"
_DATE = re.compile(rf"{_DAY}[Tt ]{_TIME}(?:[Zz]|{_ZONE})")
_NO_DATE = "not a date and time with a zone (RFC 3339)"
_INTEGERS = range(-(2**63), 2**63)
_TOO_DEEP = f"objects at more than {OBJECT_DEPTH_MAX} levels"

_DECODE = JSONDecoder(object_pairs_hook=tuple).decode  # an object is a tuple of pairs: keys that repeat stay visible
_ENCODE = JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_READ = pl.Struct({"value": pl.String, "reason": pl.String})


class Name(NamedTuple):
    """A field's or key's bare name, and what its wrapper or prefix makes of the value."""

    bare: str
    wrapper: Wrapper | None


class Place(NamedTuple):
    """Where a value stands.

    Attributes:
        path: Bare names with dots between, from the attribute down; empty for the attribute itself.
        level: That of an object, were one to stand here; the attribute is 1.
    """

    path: str = ""
    level: int = 1

    def at(self, name: str) -> "Place":
        """The place of a member of the object that stands here."""
        return Place(f"{self.path}.{name}" if self.path else name, self.level + 1)

    def told(self, reason: str) -> str:
        """The reason with the place before it."""
        return f"{self.path}: {reason}" if self.path else reason


@lru_cache(maxsize=1024)  # text after text has the same few names
def named(name: str) -> Name | None:
    """What `x`, `date(x)`, `date__x`, `url(x)` or `url__x` names; None where it cannot be a name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    bare = match["plain"] or match["prefixed"] or match["wrapped"]
    return Name(bare, cast("Wrapper | None", match["wrapper"]))


def json_key(name: str, type_: str | None) -> str:
    """The key under which Batch expects a value of this type."""
    return f"{type_}({name})" if type_ in ("date", "url") else name


def read(text: pl.Expr, shapes: Sequence[Shape], otherwise: str, *, unordered: bool) -> Typed:
    """Compact JSON text of what a column of JSON text holds; its one rule's reason differs by row.

    Args:
        text: String.
        shapes: What the text may hold.
        otherwise: The reason where it holds something else.
        unordered: Sort an array of text and drop its repeated items.
    """
    # Python, for each distinct text: Polars reads JSON into one schema for all rows, and fails as a whole at one bad
    # text.
    found = text.map_batches(_Reader(shapes, otherwise, unordered=unordered), return_dtype=_READ)
    reason = found.struct.field("reason")
    return Typed(found.struct.field("value"), (Rule(reason, reason.is_not_null()),))


class _BrokenError(Exception):
    """A value breaks a rule; the text is the reason, with the place and without the value."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(place.told(reason))


class _Reader:
    """Reads a column, and keeps it until the next: its values and its reasons are asked for one after the other."""

    def __init__(self, shapes: Sequence[Shape], otherwise: str, *, unordered: bool) -> None:
        self._shapes, self._otherwise, self._unordered = shapes, otherwise, unordered
        self._last = (pl.Series(dtype=pl.String), pl.Series(dtype=_READ))

    def __call__(self, texts: pl.Series) -> pl.Series:
        last, found = self._last
        if last.equals(texts):
            return found
        by_text = {text: self._judge(text) for text in texts.unique().to_list()}
        rows = [by_text[text] for text in texts.to_list()]
        found = pl.DataFrame(rows, schema=dict(_READ), orient="row").to_struct()
        self._last = (texts, found)
        return found

    def _judge(self, text: str | None) -> tuple[str | None, str | None]:
        """The text to send (None: no value), or the reason why it stays back."""
        if not text:
            return None, None
        try:
            value = self._value(_DECODE(text))
        except _BrokenError as error:
            return None, str(error)
        except RecursionError:
            return None, _TOO_DEEP
        except ValueError:
            return None, "not JSON"
        return (None if value is None else _ENCODE(value)), None

    def _value(self, given: Any) -> Any:  # noqa: ANN401 - parsed JSON
        root = Place()
        if given is None or given in ((), []):
            return None
        shape = "object" if isinstance(given, tuple) else _items_shape(given, root) if isinstance(given, list) else None
        if shape not in self._shapes:
            raise _BrokenError(root, self._otherwise)
        if shape == "texts" and self._unordered:
            given = sorted(set(given))
        return _value(given, None, root)


def _value(given: Any, wrapper: Wrapper | None, place: Place) -> Any:  # noqa: ANN401 - parsed JSON
    """The value as it will be sent, None where it counts as none."""
    if given is None or given in ("", (), []):
        return None
    if wrapper:
        return _date(given, place) if wrapper == "date" else _url(given, place)
    if isinstance(given, str):
        return _text(given, place)
    if isinstance(given, tuple):
        return _object(given, place)
    if isinstance(given, list):
        return _array(given, place)
    return given if isinstance(given, bool) else _number(given, place)


def _object(pairs: Sequence[tuple[str, Any]], place: Place) -> dict[str, Any] | None:
    if pairs and place.level > OBJECT_DEPTH_MAX:
        raise _BrokenError(place, _TOO_DEEP)
    names: set[str] = set()
    found: dict[str, Any] = {}
    for key, given in pairs:
        name = named(key)
        if name is None:
            raise _BrokenError(place, f"a name is not {NAMES_ALLOWED}")
        if name.bare in names:
            raise _BrokenError(place.at(name.bare), "the name is there twice")
        names.add(name.bare)
        value = _value(given, name.wrapper, place.at(name.bare))
        if value is not None:
            found[json_key(name.bare, name.wrapper)] = value
    if len(found) > OBJECT_ATTRIBUTES_MAX:
        raise _BrokenError(place, f"more than {OBJECT_ATTRIBUTES_MAX} attributes")
    return found or None


def _array(items: list[Any], place: Place) -> list[Any] | None:
    found: list[Any]
    if _items_shape(items, place) == "texts":
        found = [_text(item, place, whose="an item is ") for item in items]
    else:
        found = [item for pairs in items if (item := _object(pairs, place))]
    if len(found) > ARRAY_MAX:
        raise _BrokenError(place, f"more than {ARRAY_MAX} items")
    return found or None


def _items_shape(items: list[Any], place: Place) -> Shape:
    if all(isinstance(item, str) for item in items):
        return "texts"
    if all(isinstance(item, tuple) for item in items):
        return "objects"
    raise _BrokenError(place, "an item is null" if None in items else "the items are neither all text nor all objects")


def _number(number: float, place: Place) -> float:
    if isinstance(number, int):
        if number not in _INTEGERS:
            raise _BrokenError(place, "a number outside 64 bits")
        return number
    if not math.isfinite(number):
        raise _BrokenError(place, "not a finite number (NaN or infinite)")
    return number + 0.0  # -0.0 and 0.0 are one value


def _text(text: str, place: Place, *, whose: str = "") -> str:
    if not text.strip():
        raise _BrokenError(place, f"{whose}empty or only white space" if whose else "only white space")
    if _units(text, place) > TEXT_MAX:
        raise _BrokenError(place, f"{whose}longer than {TEXT_MAX} characters")
    return text


def _units(text: str, place: Place) -> int:
    """Length in UTF-16 units."""
    try:
        return len(text.encode("utf-16-le")) // 2
    except UnicodeEncodeError:
        raise _BrokenError(place, "half a surrogate pair, which is no text") from None


def _url(given: object, place: Place) -> str:
    if not (isinstance(given, str) and _URL.fullmatch(given)):
        raise _BrokenError(place, "not a URL with a scheme and a host")
    if _units(given, place) > URL_MAX:
        raise _BrokenError(place, f"a URL longer than {URL_MAX} characters")
    return given


def _date(given: object, place: Place) -> str:
    if not (isinstance(given, str) and _DATE.fullmatch(given)):
        raise _BrokenError(place, _NO_DATE)
    try:
        moment = datetime.fromisoformat(given.upper()).astimezone(UTC).replace(tzinfo=None)
    except ValueError:
        raise _BrokenError(place, _NO_DATE) from None
    except OverflowError:
        raise _BrokenError(place, "a date outside the years 1 to 9999") from None
    return moment.isoformat(timespec="milliseconds" if moment.microsecond // 1000 else "seconds") + "Z"
