"""How the runs of a sync look in Dagster: metadata, checks, dry runs, and each way to end."""

import math
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import pytest

from assets.materialize import main
from assets.metadata import COUNTS
from assets.run_config import SyncRunConfig
from assets.runs import Milestones
from connector.simulator import serve
from connector.state.database import open_state
from connector.state.lease import hold
from connector.sync import Options
from tests.assets.conftest import EXPORT, MAIN, PROJECT_KEY, REST_KEY, STEP, House, checks, failure, logged, metadata

ALL_GOOD = {"delivery": True, "rejected_share": True, "guard": True}


def test_a_green_run_materializes_with_every_number_of_its_report(house: House) -> None:
    """Each count of the report is a number under its own name, zeros too, and all checks pass."""
    result = house.run()
    found = metadata(result)
    assert result.success
    assert {name: found[name] for name in COUNTS} == {
        **dict.fromkeys(COUNTS, 0),
        "read": 40, "added": 40, "planned": 40, "accepted": 40, "known": 40, "requests": 1, "bytes": found["bytes"],
    }  # fmt: skip
    assert found["bytes"] > 0
    assert found["dagster/row_count"] == 40
    assert found["outcome"] == "green"
    assert all(math.isfinite(found[f"seconds_{name}"]) for name in ("read", "diff", "deliver", "total"))
    assert "**green**" in found["summary"]
    assert checks(result) == ALL_GOOD
    assert len(house.simulator.profiles()) == 40


def test_a_second_run_sends_nothing_and_is_a_materialization_with_zeros(house: House) -> None:
    """An unchanged source gives a green run whose plots show zeros, and no request."""
    house.run()
    found = metadata(house.run())
    assert (found["unchanged"], found["planned"], found["requests"]) == (40, 0, 0)
    assert len(house.simulator.requests) == 1


def test_a_source_that_is_not_read_does_not_look_empty(house: House) -> None:
    """The row count stays that of what was delivered, the summary says why nothing was read, and every check passes."""
    house.rest(3600)
    house.run()
    result = house.run()
    found = metadata(result)
    assert (found["read"], found["full"], found["dagster/row_count"], found["known"]) == (0, False, 40, 40)
    assert "marts.customers did not change since the run of" in found["summary"]
    assert set(checks(result).values()) == {True}
    assert len(house.simulator.requests) == 1


def test_run_config_reaches_the_library() -> None:
    """Every field of the Launchpad is an option of the run, by the same name; what adopts is the command line alone."""
    config = SyncRunConfig(full=True, resend=True, limit=3, keys=["a"], allow_mass_change="a rename")
    assert config.options() == Options(full=True, resend=True, limit=3, keys=("a",), allow_mass_change="a rename")
    assert SyncRunConfig(retry_held=True).options() == Options(retry_held=True)
    assert SyncRunConfig(discard_held=True).options() == Options(discard_held=True)
    window = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC))
    assert SyncRunConfig().options(window) == Options(window=window)
    assert SyncRunConfig().options() == Options()
    assert SyncRunConfig.model_fields.keys() - {"dry_run"} == {field.name for field in fields(Options)} - {
        "window",
        "adopt",
    }


def test_a_limit_leaves_the_other_rows_due(house: House) -> None:
    """With a limit only so many rows go, and the next run sends the rest."""
    assert metadata(house.run(limit=3))["skipped"] == 37
    assert metadata(house.run())["added"] == 37


def test_a_dry_run_is_an_observation_and_sends_nothing(house: House) -> None:
    """A dry run shows what would be sent, materializes nothing and changes nothing."""
    result = house.run(dry_run=True)
    (event,) = result.asset_observations_for_node(STEP)
    found = {name: value.value for name, value in event.metadata.items()}
    assert result.success
    assert not result.asset_materializations_for_node(STEP)
    assert (found["dry_run"], found["planned"], found["calls"], found["accepted"]) == (True, 40, 1, 0)
    assert "| `plan` | 40 |" in found["by_attribute"]
    assert all(evaluation.metadata["dry_run"].value for evaluation in result.get_asset_check_evaluations())
    assert not house.simulator.requests
    assert metadata(house.run())["added"] == 40


