from collections.abc import Callable
from pathlib import Path

import pytest

from connector.config import load_project
from connector.errors import ConfigError, Problem

MAIN = """\
batch:
  project_key: {env: BATCH_PROJECT_KEY}
  rest_key: {env: BATCH_REST_API_KEY}
warehouses:
  local: {type: duckdb, path: warehouse.duckdb}
"""

SYNC = """\
kind: profiles
warehouse: local
source: {table: marts.customers}
"""

EVENTS = """\
kind: events
warehouse: local
source: {table: marts.orders}
"""

SECRET = "sk_9f86d081884c7d65"

Write = Callable[[dict[str, str]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a small project, with these files added or replaced, and answers with its folder."""

    def write(files: dict[str, str]) -> Path:
        for name, text in {"connector.yaml": MAIN, "syncs/customers.yaml": SYNC, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return write


def problems_of(root: Path) -> tuple[Problem, ...]:
    """The problems of a project that is refused, none of which shows the secret."""
    with pytest.raises(ConfigError) as raised:
        load_project(root)
    assert raised.value.exit_status == 2
    assert SECRET not in f"{raised.value!r} {raised.value} {raised.value.problems}"
    return raised.value.problems


def the_problem(folder: Path, file: str, text: str) -> str:
    """The message of the one problem of the project, which stands where the `⟪` is; the file is written without it."""
    before, mark, after = text.partition("⟪")
    assert mark
    (folder / "syncs").mkdir()
    (folder / "connector.yaml").write_text(MAIN, encoding="utf-8")
    (folder / "syncs/customers.yaml").write_text(SYNC, encoding="utf-8")
    (folder / file).write_text(before + after, encoding="utf-8")
    (problem,) = problems_of(folder)
    place = (file, before.count("\n") + 1, len(before) - before.rfind("\n"))
    assert problem[:3] == place
    return problem.message
