"""Writes that share a transaction: how many share one, and what becomes of each when it fails."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
import sqlalchemy as sa

from connector.errors import StateError
from connector.state.database import META, State
from connector.state.group import GroupCommit
from connector.state.lease import Lease


@pytest.fixture
def commits(state: State) -> Iterator[list[None]]:
    """One item a transaction that was committed."""
    seen: list[None] = []

    def note(_connection: sa.Connection) -> None:
        seen.append(None)

    sa.event.listen(state.engine, "commit", note)
    yield seen
    sa.event.remove(state.engine, "commit", note)


def adding(name: str) -> Callable[[sa.Connection], str]:
    """An entry that leaves a row of this name."""

    def entry(connection: sa.Connection) -> str:
        connection.execute(sa.insert(META), {"name": name, "value": ""})
        return name

    return entry


def refused(_connection: sa.Connection) -> None:
    raise StateError("no", remedy="none")


def added(state: State) -> set[str]:
    with state.read() as connection:
        return {name for name in connection.execute(sa.select(META.c.name)).scalars() if name.startswith("+")}


def together(*asked: Awaitable[object]) -> list[object]:
    """What each came to, all asked in one turn of an event loop."""

    async def gathered() -> list[object]:
        return await asyncio.gather(*asked, return_exceptions=True)

    return asyncio.run(gathered())


def test_what_is_asked_at_once_shares_a_transaction(state: State, lease: Lease, commits: list[None]) -> None:
    """Eight that ask in one turn of the loop cost one commit, each gets its own answer, and all is kept."""
    group = GroupCommit(state, lease)
    names = [f"+{number}" for number in range(8)]
    assert together(*(group.write(adding(name)) for name in names)) == names
    assert (len(commits), added(state)) == (1, set(names))


def test_what_is_asked_later_is_in_a_later_transaction(state: State, lease: Lease, commits: list[None]) -> None:
    """Whoever gets its answer is kept, and can ask again."""

    async def twice(group: GroupCommit) -> list[str]:
        return [await group.write(adding(name)) for name in ("+one", "+two")]

    assert asyncio.run(twice(GroupCommit(state, lease))) == ["+one", "+two"]
    assert (len(commits), added(state)) == (2, {"+one", "+two"})


def test_refused_entry_takes_no_other_with_it(state: State, lease: Lease, commits: list[None]) -> None:
    """Where one may not write, as it lost its turn, what the others settled at the same time is kept."""
    group = GroupCommit(state, lease)
    one, error, two = together(group.write(adding("+one")), group.write(refused), group.write(adding("+two")))
    assert (one, two, added(state), len(commits)) == ("+one", "+two", {"+one", "+two"}, 1)
    assert isinstance(error, StateError)


def test_failed_transaction_fails_all_that_share_it(state: State, lease: Lease) -> None:
    """What the database refuses is kept of none, and none is told otherwise."""
    group = GroupCommit(state, lease)
    told = together(group.write(adding("+one")), group.write(adding("+one")), group.write(adding("+two")))
    assert all(isinstance(each, StateError) for each in told), told
    assert added(state) == set()


def test_lost_lease_lets_nothing_be_written(state: State) -> None:
    """Under an older fence no entry is even tried."""
    stale = Lease("customers", "run-0", 0, 0.0)
    (told,) = together(GroupCommit(state, stale).write(adding("+one")))
    assert isinstance(told, StateError)
    assert added(state) == set()


def test_who_is_cancelled_has_written_all_the_same(state: State, lease: Lease) -> None:
    """An answer that came in while a run is stopped is noted, and the others get theirs."""

    async def cancelled() -> str:
        group = GroupCommit(state, lease)
        first = asyncio.create_task(group.write(adding("+one")))
        second = asyncio.create_task(group.write(adding("+two")))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        return await second

    assert asyncio.run(cancelled()) == "+two"
    assert added(state) == {"+one", "+two"}
