"""Projects that are right: their values, defaults, versions and schemas."""

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connector._model import EnvSecret, FileSecret
from connector.config import ProfileSync, code_version, find_project, load_project
from connector.errors import ConfigError, Problem, UsageError
from connector.warehouses._base import Relation
from connector.warehouses.bigquery import BigQuery
from tests.config.conftest import EVENTS, MAIN, SYNC, Write

FULL_MAIN = """\
batch:
  project_key: {env: BATCH_PROJECT_KEY}
  rest_key: {file: secrets/rest_key}
  base_url: http://127.0.0.1:8080/2.11
  limits:
    update: {per_second: 300, burst: 1000, per_call: 200}
    mass_update: {per_second: 10000, per_call: 1000}
    other: {per_second: 1}
memory: 512MB
state: var/state
warehouses:
  local: {type: duckdb, path: warehouse.duckdb}
delivery: {in_flight: 4, timeout: 30s, give_up_after: 5m, quiet: 1h}
alerts: {webhook: {env: CONNECTOR_ALERT_WEBHOOK}}
"""

FULL_SYNC = """\
kind: profiles
warehouse: local
source: {query_file: customers.sql, timezone: Europe/Paris}
key: id
cursor: {column: last_updated_at, overlap: 30m, lag: 5s}
full_read_every: 1d
attributes:
  $email_address: email
  $topic_preferences: {column: topics, unordered: true}
  plan: {column: plan_name, on_null: keep}
  birthdate: {column: born_on, type: date}
  interests: {column: interests, unordered: true}
  "123": no
engine: local
endpoint: update
on_removed: clear
guard: {max_changed: 12.5%, max_removed: 0%, min_rows: 10}
tolerance: {rejected: 100%, invalid: 2%}
dedupe: latest
schedule: {cron: "*/15 6-18 * * mon-fri", timezone: Europe/Paris, enabled: true}
dagster: {group: crm, owners: [a@b.com, "team:crm"], tags: {tier: gold}, upstream: [marts, customers], freshness: 2h}
"""


def test_a_full_project_is_read_as_written(write: Write) -> None:
    """Every key of both files reaches its setting, with its units."""
    root = write(
        {"connector.yaml": FULL_MAIN, "syncs/customers.yaml": FULL_SYNC, "customers.sql": "select 1 as id -- é\n"}
    )
    project = load_project(root)
    main, sync = project.settings, project.sync("customers")
    assert main.batch.rest_key == FileSecret(file="secrets/rest_key")
    assert main.memory == 512_000_000
    assert project.state_dir == root.resolve() / "var/state"
    assert main.delivery.quiet == timedelta(hours=1)
    assert main.alerts.webhook == EnvSecret(env="CONNECTOR_ALERT_WEBHOOK")
    assert isinstance(sync, ProfileSync)
    assert project.warehouse(sync).kind() == "duckdb"
    assert sync.source.relation == Relation(query="select 1 as id -- é\n")
    assert sync.cursor is not None
    assert (sync.cursor.overlap, sync.cursor.lag) == (timedelta(minutes=30), timedelta(seconds=5))
    assert sync.attributes is not None
    assert [(name, each.column, each.on_null) for name, each in sync.attributes.items()][2:3] == [
        ("plan", "plan_name", "keep")
    ]
    assert sync.attributes["123"].column == "no"
    assert (sync.guard.max_changed, sync.guard.max_removed, sync.tolerance.rejected) == (0.125, 0.0, 1.0)
    assert sync.schedule is not None
    assert (sync.schedule.cron, sync.schedule.enabled) == ("*/15 6-18 * * mon-fri", True)
    assert (sync.dagster.owners, sync.dagster.upstream) == (("a@b.com", "team:crm"), ("marts", "customers"))


def test_a_small_project_has_the_documented_defaults(write: Write) -> None:
    """What is left out has the value that the contract gives it."""
    project = load_project(write({}))
    main, sync = project.settings, project.sync("customers")
    assert main.batch.base_url == "https://api.batch.com/2.11"
    assert (main.memory, main.state.files, main.state.database) == (10**9, ".connector", None)
    assert main.delivery.model_dump() == {
        "in_flight": 8,
        "timeout": timedelta(seconds=60),
        "give_up_after": timedelta(minutes=2),
        "quiet": timedelta(minutes=15),
    }
    assert isinstance(sync, ProfileSync)
    assert sync.source.relation == Relation(table="marts.customers")
    assert (sync.key, sync.cursor, sync.attributes, sync.schedule) == ("custom_id", None, None, None)
    assert (sync.engine, sync.endpoint, sync.on_removed, sync.dedupe) == ("local", "auto", "ignore", "reject")
    assert (sync.full_read_every, sync.guard.max_changed, sync.guard.max_removed) == (timedelta(days=7), 0.5, 0.1)
    assert (sync.guard.min_rows, sync.tolerance.rejected, sync.tolerance.invalid) == (1, 0.01, 0.01)
    assert (sync.dagster.group, sync.dagster.freshness) == ("batch", None)


