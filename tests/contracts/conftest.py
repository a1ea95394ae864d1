import os
from collections.abc import Iterator

import pytest

from tests.emulators import snowflake_bench
from tests.emulators.environments import MissingError, required


@pytest.fixture(scope="session")
def snowflake_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of the Snowflake emulator, one for all workers."""
    base = tmp_path_factory.getbasetemp()
    try:
        with snowflake_bench.emulator(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) as port:
            yield port
    except MissingError as missing:
        required(missing)
