"""What a run did, in numbers: the same ones for the CLI, Dagster, the log and the state."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from connector.errors import ConnectorError

Outcome = Literal["green", "incomplete", "guarded", "busy", "failed"]

EXIT_STATUS: dict[Outcome, int] = {"green": 0, "failed": 1, "incomplete": 3, "guarded": 4, "busy": 5}


@dataclass(frozen=True, slots=True)
class Seconds:
    """Where the time went; `waiting_for_rate` is part of `deliver`."""

    read: float = 0.0
    diff: float = 0.0
    deliver: float = 0.0
    waiting_for_rate: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """Counts of a run, in rows of the source; `requests`, `retries`, `throttled` in calls, `bytes` of request bodies.

    Always: planned = accepted + rejected + held + expired + unsent. Profiles: read = unchanged + added + changed +
    retried + invalid + skipped. Events: read = planned + already_sent + invalid + skipped.
    """

    sync: str
    run: str
    kind: str = "profiles"
    outcome: Outcome = "green"
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
    started: float = 0.0
    full: bool = True
    known: int = 0
    """Rows the sync knows: those of the snapshot and this run's added ones; of events those read."""
    undecided: int = 0
    """Events that wait for a decision, those of earlier runs too."""
    margin: float | None = None
    """Seconds that the oldest event to send had left of Batch's 24 hours when the run was drafted."""
    closes: float | None = None
    """When Batch stops taking the oldest event that still could be sent and was not, in seconds since 1970."""
    reasons: tuple[str, ...] = ()
    """Why the outcome is not green, a sentence each."""
    error: dict[str, str] | None = None

    @property
    def exit_status(self) -> int:
        """The exit status of design §4."""
        return EXIT_STATUS[self.outcome]

    def to_dict(self) -> dict[str, Any]:
        """The JSON answer of `run --json`; `error` only where there is one."""
        answer = {name: getattr(self, name) for name in self.__slots__ if name not in ("seconds", "error")}
        answer["seconds"] = {name: round(getattr(self.seconds, name), 3) for name in self.seconds.__slots__}
        answer["reasons"] = list(self.reasons)
        return {**answer, "error": self.error} if self.error else answer

    def failed(self, error: ConnectorError) -> "Report":
        """The same counts, ended by `error`; what was planned and not settled is `unsent`."""
        outcome: Outcome = {"guarded": "guarded", "busy": "busy"}.get(error.code, "failed")  # type: ignore[assignment]
        unsent = self.planned - self.accepted - self.rejected - self.held - self.expired
        answer = {"code": error.code, "message": error.message, "remedy": error.remedy}
        return replace(self, outcome=outcome, unsent=unsent, error=answer, reasons=(error.message,))
