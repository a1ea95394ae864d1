"""The check `drift`: what runs it, what it finds, and that a materialization never asks Batch for an export."""

import re
from typing import Any

import dagster as dg
import pytest

from assets.definitions import current_project
from assets.drift import DRIFT
from assets.factory import build_project_defs, build_sync_defs
from connector.config import load_project
from connector.state.database import open_state
from connector.state.lease import hold
from tests.assets.conftest import MAIN, PROJECT_KEY, STEP, SYNC, House, checks, failure, logged, metadata

KEY = dg.AssetKey(["batch", "customers"])
DRIFT_KEY = dg.AssetCheckKey(KEY, DRIFT)
DRIFT_STEP = f"{STEP}_drift"
RECONCILE, EVERYTHING = "customers_reconcile_job", "__ASSET_JOB"
DELIVERED = {"delivery": True, "rejected_share": True, "guard": True}


@pytest.fixture
def delivered(house: House) -> House:
    """40 customers at Batch, one of whom somebody else altered and one of whom is gone."""
    reconciles(house)
    house.run()
    house.simulator.alter("c3", {"plan": "silver"})
    house.simulator.forget("c7")
    return house


def reconciles(house: House, settings: str = "{}") -> None:
    house.write("syncs/customers.yaml", SYNC + f"reconcile: {settings}\n")