def test_a_guarded_run_materializes_nothing_and_fails_with_the_remedy(house: House) -> None:
    """A mass change stops before the first request, the check `guard` fails, and the failure says what to do."""
    house.run()
    house.sql("update marts.customers set plan_name = 'silver'")
    result = house.run()
    assert not result.success
    assert not result.asset_materializations_for_node(STEP)
    assert checks(result) == {"delivery": False, "rejected_share": True, "guard": False}
    assert "40 of 40 profiles would change" in failure(result).description
    assert failure(result).metadata["unsent"].value == 40
    assert len(house.simulator.requests) == 1
    assert metadata(house.run(allow_mass_change="the tiers were renamed"))["changed"] == 40


def test_a_guarded_dry_run_warns_and_succeeds(house: House) -> None:
    """A dry run whose change a guard would stop says so as a warning of the check `guard`."""
    house.run()
    house.sql("update marts.customers set plan_name = 'silver'")
    result = house.run(dry_run=True)
    assert result.success
    assert checks(result) == {**ALL_GOOD, "guard": False}


def test_an_incomplete_run_materializes_and_fails(house: House) -> None:
    """Rows over the tolerance: what was delivered shows, the blocking check fails and so does the run."""
    house.sql("update marts.customers set email = 'no address' where points < 5")
    result = house.run()
    assert not result.success
    assert metadata(result)["accepted"] == 40
    assert metadata(result)["withheld"] == 5
    assert checks(result) == {**ALL_GOOD, "delivery": False}
    assert "tolerance.invalid" in failure(result).description


def test_a_dry_run_does_not_whitewash_a_failed_check(house: House) -> None:
    """A dry run after a bad run leaves `delivery` failed, as a warning: it has delivered nothing."""
    house.sql("update marts.customers set email = 'no address' where points < 5")
    house.run()
    result = house.run(dry_run=True)
    assert result.success
    assert checks(result) == {**ALL_GOOD, "delivery": False}


def test_rejected_rows_over_the_tolerance_fail_their_check(house: House) -> None:
    """What Batch refuses inside a 202 counts in `rejected_share`."""
    house.simulator.inject({"partial": [{"custom_id": "c1", "attribute": "plan", "reason": "no"}]})
    result = house.run()
    assert checks(result) == {"delivery": False, "rejected_share": False, "guard": True}
    assert metadata(result)["rejected"] == 1


def test_a_wrong_key_fails_the_run_in_a_sentence(house: House) -> None:
    """A 401 ends the run as failed, with what to check; nothing is materialized."""
    house.simulator.credentials[PROJECT_KEY] = "another"
    result = house.run()
    assert not result.asset_materializations_for_node(STEP)
    assert "batch.rest_key" in failure(result).description
    assert failure(result).metadata["outcome"].value == "failed"


