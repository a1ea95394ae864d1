"""Reports, plans and lists as people read them: text and tables that fit 80 columns."""

import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from connector.cli._answer import printable
from connector.plan import Plan
from connector.report import AnyReport, Ended, ExportReport, Report

_READ = (
    "read", "unchanged", "already_sent", "added", "changed", "retried", "removed", "invalid", "skipped", "withheld",
    "opted_out",
)  # fmt: skip
_SETTLED = ("accepted", "rejected", "held", "expired", "unsent", "undecided")
_CALLS = ("requests", "retries", "throttled", "bytes")

_DELIVERED = (*_READ, "planned", *_SETTLED, *_CALLS)
_PULLED = ("rows", "inserted", "duplicates", "quarantined", "mistyped", "files", "requests", "throttled", "bytes")

_COLOURS = {"green": "green", "incomplete": "yellow", "guarded": "yellow", "busy": "yellow", "failed": "red"}

KIB = 1024
_UNITS = ("KiB", "MiB", "GiB", "TiB")


def show_report(out: Console, report: AnyReport) -> None:
    """What a run did; counts of 0 are left out."""
    pulled = isinstance(report, ExportReport)
    names = [name for name in (_PULLED if pulled else _DELIVERED) if getattr(report, name)]
    if names:
        rows = [(name, _count(name, getattr(report, name))) for name in names]
        out.print(table((f"{report.sync}", "rows"), rows, right=(1,)))
    for note in () if isinstance(report, ExportReport) else report.notes:
        out.print(Text(f"note: {printable(note)}"))
    if isinstance(report, ExportReport) and report.export_id:
        out.print(f"export {printable(report.export_id)} into {report.table}", soft_wrap=True)
    if isinstance(report, Report) and report.adopted and not report.error:
        out.print(f"adopted: {report.accepted:,} rows count as delivered from now on; nothing was sent", soft_wrap=True)
    verdict(out, report, report.seconds.total)
    if not report.error and _kept_back(report):
        out.print(f"  what stayed back, and why: connector rejects {report.sync}")


def show_plan(out: Console, plan: Plan) -> None:
    """What a run would do."""
    report = plan.report
    how = "the whole source" if report.full else "what is new by the cursor, or what was asked for"
    out.print(f"plan of {report.sync}: reads {how}; nothing was sent")
    told = (*_READ, "planned", "held", "expired")
    names = [name for name in told if getattr(report, name) or name in ("read", "planned")]
    out.print(table(("rows", ""), [(name, f"{getattr(report, name):,}") for name in names], right=(1,)))
    if plan.read_bytes is not None:
        out.print(f"the read is billed by the warehouse as {size(plan.read_bytes)}")
    changes = [(name, f"{rows:,}") for name, rows in plan.by_attribute.items() if rows]
    if changes:
        out.print(table(("attribute", "rows that send it"), changes, right=(1,)))
    out.print(f"calls {plan.calls:,}, {size(plan.bytes)}, {plan.minutes:g} minutes at the documented rate")
    if plan.sample:
        keys(out, "sample of keys", plan.sample)
    for note in plan.notes:
        out.print(f"note: {note}")
    out.print("guard: passed" if not report.error else f"guard: {report.error['message']}")
    if report.error:
        out.print(f"  {report.error['remedy']}")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[int] = ()) -> Table:
    """A plain table; long cells wrap.

    Args:
        heads: One a column.
        rows: Cells; None is empty.
        right: Columns of numbers.
    """
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for number, head in enumerate(heads):
        made.add_column(head, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
    return made


def keys(out: Console, title: str, found: Sequence[str]) -> None:
    """A line of keys, for the operator's eyes."""
    out.print(Text(f"{title}: {', '.join(printable(key) for key in found)}"))


def outcome_text(outcome: str) -> Text:
    """The outcome in its colour."""
    return Text(outcome, style=_COLOURS.get(outcome, ""))


def size(count: int) -> str:
    """A number of bytes for people."""
    if count < KIB:
        return f"{count:,} bytes"
    power = min(int(math.log(count, KIB)), len(_UNITS))
    return f"{count / KIB**power:,.1f} {_UNITS[power - 1]}"


def _count(name: str, count: int) -> str:
    return size(count) if name == "bytes" else f"{count:,}"


def verdict(out: Console, report: Ended, seconds: float) -> None:
    """How it ended, and why."""
    out.print(Text.assemble("outcome: ", outcome_text(report.outcome), f" in {seconds:.1f} s"))
    message = report.error["message"] if report.error else None
    for reason in report.reasons:
        if reason != message:
            out.print(Text(f"  {printable(reason)}"))
    if report.error:
        out.print(Text(f"error: {printable(report.error['message'])}"))
        out.print(Text(f"  {printable(report.error['remedy'])}"))


def _kept_back(report: AnyReport) -> bool:
    """Whether `rejects` has something to show of the run."""
    if isinstance(report, ExportReport):
        return bool(report.quarantined)
    return bool(report.rejected or report.invalid or report.withheld or report.expired)
