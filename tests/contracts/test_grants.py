"""`connector check --grants`: the rights that a project needs, from its YAML alone."""

import json
import re
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import pytest

import connector
from connector.cli import main
from connector.demo import EXAMPLE
from connector.warehouses._base import Needs
from connector.warehouses.bigquery import BigQuery
from connector.warehouses.snowflake import Snowflake
from tests.emulators.environments import installed, running
from tests.emulators.snowflake_bench import ENVIRONMENT

PAGES = Path(connector.__file__).parent / "warehouses"
SNOW = "{type: snowflake, connection_name: prod, role: reader, warehouse: '\"Small\"', database: acme, schema: marts}"
BARE = "{type: snowflake, account: x, user: u, password: {env: NOWHERE}}"
MAIL = "robot@acme.example"
ROBOT, CREATOR = f"serviceAccount:{MAIL}", "roles/iam.serviceAccountTokenCreator"
BIG = f"{{type: bigquery, project: acme, impersonate_service_account: {MAIL}}}"
QUERY = '{query: "select * from marts.secret"}'

_PARSE = """
import json, sys
import sqlglot
for dialect, text in json.load(sys.stdin):
    for parsed in sqlglot.parse(text, read=dialect):
        if parsed is not None:
            name = parsed.args.get("securable") or parsed.this
            print(json.dumps([type(parsed).__name__, [part.name for part in name.parts]]))
"""


