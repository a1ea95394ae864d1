"""`explain-code`: what a code means."""

from difflib import get_close_matches

from rich.console import Console
from rich.text import Text

from connector.cli._answer import Answer
from connector.codes import CODES, Meaning
from connector.errors import UsageError


def explain(code: str | None) -> Answer:
    """One code's meaning, or all.

    Raises:
        UsageError: There is no such code.
    """
    if code is None:
        shown = CODES
    elif code in CODES:
        shown = {code: CODES[code]}
    else:
        near = get_close_matches(code, CODES, n=1)
        remedy = f"did you mean '{near[0]}'?" if near else "see all: connector explain-code"
        raise UsageError(f"there is no code '{code}'", remedy=remedy)
    data = [{"code": name, **meaning._asdict()} for name, meaning in shown.items()]
    return Answer(data, lambda out: _show(out, shown))


def _show(out: Console, shown: dict[str, Meaning]) -> None:
    for name, meaning in shown.items():
        out.print(Text.assemble((name, "bold"), f"  {meaning.sentence}"), soft_wrap=True)
        out.print(Text(f"  {meaning.remedy}"), soft_wrap=True)