def test_bigquery_is_read_as_written(write: Write) -> None:
    """Every key of a BigQuery warehouse reaches its setting; the few that must be there are enough."""
    full = (
        "  bq: {type: bigquery, project: acme-prod, location: EU, dataset: marts, credentials_file: key.json, "
        "impersonate_service_account: bot@acme.iam.gserviceaccount.com, api_endpoint: 'https://bigquery.acme.com', "
        "storage_endpoint: 'storage.acme.com:443', maximum_bytes_billed: 20GB, timeout: 90s}\n"
        "  small: {type: bigquery, project: 'acme.com:legacy'}\n"
        "  emulated: {type: bigquery, project: p, api_endpoint: 'http://[::1]:1', storage_endpoint: '127.0.0.1:2'}\n"
    )
    warehouses = load_project(write({"connector.yaml": MAIN + full})).settings.warehouses
    bigquery, small, emulated = (warehouses[name] for name in ("bq", "small", "emulated"))
    assert isinstance(bigquery, BigQuery)
    assert (bigquery.location, bigquery.dataset, bigquery.credentials_file) == ("EU", "marts", "key.json")
    assert (bigquery.maximum_bytes_billed, bigquery.timeout) == (20 * 10**9, timedelta(seconds=90))
    assert bigquery.impersonate_service_account == "bot@acme.iam.gserviceaccount.com"
    assert (bigquery.api_endpoint, bigquery.storage_endpoint) == ("https://bigquery.acme.com", "storage.acme.com:443")
    assert isinstance(small, BigQuery)
    assert (small.maximum_bytes_billed, small.timeout, small.location) == (None, timedelta(hours=1), None)
    assert isinstance(emulated, BigQuery)
    assert [each.is_emulated for each in (bigquery, small, emulated)] == [False, False, True]


def test_short_forms_mean_the_long_ones(write: Write) -> None:
    """A bare column or cron text is the mapping that holds only it."""
    short = write({"syncs/customers.yaml": SYNC + "cursor: at\nattributes: {plan: p}\nschedule: 0 4 * * 0\n"})
    long = "cursor: {column: at}\nattributes: {plan: {column: p}}\nschedule: {cron: 0 4 * * 0}\n"
    read = load_project(short).sync("customers")
    assert read == load_project(write({"syncs/customers.yaml": SYNC + long})).sync("customers")
    assert read.cursor is not None
    assert (read.cursor.column, read.cursor.overlap, read.cursor.lag) == ("at", timedelta(minutes=15), timedelta(0))


def test_yaml_is_version_1_2(write: Write) -> None:
    """`no`, `on` and `1:20` are text, `010` is ten, and a `#` in a query begins no comment inside a block."""
    text = "kind: profiles\nwarehouse: local\nkey: no\nguard: {min_rows: 010}\nattributes: {plan: 1:20, on: on}\n"
    sync = load_project(write({"syncs/customers.yaml": text + "source:\n  query: |\n    select 1\t# one\n"})).sync(
        "customers"
    )
    assert isinstance(sync, ProfileSync)
    assert (sync.key, sync.guard.min_rows) == ("no", 10)
    assert sync.attributes is not None
    assert {name: each.column for name, each in sync.attributes.items()} == {"plan": "1:20", "on": "on"}
    assert sync.source.query == "select 1\t# one\n"


def test_a_byte_order_mark_is_passed_over(write: Write) -> None:
    """Files saved by Windows editors load as others do."""
    assert load_project(write({"syncs/customers.yaml": "\ufeff" + SYNC.replace("\n", "\r\n")})).syncs


def test_an_editors_hidden_files_are_no_syncs(write: Write) -> None:
    """A hidden file beside the syncs, such as an editor's lock, is passed over."""
    assert list(load_project(write({"syncs/.customers.yaml": "{"})).syncs) == ["customers"]


@pytest.mark.parametrize("cron", ["0 0 29 2 *", "5,10-20/5 */2 1-7 JAN-mar 7", "59 23 31 12 sun,mon"])
def test_every_part_of_cron_is_read(cron: str, write: Write) -> None:
    """Lists, ranges, steps and names in any case are cron."""
    schedule = load_project(write({"syncs/customers.yaml": SYNC + f"schedule: '{cron}'\n"})).sync("customers").schedule
    assert schedule is not None
    assert schedule.cron == cron


