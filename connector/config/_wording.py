"""The words of configuration errors: one sentence that says what is wrong, what is allowed and what to do."""

from collections.abc import Iterable
from datetime import timedelta
from difflib import get_close_matches
from itertools import takewhile

from connector._model import KeyPath

_LONGEST_ECHO = 60
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))
_SIZES = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


def dotted(path: KeyPath) -> str:
    """The path as people write it: `dagster.owners[0]`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{_shortened(step)}" for step in path).removeprefix(".")


def quoted(name: str) -> str:
    """The name in quotes, on one line and cut to a readable length."""
    return f"'{_shortened(name)}'"


def listing(names: Iterable[str], last: str = "or") -> str:
    """`a, b or c`."""
    *others, final = names
    return f"{', '.join(others)} {last} {final}" if others else final


def nearest(got: str, allowed: Iterable[str]) -> str | None:
    """The allowed name that was probably meant; None where none is near."""
    by_folded = {name.lower(): name for name in allowed}
    near = get_close_matches(got.lower()[:_LONGEST_ECHO], by_folded, n=1)
    return by_folded[near[0]] if near else None


def suggestion(got: str, allowed: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no allowed name is near."""
    near = nearest(got, allowed)
    return f"; did you mean '{near}'?" if near else ""


def written(length: timedelta) -> str:
    """A length of time as it is written in YAML: `15m`."""
    return _largest_unit(length // timedelta(milliseconds=1), _UNITS) if length else "0s"


def written_size(size: int) -> str:
    """A number of bytes as it is written in YAML: `512MB`."""
    return _largest_unit(size, _SIZES)


def _largest_unit(amount: int, units: tuple[tuple[str, int], ...]) -> str:
    unit, size = next(((unit, size) for unit, size in units if amount % size == 0), units[-1])
    return f"{amount // size}{unit}"


def _shortened(name: str) -> str:
    line = "".join(takewhile(str.isprintable, name))
    return line if line == name and len(line) <= _LONGEST_ECHO else f"{line[:_LONGEST_ECHO]}…"
