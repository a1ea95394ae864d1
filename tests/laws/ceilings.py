"""Bounds on what is held in memory and on the files kept, so low that all of it goes through files, in pieces."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from connector import planning, probing
from connector.state import folding, picking, snapshots

_BOUNDS = (
    (probing, "JUDGED_ROWS"),
    (probing, "PART_ROWS"),
    (probing, "PARTS_MAX"),
    (planning, "BUILD_ROWS"),
    (folding, "FILES_MAX"),
    (folding, "INDEX_ROWS"),
    (folding, "PIECE_ROWS"),
    (snapshots, "_GROUP_ROWS"),
    (picking, "_PIECE_ROWS"),
    (picking, "_GAP_ROWS"),
)


@contextmanager
def lowered(chance: random.Random) -> Iterator[None]:
    """Until the context ends each bound is 1 to 3, and some candidates at most are held."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probing, "HELD_SHARE", chance.choice([10**9, 10**7, 2 * 10**6]))  # 1, 100 and 500 bytes of 1 GB
        patch.setattr(picking, "_SCATTERED", chance.choice([0, 10**9]))  # any row counts as scattered, or none
        for module, name in _BOUNDS:
            patch.setattr(module, name, chance.randint(1, 3))
        yield