def evaluation(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (found,) = (said for said in result.get_asset_check_evaluations() if said.check_name == DRIFT)
    return found


def found_by(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    return {name: value.value for name, value in evaluation(result).metadata.items()}


def test_the_check_its_job_and_its_schedule_follow_from_the_yaml(house: House) -> None:
    """Where the YAML reconciles there is a check, a job of it alone and a stopped schedule; the sync's job lacks it."""
    house.write("syncs/leads.yaml", SYNC)
    reconciles(house, '{schedule: {cron: "0 4 * * 0", timezone: Europe/Paris}}')
    defs = build_project_defs(load_project(house.root))
    dg.Definitions.validate_loadable(defs)
    repository = defs.get_repository_def()
    assert [key for key in defs.resolve_asset_graph().asset_check_keys if key.name == DRIFT] == [DRIFT_KEY]
    jobs = {
        name: [node.name for node in repository.get_job(f"{name}_job").nodes]
        for name in ("customers", "customers_reconcile")
    }
    assert jobs == {"customers": [STEP], "customers_reconcile": [DRIFT_STEP]}
    assert not repository.has_job("leads_reconcile_job")
    schedule = repository.get_schedule_def("customers_reconcile_schedule")
    assert (schedule.execution_timezone, schedule.cron_schedule) == ("Europe/Paris", "0 4 * * 0")
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    reconciles(house, '{schedule: {cron: "0 4 * * 0", enabled: true}}')
    enabled = build_project_defs(load_project(house.root)).get_repository_def()
    assert enabled.get_schedule_def("customers_reconcile_schedule").default_status is dg.DefaultScheduleStatus.RUNNING
    reconciles(house)
    assert not build_sync_defs(load_project(house.root), load_project(house.root).sync("customers")).schedules


def test_a_drift_is_found_healed_and_gone(delivered: House) -> None:
    """Without `heal` the check fails with numbers and attribute names; with it they are due, and then nothing differs."""
    result = delivered.job(RECONCILE)
    said, found = evaluation(result), found_by(result)
    assert result.success
    assert (said.passed, said.severity) == (False, dg.AssetCheckSeverity.ERROR)
    counts = ("checked", "missing", "differing", "unknown", "healed")
    assert [found[name] for name in counts] == [40, 1, 1, 0, 0]
    assert "| `plan` | 1 |" in found["by_attribute"]
    assert "connector reconcile customers --heal" in (said.description or "")
    kept = logged(delivered.instance, result.run_id)
    assert not [text for text in ("canary", PROJECT_KEY, "silver") if text in kept]
    assert not re.search(r"\bc[37]\b", kept)

    reconciles(delivered, "{heal: true}")
    result = delivered.job(RECONCILE)
    assert evaluation(result).passed
    assert found_by(result)["healed"] == 2
    assert metadata(delivered.run())["retried"] == 2
    result = delivered.job(RECONCILE)
    assert [found_by(result)[name] for name in counts] == [40, 0, 0, 0, 0]
    assert evaluation(result).passed


def test_materializing_asks_for_no_export_and_repeats_the_last_verdict(delivered: House) -> None:
    """Dagster runs all checks along: none is given before the first comparison, and then the last one, whole."""
    first = delivered.job(EVERYTHING, [KEY])
    assert checks(first) == DELIVERED
    assert not delivered.simulator.exports()
    compared = delivered.job(RECONCILE)
    for selection in ([KEY], None):
        again = delivered.job(EVERYTHING, selection)
        assert checks(again) == {**DELIVERED, DRIFT: False}
        assert found_by(again) == {**found_by(compared), "repeated": True}
        assert evaluation(again).description == evaluation(compared).description
    assert again.success
    assert len(delivered.simulator.exports()) == 1
    assert checks(delivered.job("customers_job")) == DELIVERED


def test_a_guarded_healing_fails_the_check_until_the_run_config_allows_it(house: House) -> None:
    """So many are no drift but a mistake, perhaps: they are shown, and made due once somebody says why."""
    reconciles(house, "{heal: true}")
    house.run()
    for number in range(30):
        house.simulator.forget(f"c{number}")
    result = house.job(RECONCILE)
    assert result.success
    assert not evaluation(result).passed
    assert "guard.max_changed allows 50%" in (evaluation(result).description or "")
    assert (found_by(result)["missing"], found_by(result)["healed"], found_by(result)["outcome"]) == (30, 0, "guarded")
    allowed = house.job(RECONCILE, **{DRIFT_STEP: {"allow_mass_change": "restored from a backup"}})
    assert evaluation(allowed).passed
    assert found_by(allowed)["healed"] == 30


def test_what_could_not_be_compared_is_no_verdict(house: House) -> None:
    """Nothing delivered, a wrong key, an export under way, a busy one: the run fails with why, the check says nothing."""
    reconciles(house)
    path = house.root / "connector.yaml"
    path.write_text(MAIN.replace("give_up_after: 60s", "give_up_after: 100ms"))
    ends = [house.job(RECONCILE)]
    house.run()
    house.simulator.inject({"endpoint": "view", "status": 503, "times": 100})
    ends.append(house.job(RECONCILE))
    house.simulator.clear_faults()
    with open_state(house.root / ".connector", PROJECT_KEY) as state, hold(state, "#reconcile-customers", "the other"):
        ends.append(house.job(RECONCILE))
    house.simulator.credentials[PROJECT_KEY] = "another"
    ends.append(house.job(RECONCILE))
    assert [failure(end).metadata["outcome"].value for end in ends] == ["failed", "incomplete", "busy", "failed"]
    words = ("delivered nothing yet", "the next run goes on with this export", "already running", "batch.rest_key")
    assert all(word in failure(end).description for end, word in zip(ends, words, strict=True))
    assert not any(checks(end) for end in ends)
    assert len(house.simulator.exports()) == 1


def test_a_sync_whose_job_would_be_the_checks_is_a_mistake(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two jobs of one name would take the whole code location down."""
    reconciles(house)
    house.write("syncs/customers_reconcile.yaml", SYNC)
    monkeypatch.setenv("CONNECTOR_PROJECT", str(house.root))
    with pytest.raises(
        dg.DagsterInvalidDefinitionError, match="the job customers_reconcile_job of Dagster, which syncs/customers"
    ):
        current_project()
    house.write("syncs/customers.yaml", SYNC)
    assert sorted(current_project().syncs) == ["customers", "customers_reconcile"]
