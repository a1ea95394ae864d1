import gc
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place for one scenario, in memory where there is one: a simulated power cut does not need a disk."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder in it is made for us alone
    made = Path(tempfile.mkdtemp(prefix="simulation-", dir=memory if memory.is_dir() else None))
    yield made / "project"
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _silent_dead() -> Iterator[None]:
    """What a dead run's tasks would have complained about is lost with it, whenever Python finds them."""
    logger = logging.getLogger("asyncio")
    logger.disabled = True
    yield
    gc.collect()
    logger.disabled = False
