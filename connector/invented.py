"""The demo's warehouse: invented customers, the same ones each time, and a day's changes.

Addresses are under example.org, and phone numbers in +33 6 39 98, which France keeps free for fiction.
"""

import random
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

CUSTOMERS = 500
UPGRADED = 20
NEW = 5

_FIRST_NAMES = (
    "Adèle", "Amine", "Aya", "Bruno", "Camille", "Chloé", "Daniel", "Elif", "Enzo", "Fatou", "Hugo", "Inès", "Jade",
    "Jules", "Léa", "Liam", "Lina", "Louis", "Manon", "Marta", "Mehdi", "Nadia", "Noé", "Olga", "Paul", "Rosa", "Sami",
    "Tom", "Yuki", "Zoé",
)  # fmt: skip
_LAST_NAMES = (
    "Arnaud", "Benali", "Blanc", "Costa", "Diallo", "Dubois", "Faure", "Garcia", "Girard", "Henry", "Kaya", "Lambert",
    "Leroy", "Martin", "Moreau", "Nguyen", "Petit", "Rossi", "Roux", "Sow",
)  # fmt: skip
_INTERESTS = ("books", "cycling", "cooking", "films", "gardening", "hiking", "music", "running", "travel")

_TABLE = """
    CREATE TABLE marts.customers (
        custom_id VARCHAR, email VARCHAR, phone VARCHAR, language VARCHAR, first_name VARCHAR, born_on DATE,
        plan_name VARCHAR, interests VARCHAR[], orders INTEGER, spend DECIMAL(10, 2), last_updated_at TIMESTAMP
    )
"""


def make(warehouse: Path) -> None:
    """A new DuckDB file with `marts.customers`: CUSTOMERS rows, two of them with a value that breaks a rule."""
    chance = random.Random(2026)  # noqa: S311 - invented people
    rows = [_customer(number, chance) for number in range(1, CUSTOMERS + 1)]
    rows[41]["email"] = "not an address"
    rows[317]["phone"] = "06 39 98 03 17"
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute("CREATE SCHEMA marts")
        connection.execute(_TABLE)
        _insert(connection, rows)


def change(warehouse: Path, now: datetime) -> None:
    """A day's work: UPGRADED customers order and move to the gold plan, one address is corrected, NEW customers arrive.

    Args:
        warehouse: From `make`.
        now: What `last_updated_at` of those rows says; naive, in UTC.
    """
    chance = random.Random(2027)  # noqa: S311 - invented people
    upgraded = [_custom_id(number) for number in range(100, 100 + UPGRADED)]
    arrived = [_customer(number, chance) for number in range(CUSTOMERS + 1, CUSTOMERS + NEW + 1)]
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute(
            "UPDATE marts.customers SET plan_name = 'gold', orders = orders + 1, spend = spend + 49.90,"
            " last_updated_at = ? WHERE custom_id IN (SELECT unnest(?))",
            [now, upgraded],
        )
        connection.execute(
            "UPDATE marts.customers SET email = 'customer42@example.org', last_updated_at = ? WHERE custom_id = ?",
            [now, _custom_id(42)],
        )
        _insert(connection, [{**row, "last_updated_at": now} for row in arrived])


def _insert(connection: duckdb.DuckDBPyConnection, rows: list[dict[str, Any]]) -> None:
    places = ", ".join("?" * len(rows[0]))
    connection.executemany(f"INSERT INTO marts.customers VALUES ({places})", [list(row.values()) for row in rows])  # noqa: S608


def _customer(number: int, chance: random.Random) -> dict[str, Any]:
    first, last = chance.choice(_FIRST_NAMES), chance.choice(_LAST_NAMES)
    orders = chance.choice((0, 1, 1, 2, 3, 5, 8))
    born = date(1950, 1, 1) + timedelta(days=chance.randrange(20_000))
    return {
        "custom_id": _custom_id(number),
        "email": f"customer{number}@example.org",
        "phone": f"+336399{80_000 + number:05d}" if chance.random() < 0.7 else None,  # noqa: PLR2004
        "language": chance.choice(("fr", "fr", "fr", "en", "es")),
        "first_name": f"{first} {last[0]}.",
        "born_on": born if chance.random() < 0.8 else None,  # noqa: PLR2004
        "plan_name": chance.choice(("free", "free", "silver", "gold", None)),
        "interests": chance.sample(_INTERESTS, chance.randrange(4)),
        "orders": orders,
        "spend": sum((Decimal(chance.randrange(500, 15_000)) / 100 for _ in range(orders)), Decimal(0)),
        "last_updated_at": datetime(2026, 1, 15, 6) + timedelta(seconds=number),  # noqa: DTZ001 - the column has no zone
    }


def _custom_id(number: int) -> str:
    return f"customer-{number:04d}"
