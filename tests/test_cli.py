"""The command line as a person and as a script see it: answers, exit statuses, and what never shows."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import connector
from connector.cli import main
from connector.simulator import serve
from connector.state.database import open_state
from connector.state.lease import hold
from tests.world import PROJECT_KEY, REST_KEY, World

ROOT = Path(connector.__file__).parent.parent

CANARY = "canary-value"

CUSTOMERS = f"""create table customers as select
    'c' || i as custom_id, '{CANARY} ' || i as name, i as orders, timestamp '2026-01-01' + to_days(i::int) as seen_at
from range(40) as t(i)"""

COUNTS = {
    "read", "unchanged", "added", "changed", "retried", "removed", "invalid", "withheld", "already_sent", "skipped",
    "planned", "accepted", "rejected", "held", "expired", "unsent", "requests", "retries", "throttled", "bytes",
}  # fmt: skip

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class Answer(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document that stdout is."""
        assert self.out.count("\n") == 1
        return json.loads(self.out)


Say = Callable[..., Answer]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """40 customers, not yet delivered, and the local API on a port."""
    world = World(tmp_path / "project")
    world.sync()
    world.sql(CUSTOMERS)
    with serve(world.api) as served:
        world.configure(served.base_url)
        yield world


@pytest.fixture
def say(world: World, capfd: pytest.CaptureFixture[str]) -> Say:
    """Calls `connector --project …` in this process."""

    def say(*arguments: str) -> Answer:
        status = main(["--project", str(world.folder), *arguments])
        return Answer(status, *capfd.readouterr())

    return say


def check_identities(report: dict[str, Any]) -> None:
    assert set(report) >= COUNTS | {"sync", "kind", "run", "outcome", "seconds"}
    assert set(report["seconds"]) == {"read", "diff", "deliver", "waiting_for_rate", "total"}
    count = report.__getitem__
    assert count("planned") == sum(map(count, ("accepted", "rejected", "held", "expired", "unsent")))
    assert count("read") == sum(map(count, ("unchanged", "added", "changed", "retried", "invalid", "skipped")))
    assert count("planned") == sum(map(count, ("added", "changed", "retried")))


def test_run_delivers_and_reports_in_the_contracts_words(world: World, say: Say) -> None:
    """`run --json` holds every count of the contract, its identities hold, and a second run sends nothing."""
    first = say("run", "customers", "--json")
    check_identities(first.json)
    assert (first.status, first.err, first.json["outcome"], first.json["accepted"]) == (0, "", "green", 40)
    assert RFC_3339.fullmatch(first.json["started"])
    assert len(world.held()) == 40
    second = say("run", "customers", "--json").json
    check_identities(second)
    assert (second["unchanged"], second["planned"], second["requests"]) == (40, 0, 0)


def test_plan_says_what_a_run_would_do_and_changes_nothing(world: World, say: Say) -> None:
    """Neither `plan` nor `run --dry-run` sends a request or leaves a run, a due key or a delivered row behind."""
    say("run", "customers")
    world.sent()
    world.sql("update customers set orders = orders + 100 where orders < 10")
    before = say("status", "--json").json
    plan = say("plan", "customers", "--json")
    check_identities(plan.json)
    assert plan.status == 0
    assert {name: rows for name, rows in plan.json["by_attribute"].items() if rows} == {"orders": 10}
    assert (plan.json["planned"], plan.json["unsent"], plan.json["calls"], plan.json["minutes"]) == (10, 10, 1, 0)
    assert plan.json["bytes"] > 0
    assert set(plan.json["sample"]) == {f"c{i}" for i in range(10)}
    again = say("run", "customers", "--dry-run", "--json").json
    assert again["by_attribute"] == plan.json["by_attribute"]
    assert world.sent() == []
    assert say("status", "--json").json == before
    assert say("run", "customers", "--json").json["changed"] == 10


