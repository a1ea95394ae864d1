"""The alert: a webhook hears of a sync or a check that turns bad, and of its recovery; not of what is in between."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation

from assets.drift import DRIFT, REPEATED, drift_step
from assets.metadata import asset_key
from connector._model import EnvSecret, FileSecret
from connector.api import webhook
from connector.config import ProfileSync, Sync
from connector.errors import ConnectorError

ALERT_SECONDS = 30
"""Seconds between two looks at the finished runs."""

RUNS_A_LOOK = 50

DRIFT_OUTCOME = "drift"
"""The outcome of a sync whose check `drift` failed."""

_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
_ENDS = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
}


class Watched(NamedTuple):
    """What can turn bad: a sync, or its check `drift`."""

    sync: str
    check: str = ""

    def __str__(self) -> str:
        return f"{self.sync}:{self.check}" if self.check else self.sync


class Ended(NamedTuple):
    """How a run ended for one of them; `outcome` is `green` or why it is not, `message` holds no key and no value."""

    watched: Watched
    run: str
    outcome: str
    message: str


def alert_sensor(root: Path, url: EnvSecret | FileSecret, syncs: list[Sync]) -> dg.SensorDefinition:
    """A sensor that posts to the webhook when a sync or its check `drift` turns bad or good again; it starts running.

    A post that fails is tried again at the next look: the cursor moves only behind it.

    Args:
        root: The project folder, for a secret kept in a file.
        url: Where the webhook's URL is kept; read at each post.
        syncs: The syncs to watch.
    """
    steps = {asset_key(sync).to_python_identifier(): Watched(sync.name) for sync in syncs}
    steps |= {drift_step(sync): Watched(sync.name, DRIFT) for sync in syncs if isinstance(sync, ProfileSync)}

    @dg.sensor(
        name="alert_sensor",
        minimum_interval_seconds=ALERT_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts to alerts.webhook when a sync turns bad, and when it is good again.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        seen = _Seen.parse(context.cursor)
        context.update_cursor(seen.dump())
        posted = 0
        try:
            for record in _finished(context.instance, seen.until):
                for ended in _endings(context.instance, record.dagster_run, steps):
                    if (ended.outcome != "green") != (str(ended.watched) in seen.bad):
                        webhook.post(url.read(root), _message(ended))
                        posted += 1
                        seen = seen._replace(bad=seen.bad ^ {str(ended.watched)})
                        context.update_cursor(seen.dump())
                seen = seen._replace(until=record.end_time or seen.until)
                context.update_cursor(seen.dump())
        except ConnectorError as error:
            if not posted:
                raise
            # Dagster forgets the cursor of a look that fails, and what was posted would be posted again.
            return dg.SkipReason(f"posted {posted} changes, then: {error}")
        return dg.SkipReason(f"posted {posted} changes" if posted else "no sync changed its state")

    return sensor


class _Seen(NamedTuple):
    """The sensor's cursor: runs up to when it has looked at, and the syncs and checks that are bad."""

    until: float
    """When the last of these runs ended, in seconds since 1970."""
    bad: frozenset[str]

    @classmethod
    def parse(cls, text: str | None) -> "_Seen":
        """The cursor; the first look starts from now, as what failed before the sensor existed is no news."""
        if not text:
            return cls(time.time(), frozenset())
        seen = json.loads(text)
        return cls(seen["until"], frozenset(seen["bad"]))

    def dump(self) -> str:
        return json.dumps({"until": self.until, "bad": sorted(self.bad)})


def _finished(instance: dg.DagsterInstance, until: float) -> list[dg.RunRecord]:
    """Runs that ended after `until`, in that order; an older one whose tags were edited since is no news."""
    records = instance.get_run_records(
        filters=dg.RunsFilter(statuses=_FINISHED, updated_after=datetime.fromtimestamp(until, UTC)),
        limit=RUNS_A_LOOK,
        order_by="update_timestamp",
        ascending=True,
    )
    ended = [(record.end_time, record) for record in records if record.end_time and record.end_time > until]
    return [record for _, record in sorted(ended, key=lambda pair: pair[0])]


def _endings(instance: dg.DagsterInstance, run: dg.DagsterRun, steps: dict[str, Watched]) -> Iterator[Ended]:
    """How the run ended for all it was about; a dry or a busy one says nothing about a sync."""
    found: dict[Watched, Ended] = {}
    for record in instance.get_records_for_run(run.run_id, of_type=_ENDS).records:
        event = record.event_log_entry.dagster_event
        watched = steps.get(event.step_key or "") if event else None
        if event is None or watched is None or _is_dry(run, event.step_key or ""):
            continue
        if told := _told(watched, run.run_id, event):
            found[watched] = told
    yield from (ended for ended in found.values() if ended.outcome != "busy")


def _told(watched: Watched, run: str, event: dg.DagsterEvent) -> Ended | None:
    """What one event says of what is watched; a later one counts more."""
    match event.event_type:
        case dg.DagsterEventType.STEP_FAILURE:
            return _failed(watched, run, event)
        case dg.DagsterEventType.ASSET_CHECK_EVALUATION if watched.check:
            return _checked(watched, run, event.asset_check_evaluation_data)
        case dg.DagsterEventType.STEP_SUCCESS if not watched.check:
            return Ended(watched, run, "green", "the sync is green again")
        case dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED:
            return Ended(watched, run, "failed", "the run ended before the sync did")
        case _:
            return None


def _checked(watched: Watched, run: str, said: AssetCheckEvaluation) -> Ended | None:
    """A verdict that was reached in this run; a repeated one is no news."""
    if REPEATED in said.metadata:
        return None
    if said.passed:
        return Ended(watched, run, "green", "Batch holds what was delivered")
    return Ended(watched, run, DRIFT_OUTCOME, said.description or "")


def _failed(watched: Watched, run: str, event: dg.DagsterEvent) -> Ended:
    said = event.step_failure_data.user_failure_data
    if said is None:  # not raised by us, so its text may hold anything
        return Ended(watched, run, "failed", "the run failed unexpectedly; Dagster's run page says where")
    outcome = said.metadata.get("outcome")
    return Ended(watched, run, str(outcome.value) if outcome else "failed", said.description or "")


def _is_dry(run: dg.DagsterRun, step: str) -> bool:
    ops: dict[str, Any] = run.run_config.get("ops", {}) if isinstance(run.run_config, dict) else {}
    return bool(ops.get(step, {}).get("config", {}).get("dry_run"))


def _message(ended: Ended) -> dict[str, str]:
    state = "recovered" if ended.outcome == "green" else "failed"
    sync, check = ended.watched
    what = f"Check {check} of sync {sync}" if check else f"Sync {sync}"
    text = f"{what} {state} ({ended.outcome}), run {ended.run}: {ended.message}"
    said = {"sync": sync, "run": ended.run, "outcome": ended.outcome, "message": ended.message}
    return {**said, **({"check": check} if check else {}), "state": state, "text": text}
