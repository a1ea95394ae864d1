"""Which name was probably meant."""

from collections.abc import Sequence
from difflib import get_close_matches

NAMES_SHOWN = 10
"""Names listed where none is close to the one asked for."""


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """A remedy: the known name with the same last part, or that looks alike, or all of them; case does not count."""
    by_folded = {candidate.lower(): candidate for candidate in known}
    last = name.lower().rpartition(".")[2]
    same = [candidate for key, candidate in by_folded.items() if key.rpartition(".")[2] == last]
    if close := same or [by_folded[key] for key in get_close_matches(name.lower(), by_folded, n=1)]:
        return f"did you mean '{close[0]}'?"
    shown = ", ".join(sorted(known)[:NAMES_SHOWN]) + (", …" if len(known) > NAMES_SHOWN else "")
    return f"there are: {shown}" if known else "it has none"
