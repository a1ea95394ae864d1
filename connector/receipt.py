"""What the answers to a chunk's requests add up to, while it is sent, halved, and sent again."""

from dataclasses import dataclass, field
from typing import NamedTuple

from connector.outcome import Outcome, Refusal, Verdict
from connector.state.runs import Standing


class Part(NamedTuple):
    """Neighbouring rows that share a request.

    Attributes:
        first: Place of the first in the chunk.
        rows: How many.
        state: As in `Standing.parts`.
        doubtful: An earlier request with them may have been applied unseen.
    """

    first: int
    rows: int
    state: str = "planned"
    doubtful: bool = False


@dataclass(slots=True)
class Receipt:
    """What became of a chunk so far.

    Attributes:
        waiting: Its parts that are not settled, in order; the first is sent next.
    """

    waiting: list[Part]
    _settled: list[Part] = field(default_factory=list)
    _refusals: list[Refusal] = field(default_factory=list)
    _unknown_at: float | None = None

    @property
    def standing(self) -> Standing:
        """How the chunk stands, as the state keeps it."""
        parts = [*self._settled, *self.waiting]
        states = {part.state for part in parts}
        whole = parts[0].state if len(parts) == 1 else "sent" if "sent" in states else "unknown"
        whole = "done" if states <= {"done", "refused"} else whole
        shown = [part[:3] for part in parts] if len(parts) > 1 or "refused" in states else []
        return Standing(whole, self._refusals, shown, self._unknown_at)

    @property
    def left(self) -> bool:
        """A request with the first waiting part has left, and its answer is not noted yet."""
        return self.waiting[0].state == "sent"

    def leave(self) -> None:
        """A request with the first waiting part is about to leave."""
        self.waiting[0] = self.waiting[0]._replace(state="sent")

    def note(self, outcome: Outcome, now: float) -> None:
        """What came of that request, and when, by `State.now`."""
        part = self.waiting.pop(0)
        match outcome.verdict:
            case Verdict.ACCEPTED:
                self._refusals += [refusal._replace(row=refusal.row + part.first) for refusal in outcome.refusals]
                self._settled.append(part._replace(state="done"))
            case Verdict.SPLIT if part.rows > 1:
                self.waiting[:0] = _halves(_put_back(part))
            case Verdict.SPLIT:
                self._refusals.append(Refusal(part.first, None, outcome.reason))
                self._settled.append(part._replace(state="refused"))
            case Verdict.UNKNOWN | Verdict.UNVERIFIED:
                self._unknown_at = now
                state = "unknown" if outcome.verdict is Verdict.UNKNOWN else "unverified"
                self.waiting.insert(0, part._replace(state=state, doubtful=True))
            case Verdict.LATER | Verdict.STOP:
                self.waiting.insert(0, _put_back(part))

    def forgive(self) -> None:
        """Nothing is wrong with the rows that were refused alone: the request was at fault."""
        refused = {part.first for part in self._settled if part.state == "refused"}
        self._settled = [_put_back(part) if part.first in refused else part for part in self._settled]
        self._refusals = [refusal for refusal in self._refusals if refusal.row not in refused]


def _put_back(part: Part) -> Part:
    """The part, of which this request was not applied."""
    return part._replace(state="unknown" if part.doubtful else "planned")


def _halves(part: Part) -> list[Part]:
    half = part.rows // 2
    return [part._replace(rows=half), part._replace(first=part.first + half, rows=part.rows - half)]


__all__ = ["Part", "Receipt"]