def test_options_reach_the_run(world: World, say: Say) -> None:
    """--limit and --key leave the other rows due, --resend and --full send and read what they say."""
    assert say("run", "customers", "--limit", "7", "--json").json["accepted"] == 7
    world.sent()
    keys = say("run", "customers", "--key", "c30", "--key", "c31", "--json").json
    assert (keys["read"], sorted(world.sent())) == (2, ["c30", "c31"])
    assert say("run", "customers", "--full", "--json").json["accepted"] == 31
    assert say("run", "customers", "--resend", "--json").json["accepted"] == 40


def test_guarded_change_needs_a_reason(world: World, say: Say) -> None:
    """A mass change ends with 4 for plan and run alike, sends nothing, and goes with --allow-mass-change."""
    say("run", "customers")
    world.sent()
    world.sql("update customers set orders = orders + 1")
    plan, run = say("plan", "customers", "--json"), say("run", "customers", "--json")
    assert (plan.status, run.status, run.json["outcome"], run.json["unsent"]) == (4, 4, "guarded", 40)
    assert plan.json["error"] == run.json["error"]
    assert "--allow-mass-change" in run.json["error"]["remedy"]
    check_identities(run.json)
    assert "guard.max_changed" in say("plan", "customers").out
    assert world.sent() == []
    assert say("run", "customers", "--allow-mass-change", "prices rose").status == 0


def test_incomplete_run_names_the_way_on(world: World, say: Say) -> None:
    """Rows over tolerance end the run with 3; `rejects` lists key, attribute and reason of each."""
    world.sql("insert into customers values ('long', repeat('x', 400), 1, null), (null, 'n', 1, null)")
    run = say("run", "customers")
    assert run.status == 3
    assert "outcome: incomplete" in run.out
    assert "connector rejects customers" in run.out
    nobody, person = say("rejects", "customers", "--json").json
    fields = {"key", "id", "attribute", "reason", "source", "attempts", "first_seen", "last_seen"}
    assert set(nobody) == set(person) == fields
    assert (nobody["key"], nobody["attribute"], nobody["source"]) == (None, None, "invalid")
    assert (person["key"], person["attribute"], person["id"], person["attempts"]) == ("long", "name", None, 1)
    assert RFC_3339.fullmatch(person["first_seen"])
    assert "xxxx" not in say("rejects", "customers").out


def test_status_lists_runs_newest_first_with_what_waits(world: World, say: Say) -> None:
    """Each run is a report with its times; the newest also counts rows that wait for a late write to pass."""
    assert say("status", "--json").json == []
    assert not (world.folder / ".connector").exists()
    say("run", "customers", "--limit", "5")
    world.api.inject({"status": 500, "apply": True})
    say("run", "customers")
    newest, oldest = say("status", "customers", "--json").json
    for report in (newest, oldest):
        check_identities(report)
        assert RFC_3339.fullmatch(report["started"])
        assert report["started"] <= report["finished"]
    assert (newest["accepted"], oldest["accepted"]) == (35, 5)
    assert newest["waiting"] == 35
    assert "waiting" not in oldest
    assert re.search(r"customers +0 +35", say("status").out)


def _without_column(world: World) -> None:
    world.sync(attributes="{orders: ordres}")


def _without_warehouse(world: World) -> None:
    world.database.write_text("not a database")


def _wrong_key(world: World) -> None:
    (world.folder / "rest_key").write_text("rest_wrong")


def _other_project(world: World) -> None:
    with open_state(world.folder / ".connector", "project_other"):
        pass


def _missing_variable(world: World) -> None:
    path = world.folder / "connector.yaml"
    path.write_text(path.read_text().replace("{file: rest_key}", "{env: CONNECTOR_TEST_UNSET}"))


def _broken_yaml(world: World) -> None:
    world.sync(ky="id", dedupe="sometimes")


MISTAKES = [
    (_without_column, 1, "warehouse", "did you mean 'orders'?"),
    (_without_warehouse, 1, "warehouse", "is not a DuckDB database"),
    (_wrong_key, 1, "api", "401"),
    (_other_project, 1, "state", "belongs to another Batch project"),
    (_missing_variable, 2, "configuration", "CONNECTOR_TEST_UNSET"),
    (_broken_yaml, 2, "configuration", "syncs/customers.yaml:"),
]


