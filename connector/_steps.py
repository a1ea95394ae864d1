"""Moments of a run at which a test kills the process, as a power cut would; else they cost a look at a variable."""

import os
import signal
from collections import Counter
from typing import Literal, get_args

KILL_AT = "CONNECTOR_KILL_AT"
"""Environment variable: `NAME` or `NAME:N`, the N-th time that the process comes by. Never set it but in tests."""

Step = Literal[
    "lease.taken",
    "recovery.begun",  # a killed run was found
    "recovery.committed",
    "recovery.swept",
    "read.batch",
    "read.ended",
    "file.begun",  # of every durable file: outbox, snapshot, ledger
    "file.written",
    "file.synced",
    "run.opened",
    "turn.taken",
    "chunk.paid",  # inside the transaction
    "chunk.sent",  # noted, nothing has left
    "answer.begun",  # the request left whole, the answer's headers are there
    "answer.read",
    "chunk.settled",
    "delivery.ended",
    "commit.prepared",
    "commit.written",  # inside the transaction
    "commit.done",
    "outbox.removed",
    "lease.freed",
]

WarehouseStep = Literal[
    "warehouse.compared",  # the delta is there
    "warehouse.absorbed",
    "warehouse.settled",  # the snapshot in the warehouse has moved, the state has not
    "warehouse.moved",  # a snapshot that came from the other engine is whole, and not current yet
]
"""Those of a run whose engine is the warehouse."""

BucketStep = Literal[
    "bucket.begun",  # of every file that is put: outbox, snapshot, ledger
    "bucket.put",
]
"""Those of a run whose state's files lie in a bucket."""

STEPS: tuple[str, ...] = get_args(Step)
"""All of a run of the local engine, in their order."""

WAREHOUSE_STEPS: tuple[str, ...] = get_args(WarehouseStep)
"""What a run of the other engine has besides."""

BUCKET_STEPS: tuple[str, ...] = get_args(BucketStep)
"""What a run with a bucket has besides."""

_passed: Counter[str] = Counter()


def step(name: Step | WarehouseStep | BucketStep) -> None:
    """The process is here; it goes on unless a test wants it dead here."""
    asked = os.environ.get(KILL_AT)
    if not asked:
        return
    _passed[name] += 1
    wanted, _, nth = asked.partition(":")
    if wanted == name and _passed[name] == int(nth or 1):
        os.kill(os.getpid(), signal.SIGKILL)


__all__ = ["BUCKET_STEPS", "KILL_AT", "STEPS", "WAREHOUSE_STEPS", "BucketStep", "Step", "WarehouseStep", "step"]
