"""The rights that a role of Snowflake needs, as statements: pure text, made without a connection."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from connector.warehouses import _snowflake_sql as sql
from connector.warehouses._grants import Needs, comment
from connector.warehouses._names import parts, quoted
from connector.warehouses.snowflake import Snowflake

_OWN = "USAGE, CREATE TABLE, CREATE STAGE"
"""What makes, fills and drops tables: the role owns those that it makes, which is every other right on them."""


class _Session(NamedTuple):
    """What a session begins with, as SQL writes it; what the YAML leaves out is to be filled in."""

    role: str
    warehouse: str
    database: str
    schema: str


_BLANK = _Session("<role>", "<warehouse>", "<database>", "<schema>")

_Name = tuple[str, ...]
"""The parts of a name, as SQL writes them."""


def granted(settings: Snowflake, needs: Needs) -> list[str]:
    """The statements, each ending in a semicolon, and comments; in an order in which they can be run.

    Raises:
        WarehouseError: A table's name is malformed.
    """
    session = _session(settings)
    here = (session.database, session.schema)
    targets = [_qualified(name, here) for name in needs.targets]
    tables = [name for name in _distinct(_qualified(name, here) for name in needs.tables) if name not in targets]
    ours = [_qualified(settings.state_schema, here[:1])] if needs.compares else []
    own = _distinct([*(name[:-1] for name in targets), *ours])
    schemas = _distinct(name[:-1] for name in tables)
    databases = _distinct((name[0],) for name in (*schemas, *own))
    to = f"TO ROLE {session.role};"
    statements = [
        f"GRANT USAGE ON WAREHOUSE {session.warehouse} {to}",
        *(f"GRANT USAGE ON DATABASE {_joined(name)} {to}" for name in databases),
        *(f"GRANT USAGE ON SCHEMA {_joined(name)} {to}" for name in schemas),
        *(f"GRANT SELECT ON TABLE {_joined(name)} {to}" for name in tables),
        *_queried(needs, session, to),
    ]
    for name in own:
        statements += [f"CREATE SCHEMA IF NOT EXISTS {_joined(name)};", f"GRANT {_OWN} ON SCHEMA {_joined(name)} {to}"]
    used = {session.role, session.warehouse, *(part for name in (*databases, *schemas, *own) for part in name)}
    return [*_notes([blank for blank in _BLANK if blank in used], views=bool(tables)), *statements]


def _session(settings: Snowflake) -> _Session:
    given = (settings.role, settings.warehouse, settings.database, settings.schema_)
    return _Session(*(_folded(name) if name else blank for name, blank in zip(given, _BLANK, strict=True)))


def _folded(name: str) -> str:
    """A name of the settings: a session keeps what is in quotes, and folds what is not."""
    in_quotes = len(name) > len('""') and name[0] == name[-1] == '"'
    return quoted(name[1:-1].replace('""', '"') if in_quotes else name.upper())


def _qualified(name: str, here: _Name) -> _Name:
    """A name with all its parts: those that it leaves out are where the session is."""
    given = [quoted(sql.stored(part)) for part in parts(name)]
    return (*here[: len(here) + 1 - len(given)], *given)


def _queried(needs: Needs, session: _Session, to: str) -> Iterator[str]:
    for sync in needs.queries:
        yield comment(f"sync '{sync}' reads by a query: grant SELECT on what that reads, USAGE on where it is")
    if needs.queries and session.schema != _BLANK.schema:
        schema = f"{session.database}.{session.schema}"
        yield comment("for all of the schema that the settings name:")
        yield comment(f"GRANT USAGE ON DATABASE {session.database} {to}")
        yield comment(f"GRANT USAGE ON SCHEMA {schema} {to}")
        yield comment(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} {to}")
        yield comment(f"GRANT SELECT ON ALL VIEWS IN SCHEMA {schema} {to}")


def _notes(blanks: list[str], *, views: bool) -> Iterator[str]:
    if blanks:
        yield comment(f"fill in {', '.join(blanks)}: the YAML does not name them")
    if views:
        yield comment("where a source is a view, write ON VIEW in place of ON TABLE")


def _distinct(names: Iterable[_Name]) -> list[_Name]:
    return list(dict.fromkeys(names))


def _joined(name: _Name) -> str:
    return ".".join(name)