@pytest.mark.parametrize(
    ("spoil", "status", "code", "said"), MISTAKES, ids=lambda value: getattr(value, "__name__", "")
)
def test_mistakes_end_a_run_in_one_sentence(
    world: World, say: Say, spoil: Callable[[World], None], status: int, code: str, said: str
) -> None:
    """Each mistake has its exit status, a message and a remedy in words and in JSON, and nobody is changed."""
    spoil(world)
    answer = say("run", "customers", "--json")
    check_identities(answer.json)
    assert (answer.status, answer.json["outcome"], answer.json["error"]["code"]) == (status, "failed", code)
    assert said in answer.json["error"]["message"]
    person = say("run", "customers")
    assert (person.status, "Traceback" in person.out + person.err) == (status, False)
    assert said in re.sub(r"\s+", " ", person.out + person.err)
    assert world.held() == {}


def test_unknown_sync_is_a_usage_error(say: Say) -> None:
    """A sync that is not there ends with 2 in every command, and the near name is offered."""
    for command in ("run", "plan", "rejects", "status", "check"):
        answer = say(command, "custmers", "--json")
        assert (answer.status, answer.json["error"]["code"]) == (2, "usage")
        assert "customers" in say(command, "custmers").err


def test_busy_sync_is_left_alone(world: World, say: Say) -> None:
    """While another run holds the sync, `run` ends with 5 and sends nothing."""
    with open_state(world.folder / ".connector", PROJECT_KEY) as state, hold(state, "customers", "another-run"):
        answer = say("run", "customers", "--json")
    assert (answer.status, answer.json["outcome"], answer.json["error"]["code"]) == (5, "busy", "busy")
    assert "another-run" in answer.json["error"]["message"]
    assert world.sent() == []


def test_validate_lists_every_mistake_of_every_file(world: World, say: Say) -> None:
    """Each mistake has file, line, column and message; a right project has none."""
    assert say("validate", "--json").json == {"ok": True, "errors": []}
    _broken_yaml(world)
    world.sync("second", warehouse="lokal")
    answer = say("validate", "--json")
    assert (answer.status, answer.json["ok"]) == (2, False)
    assert len(answer.json["errors"]) == 3
    assert all(set(error) == {"file", "line", "column", "message"} for error in answer.json["errors"])
    for error in answer.json["errors"]:
        assert f"{error['file']}:{error['line']}:{error['column']}: {error['message']}" in say("validate").err


def test_check_passes_where_a_run_would(world: World, say: Say) -> None:
    """Every step passes, nobody is created at Batch, and no state is made by looking."""
    answer = say("check", "--json")
    assert (answer.status, answer.json["ok"], answer.json["errors"]) == (0, True, [])
    assert len(answer.json["steps"]) == 5
    assert "all 5 checks passed" in say("check", "customers").out
    assert world.api.profiles() == []
    assert not (world.folder / ".connector").exists()


CHECKED = [
    (_without_column, 1, "syncs/customers.yaml", "did you mean"),
    (_without_warehouse, 1, "connector.yaml", "is not a DuckDB database"),
    (_wrong_key, 1, "connector.yaml", "not valid for this project"),
    (_other_project, 1, "connector.yaml", "another Batch project"),
    (_missing_variable, 2, "connector.yaml", "CONNECTOR_TEST_UNSET"),
]


@pytest.mark.parametrize(("spoil", "status", "file", "said"), CHECKED, ids=lambda value: getattr(value, "__name__", ""))
def test_check_names_what_is_missing_and_where(
    world: World, say: Say, spoil: Callable[[World], None], status: int, file: str, said: str
) -> None:
    """A failed step is an error at the place in the YAML that speaks of it; the other steps are still tried."""
    spoil(world)
    answer = say("check", "--json")
    assert (answer.status, answer.json["ok"]) == (status, False)
    (error,) = answer.json["errors"]
    assert (error["file"], said in error["message"]) == (file, True)
    assert error["line"] >= 1
    assert sum(step["passed"] for step in answer.json["steps"]) >= 2
    assert "1 of" in say("check").out


