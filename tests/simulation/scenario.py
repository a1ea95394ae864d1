"""Scenarios drawn from a seed: a warehouse that changes, an API that fails, runs that die; and then quiet days."""

import random
from collections import Counter
from collections.abc import Sequence
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.simulation.crash import Death
from tests.simulation.oracles import problems
from tests.simulation.universe import CUSTOMERS, ORDERS, Run, Setup, Universe, universe
from tests.simulation.warehouse import Row

BUSY = "c0"
"""The profile with more events than one operation takes."""

_STEPS = 50  # of a run of this size; some runs end before the step at which they were to die
_HELD: list[dict[str, Any]] = [{"retry_held": True}, {"discard_held": True}]
_WAITS = ([1, 60, 1200, 5 * 3600, 23 * 3600], [1, 60, 60, 300, 1200])
"""Seconds between rounds, with orders and without: those grow old, profiles are hurt by what comes late."""


class Failed(AssertionError):  # noqa: N818
    """A scenario with problems; the message has the seed, the problems and the story."""


def play(folder: Path, seed: int) -> list[str]:
    """Play the scenario of this seed; what happened, line by line.

    Raises:
        Failed: A promise was broken; whatever else is raised has the seed and the story in a note.
    """
    chance = random.Random(seed)  # noqa: S311 - the same for the same seed
    setup = drawn_setup(chance)
    with universe(folder, seed, setup) as world:
        syncs = chance.choice([[CUSTOMERS], [CUSTOMERS], [ORDERS], [ORDERS], [ORDERS], [CUSTOMERS, ORDERS]])
        story = Story(world, chance, syncs)
        try:
            story.rounds()
            found = [*story.settle(), *problems(world)]
        except BaseException as error:  # Polars' panics are no Exception
            error.add_note(story.told(seed, []))
            raise
        if found:
            raise Failed(story.told(seed, found))
        return story.lines


def drawn_setup(chance: random.Random) -> Setup:
    """How the syncs are configured."""
    overlaps = [None, "0s", "0s", "15m"]
    customers: dict[str, Any] = {
        "cursor": _cursor("updated_at", chance.choice(overlaps)),
        "on_removed": chance.choice(["ignore", "clear"]),
    }
    orders: dict[str, Any] = {
        "on_unknown": chance.choice(["hold", "hold", "resend"]),
        "late": chance.choice(["hold", "hold", "drop", "restamp"]),
        "cursor": _cursor("loaded_at", chance.choice(overlaps)),
    }
    if chance.random() < 0.2:
        orders["id"] = None
    year = chance.choice([2026, 2100])  # files look brand-new, or old enough to be swept
    delivery = {"in_flight": chance.randint(1, 3)}
    start = datetime(year, 3, 2, 9, tzinfo=UTC)
    return Setup(start, delivery, chance.randint(1, 4), customers, orders)


def _cursor(column: str, overlap: str | None) -> dict[str, str] | None:
    return {"column": column, "overlap": overlap} if overlap else None


