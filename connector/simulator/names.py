"""Attribute names: bare, or in `date(…)` or `url(…)`. Pure."""

import re
from functools import lru_cache

_KEY = re.compile(r"(?P<plain>[a-z0-9_]{1,30})|(?P<wrapper>date|url)\((?P<inner>[a-z0-9_]{1,30})\)")


@lru_cache(maxsize=4096)
def parsed(key: str) -> tuple[str, str] | None:
    """The wrapper ("date", "url" or "") and the bare name, or None where the key breaks the rule for names."""
    match = _KEY.fullmatch(key)
    return (match["wrapper"] or "", match["inner"] or match["plain"]) if match else None


def bare_name(key: str) -> str:
    """The attribute's name without `date(…)` or `url(…)` around it."""
    found = parsed(key)
    return found[1] if found else key


@lru_cache(maxsize=1024)
def named_twice(keys: tuple[str, ...]) -> frozenset[str]:
    """The keys whose bare name another one has too (`x` and `date(x)`)."""
    names = [bare_name(key) for key in keys]
    return frozenset(key for key, name in zip(keys, names, strict=True) if names.count(name) > 1)
