"""What a run did, in numbers: the same ones for the CLI, Dagster, the log and the state."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple, Self

from connector.codes import ReasonCode
from connector.errors import ConnectorError

Outcome = Literal["green", "incomplete", "guarded", "busy", "failed"]

EXIT_STATUS: dict[Outcome, int] = {"green": 0, "failed": 1, "incomplete": 3, "guarded": 4, "busy": 5}


class Reason(NamedTuple):
    """Why a run is not green: a code that stays, and a sentence with its numbers."""

    code: ReasonCode
    text: str


def killed(counts: Mapping[str, int], remedy: str) -> dict[str, object]:
    """What a killed run's report says beside what it had planned."""
    message, code = "the run was killed", "killed"
    error = {"code": code, "message": message, "remedy": remedy}
    return {"outcome": "failed", **counts, "reasons": [message], "codes": [code], "error": error}


@dataclass(frozen=True, slots=True)
class Seconds:
    """Where the time went; `waiting_for_rate` is part of `deliver`."""

    read: float = 0.0
    diff: float = 0.0
    deliver: float = 0.0
    waiting_for_rate: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Ended:
    """What the report of every kind of run says: how it ended, and why."""

    sync: str
    run: str
    kind: str = "profiles"
    outcome: Outcome = "green"
    started: float = 0.0
    reasons: tuple[str, ...] = ()
    """Why the outcome is not green, a sentence each."""
    codes: tuple[str, ...] = ()
    """The codes of these sentences, in their order: see `connector explain-code`."""
    error: dict[str, str] | None = None

    @property
    def exit_status(self) -> int:
        """The exit status of design §4."""
        return EXIT_STATUS[self.outcome]

    def to_dict(self) -> dict[str, Any]:
        """The JSON answer of `run --json`; `error` only where there is one."""
        answer = asdict(self)
        if "seconds" in answer:
            answer["seconds"] = {name: round(spent, 3) for name, spent in answer["seconds"].items()}
        answer |= {name: list(answer[name]) for name in ("reasons", "codes", "notes") if name in answer}
        return answer if self.error else {name: value for name, value in answer.items() if name != "error"}

    def failed(self, error: ConnectorError) -> Self:
        """The same counts, ended by `error`."""
        outcome: Outcome = {"guarded": "guarded", "busy": "busy"}.get(error.code, "failed")  # type: ignore[assignment]
        answer = {"code": error.code, "message": error.message, "remedy": error.remedy}
        return replace(self, outcome=outcome, error=answer, reasons=(error.message,), codes=(error.code,))

    def judged(self, reasons: Sequence[Reason]) -> Self:
        """The same counts: green, or incomplete with the reasons why."""
        outcome: Outcome = "incomplete" if reasons else "green"
        texts, codes = tuple(why.text for why in reasons), tuple(why.code for why in reasons)
        return replace(self, outcome=outcome, reasons=texts, codes=codes)


@dataclass(frozen=True, slots=True)
class Report(Ended):
    """Counts of a run, in rows of the source; `requests`, `retries`, `throttled` in calls, `bytes` of request bodies.

    Always: planned = accepted + rejected + held + expired + unsent. Profiles: read = unchanged + added + changed +
    retried + invalid + skipped. Events: read = planned + already_sent + invalid + skipped.
    """

    read: int = 0
    unchanged: int = 0
    added: int = 0
    changed: int = 0
    retried: int = 0
    removed: int = 0
    invalid: int = 0
    withheld: int = 0
    already_sent: int = 0
    skipped: int = 0
    planned: int = 0
    accepted: int = 0
    rejected: int = 0
    held: int = 0
    expired: int = 0
    unsent: int = 0
    requests: int = 0
    retries: int = 0
    throttled: int = 0
    bytes: int = 0
    seconds: Seconds = field(default_factory=Seconds)
    adopted: bool = False
    """What is `accepted` was taken as delivered: nothing was sent."""
    full: bool = True
    known: int = 0
    """Rows the sync knows: those of the snapshot and this run's added ones; of events those read."""
    opted_out: int = 0
    """Values not sent because Batch has the person unsubscribed since."""
    undecided: int = 0
    """Events that wait for a decision, those of earlier runs too."""
    margin: float | None = None
    """Seconds that the oldest event to send had left of Batch's 24 hours when the run was drafted."""
    notes: tuple[str, ...] = ()
    """What else is worth knowing of the run, a sentence each."""
    closes: float | None = None
    """When Batch stops taking the oldest event that still could be sent and was not, in seconds since 1970."""

    def failed(self, error: ConnectorError) -> Self:
        """The same counts, ended by `error`; what was planned and not settled is `unsent`."""
        unsent = self.planned - self.accepted - self.rejected - self.held - self.expired
        return replace(Ended.failed(self, error), unsent=unsent)


@dataclass(frozen=True, slots=True)
class ExportSeconds:
    """Where the time of a pull went."""

    wait: float = 0.0
    download: float = 0.0
    parse: float = 0.0
    load: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class ExportReport(Ended):
    """What a pull brought, in lines of the export."""

    kind: str = "export"
    export_id: str | None = None
    """Batch's."""
    table: str = ""
    rows: int = 0
    """Rows of the export: its lines, without repeated and broken ones."""
    inserted: int = 0
    """Of these, those that the table did not have."""
    duplicates: int = 0
    quarantined: int = 0
    """Lines that are no JSON object, or an event without an id; they are in no table."""
    mistyped: int = 0
    """Values that are not of their column's type, which is null there; the line in `raw` has them."""
    files: int = 0
    bytes: int = 0
    """Of all its files, as they were downloaded."""
    requests: int = 0
    throttled: int = 0
    since: str | None = None
    """Start of the window of events, RFC 3339, inclusive; None for attributes."""
    until: str | None = None
    """Its end, exclusive."""
    seconds: ExportSeconds = field(default_factory=ExportSeconds)


@dataclass(frozen=True, slots=True)
class ReconcileReport(Ended):
    """What Batch was found to hold, in profiles."""

    kind: str = "reconcile"
    export_id: str | None = None
    """Batch's."""
    checked: int = 0
    """Profiles of the snapshot that were judged."""
    missing: int = 0
    """Of these, those that Batch does not have."""
    differing: int = 0
    """Of these, those of which it holds an attribute otherwise."""
    unknown: int = 0
    """Profiles at Batch that the sync never delivered."""
    healed: int = 0
    """Missing and differing ones that are due now."""
    by_attribute: dict[str, int] = field(default_factory=dict)
    """Differing profiles by attribute name."""
    sample: tuple[str, ...] = ()
    """A few keys of missing and differing profiles, for the operator's eyes only."""


AnyReport = Report | ExportReport
