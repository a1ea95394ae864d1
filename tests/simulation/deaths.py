"""Scenarios in which a run dies at step 1, 2, 3, … n, in many worlds.

A seed draws a world and what happened in it before; then one run is watched, and what a death would leave is kept of
each of its steps. Each is a scenario: something happens meanwhile, one run sets all right, the oracles look. Of some a
run that recovers is watched in turn, so that it dies at its steps, too.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from connector.simulator import Rate
from tests.simulation.image import Image
from tests.simulation.oracles import problems
from tests.simulation.scenario import Failed, Story, drawn_setup
from tests.simulation.universe import CUSTOMERS, ORDERS, Setup, Universe, universe
from tests.world import PROJECT_KEY

SCENARIOS = 60
"""Of a seed."""

_OF_A_RECOVERY = 8
"""Scenarios for which a recovery is watched."""

_TWICE = 0.08
"""Share of the scenarios in which a run recovers before all that was lost is applied, and then one more."""

_HOUR = 3600.0
_SETTLED = 1200.0
"""Seconds after which no lost request can be applied any more, and none is waited for."""


class _Moment(NamedTuple):
    """Where a scenario begins: `step` is the death's number, in a recovery after that of the death before and a dot."""

    step: str
    image: Image
    story: Story


def play(folder: Path, seed: int, step: str | None = None) -> dict[str, list[str]]:
    """Play the scenarios of a seed, or that of one step alone; what happened, line by line, by step.

    Raises:
        Failed: A promise was broken; whatever else is raised has seed, step and story in a note.
    """
    chance = random.Random(f"deaths {seed}")  # noqa: S311 - the same for the same seed
    sync = chance.choice([CUSTOMERS, ORDERS])
    with universe(folder, seed, _setup(chance)) as world:
        tree = _Tree(world, seed, chance, sync)
        moments = tree.moments() if step is None else [tree.moment(step)]
        return {moment.step: tree.play(moment) for moment in moments}


def _setup(chance: random.Random) -> Setup:
    setup = replace(drawn_setup(chance), per_call=chance.choice([1, 1, 2, 3]))
    if chance.random() < 0.3:
        setup = replace(setup, rate=Rate(5, 5 * setup.per_call))  # as many calls at once as are documented
    if chance.random() < 0.2:  # not all attributes are mapped at first
        setup = replace(setup, customers=setup.customers | {"attributes": {"plan": "plan", "points": "points"}})
        if setup.orders.get("id", "order_id"):
            setup = replace(setup, orders=setup.orders | {"attributes": {"$label": "status", "ref": "ref"}})
    return setup