def test_check_counts_keys_and_cursors_that_no_run_can_use(world: World, say: Say) -> None:
    """Null, refused and repeated keys and null cursors are counted in rows; above the tolerance the step fails."""
    world.sync(cursor="seen_at")
    world.sql("insert into customers select unnest([null, 'nan', 'c1', 'c1', 'c2']), '', 1, null")
    answer = say("check", "--json")
    (error,) = answer.json["errors"]
    assert answer.status == 1
    for part in (
        "45 rows",
        "1 with a null key",
        "1 with a key that Batch does not take",
        "5 that share",
        "5 with a null",
    ):
        assert part in error["message"]
    world.sync(cursor="seen_at", tolerance="{invalid: 50%}")
    assert say("check").status == 0
    world.sync(cursor="name")
    assert "a timestamp or date is needed" in say("check", "--json").json["errors"][0]["message"]


def test_no_value_and_no_secret_is_ever_shown(world: World, say: Say) -> None:
    """Whatever the command, its output holds neither an attribute's value nor a key to the API."""
    world.sql("insert into customers values ('bad', repeat(?, 100), 1, null)", CANARY)
    shown = ""
    for spoil in (lambda _: None, _wrong_key):
        spoil(world)
        for command in ("validate", "check", "plan customers", "run customers --resend", "status", "rejects customers"):
            for form in ([], ["--json"]):
                answer = say(*command.split(), *form)
                shown += answer.out + answer.err
    assert "bad" in shown
    for hidden in (CANARY, REST_KEY, PROJECT_KEY, "rest_wrong"):
        assert hidden not in shown


def test_the_project_is_named_before_the_command(say: Say) -> None:
    """Whoever names it behind is told where it goes."""
    answer = say("validate", "--project", "elsewhere")
    assert (answer.status, "write it before the command: connector --project DIR validate" in answer.err) == (2, True)


def test_a_fault_of_ours_is_told_by_its_place_alone(world: World) -> None:
    """The text of an error that nobody foresaw may quote a row: what Python would print of it is left out."""
    faulty = (
        "import sys, connector.cli, connector.sync\n"
        "def draft(*_, **__):\n"
        f"    try: {{}}['-'.join({CANARY.split('-')})]\n"
        f"    except KeyError as error: raise ValueError('-'.join({CANARY.split('-')})) from error\n"
        "connector.sync.draft = draft\n"
        f"sys.exit(connector.cli.main(['--project', {str(world.folder)!r}, 'run', 'customers']))"
    )
    done = subprocess.run([sys.executable, "-c", faulty], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search(r"KeyError\n(.*\n)+ValueError\nThis is a fault of the connector's own", done.stderr)
    assert "sync.py" in done.stderr
    assert CANARY not in done.stdout + done.stderr


def test_people_get_plain_text_that_grep_can_read(world: World, say: Say) -> None:
    """Where stdout is no terminal there is no escape sequence, not even from a key, and no sentence is cut before 200 columns."""
    world.sql("insert into customers values (chr(27) || '[31mred', 'x', 1, null), (repeat('k', 300), 'x', 1, null)")
    world.sql("insert into customers select custom_id, repeat('x', 400), 1, null from customers where orders = 1")
    for command in ("plan", "run", "rejects", "status"):
        answer = say(command, "customers")
        assert "\x1b" not in answer.out + answer.err
        assert max(len(line.rstrip()) for line in answer.out.splitlines()) <= 200


def test_compact_folds_all_syncs_or_one(world: World, say: Say) -> None:
    """To people a table, to scripts a list; an export has nothing to fold."""
    say("run", "customers")
    (told,) = say("compact", "customers", "--json").json
    assert (told["sync"], told["files_after"]) == ("customers", told["files_before"])
    assert "customers" in say("compact").out
    assert say("compact", "costumers").status == 2


@pytest.mark.parametrize("code", ["held", "warehouse", "green"])
def test_a_code_is_explained(say: Say, code: str) -> None:
    """To people and to scripts alike; without one, all are; a wrong one gets the near one."""
    answer = say("explain-code", code)
    (told,) = say("explain-code", code, "--json").json
    assert answer.status == 0
    assert f"{code}  {told['sentence']}" in answer.out
    assert told["remedy"] in answer.out
    assert told in say("explain-code", "--json").json
    wrong = say("explain-code", code[:-1])
    assert wrong.status == 2
    assert f"did you mean '{code}'?" in wrong.err


@pytest.mark.parametrize("command", ["init", "explain", "erase"])
def test_commands_of_later_versions_say_so(say: Say, command: str) -> None:
    """A command of the contract that is not there yet is refused by name."""
    answer = say(command, "something", "--json")
    assert (answer.status, answer.json["ok"]) == (2, False)
    assert answer.json["error"]["message"] == f"'{command}' is not available yet"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "customers", "--limit", "0"], "0 is not in the range"),
        (["run", "customers", "--allow-mass-change", " "], "the reason is empty"),
        (["run", "customers", "--window", "2026-01-01", "2026-02-01"], "--window is for event syncs"),
        (["plan", "customers", "--retry-held"], "--retry-held is for event syncs"),
        (["run"], "Missing argument 'SYNC'"),
        (["sync"], "No such command 'sync'"),
        (["simulate", "--rest-key", "rest_x"], "only one of --project-key and --rest-key"),
    ],
)
def test_wrong_usage_ends_with_2(world: World, say: Say, arguments: list[str], said: str) -> None:
    """A wrong call is answered on stderr for people and as one object with --json; nothing is sent."""
    person, script = say(*arguments), say(*arguments, "--json")
    assert (person.status, script.status, person.out) == (2, 2, "")
    assert said in person.err
    assert said in script.json["error"]["message"]
    assert world.sent() == []


