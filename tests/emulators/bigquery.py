"""The emulator of BigQuery, and the client that fills it."""

from functools import cache
from typing import NamedTuple

from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from tests.emulators.environments import Environment, running

# The wheels spare a download from DuckDB's own repository; there are none for the DuckDB that 0.4 needs.
_EXTENSIONS = """
import duckdb, pathlib, shutil, sys
(platform,) = duckdb.sql("PRAGMA platform").fetchone()
home = pathlib.Path(sys.argv[1], "home/.duckdb/extensions", "v" + duckdb.__version__, platform)
home.mkdir(parents=True)
for file in pathlib.Path(duckdb.__file__).parent.parent.glob("duckdb_extension_*/extensions/*/*.duckdb_extension"):
    shutil.copy(file, home)
"""

ENVIRONMENT = Environment(
    name="bigquery",
    pythons=("3.13", "3.14"),
    requirements=(
        "local-bigquery==0.3.2",
        "duckdb==1.5.5",
        "duckdb-extension-ducklake==1.5.5",
        "duckdb-extension-icu==1.5.5",
        "duckdb-extension-spatial==1.5.5",
    ),
    ports=2,
    command=(
        "{folder}/bin/local-bigquery",
        *("--host", "127.0.0.1", "--port", "{0}", "--grpc-port", "{1}", "--project", "local", "--data-dir", "{data}"),
    ),
    prepare=_EXTENSIONS,
)


class Endpoints(NamedTuple):
    """Where the emulator listens, as settings name it."""

    api: str
    storage: str


def endpoints() -> Endpoints:
    """The addresses of the emulator that the test run shares; the test is skipped where there can be none."""
    rest, grpc = running(ENVIRONMENT)
    return Endpoints(f"http://127.0.0.1:{rest}", f"127.0.0.1:{grpc}")


@cache
def client(project: str) -> bigquery.Client:
    """Google's own client, with any right in the project."""
    return bigquery.Client(
        project, credentials=AnonymousCredentials(), client_options={"api_endpoint": endpoints().api}
    )
