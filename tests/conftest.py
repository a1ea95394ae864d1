from collections.abc import Iterator
from pathlib import Path

import pytest

from connector.state.database import State
from connector.state.lease import Lease, hold
from tests.emulators import postgres
from tests.states import Home


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="play the simulated scenarios of this seed alone (tests/simulation)")
    parser.addoption("--step", help="of these the one in which a run dies at this step alone")


@pytest.fixture(params=["sqlite", "postgres"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    """A state of the test's own that nobody has opened yet, of either kind."""
    if request.param == "sqlite":
        yield Home(tmp_path / "state", None)
        return
    server = postgres.new_server()
    yield Home(tmp_path / "state", server)
    postgres.drop(server)


@pytest.fixture
def state(home: Home) -> Iterator[State]:
    """The same, open."""
    with home.opened() as opened:
        yield opened


@pytest.fixture
def lease(state: State) -> Iterator[Lease]:
    """The right to run `customers` on it."""
    with hold(state, "customers", "run-1") as held:
        yield held


@pytest.fixture
def shared_home(tmp_path: Path) -> Iterator[Home]:
    """A state in PostgreSQL that nobody has opened yet."""
    server = postgres.new_server()
    yield Home(tmp_path / "state", server)
    postgres.drop(server)
