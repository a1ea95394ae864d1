"""A sync's snapshot on disk beside a model of what Batch holds, moved by the real functions.

The model is plain Python: a profile is a dictionary, an operation sets or deletes its members.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from hypothesis import Phase, settings

from connector import mapping as mappings
from connector.changes import KIND, Kind
from connector.hashing import HASH, KEY_HASH
from connector.mapping import KEY, AttributeMapping, Column, resolve
from connector.payload import OPERATION
from connector.planning import ChangeSet, build, removed_rows
from connector.probing import Job, sift
from connector.state import snapshots
from connector.state.runs import DUE_SCHEMA
from connector.state.snapshots import AT, DELETED, Snapshot

SEED = 7
SCHEMA: Mapping[str, pl.DataType] = {
    "k": pl.String(), "s": pl.String(), "i": pl.Int64(), "f": pl.Float64(), "a": pl.List(pl.String),
}  # fmt: skip
NAMES = ["s", "i", "f", "a"]

Row = dict[str, Any]
Profiles = dict[str, Row]

EXAMPLES = int(os.environ.get("LAW_EXAMPLES", "6"))
"""Of each law; every run draws others, so a soak is LAW_EXAMPLES=500."""

few = settings(
    max_examples=EXAMPLES,
    deadline=None,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


def due_frame(*keys: str, whole: bool = True) -> pl.DataFrame:
    rows = [(key, "unknown", whole, 0.0, 0.0, 0) for key in keys]
    return pl.DataFrame(rows, schema=DUE_SCHEMA, orient="row")


@dataclass
class Planned:
    """A change set, read back."""

    changes: ChangeSet
    read: int
    frame: pl.DataFrame

    @property
    def sent(self) -> Profiles:
        """Attributes of each operation by key; a key that stands twice fails."""
        operations = [json.loads(text) for text in self.frame[OPERATION]]
        found = {operation["identifiers"]["custom_id"]: operation["attributes"] for operation in operations}
        assert len(found) == len(operations)
        return found

    @property
    def keys(self) -> dict[str, str]:
        return dict(self.frame.select(KEY, KIND).rows())

    def count(self, kind: Kind) -> int:
        return self.changes.counts[kind]


@dataclass
class Store:
    """What a sync keeps, and what Batch holds: a snapshot in a folder, and the model."""

    folder: Path
    snapshot: Snapshot
    profiles: Profiles = field(default_factory=dict)

    def plan(
        self, rows: list[Row], *, names: list[str] = NAMES, keep: bool = False, **terms: Any,
    ) -> Planned:  # fmt: skip
        """What a run of these rows would send; `terms` as for `compared`."""
        columns = [Column(name, dtype) for name, dtype in SCHEMA.items()]
        on_null: Any = "keep" if keep else "clear"
        mapping = resolve(columns, "k", {name: AttributeMapping(column=name, on_null=on_null) for name in names})
        return self.compared(pl.DataFrame(rows, schema=SCHEMA, orient="row"), mapping, **terms)

    def compared(
        self, frame: pl.DataFrame, mapping: mappings.Mapping, *, cuts: tuple[int, ...] = (), remove: bool = False,
        **terms: Any,
    ) -> Planned:  # fmt: skip
        """The change set of a source that comes in pieces.

        Args:
            frame: The source.
            mapping: Of its columns.
            cuts: Where record batches end.
            remove: Whether who left is cleared.
            terms: More of `Job`.
        """
        job = Job(mapping, self.snapshot, self.snapshot.index(), terms.pop("due", due_frame()), SEED, **terms)
        bounds = [0, *sorted(min(cut, frame.height) for cut in cuts), frame.height]
        parts = [frame[start:end] for start, end in pairwise(bounds)]
        sifted = sift(parts, job, self.folder / "spool")
        gone = removed_rows(job, sifted.seen) if remove else pl.DataFrame(schema={KEY: pl.String, KEY_HASH: pl.UInt64})
        path = self.folder / "changes.parquet"
        path.unlink(missing_ok=True)
        changes = build(sifted, job, gone, path)
        assert path.exists() == (changes.planned > 0)
        return Planned(changes, sifted.read, pl.read_parquet(path) if changes.planned else EMPTY)

    def deliver(self, planned: Planned, accepted: Callable[[str], bool] = lambda _: True) -> None:
        """Batch takes the operations of these keys; the snapshot moves for them and for no others."""
        for key, attributes in planned.sent.items():
            if accepted(key):
                profile = self.profiles.setdefault(key, {})
                profile.update(attributes)
                self.profiles[key] = {name: value for name, value in profile.items() if value is not None}
        if planned.frame.is_empty():
            return
        rows = planned.frame.filter(pl.Series([accepted(key) for key in planned.frame[KEY]], dtype=pl.Boolean))
        deleted, at = (pl.col(KIND) == Kind.REMOVED).alias(DELETED), pl.lit(0, pl.Int64).alias(AT)
        file = snapshots.write(self.snapshot, [rows.select(KEY, KEY_HASH, deleted, at, f"^{HASH}.*$")])
        if file:
            manifest = {**self.snapshot.manifest, "files": [*self.snapshot.files, file]}
            self.snapshot = replace(self.snapshot, manifest=manifest)


EMPTY = pl.DataFrame(schema={KEY: pl.String, KIND: pl.String, OPERATION: pl.String})


@contextmanager
def store(*before: list[Row]) -> Iterator[Store]:
    """A store to which these sources were delivered, one after the other."""
    with TemporaryDirectory() as folder:
        found = Store(Path(folder), Snapshot(Path(folder) / "files", {}, 0))
        for rows in before:
            found.deliver(found.plan(rows))
        yield found
