"""Where the state is, as `connector.yaml` says it: a folder, or a database by a URL that is kept elsewhere."""

import subprocess
import sys

import pytest

from connector.config import load_project
from connector.errors import ConfigError
from tests.config.conftest import MAIN, SECRET, Write

STATE = "state: {database: {env: CONNECTOR_STATE_URL}, files: /mnt/shared, schema: batch_eu}\n"


def test_a_database_is_read_as_written(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folder, schema and URL reach their settings; the URL's password is in no text of them."""
    monkeypatch.setenv("CONNECTOR_STATE_URL", f"postgresql://u:{SECRET}@db.internal:5433/ops?sslmode=verify-full")
    project = load_project(write({"connector.yaml": MAIN + STATE}))
    server = project.state_server()
    assert server
    assert (str(project.state_dir), server.schema, server.url.port) == ("/mnt/shared", "batch_eu", 5433)
    assert (server.url.password, server.url.query["sslmode"]) == (SECRET, "verify-full")
    assert SECRET not in repr(server) + str(server) + str(project.settings)


def test_a_bucket_is_read_as_written(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The URI reaches the state as it is, and the folder of the project is its cache: the default, or the one named."""
    monkeypatch.setenv("CONNECTOR_STATE_URL", "postgresql://u:p@h/d")
    uri = "s3://my-bucket/batch/eu?region=eu-west-3&endpoint_override=minio.internal:9000"
    for cache, folder in (("", ".connector"), (", cache: /var/cache/batch", "/var/cache/batch")):
        text = f"state: {{database: {{env: CONNECTOR_STATE_URL}}, files: '{uri}'{cache}}}\n"
        project = load_project(write({"connector.yaml": MAIN + text}))
        server = project.state_server()
        assert server
        assert (server.bucket, project.state_dir) == (uri, project.root / folder)


def test_a_folder_alone_needs_no_server(write: Write) -> None:
    """The short form is the folder, and the long form without a database is the same."""
    for text in ("state: here\n", "state: {files: here}\n"):
        project = load_project(write({"connector.yaml": MAIN + text}))
        assert (project.state_dir.name, project.state_server()) == ("here", None)


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://u:{SECRET}@h/d",
        f"postgresql://u:{SECRET}@h",
        f"postgresql://u:{SECRET}@/d",
        f"postgresql://u:x@{SECRET}@h/d",
        f"postgresql://u:x@h:{SECRET}/d",
        f"host=h password={SECRET}",
        SECRET,
    ],
)
def test_what_is_no_url_of_a_database_is_not_repeated(url: str, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password stands in any place of a mistyped URL: the form is named, and nothing of what was found."""
    monkeypatch.setenv("CONNECTOR_STATE_URL", url)
    project = load_project(write({"connector.yaml": MAIN + STATE}))
    with pytest.raises(ConfigError, match=r"^state\.database: the URL that is kept there is not of the form") as caught:
        project.state_server()
    assert SECRET not in str(caught.value)
    assert "%40" in caught.value.remedy


def test_a_missing_url_is_named_by_its_key(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which key of the YAML asks for the variable stands in the sentence."""
    monkeypatch.delenv("CONNECTOR_STATE_URL", raising=False)
    project = load_project(write({"connector.yaml": MAIN + STATE}))
    with pytest.raises(ConfigError, match=r"state\.database: the environment variable CONNECTOR_STATE_URL is not set"):
        project.state_server()


def test_the_driver_is_needed_by_a_database_alone(tmp_path: str) -> None:
    """Without psycopg a state folder works, and a database is refused with the line that installs it."""
    code = """
import sys
sys.modules["psycopg"] = None  # as if it were not installed
from pathlib import Path
from connector.errors import StateError
from connector.state.database import open_state
from connector.state.postgres import server
with open_state(Path(sys.argv[1]) / "local", "p"):
    pass
try:
    with open_state(Path(sys.argv[1]) / "shared", "p", server("postgresql://u:p@h/d", "s")):
        pass
except StateError as error:
    print(error)
"""
    said = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True).stdout
    assert said == (
        "a state in PostgreSQL needs the driver psycopg 3, which is not installed; "
        "install it: pip install 'batch-warehouse-connector[postgres]'\n"
    )
