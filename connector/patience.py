"""How long a delivery goes on: what the answers so far say of Batch and of our requests, and why it ends early."""

import threading
import time

from connector.errors import ApiError, ConnectorError
from connector.outcome import Outcome, Verdict
from connector.report import Reason

REFUSED_MAX = 200
"""Rows that Batch refused one by one with a 4xx, and none accepted between, until the run ends: it is not the rows."""

UNVERIFIED_MAX = 3
"""Answers in a row that cannot be trusted (a captive portal, a changed API) before the run ends."""

UNKNOWN_MAX = 3
"""Requests in a row with an unknown outcome, where none is repeated, before the run ends: the rest is safer unsent."""


class Patience:
    """What all calls of a delivery have met; it sets `stop` where that is enough.

    Attributes:
        error: Why nothing can be sent at all, if so.
        request_at_fault: Batch refuses whatever is sent: nothing is wrong with the rows that it refused.
    """

    def __init__(self, give_up_after: float, *, repeats: bool, reasons: list[Reason], stop: threading.Event) -> None:
        """Nothing was met yet.

        Args:
            give_up_after: Seconds of an outage until the run ends.
            repeats: A request of unknown outcome is sent again at once.
            reasons: Where is noted why the run is not green.
            stop: To be set where no further call may begin.
        """
        self.error: ConnectorError | None = None
        self.request_at_fault = False
        self._give_up_after = give_up_after
        self._repeats = repeats
        self._reasons = reasons
        self._stop = stop
        self._failing_since: float | None = None
        self._unverified = 0
        self._unknown = 0
        self._refused = 0

    def heard(self, outcome: Outcome) -> bool:
        """Whether the same bytes go once more."""
        match outcome.verdict:
            case Verdict.ACCEPTED | Verdict.SPLIT:
                self._failing_since, self._unverified, self._unknown = None, 0, 0
                self._refused = 0 if outcome.verdict is Verdict.ACCEPTED else self._refused
                return False
            case Verdict.STOP:
                remedy = (
                    "check batch.project_key, batch.rest_key and batch.base_url; nothing is lost, the next run goes on"
                )
                self._fail(ApiError(f"Batch refuses the request: {outcome.reason}", remedy=remedy))
                return False
            case Verdict.UNVERIFIED:
                self._unverified += 1
                if self._unverified >= UNVERIFIED_MAX:
                    told = f"{self._unverified} answers in a row that cannot be trusted, the last: {outcome.reason}"
                    self._end(Reason("untrusted", told))
                return False
            case Verdict.UNKNOWN if not self._repeats:
                self._unknown += 1
                if self._unknown >= UNKNOWN_MAX:
                    told = f"{self._unknown} requests in a row with an unknown outcome, the last: {outcome.reason}"
                    self._end(Reason("unanswered", told))
                return False
            case Verdict.LATER | Verdict.UNKNOWN:
                return True

    def refused_alone(self, reason: str) -> None:
        """A row was refused by itself: after so many in a row the request is at fault, which ends the run."""
        self._refused += 1
        if self._refused >= REFUSED_MAX:
            self.request_at_fault = True
            refused = f"Batch refused {self._refused} rows in a row, one by one: {reason}"
            self._fail(ApiError(refused, remedy="the request is at fault: look for a newer connector"))

    def spend(self, outcome: Outcome, pause: float) -> None:
        """A call is about to be tried again after so many seconds, unless the outage has lasted too long by then."""
        now = time.monotonic()
        self._failing_since = self._failing_since or now
        if now + pause - self._failing_since > self._give_up_after:
            told = (
                f"no request succeeded, and the next try would be {now + pause - self._failing_since:.0f} s after the"
                f" first (delivery.give_up_after: {self._give_up_after:.0f} s); the last: {outcome.reason}"
            )
            self._end(Reason("outage", told))

    def note(self, reason: Reason) -> None:
        """Why the run is not green; the first reason is the cause, those that follow are its echo."""
        if not self._reasons:
            self._reasons.append(reason)

    def _end(self, reason: Reason) -> None:
        self.note(reason)
        self._stop.set()

    def _fail(self, error: ConnectorError) -> None:
        self.error = self.error or error
        self._stop.set()


__all__ = ["REFUSED_MAX", "UNKNOWN_MAX", "UNVERIFIED_MAX", "Patience"]
