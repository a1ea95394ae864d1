"""Names in SQL and in messages, as every warehouse writes them."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import NamedTuple

from connector.errors import WarehouseError
from connector.warehouses._base import Relation

NAMES_SHOWN = 10
"""Names listed where none is close to the one asked for."""


class Part(NamedTuple):
    """One part of a table's name, without its quotes."""

    text: str
    in_quotes: bool


def named(relation: Relation) -> str:
    """The relation in a message."""
    return "the query" if relation.table is None else f"table '{relation.table}'"


def parts(name: str) -> list[Part]:
    """The one to three parts of a table's name; a dot inside double quotes belongs to its part.

    Raises:
        WarehouseError: It has none, too many, or an empty one.
    """
    part = r'(?:"(?:[^"]|"")+"|[^".]+)'
    if not re.fullmatch(rf"{part}(?:\.{part}){{0,2}}", name):
        raise WarehouseError(
            f"the table name '{name}' is not of the form table, schema.table or database.schema.table",
            remedy='put a part that has a dot between double quotes, such as marts."orders.v2"',
        )
    return _parts(name)


def folded(name: str) -> str:
    """A name without quotes and case."""
    return ".".join(part.text for part in _parts(name)).lower()


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """A remedy: the known name with the same last part, or that looks alike, or all of them."""
    by_folded = {folded(candidate): candidate for candidate in known}
    last = folded(name).rpartition(".")[2]
    same = [candidate for key, candidate in by_folded.items() if key.rpartition(".")[2] == last]
    if close := same or [by_folded[key] for key in get_close_matches(folded(name), by_folded, n=1)]:
        return f"did you mean '{close[0]}'?"
    shown = ", ".join(sorted(known)[:NAMES_SHOWN]) + (", …" if len(known) > NAMES_SHOWN else "")
    return f"there are: {shown}" if known else "it has none"


def quoted(name: str) -> str:
    """An identifier of SQL in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def _parts(name: str) -> list[Part]:
    found = re.findall(r'"((?:[^"]|"")+)"|([^".]+)', name)
    return [Part(in_quotes.replace('""', '"') or bare, bool(in_quotes)) for in_quotes, bare in found]
