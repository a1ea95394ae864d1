from collections.abc import Iterator

import pytest

from tests.emulators import snowflake_bench
from tests.emulators.environments import MissingError, required


@pytest.fixture(scope="session")
def snowflake_port(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[int]:
    """The port of the Snowflake emulator, one for all workers."""
    base = tmp_path_factory.getbasetemp()
    try:
        with snowflake_bench.emulator(base if worker_id == "master" else base.parent) as port:
            yield port
    except MissingError as missing:
        required(missing)
