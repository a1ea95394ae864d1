"""What must hold after every scenario, told from the warehouse's history and the API's log alone."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from connector.payload import EVENTS_MAX
from connector.state import ledger, runs, snapshots
from connector.state.database import State, open_state
from connector.state.ledger import Ledger
from tests.simulation.universe import CUSTOMERS, ORDERS, Run, Universe
from tests.simulation.warehouse import Row
from tests.simulation.wire import Call
from tests.world import PROJECT_KEY, as_sent

DAY, MARGIN = 86_400.0, 30.0


def problems(world: Universe, *, waiting: bool = False) -> list[str]:
    """What is wrong at the end of a scenario whose last runs had no fault; empty where all is as promised.

    Args:
        world: Where it was played.
        waiting: The last run may have left keys that wait out their quiet time.
    """
    with open_state(world.project.state_dir, PROJECT_KEY) as state:
        kept = ledger.load(state, ORDERS)
        return [
            *_traffic(world.runs),
            *_counts(world.runs),
            *_rate(world),
            *_stored_counts(world, state),
            *_repeats(world),
            *_green_events(world),
            *_green_profiles(world),
            *_missing(world, kept),
            *_profiles(world),
            *_left_over(world, state, kept, waiting=waiting),
        ]


def _traffic(done: Iterable[Run]) -> Iterator[str]:
    """G6: no custom ID twice in a call or in two at once; of one profile and run, events in the order of their time."""
    for run in done:
        yield from run.traffic.faults
        latest: dict[str, datetime] = {}
        known: set[str] = set()
        for part in (part for call in run.traffic.calls for part in call.parts):
            for event, time in zip(part.events, part.times, strict=True):
                if time is None or event in known:
                    continue
                known.add(event)
                if time < latest.get(part.key, time):
                    yield f"event {event} left after a later one of its profile"
                latest[part.key] = time


def _counts(done: Iterable[Run]) -> Iterator[str]:
    """G11: what a report calls accepted is what the API was heard to accept whole."""
    for run in done:
        if run.report is None:
            continue
        parts = [part for call in run.traffic.calls if call.answer == "accepted" for part in call.parts]
        whole = [part for part in parts if part.applied]
        heard = sum(len(part.events) for part in whole) if run.sync == ORDERS else len(whole)
        if run.report.accepted != heard:
            yield f"{run.sync}: {run.report.accepted} accepted by the report, {heard} by the API"
        if run.report.requests != len(run.traffic.calls):
            yield f"{run.sync}: {run.report.requests} requests by the report, {len(run.traffic.calls)} by the API"


def _rate(world: Universe) -> Iterator[str]:
    """G10: where the API has a limit, no call goes beyond it, whatever died before."""
    if refused := world.api.stats["throttled"]:
        yield f"{refused} calls were beyond the rate"


def _stored_counts(world: Universe, state: State) -> Iterator[str]:
    """Also the reports of killed runs, which the next run closes, add up; in doubt are only unanswered chunks and those in flight."""
    most = world.project.settings.delivery.in_flight * world.setup.per_call * EVENTS_MAX
    most += doubts(run for run in world.runs if run.died).total()
    for report in runs.reports(state):
        parts = sum(report[name] for name in ("accepted", "rejected", "held", "expired", "unsent"))
        if report["planned"] != parts:
            yield f"{report['sync']}: of {report['planned']} planned rows the stored report explains {parts}"
        killed = report.get("error", {}).get("code") == "killed"
        if killed and world.setup.orders.get("late") != "hold" and report["held"] > most:
            yield f"{report['sync']}: {report['held']} events of a killed run are held, at most {most} were in doubt"


def doubts(done: Iterable[Run]) -> Counter[str]:
    """How often each event was in a call whose outcome for it nobody could know."""
    found: Counter[str] = Counter()
    for run in done:
        for call in run.traffic.calls:
            if call.answer == "accepted":
                found.update(event for part in call.parts if part.ambiguous for event in part.events)
            elif call.answer == "unknown":
                found.update(call.events)
        if run.died:
            found.update(event for call in _unsettled(run) for event in call.events)
    return found


def _unsettled(run: Run) -> list[Call]:
    """Calls of a run that died which were accepted, but perhaps not noted: at most those of the chunks in flight."""
    accepted = [call for call in run.traffic.calls if call.answer == "accepted"]
    return [call for call in accepted if call.commits == run.commits]


def _repeats(world: Universe) -> Iterator[str]:
    """G4, G5: an event comes again only where its call's outcome was unknown, and under `hold` only when asked."""
    known = doubts(world.runs)
    hold = world.project.syncs[ORDERS].on_unknown == "hold"  # type: ignore[union-attr]
    asked = any(run.options.get("retry_held") for run in world.runs)
    for event, times in world.held().events.items():
        most = 1 if hold and not asked else 1 + known[event]
        if times > most:
            yield f"event {event} is at the API {times} times, at most {most} were allowed"


def _late(done: Iterable[Run], number: int, ended: float | None = None) -> bool:
    """Whether the order was too old for Batch in any run (up to a moment) that could read it."""
    return any(
        run.ended - at(run.tables.orders[number]) >= DAY - MARGIN
        for run in done
        if run.sync == ORDERS and number in run.tables.orders and (ended is None or run.ended <= ended)
    )


def at(order: Row) -> float:
    """When an order was placed, in seconds since 1970."""
    return float(order["ordered_at"].replace(tzinfo=UTC).timestamp())


