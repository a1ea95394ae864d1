"""The Snowflake emulator, and a warehouse of a test's own in it."""

import sys
import sysconfig
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx
import snowflake.connector

from connector.warehouses.snowflake import Snowflake
from tests.emulators.environments import Environment, installed, running

ENVIRONMENT = Environment(
    name="snowflake",
    pythons=(f"{sys.version_info.major}.{sys.version_info.minor}",),  # of the tests, which import its client
    requirements=("fakesnow[server]==0.12.1", "snowflake-connector-python[pandas]==4.8.1"),
    ports=1,
    command=("{folder}/bin/python", str(Path(__file__).with_name("snowflake_server.py")), "{0}"),
)

_OTHER_CLIENT = """
import sys
sys.path += sys.argv.pop(1).split("|")
import pytest, snowflake.connector
assert snowflake.connector.__version__.startswith("4.")
sys.exit(pytest.main(sys.argv[1:]))
"""


def pytest_with_client_4(*arguments: str) -> list[str]:
    """A command that runs tests with the client's version 4: that of the emulator's environment, before our own."""
    running(ENVIRONMENT)  # for them to share; where it cannot be had they are skipped here
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return [str(installed(ENVIRONMENT) / "bin/python"), "-c", _OTHER_CLIENT, "|".join(ours), *arguments]


class SnowflakeBench:
    """A database of a test's own."""

    types: ClassVar = {
        "integer": "NUMBER(38,0)",
        "small": "NUMBER(5,0)",
        "huge": "NUMBER(37,0)",  # the emulator keeps 38 digits in 64 bits
        "text": "VARCHAR",
        "float": "FLOAT",
        "decimal": "NUMBER(12,2)",
        "boolean": "BOOLEAN",
        "date": "DATE",
        "naive": "TIMESTAMP_NTZ",
        "aware": "TIMESTAMP_TZ",
        "json": "VARIANT",
    }
    arrays_hold_nulls = True
    series = "SELECT SEQ4() AS i, 'row ' || SEQ4() AS t FROM TABLE(GENERATOR(ROWCOUNT => 120000))"
    failing = (
        "SELECT CAST(CASE WHEN SEQ4() = 200000 THEN 's3cret' ELSE '1' END AS INTEGER) AS i"
        " FROM TABLE(GENERATOR(ROWCOUNT => 250000))"
    )

    def __init__(self, root: Path) -> None:
        self.database = f"T{uuid.uuid4().hex}".upper()
        (self.port,) = running(ENVIRONMENT)
        (root / "password").write_text("not checked")
        self.settings = Snowflake.model_validate(
            {
                "type": "snowflake",
                "account": "test",
                "user": "tester",
                "password": {"file": "password"},
                "database": self.database,
                "schema": "PUBLIC",
                "host": "127.0.0.1",
                "port": self.port,
                "protocol": "http",
            }
        )

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """The rows of the last statement."""
        with self.connected() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    @contextmanager
    def connected(self) -> Iterator[Any]:
        connection = snowflake.connector.connect(
            account="test",
            user="tester",
            password="not checked",
            host="127.0.0.1",
            port=self.port,
            protocol="http",
            database=self.database,
            schema="PUBLIC",
            paramstyle="qmark",
            enable_server_session_keep_alive_auto_detection=False,
            session_parameters={"TIMEZONE": "UTC"},
        )
        try:
            yield connection
        finally:
            connection.close()

    def create(self, table: str, columns: dict[str, str], rows: Sequence[tuple[Any, ...]]) -> None:
        declared = ", ".join(f'"{name}" {self.types[kind]}' for name, kind in columns.items())
        values = ", ".join(
            "PARSE_JSON(?)" if kind == "json" else f"CAST(? AS {self.types[kind]})" for kind in columns.values()
        )
        with self.connected() as connection, connection.cursor() as cursor:
            if "." in table:
                cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {table.partition('.')[0]}")
            cursor.execute(f"CREATE TABLE {table} ({declared})")
            for row in rows:
                bound = [None if value is None else str(value) for value in row]
                cursor.execute(f"INSERT INTO {table} SELECT {values}", bound)

    def rest(self) -> None:
        """A stamp can always be had."""

    def diary(self) -> list[dict[str, Any]]:
        """What the emulator saw of the sessions for this database: logins, statements, logouts."""
        return list(httpx.get(f"http://127.0.0.1:{self.port}/diary/{self.database}").json())

    def fail(self, kind: str) -> None:
        """From now on the emulator fails: see its `fault`."""
        httpx.post(f"http://127.0.0.1:{self.port}/fault/{self.database}/{kind}").raise_for_status()
