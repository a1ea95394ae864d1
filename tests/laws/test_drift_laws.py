"""Laws of the comparison: a faithful export shows no drift, and one altered attribute shows exactly that."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from connector import drift, export_lines
from connector.drift import Delivered, Drift
from connector.hashing import HASH, UNKNOWN, hashed
from connector.judging import apply
from connector.mapping import KEY, Attribute, AttributeMapping, Column, resolve
from connector.simulator import Simulator
from connector.simulator.export_lines import export_lines as lines
from connector.simulator.export_rules import read_export
from connector.state.snapshots import AT, DELETED, Snapshot, write
from tests.world import PROJECT_KEY, REST_KEY

ASKED = 1_000_000.0
SEED = 11

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20).filter(
    str.strip
)
VALUES: Mapping[str, tuple[pl.DataType, st.SearchStrategy[Any]]] = {
    "text": (pl.String(), texts),
    "whole": (pl.Int64(), st.integers(-(2**63), 2**63 - 1)),
    "number": (pl.Float64(), st.floats(allow_nan=False, allow_infinity=False)),
    "flag": (pl.Boolean(), st.booleans()),
    "day": (pl.Datetime("ms"), st.datetimes().map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000))),
    "site": (pl.String(), st.integers(0, 99).map(lambda n: f"https://example.org/{n}")),
    "tags": (pl.List(pl.String), st.lists(texts, min_size=1, max_size=5)),
}  # fmt: skip
PROFILE = st.fixed_dictionaries({name: st.none() | values for name, (_, values) in VALUES.items()})
PEOPLE = st.dictionaries(st.integers(0, 99).map(lambda n: f"c{n}"), PROFILE, min_size=1, max_size=8)
STYLES = st.fixed_dictionaries(
    {"export_style": st.sampled_from(["bare", "wrapped"]), "export_dates": st.sampled_from(["rfc3339", "epoch_ms"])}
)


class Case:
    """People as they were delivered, at Batch and in a snapshot."""

    def __init__(self, folder: Path, people: Mapping[str, dict[str, Any]], style: dict[str, Any]) -> None:
        self._folder = folder
        schema = {"custom_id": pl.String(), **{name: dtype for name, (dtype, _) in VALUES.items()}}
        source = pl.DataFrame([{"custom_id": key, **row} for key, row in people.items()], schema=schema)
        types = {"site": "url", "tags": "array"}
        attributes = {name: AttributeMapping(column=name, type=types.get(name)) for name in VALUES}
        mapping = resolve([Column(name, dtype) for name, dtype in source.schema.items()], "custom_id", attributes)
        mapped = apply(mapping, source)
        self.valid = mapped.valid
        self.attributes: tuple[Attribute, ...] = tuple(mapping.attributes)
        self.api = Simulator({PROJECT_KEY: REST_KEY})
        self.api.configure(**style)
        for row in self.valid.iter_rows(named=True):
            self.api.alter(row[KEY], {wrapped(name): told for name in VALUES if (told := sent(row[name])) is not None})
        hashes = hashed(self.valid, self.attributes, SEED).with_columns(
            self.valid[KEY], pl.lit(value=False).alias(DELETED), pl.lit(5, pl.Int64).alias(AT)
        )
        snapshot = Snapshot(folder / "snapshot", {}, 1)
        file = write(snapshot, [hashes])
        self.snapshot = Snapshot(folder / "snapshot", {"files": [file] if file else []}, 1)

    def compared(self, unordered: frozenset[str] = frozenset()) -> Drift:
        """What Batch says now, held against the snapshot."""
        body = (
            b'{"export_type":"ATTRIBUTES","identifiers":["custom_id"],"attributes":["'
            + b'","'.join(n.encode() for n in VALUES)
            + b'"]}'
        )
        project = self.api.project()
        content = b"".join(lines(read_export(body, 0.0), project._store, project.settings))
        path = self._folder / "export"
        path.write_bytes(content)
        wanted = drift.extracts({attribute.name: attribute.type for attribute in self.attributes})
        with export_lines.json_reader() as reader:
            frames = [frame.rows for frame in export_lines.read(reader, path, len(content), wanted)]
        return drift.compare(frames, Delivered(self.snapshot, self.attributes, unordered, SEED, ASKED))


def wrapped(name: str) -> str:
    return {"day": "date(day)", "site": "url(site)"}.get(name, name)


def sent(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value


@settings(max_examples=25, deadline=None)
@given(PEOPLE, STYLES)
def test_a_faithful_export_shows_no_drift(
    tmp_path_factory: Any, people: dict[str, dict[str, Any]], style: dict[str, Any]
) -> None:
    """Law: what Batch gives back as it was sent, in any of the forms, is what was delivered."""
    found = Case(tmp_path_factory.mktemp("law"), people, style).compared()
    assert (found.checked, found.rows.height, found.unknown) == (len(people), 0, 0)
    assert set(found.by_attribute.values()) == {0}


@settings(max_examples=25, deadline=None)
@given(PEOPLE, STYLES, st.data())
def test_one_altered_attribute_shows_alone(
    tmp_path_factory: Any, people: dict[str, dict[str, Any]], style: dict[str, Any], data: st.DataObject
) -> None:
    """Law: another value of one attribute of one profile is that drift, and healing it makes that attribute due alone."""
    case = Case(tmp_path_factory.mktemp("law"), people, style)
    key, name = data.draw(st.sampled_from(sorted(people))), data.draw(st.sampled_from(sorted(VALUES)))
    held = dict(case.valid.filter(pl.col(KEY) == key).to_dicts()[0])[name]
    other = data.draw((st.none() | VALUES[name][1]).filter(lambda value: not same(value, held)))
    case.api.alter(key, {wrapped(name): sent(other)})
    found = case.compared()
    assert (found.checked, found.missing.height, found.differing[KEY].to_list()) == (len(people), 0, [key])
    assert {attribute for attribute, rows in found.by_attribute.items() if rows} == {name}
    names = list(VALUES)
    (healed,) = drift.doubtful(found.rows, names).to_dicts()
    assert {attribute for attribute in names if healed[HASH + attribute] == UNKNOWN} == {name}
    assert drift.doubtful(found.rows, names, [name]).is_empty()


@settings(max_examples=15, deadline=None)
@given(PEOPLE, STYLES, st.data())
def test_a_forgotten_profile_is_missing(
    tmp_path_factory: Any, people: dict[str, dict[str, Any]], style: dict[str, Any], data: st.DataObject
) -> None:
    """Law: a profile that Batch lost is missing unless it had no value, and all of it becomes due, consent or not."""
    case = Case(tmp_path_factory.mktemp("law"), people, style)
    key = data.draw(st.sampled_from(sorted(people)))
    row = dict(case.valid.filter(pl.col(KEY) == key).to_dicts()[0])
    case.api.forget(key)
    found = case.compared()
    empty = all(row[name] is None for name in VALUES)
    assert found.missing[KEY].to_list() == ([] if empty else [key])
    assert found.differing.is_empty()
    for healed in drift.doubtful(found.rows, list(VALUES), list(VALUES)).to_dicts():
        assert all(healed[HASH + name] == UNKNOWN for name in VALUES)


@settings(max_examples=15, deadline=None)
@given(st.lists(texts, min_size=1, max_size=5), st.randoms())
def test_unordered_arrays(tmp_path_factory: Any, tags: list[str], chance: Any) -> None:
    """Law: any order of an unordered array's items, and any repetition of one, is no drift."""
    person: dict[str, Any] = dict.fromkeys(VALUES) | {"tags": sorted(set(tags))}
    case = Case(tmp_path_factory.mktemp("law"), {"c1": person}, {})
    shuffled = [*tags, tags[0]]
    chance.shuffle(shuffled)
    case.api.alter("c1", {"tags": shuffled})
    assert case.compared(frozenset(["tags"])).rows.is_empty()


def same(value: Any, held: Any) -> bool:
    """Whether Batch would hold the same; the mapping has made null of what is nothing."""
    if isinstance(value, datetime) and isinstance(held, datetime):
        return value.replace(tzinfo=UTC) == held
    return bool(value == held)


def test_an_empty_index_and_no_line(tmp_path: Path) -> None:
    """Nobody against nobody."""
    snapshot = Snapshot(tmp_path, {}, 1)
    assert len(snapshot.index()) == 0
    attributes = (Attribute("plan", "string", "plan", keep=False),)
    found = drift.compare([], Delivered(snapshot, attributes, frozenset(), SEED, ASKED))
    assert (found.checked, found.rows.height, found.by_attribute) == (0, 0, {"plan": 0})
