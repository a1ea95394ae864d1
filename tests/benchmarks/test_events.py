"""Events from record batches to operations on disk, beside the loop that everybody writes first.

Run: pytest -m benchmark -s
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EVENTS = 500_000
ROUNDS = 3

SOURCE = f"""
import sys, time
import numpy as np, polars as pl

draw = np.random.default_rng(0)
shirt, socks = ({{"name": 'Tee "basic"', "price": 23.99, "in_sales": True}}, {{"name": "Socks", "price": 15.99, "in_sales": False}})
baskets = [[shirt], [shirt, socks], []]
def chosen(values):
    return np.array(values, dtype=object)[draw.integers(0, len(values), {EVENTS})].tolist()
pl.DataFrame({{
    "custom_id": [f"u{{i:07}}" for i in draw.integers(0, {EVENTS} // 3, {EVENTS})], "order_id": np.arange({EVENTS}),
    "event_time": pl.Series(int(time.time() * 1000) - draw.integers(0, 80_000_000, {EVENTS})).cast(pl.Datetime("ms", "UTC")),
    "event_name": chosen(["validated_purchase", "added_to_cart"]), "label": chosen(["pumpkin", "été", None]),
    "quantity": draw.integers(0, 9, {EVENTS}), "unit_price": np.round(draw.random({EVENTS}) * 99, 2),
    "items_list": [baskets[i] for i in draw.integers(0, 3, {EVENTS})],
}}).write_ipc(sys.argv[1], record_batch_size=50_000)
"""
"""Purchases and carts of 158,000 profiles, each with a basket of objects, in any order."""

MEASURED = """
import json, resource, sys, tempfile, time
import polars as pl

events = pl.read_ipc(sys.argv[1])
started = time.process_time()
def end(**figures):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": time.process_time() - started, "peak": peak, **figures}))
"""

OURS = """
from pathlib import Path
import numpy as np
from connector.event_mapping import EventAttributeMapping, EventColumns, resolve
from connector.event_grouping import build
from connector.event_planning import EventJob, sift
from connector.mapping import Column
from connector.state.ids import ordered
from connector.state.ledger import Ledger

names = {"$label": "label", "quantity": "quantity", "unit_price": "unit_price", "items_list": "items_list"}
wanted = EventColumns("custom_id", None, "event_name", "event_time", False, sys.argv[2] or None, None, False)
columns = [Column(name, dtype) for name, dtype in events.schema.items()]
mapping = resolve(columns, wanted, {name: EventAttributeMapping(column=column) for name, column in names.items()})
with tempfile.TemporaryDirectory() as folder:
    nobody = ordered(np.empty(0, np.uint64), np.empty(0, np.uint64))
    job = EventJob(mapping, Ledger(Path(folder) / "ledger", {}, 0), nobody, nobody, 7, int(time.time() * 1000))
    started = time.process_time()
    sifted = sift(events.iter_slices(50_000), job, Path(folder) / "outbox.spool")
    built = build(sifted, job, Path(folder) / "outbox.parquet")
    end(events=built.events, operations=built.sizes.height, bytes=int(built.sizes["bytes"].sum()))
"""

PEER = """
# Sort, group by profile, one dictionary an event, json.dumps an operation; no rule, no ledger, no file.
from itertools import groupby

def told(row):
    at = row["event_time"]
    moment = at.strftime("%Y-%m-%dT%H:%M:%S") + (f".{at.microsecond // 1000:03}Z" if at.microsecond else "Z")
    attributes = {
        "event_id": str(row["order_id"]), "$label": row["label"], "quantity": row["quantity"],
        "unit_price": row["unit_price"], "items_list": row["items_list"],
    }
    sent = {name: value for name, value in attributes.items() if value not in (None, [])}
    return {"name": row["event_name"], "time": moment, "attributes": sent}

size, operations, count = 0, 0, 0
rows = events.sort("custom_id", "event_time").iter_rows(named=True)
for key, theirs in groupby(rows, key=lambda row: row["custom_id"]):
    found = [told(row) for row in theirs]
    for first in range(0, len(found), 15):
        operation = {"identifiers": {"custom_id": key}, "events": found[first : first + 15]}
        size += len(json.dumps(operation, ensure_ascii=False, separators=(",", ":")).encode())
        operations, count = operations + 1, count + len(operation["events"])
end(events=count, operations=operations, bytes=size)
"""


def run(script: str, *arguments: str) -> str:
    """What a process of its own prints, with one thread for Polars."""
    env = {**os.environ, "POLARS_MAX_THREADS": "1"}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env).stdout


def measured(script: str, source: Path, id_column: str = "") -> dict[str, Any]:
    """CPU seconds, peak memory (MB), and what was built."""
    figures: dict[str, Any] = json.loads(run(MEASURED + script, str(source), id_column))
    return figures


@pytest.mark.benchmark
@pytest.mark.timeout(600)
def test_events_to_operations_beside_a_row_loop(tmp_path: Path) -> None:
    """Judged, told apart, grouped and durable in a fraction of the bare loop's CPU time; the very same bytes leave."""
    source = tmp_path / "events.arrow"
    run(SOURCE, str(source))
    rounds = [
        (measured(OURS, source, "order_id"), measured(OURS, source), measured(PEER, source)) for _ in range(ROUNDS)
    ]
    ours, derived, loop = (min(theirs, key=lambda one: float(one["seconds"])) for theirs in zip(*rounds, strict=True))
    print(f"\n{EVENTS:,} events with nested attributes, one thread, best of {ROUNDS}")
    for name, one in (("connector, with an id", ours), ("connector, id derived", derived), ("row loop", loop)):
        made = f"{one['operations']:,} operations, {one['bytes'] / 1e6:.0f} MB of JSON"
        print(
            f"  {name:22} {EVENTS / one['seconds']:9,.0f} a CPU s  {one['seconds']:5.2f} s  peak {one['peak']:5,.0f} MB  {made}"
        )
    built = ("events", "operations", "bytes")
    assert [ours[name] for name in built] == [loop[name] for name in built]
    assert ours["operations"] <= EVENTS / 3
    assert ours["seconds"] < loop["seconds"] / 2
    assert derived["seconds"] < loop["seconds"] / 2
    assert max(ours["peak"], derived["peak"]) < 1_000
