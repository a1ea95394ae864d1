"""When a Snowflake table may have changed: what tells that needs no virtual warehouse, and no table is read."""

from collections.abc import Mapping, Sequence
from typing import Any

import snowflake.connector as driver

from connector.warehouses import _snowflake_sql as sql
from connector.warehouses._base import digest
from connector.warehouses._names import parts, quoted

REFUSALS = ("02", "0A", "42")
"""Classes of SQL states with which a function is not there, or not for this table or this role."""

_KINDS = ("TABLE", "TRANSIENT")


def taken(cursor: Any, table: str, fields: Sequence[sql.Field]) -> str | None:  # noqa: ANN401 - two versions' own class
    """The table's stamp; None of what is no plain table, or where Snowflake refuses to tell.

    What is shown tells of a table of the same name that took this one's place, the description of columns that were
    added, dropped or redefined, and the function of rows that were written. It needs no virtual warehouse, which
    https://github.com/drt-hub/drt/pull/985 tried on a real account.

    Args:
        cursor: An open one.
        table: As the YAML names it.
        fields: The table's columns.
    """
    *place, own = (sql.stored(part) for part in parts(table))
    here = place or [cursor.connection.schema]
    if not here[0]:
        return None
    try:
        cursor.execute(f"SHOW TABLES LIKE {_literal(own)} IN SCHEMA {'.'.join(map(quoted, here))}")
        names = [column.name.lower() for column in cursor.description or ()]
        shown = [found for row in cursor.fetchall() if (found := dict(zip(names, row, strict=True)))["name"] == own]
        if len(shown) != 1 or not _is_plain(shown[0]):  # a pattern finds more than the name, and no view
            return None
        full = ".".join(quoted(str(shown[0][name])) for name in ("database_name", "schema_name", "name"))
        (changed,) = cursor.execute(f"SELECT SYSTEM$LAST_CHANGE_COMMIT_TIME({_literal(full)})").fetchone()
    except driver.ProgrammingError as error:
        if (error.sqlstate or "")[:2] in REFUSALS:
            return None
        raise
    if changed is None:
        return None
    told = [str(shown[0].get(name)) for name in ("created_on", "kind", "rows", "bytes")]
    return digest(full, told, str(changed), [(field.name, field.type) for field in fields])


def _is_plain(shown: Mapping[str, Any]) -> bool:
    """Whether only writing changes it: no external, dynamic, hybrid, Iceberg or event table, nor what is to come."""
    special = any(value == "Y" for name, value in shown.items() if name.startswith("is_"))
    return shown.get("kind") in _KINDS and not special


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
