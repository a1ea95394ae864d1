"""Where a test's state lies: the contract of the state holds in its folder and in PostgreSQL alike."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from connector.state import rate
from connector.state.database import State, open_state
from connector.state.postgres import Server, server

PROJECT = "project_s3cret"


class Home(NamedTuple):
    """A state that can be opened, from any process."""

    folder: Path
    server: Server | None

    def opened(self, project: str = PROJECT) -> AbstractContextManager[State]:
        """The state, made if there is none."""
        return open_state(self.folder, project, self.server)

    def arguments(self) -> list[str]:
        """What another process needs to open it, for `of`."""
        if self.server is None:
            return [str(self.folder)]
        address = self.server.url.set(drivername="postgresql").render_as_string(hide_password=False)
        return [str(self.folder), address, self.server.schema]

    @classmethod
    def of(cls, folder: str, *address: str) -> "Home":
        """The home of these arguments."""
        return cls(Path(folder), server(*address) if address else None)


def held_for(state: State, endpoint: str) -> float:
    """Seconds until anybody may send to the endpoint again."""
    with state.read() as connection:
        return rate.held(connection, endpoint)