class Yaml:
    """A project that has files of YAML, and nothing else: its secrets, its warehouses are nowhere."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        (folder / "syncs").mkdir()

    def warehouses(self, block: str) -> None:
        batch = "batch: {project_key: {env: NOWHERE}, rest_key: {env: NOWHERE}}\n"
        (self.folder / "connector.yaml").write_text(batch + block)

    def sync(self, name: str, **keys: str) -> None:
        lines = {"kind": "profiles", "warehouse": "w", "source": "{table: marts.customers}"} | keys
        told = "".join(f"{key}: {value}\n" for key, value in lines.items() if value)
        (self.folder / "syncs" / f"{name}.yaml").write_text(told)

    def grants(self, *sync: str) -> dict[str, list[str]]:
        """Those of each warehouse."""
        answer = json.loads(self._printed("--json", *sync))
        assert answer.keys() == {"ok", "errors", "grants"}
        assert (answer["ok"], answer["errors"]) == (True, [])
        found: dict[str, list[str]] = answer["grants"]
        return found

    def text(self) -> list[str]:
        """The lines that people see."""
        return self._printed().splitlines()

    def _printed(self, *arguments: str) -> str:
        assert main(["--project", str(self.folder), "check", "--grants", *arguments]) == 0
        return self._capsys.readouterr().out


@pytest.fixture
def yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Yaml:
    monkeypatch.delenv("NOWHERE", raising=False)
    return Yaml(tmp_path, capsys)


CASES: dict[str, tuple[str, dict[str, dict[str, str]], list[str]]] = {
    "a table": (
        SNOW,
        {"a": {}, "b": {}},  # twice the same table
        [
            "-- where a source is a view, write ON VIEW in place of ON TABLE",
            'GRANT USAGE ON WAREHOUSE "Small" TO ROLE "READER";',
            'GRANT USAGE ON DATABASE "ACME" TO ROLE "READER";',
            'GRANT USAGE ON SCHEMA "ACME"."MARTS" TO ROLE "READER";',
            'GRANT SELECT ON TABLE "ACME"."MARTS"."CUSTOMERS" TO ROLE "READER";',
        ],
    ),
    "nothing known": (
        BARE,
        {"a": {"engine": "warehouse", "source": "{table: customers}"}},
        [
            "-- fill in <role>, <warehouse>, <database>, <schema>: the YAML does not name them",
            "-- where a source is a view, write ON VIEW in place of ON TABLE",
            "GRANT USAGE ON WAREHOUSE <warehouse> TO ROLE <role>;",
            "GRANT USAGE ON DATABASE <database> TO ROLE <role>;",
            "GRANT USAGE ON SCHEMA <database>.<schema> TO ROLE <role>;",
            'GRANT SELECT ON TABLE <database>.<schema>."CUSTOMERS" TO ROLE <role>;',
            'CREATE SCHEMA IF NOT EXISTS <database>."BATCH_CONNECTOR";',
            'GRANT USAGE, CREATE TABLE, CREATE STAGE ON SCHEMA <database>."BATCH_CONNECTOR" TO ROLE <role>;',
        ],
    ),
    "another database, a query, our own table": (
        SNOW,
        {
            "a": {"source": "{table: 'other.\"My.Schema\".t'}"},
            "b": {"source": QUERY},
            "c": {"source": "{table: ACME.batch.mine}"},
            "d": {"kind": "export", "export": "attributes", "attributes": "[x]", "table": "batch.mine", "source": ""},
        },
        [
            "-- where a source is a view, write ON VIEW in place of ON TABLE",
            'GRANT USAGE ON WAREHOUSE "Small" TO ROLE "READER";',
            'GRANT USAGE ON DATABASE "OTHER" TO ROLE "READER";',
            'GRANT USAGE ON DATABASE "ACME" TO ROLE "READER";',
            'GRANT USAGE ON SCHEMA "OTHER"."My.Schema" TO ROLE "READER";',
            'GRANT SELECT ON TABLE "OTHER"."My.Schema"."T" TO ROLE "READER";',
            "-- sync 'b' reads by a query: grant SELECT on what that reads, USAGE on where it is",
            "-- for all of the schema that the settings name:",
            '-- GRANT USAGE ON DATABASE "ACME" TO ROLE "READER";',
            '-- GRANT USAGE ON SCHEMA "ACME"."MARTS" TO ROLE "READER";',
            '-- GRANT SELECT ON ALL TABLES IN SCHEMA "ACME"."MARTS" TO ROLE "READER";',
            '-- GRANT SELECT ON ALL VIEWS IN SCHEMA "ACME"."MARTS" TO ROLE "READER";',
            'CREATE SCHEMA IF NOT EXISTS "ACME"."BATCH";',
            'GRANT USAGE, CREATE TABLE, CREATE STAGE ON SCHEMA "ACME"."BATCH" TO ROLE "READER";',
        ],
    ),
    "BigQuery": (
        BIG,
        {"a": {"engine": "warehouse"}, "b": {"source": QUERY}, "c": {"source": "{table: other-1.raw.Orders}"}},
        [
            "-- fill in <caller>, who signs in: serviceAccount:NAME@PROJECT.iam.gserviceaccount.com or user:E-MAIL",
            "-- where a source is a view, write ON VIEW in place of ON TABLE, and let it read its own tables",
            f"-- gcloud projects add-iam-policy-binding acme --member {ROBOT} --role roles/bigquery.jobUser",
            f"-- gcloud projects add-iam-policy-binding acme --member {ROBOT} --role roles/bigquery.readSessionUser",
            f"-- gcloud iam service-accounts add-iam-policy-binding {MAIL} --member '<caller>' --role {CREATOR}",
            f"GRANT `roles/bigquery.dataViewer` ON TABLE `acme`.`marts`.`customers` TO '{ROBOT}';",
            f"GRANT `roles/bigquery.dataViewer` ON TABLE `other-1`.`raw`.`Orders` TO '{ROBOT}';",
            "-- sync 'b' reads by a query: grant roles/bigquery.dataViewer on what that reads",
            "CREATE SCHEMA IF NOT EXISTS `acme`.`batch_connector`;",
            f"GRANT `roles/bigquery.dataEditor` ON SCHEMA `acme`.`batch_connector` TO '{ROBOT}';",
        ],
    ),
    "DuckDB": (
        "{type: duckdb, path: no/such.duckdb}",
        {"a": {}, "b": {"source": QUERY}},
        [
            "-- no/such.duckdb: who runs this reads the file",
            "-- sync 'b' reads the files that its query names",
        ],
    ),
    "DuckDB that is written": (
        "{type: duckdb, path: no/such.duckdb}",
        {"a": {"engine": "warehouse"}},
        ["-- no/such.duckdb: who runs this writes to the file, and makes files beside it"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_least_rights_follow_from_the_yaml(yaml: Yaml, case: str) -> None:
    """Each right once, in an order that can be run, with no credential, no file and no warehouse there."""
    block, syncs, wanted = CASES[case]
    yaml.warehouses(f"warehouses:\n  w: {block}\n  unused: {BARE}\n")
    for name, keys in syncs.items():
        yaml.sync(name, **keys)
    assert yaml.grants() == {"w": wanted}
    assert yaml.text() == ["-- warehouse 'w'", *wanted]


def test_one_sync_needs_its_own_rights_only(yaml: Yaml) -> None:
    """An export alone reads nothing: no SELECT, and no read sessions."""
    yaml.warehouses(f"warehouses:\n  w: {BIG}\n  v: {SNOW}\n")
    yaml.sync("a", warehouse="v")
    yaml.sync("b", kind="export", export="events", table="batch.events", source="")
    (said,) = yaml.grants("b").values()
    assert [line for line in said if "readSessionUser" in line or "dataViewer" in line] == []
    assert yaml.grants("a").keys() == {"v"}


@pytest.mark.parametrize("page", ["snowflake.md", "bigquery.md"])
def test_the_pages_show_what_is_printed(yaml: Yaml, page: str) -> None:
    """The rights on the warehouse's page are those of its own settings and the demo's syncs."""
    fences = re.findall(r"(?ms)^( *)```(\w+)\n(.*?)^ *```$", (PAGES / page).read_text())
    blocks = [(kind, textwrap.dedent(text)) for _, kind, text in fences]
    settings = next(text for kind, text in blocks if kind == "yaml" and text.startswith("warehouses:"))
    shown = next(text for kind, text in blocks if kind == "sql" and re.search('ON TABLE [`"]', text))
    name = settings.splitlines()[1].strip().partition(":")[0]
    yaml.warehouses(settings)
    for file in (EXAMPLE / "syncs").glob("*.yaml"):
        shutil.copy(file, yaml.folder / "syncs")
        copied = yaml.folder / "syncs" / file.name
        copied.write_text(copied.read_text().replace("warehouse: local", f"warehouse: {name}"))
    assert yaml.text()[1:] == shown.splitlines()


def _parsed(dialect: str, lines: list[str]) -> list[tuple[str, list[str]]]:
    """The kind and the name of each statement, as a parser of that SQL reads the whole text."""
    running(ENVIRONMENT)  # where it cannot be had this is skipped; it brings the parser
    python = installed(ENVIRONMENT) / "bin" / "python"
    asked = json.dumps([(dialect, "\n".join(lines))])
    done = subprocess.run([python, "-c", _PARSE], input=asked, capture_output=True, text=True, check=True)
    return [(kind, parts) for kind, parts in map(json.loads, done.stdout.splitlines())]


NASTY = (
    'x" TO ROLE y; DROP TABLE t; --',
    "new\nline; DROP TABLE t",
    "a`; DROP TABLE t; --",
    "it's",
    "\\",
    "*/ /*",
    "é€",
)


def test_names_cannot_break_out_on_snowflake() -> None:
    """Whatever a table, a role or a sync is called: as many statements as there are, each about its own name."""
    settings: dict[str, Any] = {"type": "snowflake", "connection_name": "prod", "schema": "s"}
    for nasty in NASTY:
        found = Snowflake.model_validate(settings | dict.fromkeys(("role", "warehouse", "database"), nasty))
        table = 'm."' + nasty.replace('"', '""') + '"'
        lines = found.grants(Needs((table,), (nasty,), ("batch.t",)))
        assert [line for line in lines if line.startswith("--") and len(line.splitlines()) > 1] == []
        kept = nasty.upper()
        assert _parsed("snowflake", lines) == [
            ("Grant", [kept]),
            ("Grant", [kept]),
            ("Grant", [kept, "M"]),
            ("Grant", [kept, "M", nasty]),
            ("Create", [kept, "BATCH"]),
            ("Grant", [kept, "BATCH"]),
        ]


def test_names_cannot_break_out_on_bigquery() -> None:
    """Backticks of a name do not count, a backslash is one, and an account's quotes stay within it."""
    for nasty in NASTY:
        plain = nasty.replace("`", "")
        account = re.sub(r"\s", "", nasty.replace("@", "")) + "@x"
        found = BigQuery(type="bigquery", project="acme", impersonate_service_account=account)
        lines = found.grants(Needs((f"m.{nasty}",), (nasty,), ("batch.t",)))
        assert [line for line in lines if line.startswith("--") and len(line.splitlines()) > 1] == []
        parsed = _parsed("bigquery", lines)
        assert [kind for kind, _ in parsed] == ["Grant", "Create", "Grant"]
        assert [name.replace("\\\\", "\\") for name in parsed[0][1]] == ["acme", "m", plain]