def _let_go(done: list[Run]) -> set[str]:
    """Events that may rightly never arrive: in doubt under `hold`, and then discarded.

    Which of them a run that died had been about to send cannot be told from outside; how many is bounded elsewhere.
    """
    if not any(run.options.get("discard_held") for run in done):
        return set()
    died = [run for run in done if run.died and run.sync == ORDERS]
    refs = {order["ref"] for run in died for order in run.tables.orders.values()}
    return set(doubts(done)) | refs


def _green_events(world: Universe) -> Iterator[str]:
    """G11: after a green run every event that was due is at the API, or was let go by a rule or by the operator."""
    restamp = world.project.syncs[ORDERS].late == "restamp"  # type: ignore[union-attr]
    for place, run in enumerate(world.runs):
        if run.sync != ORDERS or run.report is None or run.report.outcome != "green" or not run.plain:
            continue
        let_go = _let_go(world.runs[: place + 1])
        for number, order in run.tables.orders.items():
            missing = order["custom_id"] is not None and not run.api.events[order["ref"]]
            excused = order["ref"] in let_go or at(order) > run.ended - 60
            if missing and not excused and (restamp or not _late(world.runs[: place + 1], number)):
                yield f"run {place} was green without event {order['ref']}"


def _missing(world: Universe, kept: Ledger) -> Iterator[str]:
    """G3: at the end every event of the source is at the API, or is listed where a rule says so; nothing is undecided."""
    sync = world.project.syncs[ORDERS]
    by_id = sync.id is not None  # type: ignore[union-attr]
    listed = {
        entry["id"] if by_id else (entry["key"], entry["time"]): entry
        for entry in kept.listed().to_dicts()
        if not entry["attribute"]
    }
    for place in {entry["id"] for entry in listed.values() if entry["state"] == "held"}:
        yield f"event {place} is still held"
    applied, let_go = world.held().events, _let_go(world.runs)
    for number, order in world.tables.orders.items():
        if applied[order["ref"]] or order["custom_id"] is None:
            continue
        entry = listed.get(str(number) if by_id else (order["custom_id"], round(at(order) * 1000)))
        late = sync.late != "restamp" and _late(world.runs, number)  # type: ignore[union-attr]
        future = at(order) > world.clock.wall() - 60
        due = "listed as invalid" if future else "listed as expired" if late or order["ref"] in let_go else "at the API"
        if entry is None or due == "at the API" or entry["state"] != ("" if future else "expired"):
            found = f"{entry['state'] or entry['reason']}" if entry else "nowhere"
            yield f"event {order['ref']} should be {due}, and is {found}"
    placed = world.history
    for event in world.api.events():
        ref, attributes = str(event["attributes"]["ref"]), event["attributes"]
        if (event["custom_id"], attributes.get("$label"), attributes.get("amount")) not in placed[ref]:
            yield f"event {ref} arrived with values that it never had"


def _wrong(customers: dict[str, Row], profiles: dict[str, dict[str, object]], mapped: Iterable[str]) -> Iterator[str]:
    for key, row in customers.items():
        for name in mapped:
            value, found = as_sent(row[name]), profiles.get(key, {}).get(name)
            if value != found and not is_bad(row[name]):
                yield f"{key}.{name} is {found!r}, should be {value!r}"


def is_bad(value: object) -> bool:
    """A value that the rules withhold."""
    return isinstance(value, str) and len(value) > 300


def _green_profiles(world: Universe) -> Iterator[str]:
    """G1: after a green run the profiles are as the warehouse was, unless a lost request could still be applied."""
    for place, run in enumerate(world.runs):
        if run.sync == CUSTOMERS and run.report and run.report.outcome == "green" and run.plain and not world.late:
            yield from (
                f"run {place} was green: {wrong}"
                for wrong in _wrong(run.tables.customers, run.api.profiles, run.mapped)
            )


def _profiles(world: Universe) -> Iterator[str]:
    """G1, G2: at the end every profile is as the warehouse is; those that left it are cleared where that was asked."""
    profiles = world.held().profiles
    yield from _wrong(world.tables.customers, profiles, world.mapped)
    if world.project.syncs[CUSTOMERS].on_removed == "clear":  # type: ignore[union-attr]
        for key, held in profiles.items():
            if key not in world.tables.customers and held:
                yield f"{key} left the source and still has {', '.join(held)}"


def _left_over(world: Universe, state: State, kept: Ledger, *, waiting: bool) -> Iterator[str]:
    """No run is open, no outbox is left, every file that a manifest names is there, nothing is due for no reason."""
    for sync in (CUSTOMERS, ORDERS):
        yield from (f"run {run.id} is still open" for run in runs.unfinished(state, sync))
    yield from (f"{path.name} is left in the outbox" for path in (state.folder / "outbox").iterdir())
    snapshot = snapshots.load(state, CUSTOMERS)
    files = [snapshot.folder / file["name"] for file in snapshot.files]
    files += [kept.folder / file["name"] for file in kept.files]
    yield from (f"{path} is named by a manifest and missing" for path in files if not path.exists())
    for entry in runs.due(state, CUSTOMERS).to_dicts():
        waits = waiting and entry["reason"] == "unknown" and entry["quiet_until"] > world.clock.wall()
        if entry["reason"] != "withheld" and not waits:
            yield f"{entry['key']} is due for {entry['reason']}"