class Story:
    """A scenario while it is played."""

    def __init__(self, world: Universe, chance: random.Random, syncs: Sequence[str]) -> None:
        self._world = world
        self.chance = chance
        self.lines = [str(world.setup)]
        self.old = True
        """Some orders are placed too long ago for Batch."""
        self._gone: list[tuple[Any, dict[str, Any]]] = []
        self._numbers = 0
        self._syncs = syncs
        self._retries = chance.random() < 0.25  # else held events are only ever let go
        self._dies = chance.random() < 0.8
        self._fails = chance.random() < 0.8

    def told(self, seed: int, found: list[str], step: str = "") -> str:
        """The seed, and the step if it tells of one; what went wrong, and what had happened."""
        shown = [*found[:8], *(["…"] if len(found) > 8 else [])]
        where = f"seed {seed}, step {step}:" if step else f"seed {seed}:"
        return "\n".join([where, *(f"  {line}" for line in shown), "story:", *(f"  {x}" for x in self.lines)])

    def branch(self, label: str) -> "Story":
        """The same so far, with a chance of its own from now on."""
        made = copy(self)
        made.chance = random.Random(label)  # noqa: S311 - the same for the same label
        made.lines, made._gone = list(self.lines), list(self._gone)
        return made

    def stir(self) -> None:
        """Much changes, so that the next run has calls to make."""
        for _ in range(self.chance.randint(3, 6) if CUSTOMERS in self._syncs else 0):
            self._change_customer()
        if ORDERS in self._syncs:
            self._place(self.chance.choice([BUSY, BUSY, "c1", "c3"]) for _ in range(self.chance.choice([3, 5, 8, 20])))

    def begin(self, orders: int) -> None:
        """What the warehouse has at first."""
        if ORDERS in self._syncs:
            self._place(self.chance.choice([BUSY] * 4 + ["c1", "c2"]) for _ in range(orders))
        for number in range(self.chance.randint(2, 6) if CUSTOMERS in self._syncs else 0):
            self._world.tables.customers[f"c{number}"] = self._customer(f"c{number}")

    def rounds(self) -> None:
        """Changes, faults, deaths."""
        self.begin(self.chance.randint(12, 36))
        for _ in range(self.chance.randint(3, 5)):
            self._world.tables.write()
            for sync in self._syncs:
                self._run(sync)
            self.change()
            self.wait(self.chance.choice(_WAITS[len(self._syncs) == 1 and CUSTOMERS in self._syncs]))

    def settle(self) -> list[str]:
        """Nothing fails any more; late requests land; held events are decided; runs until all is quiet: what is not."""
        world = self._world
        world.api.clear_faults()
        world.tables.write()
        self.wait(1200)
        for sync in self._syncs:
            decisions = [{}] if sync == CUSTOMERS else _HELD if self._retries else _HELD[1:]
            for options in decisions:
                self.say(world.run(sync, **options))
        self.wait(1200)
        return [problem for sync in self._syncs for problem in self._last(sync)]

    def decided(self, sync: str, *, again: bool) -> dict[str, Any]:
        """What a last run, or one more, is asked for, so that nothing is left to decide, nor stays that was to go."""
        if sync == ORDERS:
            return self.chance.choice(_HELD) if self._retries and not again else _HELD[1]
        clears = self._world.setup.customers.get("on_removed") == "clear"  # only a full read tells who has left
        return {"full": True} if clears or self.chance.random() < 0.25 else {}

    def _last(self, sync: str) -> list[str]:
        """All is well, and a full read changes nothing at the API: neither a death nor a cursor passed anything by."""
        before, last = self._world.held(), self._world.run(sync, full=True)
        self.say(last)
        found = [] if last.report and last.report.outcome == "green" else [f"the last run of {sync} is not green"]
        changed = [key for key in last.tables.customers if last.api.profiles.get(key) != before.profiles.get(key)]
        events = last.api.events - before.events
        return found + [f"the last full read brought {name}" for name in [*changed, *events]]

    def _run(self, sync: str) -> None:
        chance, world = self.chance, self._world
        self.hurt(sync)
        options = self.options(sync)
        die_at = self._death() if self._dies and chance.random() < 0.6 else None
        interrupt_at = chance.randint(1, 6) if self._dies and chance.random() < 0.1 else None
        self.say(world.run(sync, die_at=die_at, interrupt_at=interrupt_at, **options))
        while chance.random() < 0.15 and self._dies:  # and dies again while it recovers
            self.say(world.run(sync, die_at=chance.randint(1, 15)))

    def hurt(self, sync: str) -> None:
        """What the API will get wrong in the next run."""
        world = self._world
        world.api.clear_faults()
        faults = [self._fault(sync) for _ in range(self.chance.choice([0, 1, 1, 2, 3]) if self._fails else 0)]
        world.late = world.late or any("late" in fault for fault in faults)
        world.api.inject(*faults)
        self.lines += [f"fault {fault}" for fault in faults]

    def _death(self) -> Death:
        """Anywhere, or where it matters most: around a request and the transactions that follow it."""
        chance = self.chance
        near: list[Death] = [
            ("request", chance.randint(1, 3)),
            ("applied", chance.randint(1, 3)),
            ("commit", chance.randint(3, 12)),
        ]
        return chance.choice([chance.randint(1, _STEPS), *near])

    def options(self, sync: str) -> dict[str, Any]:
        """What a run is asked for."""
        chance = self.chance
        drawn: list[dict[str, Any]] = [
            *[{}] * 8, {"full": True}, {"limit": chance.randint(1, 8)}, {"keys": (BUSY, "c1")},
        ]  # fmt: skip
        if sync == ORDERS:
            drawn += [*([{"retry_held": True}] * 2 if self._retries else []), {"discard_held": True}]
        return chance.choice(drawn)

    def _fault(self, sync: str) -> dict[str, Any]:
        chance, key = self.chance, self.chance.choice([BUSY, "c1", "c2", "c3"])
        many = chance.choice([1, 1, 2, 4])
        drawn: list[dict[str, Any]] = [
            {"status": 500, "apply": True, "times": many}, {"status": 500, "times": many},
            *[{"status": 500, "late": chance.choice([1, 90, 600])}] * (2 if sync == ORDERS else 8), {"cut": True}, {"cut": True, "apply": False},
            {"status": 202, "body": "<html>", "content_type": "text/html", "apply": chance.random() < 0.5, "times": many},
            {"status": 503, "retry_after": 0, "times": many}, {"status": 503, "times": many}, {"status": 429, "times": many},
            {"delay": 5, "apply": chance.random() < 0.5, "status": 500}, {"delay": 5, "late": 30}, {"status": 401},
            {"status": 400, "match": {"custom_id": key}, "times": chance.choice([1, 2, 8])},
            {"partial": [{"custom_id": key, "reason": "no"}], "times": many},
        ]  # fmt: skip
        name = chance.choice(["amount", "$label"]) if sync == ORDERS else chance.choice(["plan", "points"])
        drawn += [{"partial": [{"custom_id": key, "attribute": name, "reason": "no"}], "times": many}] * (
            2 if sync == ORDERS else 6
        )
        if sync == ORDERS:
            one = {"event_id": str(chance.randrange(max(self._numbers, 1)))}
            drawn += [
                {"partial": [{"custom_id": key, "event": one if chance.random() < 0.5 else {}}], "times": many}
            ] * 2
        return chance.choice(drawn) | ({"skip": chance.randint(1, 3)} if chance.random() < 0.5 else {})

    def change(self) -> None:
        """Some rows of the warehouse change, come or go."""
        for _ in range(self.chance.choice([0, 1, 2, 5]) if CUSTOMERS in self._syncs else 0):
            self._change_customer()
        if ORDERS not in self._syncs:
            return
        self._place(self.chance.choice([BUSY, BUSY, "c1", "c3"]) for _ in range(self.chance.choice([0, 0, 1, 3, 20])))
        for _ in range(self.chance.choice([0, 0, 1, 3])):
            self._change_order()

    def _change_customer(self) -> None:
        rows, chance = self._world.tables.customers, self.chance
        key = f"c{chance.choice([0, 0, 1, 1, 2, 3, 4, 5, 6])}"
        drawn = chance.random()
        if drawn < 0.2 and key in rows:
            del rows[key]
        elif key in rows:
            rows[key] = rows[key] | {self._name(): None} if drawn < 0.3 else self._changed(rows[key])
            rows[key]["updated_at"] = self._now()
        else:
            rows[key] = self._customer(key)

    def _name(self) -> str:
        return self.chance.choice(["plan", "points", "tags"])

    def _changed(self, row: dict[str, Any]) -> dict[str, Any]:
        name = self._name()
        return row | {name: self._customer("")[name]}

    def _customer(self, key: str) -> dict[str, Any]:
        """From so few values that changes are often taken back."""
        chance = self.chance
        return {
            "custom_id": key, "plan": chance.choice(["free", "pro", "pro", "", "x" * 301]),
            "points": chance.choice([1, 2, None]), "tags": chance.choice([["a"], ["a", "b"], []]), "updated_at": self._now(),
        }  # fmt: skip

    def _place(self, keys: Any) -> None:
        for key in keys:
            chance, number = self.chance, self._numbers
            self._numbers += 1
            old = [chance.uniform(23.5, 30) * 3600, 40 * 3600.0] if self.old else []
            age = chance.choice([chance.uniform(0, 10 * 3600)] * 12 + old + [-7200.0])
            placed = self._now() - timedelta(seconds=age)
            row = {
                "custom_id": key if chance.random() < 0.98 else None, "order_id": number, "ref": str(number),
                "status": chance.choice(["new", "paid"]), "amount": float(chance.randint(1, 9)),
                "ordered_at": placed.replace(microsecond=placed.microsecond // 1000 * 1000), "loaded_at": self._now(),
            }  # fmt: skip
            self._note(number, row)

    def _change_order(self) -> None:
        rows, chance = self._world.tables.orders, self.chance
        drawn = chance.random()
        if drawn < 0.4 and self._gone:
            number, row = self._gone.pop(chance.randrange(len(self._gone)))
            self._note(number, row | {"loaded_at": self._now()})
        elif rows:
            number = chance.choice(sorted(rows))
            if drawn < 0.7:
                self._gone.append((number, rows.pop(number)))
            elif self._world.setup.orders.get("id", "order_id"):  # without an id a changed row is another event
                change: Row = chance.choice([{"status": "sent"}, {"amount": 10.0}, {"custom_id": BUSY}])
                self._note(number, rows[number] | change | {"loaded_at": self._now()})

    def _note(self, number: int, row: dict[str, Any]) -> None:
        self._world.tables.orders[number] = row
        self._world.remember(row)

    def _now(self) -> datetime:
        return self._world.clock.utc().replace(tzinfo=None)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self._world.clock.sleep(seconds)
        self.lines.append(f"{seconds} s pass")

    def say(self, run: Run) -> None:
        """Note how a run went."""
        answers = Counter(f"{call.status} {call.answer}" for call in run.traffic.calls)
        what = f"{run.sync} {run.options or ''} {dict(answers) or 'no call'}"
        if run.report:
            names = ("read", "planned", "accepted", "rejected", "held", "expired", "unsent", "already_sent", "invalid")
            counts = " ".join(f"{name}={value}" for name in names if (value := getattr(run.report, name)))
            self.lines.append(f"{what}: {run.report.outcome} {counts} {' | '.join(run.report.reasons)}")
        else:
            self.lines.append(f"{what}: {f'died at {run.died}' if run.died else 'interrupted'}")