def test_a_missing_secret_fails_the_run_and_names_the_variable(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Definitions load without the environment; the run says which variable is not set."""
    monkeypatch.delenv("ASSETS_TEST_REST_KEY")
    assert "ASSETS_TEST_REST_KEY is not set" in failure(house.run()).description


@pytest.mark.parametrize(("option", "dry_run"), [("retry_held", False), ("discard_held", True)])
def test_an_option_for_events_fails_a_profile_sync_in_a_sentence(house: House, option: str, dry_run: bool) -> None:
    """A profile sync holds no events: the run fails with the option's name, and nothing is sent."""
    asked: dict[str, Any] = {option: True, "dry_run": dry_run}
    result = house.run(**asked)
    assert f"--{option.replace('_', '-')} is for event syncs" in failure(result).description
    assert failure(result).metadata["code"].value == "usage"
    assert not result.asset_materializations_for_node(STEP)
    assert not house.simulator.requests


def test_a_second_run_of_the_same_sync_fails_as_busy_and_answers_no_check(house: House) -> None:
    """Who finds the sync busy sends nothing, and leaves the checks to the run that holds it."""
    with open_state(house.root / ".connector", PROJECT_KEY) as state, hold(state, "customers", "the other"):
        result = house.run()
    assert "already running" in failure(result).description
    assert failure(result).metadata["outcome"].value == "busy"
    assert checks(result) == {}
    assert not house.simulator.requests


def test_no_key_value_or_secret_reaches_the_event_log(house: House) -> None:
    """Metadata, checks, log lines and failures hold no attribute value, no custom id, no secret."""
    house.sql("update marts.customers set email = 'canary no address' where points < 5")
    kept = "".join(logged(house.instance, house.run(dry_run=dry).run_id) for dry in (True, False))
    assert "planned" in kept
    assert not [text for text in ("canary", "example.org", '"c1"', "'c1'", REST_KEY, PROJECT_KEY) if text in kept]


def test_progress_is_a_line_a_phase_and_no_more() -> None:
    """Thousands of calls within a few seconds give one line a phase."""
    lines: list[str] = []
    milestones = Milestones(lines.append)
    for rows in range(1, 1000):
        milestones("read", rows, None)
    milestones("diff", 0, None)
    for rows in range(1000):
        milestones("deliver", rows, 1000)
    assert lines == ["read: 1 rows", "diff", "deliver: 0 of 1,000 rows"]


def test_progress_says_how_long_an_export_is_waited_for_and_counts_files() -> None:
    """While nothing can be counted a line every few seconds says since when; downloads are files."""
    lines: list[str] = []
    clock = iter((100.0, 104.0, 105.5, 130.0, 131.0, 132.0))
    milestones = Milestones(lines.append, clock=lambda: next(clock))
    for _ in range(4):
        milestones("export running", 0, None)
    milestones("download", 0, 3)
    milestones("download", 3, 3)
    assert lines == [
        "export running", "export running, for 6 s", "export running, for 30 s", "download: 0 of 3 files", "download: 3 of 3 files",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("break_it", "status", "words"),
    [
        (lambda _: None, 0, ""),
        (lambda house: house.sql("update marts.customers set email = 'none' where points < 5"), 3, "tolerance.invalid"),
        (lambda house: house.sql("delete from marts.customers"), 4, "guard.min_rows"),
        (lambda house: house.sql("drop table marts.customers"), 1, "marts.customers"),
        (lambda house: house.write("syncs/customers.yaml", "kind: profile\n"), 2, "syncs/customers.yaml:1:"),
    ],
    ids=["green", "incomplete", "guarded", "failed", "yaml"],
)
def test_the_module_ends_with_the_runs_exit_status(
    house: House,
    break_it: Callable[[House], None],
    status: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The module answers with the report's exit status, a sentence where that is not 0, and no log."""
    break_it(house)
    with serve(house.simulator) as served:
        if status != 2:
            house.write("connector.yaml", MAIN.replace("http://127.0.0.1:1/2.11", served.base_url))
        monkeypatch.setenv("CONNECTOR_PROJECT", str(house.root))
        assert main(["customers"]) == status
    printed = capfd.readouterr()
    assert words in printed.err
    assert bool(printed.err) == bool(words)
    assert printed.err.count("\n") <= 2
    assert not printed.out


def test_the_module_refuses_a_sync_that_there_is_not(
    house: House, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A name that is no sync's is a mistake in usage, in one line."""
    monkeypatch.setenv("CONNECTOR_PROJECT", str(house.root))
    assert main(["custmers"]) == 2
    assert "custmers" in capfd.readouterr().err


def test_the_module_refuses_a_dry_run_of_an_export(
    house: House, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An export sends nothing, so that a dry run of it is a mistake in usage, and nothing is asked for."""
    house.write("syncs/profile_attributes.yaml", EXPORT)
    monkeypatch.setenv("CONNECTOR_PROJECT", str(house.root))
    assert main(["profile_attributes", "--dry-run"]) == 2
    assert "--dry-run has no meaning" in capfd.readouterr().err
    assert not (house.root / ".connector").exists()