def test_schemas_are_json_schemas(capfd: pytest.CaptureFixture[str]) -> None:
    """`schema` describes sync files, `schema --project-file` connector.yaml."""
    for arguments, key in (["schema"], "kind"), (["schema", "--project-file"], "batch"):
        assert main(arguments) == 0
        assert key in json.loads(capfd.readouterr().out)["properties"]


def _started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "connector", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_PROXY": "*"},
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_settles_what_is_in_flight(world: World, say: Say, number: signal.Signals, status: int) -> None:
    """A signal ends the run with its report; what was acknowledged is not sent again, the rest is at the next run."""
    world.sql("insert into customers select 'd' || i, 'x', i, null from range(3000) as t(i)")
    world.api.inject({"delay": 0.3, "times": 1000})
    with _started("--project", str(world.folder), "run", "customers", "--json") as process:
        while not world.api.requests:
            assert process.poll() is None, "it ended before its first request"
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    report = json.loads(out)
    check_identities(report)
    assert (process.returncode, report["error"]["code"], err) == (status, "cancelled", "")
    assert 0 < report["accepted"] < 3040
    acknowledged = world.sent()
    assert len(acknowledged) == report["accepted"]
    world.api.clear_faults()
    assert say("run", "customers", "--json").json["accepted"] == report["unsent"]
    assert sorted([*acknowledged, *world.sent()]) == sorted(world.held())


def test_simulate_serves_the_projects_keys_until_it_is_told_to_end(world: World) -> None:
    """The local API says where it listens, opens with the project's keys, keeps profiles, and ends cleanly."""
    with _started("--project", str(world.folder), "simulate", "--port", "0", "--json") as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        world.configure(said["base_url"])
        assert main(["--project", str(world.folder), "run", "customers"]) == 0
        process.send_signal(signal.SIGINT)
        assert (process.wait(10), process.stderr and process.stderr.read()) == (0, "")
    assert said["state"] == str(world.folder / ".simulator")
    assert (world.folder / ".simulator" / "profiles.sqlite").stat().st_size > 0


def test_help_is_there_in_a_blink() -> None:
    """`--help` and `--version` load nothing heavy: no data frame, no database, no HTTP client, no settings."""
    heavy = {"polars", "sqlalchemy", "httpx", "pydantic", "duckdb", "rich", "dagster", "numpy", "pyarrow"}
    code = "import sys; from connector.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "simulate" in done.stdout
    assert heavy.isdisjoint(done.stderr.split())
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.6


def test_public_names_are_there() -> None:
    """What `connector` says it exports can be imported from it."""
    assert all(getattr(connector, name) for name in connector.__all__)
    assert connector.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        connector.nothing  # noqa: B018