class _Tree:
    """All scenarios of a seed: they have their beginning in common."""

    def __init__(self, world: Universe, seed: int, chance: random.Random, sync: str) -> None:
        self._world, self._seed, self._chance, self._sync = world, seed, chance, sync
        self._before = world.tables.rows()
        self._first = self._begun(Story(world, chance, [sync]))

    def moments(self) -> Iterator[_Moment]:
        """As many as are played; all deaths of the first run before those of recoveries."""
        first = self._chance.sample(self._first, len(self._first))
        yield from first[:SCENARIOS]
        left = SCENARIOS - len(first)
        for moment in first:
            if left <= 0:
                break
            second = self._second(moment)
            drawn = self._chance.sample(second[:-1], min(len(second), left, _OF_A_RECOVERY) - 1)
            yield from (*drawn, second[-1])  # it lives to its end in one of them
            left -= len(drawn) + 1

    def moment(self, step: str) -> _Moment:
        """That of one step."""
        first, _, second = step.partition(".")
        moment = self._first[int(first) - 1]
        return self._second(moment)[int(second) - 1] if second else moment

    def play(self, moment: _Moment) -> list[str]:
        """A scenario: something happens, one run sets all right; what happened."""
        story = self._gone_on(moment, "")
        try:
            found = self._settled(story)
        except BaseException as error:  # Polars' panics are no Exception
            error.add_note(story.told(self._seed, [], moment.step))
            raise
        if found:
            raise Failed(story.told(self._seed, found, moment.step))
        return story.lines

    def _begun(self, story: Story) -> list[_Moment]:
        """A few runs that live, and then the moments of one that is watched."""
        story.old = self._chance.random() < 0.2
        story.begin(self._chance.choice([3, 5, 8]))
        for _ in range(self._chance.randint(0, 2)):
            self._world.tables.write()
            story.hurt(self._sync)
            story.say(self._world.run(self._sync, **story.options(self._sync)))
            self._before = self._world.tables.rows()
            story.change()
            story.wait(self._chance.choice([1, 60, 1200]))
        story.stir()
        story.wait(1)  # a row that is loaded in the very moment of the reading is the next run's
        return self._watched(story, "")

    def _second(self, moment: _Moment) -> list[_Moment]:
        """The moments of a run that recovers."""
        story = self._gone_on(moment, "recovery")
        return self._watched(story, f"{moment.step}.")

    def _watched(self, story: Story, prefix: str) -> list[_Moment]:
        images: list[Image] = []
        self._world.tables.write()
        story.hurt(self._sync)
        run = self._world.run(self._sync, images=images, **story.options(self._sync))
        lived = story.branch("lived")
        lived.say(run)
        stories = [story] * (len(images) - 1) + [lived]
        return [_Moment(f"{prefix}{n}", *pair) for n, pair in enumerate(zip(images, stories, strict=True), 1)]

    def _gone_on(self, moment: _Moment, what: str) -> Story:
        """The world as that death left it, and what has happened meanwhile."""
        world, label = self._world, f"{self._seed} {moment.step} {what}"
        world.go_on_from(moment.image, label)
        story = moment.story.branch(label)
        chance = story.chance
        if moment.image.died:
            story.say(world.runs[-1])
        if chance.random() < 0.3:
            story.lines.append(f"{len(world.underway)} requests that were under way arrive")
            world.land()
        happens = chance.choice(
            ["nothing", "change", "revert", "revert"] + (["clock", "key", "mapping"] if what else [])
        )
        story.lines.append(f"meanwhile: {happens}")
        match happens:
            case "change":
                story.change()
            case "revert":
                self._revert()
            case "clock":
                world.clock.set_ahead(timedelta(seconds=chance.choice([-_HOUR, _HOUR])))
            case "key":
                world.api.credentials[PROJECT_KEY] = "rotated"
            case "mapping":
                self._map_all()
        story.wait(chance.choice([1, 60, _SETTLED]))
        return story

    def _revert(self) -> None:
        """The rows are what they were before the last change, which the warehouse did now."""
        world = self._world
        now = world.clock.utc().replace(tzinfo=None)
        rows, before = world.tables, self._before
        rows.customers = {
            key: row if rows.customers.get(key) == row else row | {"updated_at": now}
            for key, row in before.customers.items()
        }
        for number, row in before.orders.items():
            if rows.orders.get(number) != row:
                rows.orders[number] = row | {"loaded_at": now}

    def _map_all(self) -> None:
        """Every attribute is mapped."""
        setup = self._world.setup
        if "attributes" in setup.customers:
            parts = [
                {name: value for name, value in part.items() if name != "attributes"}
                for part in (setup.customers, setup.orders)
            ]
            self._world.configure(replace(setup, customers=parts[0], orders=parts[1]))

    def _settled(self, story: Story) -> list[str]:
        """What is wrong once nothing fails any more, what was lost was applied, and one run had its say, or two."""
        world, chance = self._world, story.chance
        world.api.clear_faults()
        world.rotate(world.api.credentials[PROJECT_KEY])
        world.clock.set_ahead(timedelta())
        self._map_all()
        world.tables.write()
        twice = chance.random() < _TWICE
        if twice:
            story.say(world.run(self._sync, **story.decided(self._sync, again=False)))
        if world.underway and chance.random() < 0.5:
            story.lines.append("requests that were under way arrive late")
            world.late = True
            world.land()
        for again in (twice, True):
            story.wait(_HOUR + _SETTLED)
            run = world.run(self._sync, **story.decided(self._sync, again=again))
            story.say(run)
            if run.report and run.report.outcome == "green":  # it is not where it finds what is too late
                return problems(world, waiting=not twice)
        return ["the last run is not green"]