def test_loading_reads_no_secret_and_no_warehouse(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project loads without its variables, its secret files and its warehouse."""
    monkeypatch.delenv("BATCH_PROJECT_KEY", raising=False)
    assert load_project(write({"connector.yaml": FULL_MAIN})).settings.batch.project_key == EnvSecret(
        env="BATCH_PROJECT_KEY"
    )


def test_an_unknown_sync_is_named_with_the_nearest(write: Write) -> None:
    """Asking for a sync that is not there is a usage error with a suggestion, or with what there is."""
    project = load_project(write({"syncs/orders.yaml": SYNC}))
    with pytest.raises(UsageError, match="there is no sync 'custmers' in this project; did you mean 'customers'"):
        project.sync("custmers")
    with pytest.raises(UsageError, match="it has customers and orders"):
        project.sync("zzz")


def changed(write: Write, extra: str, sql: str = "select 1") -> str:
    text = SYNC.replace("table: marts.customers", "query_file: q.sql") + extra
    return code_version(load_project(write({"syncs/customers.yaml": text, "q.sql": sql})).sync("customers"))


def test_the_code_version_follows_what_the_sync_does(write: Write) -> None:
    """The schedule and Dagster's looks leave the version; the mapping, a guard and the query file's text change it."""
    version = changed(write, "")
    assert version == changed(write, "schedule: 0 4 * * *\ndagster: {group: crm}\nguard: {max_changed: 50%}\n")
    others = [
        changed(write, "attributes: {a: b}\n"),
        changed(write, "guard: {min_rows: 2}\n"),
        changed(write, "", "select 2"),
    ]
    assert len({version, *others}) == 4
    assert len(version) == 16


def test_the_project_is_found_by_option_variable_folder_and_example(
    write: Write, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--project wins over CONNECTOR_PROJECT, which wins over the current folder."""
    here, empty, root = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("empty"), write({})
    (here / "connector.yaml").touch()
    monkeypatch.chdir(here)
    monkeypatch.delenv("CONNECTOR_PROJECT", raising=False)
    assert find_project(None) == here.resolve()
    monkeypatch.setenv("CONNECTOR_PROJECT", str(root))
    assert find_project(None) == root.resolve()
    assert find_project(here) == here.resolve()
    with pytest.raises(UsageError, match=r"there is no connector\.yaml in"):
        find_project(empty)
    monkeypatch.setenv("CONNECTOR_PROJECT", str(empty))
    with pytest.raises(ConfigError, match=r"CONNECTOR_PROJECT names .* which has no connector\.yaml"):
        find_project(None)


def test_a_project_is_frozen(write: Write) -> None:
    """An edit of the files or of the objects changes nothing in a project that is in use."""
    root = write(
        {"syncs/customers.yaml": SYNC.replace("table: marts.customers", "query_file: q.sql"), "q.sql": "select 1"}
    )
    sync = load_project(root).sync("customers")
    (root / "q.sql").write_text("select 2")
    assert sync.source.relation.query == "select 1"
    with pytest.raises(ValueError, match="frozen"):
        sync.key = "other"  # type: ignore[misc]


SIGNS = list("{}[]:,-?&*!|>'\"%@`#\n\t\r\x85\u2028 ~<=")
PIECES = [
    "&a",
    "*a",
    "- ",
    ": ",
    "<<: ",
    "!!str ",
    "'\\x",
    '"\\u',
    '"\\ud800"',
    "99999999999999999999d",
    "1e400",
    "0x1",
    ".inf",
    "null",
    "true",
    "batch: ",
    "{env: ",
    "cursor: ",
    "\n  ",
    "---\n",
    "...\n",
    "%YAML 1.1\n",
    "kind: profiles\n",
    "kind: events\n",
    "event: ",
    "partitions: {daily: ",
    "warehouse: local\n",
    "source: {table: a}\n",
    'source: {query_file: "../a\\0"}\n',
    "attributes:\n",
    "timezone: ../../etc\n",
    "guard: {max_changed: ",
    "schedule: '",
    "base_url: https://[\n",
    "warehouses: {local: {type: duckdb, path: a}}\n",
]
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(SIGNS + PIECES), max_size=12).map("".join))


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(main=TEXTS, sync=TEXTS, kind=st.sampled_from([SYNC, EVENTS]), valid_main=st.booleans())
def test_any_text_is_a_project_or_a_configuration_error(
    main: str, sync: str, kind: str, valid_main: bool, write: Write
) -> None:
    """Whatever the files hold, loading ends with a project or with problems that have a place."""
    files = {"syncs/customers.yaml": kind + sync if valid_main else sync}
    root = write(files if valid_main else {**files, "connector.yaml": main})
    try:
        problems: tuple[Problem, ...] | None = () if load_project(root).syncs else None
    except ConfigError as error:
        problems = error.problems or None
    assert problems is not None
    assert all(each.line > 0 and each.column > 0 and each.message for each in problems)
