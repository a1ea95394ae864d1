from collections.abc import Callable
from pathlib import Path

import pytest

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
