"""The demo's warehouse: invented customers, the same ones each time, their orders of the last hours, a day's changes.

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
ORDERS = 600
HOURS = 20
"""How long the orders go back: Batch takes events of 24 hours, so that there is time to try what comes after."""

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

_PRODUCTS = (
    ("BK-101", "Notebook", "6.50"), ("BK-204", "Cookbook", "24.00"), ("SP-310", "Running socks", "12.90"),
    ("SP-377", "Water bottle", "18.00"), ("GA-018", "Tomato seeds", "3.20"), ("TR-552", "Travel pillow", "29.90"),
)  # fmt: skip
_TAGS = ("discount", "express", "gift", "newsletter")

_TABLES = """
    CREATE TABLE marts.customers (
        custom_id VARCHAR, email VARCHAR, phone VARCHAR, language VARCHAR, first_name VARCHAR, born_on DATE,
        plan_name VARCHAR, interests VARCHAR[], orders INTEGER, spend DECIMAL(10, 2), last_updated_at TIMESTAMP
    );
    CREATE TABLE marts.orders (
        order_id VARCHAR, custom_id VARCHAR, ordered_at TIMESTAMP, status VARCHAR, tags VARCHAR[],
        amount DECIMAL(10, 2), items STRUCT(sku VARCHAR, title VARCHAR, quantity INTEGER, price DECIMAL(10, 2))[],
        loaded_at TIMESTAMP
    )
"""


def make(warehouse: Path, now: datetime) -> None:
    """A new DuckDB file with two tables.

    `marts.customers` has CUSTOMERS rows, two of them with a value that breaks a rule; `marts.orders` has ORDERS rows of
    the last HOURS.

    Args:
        warehouse: Does not exist.
        now: The end of those hours; naive, in UTC.
    """
    chance = random.Random(2026)  # noqa: S311 - invented people
    rows = [_customer(number, chance) for number in range(1, CUSTOMERS + 1)]
    rows[41]["email"] = "not an address"
    rows[317]["phone"] = "06 39 98 03 17"
    with duckdb.connect(str(warehouse)) as connection:
        connection.begin()
        connection.execute("CREATE SCHEMA marts")
        connection.execute(_TABLES)
        _insert(connection, "marts.customers", rows)
        _insert(connection, "marts.orders", _orders(now))
        connection.commit()


def change(warehouse: Path, now: datetime) -> None:
    """A day's work: UPGRADED customers order the gold plan and get it, one address is corrected, NEW customers arrive.

    Args:
        warehouse: From `make`.
        now: What `last_updated_at` and `loaded_at` of those rows say; naive, in UTC.
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
        _insert(connection, "marts.customers", [{**row, "last_updated_at": now} for row in arrived])
        gold = [{"sku": "PL-900", "title": "Gold plan", "quantity": 1, "price": Decimal("49.90")}]
        bought = enumerate(upgraded, ORDERS + 1)
        _insert(connection, "marts.orders", [_order(number, who, now, gold) for number, who in bought])


def rows(warehouse: Path, table: str) -> list[dict[str, Any]]:
    """All rows of a table; moments in UTC."""
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.execute(f"FROM {table}").fetchall()
        names = [column[0] for column in connection.description or ()]
    return [dict(zip(names, row, strict=True)) for row in found]


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: list[dict[str, Any]]) -> None:
    places = ", ".join("?" * len(rows[0]))
    connection.executemany(f"INSERT INTO {table} VALUES ({places})", [list(row.values()) for row in rows])  # noqa: S608


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


def _orders(now: datetime) -> list[dict[str, Any]]:
    """ORDERS orders, evenly over the last HOURS; some customers have several."""
    chance = random.Random(2028)  # noqa: S311 - invented people
    found = []
    for number in range(1, ORDERS + 1):
        at = now - timedelta(hours=HOURS) * (ORDERS + 1 - number) / (ORDERS + 1)
        items = [
            {"sku": sku, "title": title, "quantity": chance.randrange(1, 4), "price": Decimal(price)}
            for sku, title, price in chance.sample(_PRODUCTS, chance.randrange(1, 4))
        ]
        order = _order(number, _custom_id(chance.randrange(1, CUSTOMERS + 1)), at, items)
        found.append({**order, "tags": chance.sample(_TAGS, chance.randrange(3))})
    return found


def _order(number: int, custom_id: str, at: datetime, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "order_id": f"order-{number:05d}",
        "custom_id": custom_id,
        "ordered_at": at.replace(microsecond=0),
        "status": "paid" if number % 3 else "shipped",
        "tags": ["subscription"],
        "amount": sum((item["quantity"] * item["price"] for item in items), Decimal(0)),
        "items": items,
        "loaded_at": at,
    }


def _custom_id(number: int) -> str:
    return f"customer-{number:04d}"
