"""Files of exports: what they mean, and each mistake at its place. A `⟪` marks it; the file is written without it."""

from datetime import timedelta
from pathlib import Path

import pytest

from connector.config import ExportSync, load_project
from tests.config.conftest import Write, problems_of, the_problem

EXPORT = "kind: export\nwarehouse: local\nexport: attributes\ntable: batch.people\n"
EVENTS = EXPORT.replace("attributes", "events")
REACH = EXPORT.replace("attributes", "reachability")

BROKEN = {
    "no export": ("⟪kind: export\nwarehouse: local\ntable: a\n", "export: missing; add it"),
    "misspelt export": (EXPORT.replace("export: attributes", "export: ⟪atributes"), "must be attributes, events or reachability, got 'atributes'; did you mean 'attributes'?"),
    "no table": ("⟪kind: export\nwarehouse: local\nexport: events\n", "table: missing; add it (where the rows land"),
    "a source": (EXPORT + "⟪source: {table: a}\n", "unknown key 'source'"),
    "a key of rows": (EXPORT + "⟪key: id\n", "unknown key 'key'"),
    "table in quotes": (EXPORT.replace("batch.people", "⟪'batch.\"people\"'"), "table: a table's name is table, schema.table or database.schema.table"),
    "table with a statement": (EXPORT.replace("batch.people", "⟪'a; drop table b'"), "table: a table's name is"),
    "table of four parts": (EXPORT.replace("batch.people", "⟪a.b.c.d"), "table: a table's name is"),
    "table that begins with a digit": (EXPORT.replace("batch.people", "⟪batch.1people"), "table: a table's name is"),
    "attributes of events": (EVENTS + "⟪attributes: [plan]\n", "attributes: attributes exports only, this is one of events; remove it"),
    "segment of reachability": (REACH + "segment: ⟪vip\n", "segment: attributes exports only, this is one of reachability"),
    "write of events": (EVENTS + "write: ⟪append\n", "write: attributes exports only"),
    "allow_empty of events": (EVENTS + "allow_empty: ⟪true\n", "allow_empty: attributes exports only"),
    "since of attributes": (EXPORT + "since: ⟪7d\n", "since: events or reachability exports only, this is one of attributes"),
    "partitions of attributes": (EXPORT + "⟪partitions: {daily: 2026-01-01}\n", "partitions: events or reachability exports only"),
    "since of 91 days": (EVENTS + "since: ⟪91d\n", "since: Batch exports the last 90 days only; write at most 90d"),
    "since of nothing": (EVENTS + "since: ⟪0s\n", "since: must be longer than 0s"),
    "since without a unit": (EVENTS + "since: ⟪7\n", "since: a duration is a whole"),
    "misspelt write": (EXPORT + "write: ⟪apend\n", "write: must be replace or append, got 'apend'; did you mean 'append'?"),
    "merge": (EXPORT + "write: ⟪merge\n", "write: must be replace or append"),
    "empty segment": (EXPORT + "segment: ⟪''\n", "segment: must not be empty"),
    "unknown native": (EXPORT + "attributes: [⟪$email_adress]\n", "did you mean '$email_address'?"),
    "wrapped name": (EXPORT + "attributes: [plan, ⟪date(born)]\n", "write the bare name"),
    "upper case": (EXPORT + "attributes: [⟪Plan]\n", "did you mean 'plan'?"),
    "attribute twice": (EXPORT + "attributes: [plan, ⟪plan]\n", "'plan' stands here twice; remove one"),
    "two attributes of one column": (EXPORT + "attributes: [$region, ⟪region]\n", "its column 'region' would be that of '$region'; remove one"),
    "attribute called raw": (EXPORT + "attributes: [⟪raw]\n", "its column 'raw' would be that of every export"),
    "attribute called export_id": (EXPORT + "attributes: [a, ⟪export_id]\n", "its column 'export_id' would be that of every export"),
    "attribute called custom_id": (EXPORT + "attributes: [⟪custom_id]\n", "would be that of every export"),
    "attribute called as a place": (EXPORT + "attributes: [⟪_position]\n", "would be that of every export"),
    "mapping of attributes": (EXPORT + "⟪attributes: {plan: plan}\n", "attributes: must be a list, got a mapping"),
    "no identifiers": (EXPORT + "⟪identifiers: []\n", "identifiers: must not be empty"),
    "identifier twice": (EXPORT + "identifiers: [custom_id, ⟪custom_id]\n", "'custom_id' stands here twice"),
    "misspelt identifier": (EXPORT + "identifiers: [⟪customid]\n", "did you mean 'custom_id'?"),
    "identifier of events": (EXPORT + "identifiers: [custom_id, ⟪installation_id]\n", "an export of attributes has no 'installation_id'; allowed: custom_id or installation_ids"),
    "identifier of attributes": (EVENTS + "identifiers: [⟪installation_ids]\n", "an export of events has no 'installation_ids'; allowed: custom_id or installation_id"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_export_is_told_at_its_place(case: str, tmp_path: Path) -> None:
    """A mistake is one problem, at its line and column, with what is allowed or to be done."""
    text, words = BROKEN[case]
    assert words in the_problem(tmp_path, "syncs/people.yaml", text)


def test_what_an_export_is_without_more(write: Write) -> None:
    """The defaults are those of the contract."""
    project = load_project(
        write({"syncs/people.yaml": EXPORT, "syncs/reach.yaml": REACH.replace("people", "reach") + "since: 90d\n"})
    )
    people, reach = project.sync("people"), project.sync("reach")
    assert isinstance(people, ExportSync)
    assert isinstance(reach, ExportSync)
    assert (people.write, people.allow_empty, people.attributes, people.identifiers) == (
        "replace",
        False,
        (),
        ("custom_id",),
    )
    assert (people.segment, people.since, reach.since) == (None, None, timedelta(days=90))


@pytest.mark.parametrize(("one", "other"), [("batch.people", "batch.People"), ("wh.batch.people", "BATCH.PEOPLE")])
def test_two_tables_that_differ_in_case_are_one(one: str, other: str, write: Write) -> None:
    """Two exports would empty each other's table: the second is refused, and names the first."""
    files = {f"syncs/{name}.yaml": EXPORT.replace("batch.people", table) for name, table in (("a", one), ("b", other))}
    (problem,) = problems_of(write(files))
    assert (problem.file, problem.line) == ("syncs/b.yaml", 4)
    assert "the asset batch/people of Dagster, which syncs/a.yaml is already" in problem.message


@pytest.mark.parametrize("table", ["people", "batch.people", "wh.batch.people", "_a.B_1"])
def test_names_of_tables(table: str, write: Write) -> None:
    """One to three plain names."""
    sync = load_project(write({"syncs/people.yaml": EXPORT.replace("batch.people", table)})).sync("people")
    assert isinstance(sync, ExportSync)
    assert sync.table == table
