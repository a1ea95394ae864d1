"""Whether people can be reached by e-mail and SMS, and each change of it, as Batch tells it in its exports."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from connector.simulator.ids import made_hex
from connector.simulator.moments import rfc3339
from connector.simulator.values import Value


class Channel(NamedTuple):
    """A channel: its two attributes, and its words in reasons and fields."""

    name: str
    address: str
    marketing: str
    noun: str
    has: str


CHANNELS = (
    Channel("EMAIL", "$email_address", "$email_marketing", "EMAIL_ADDRESS", "has_email_address"),
    Channel("SMS", "$phone_number", "$sms_marketing", "PHONE_NUMBER", "has_phone_number"),
)
"""Those that a call can change; PUSH needs an installation, and this simulator knows none."""

CONTACT = frozenset(name for channel in CHANNELS for name in (channel.address, channel.marketing))
"""The attributes whose change is a reachability event."""

_MARKETING = {"subscribed": "SUBSCRIBED_TO", "unsubscribed": "UNSUBSCRIBED_FROM"}


class Contact(NamedTuple):
    """A change of one person's reachability; `at` in seconds since 1970, `state` the event's other fields."""

    custom_id: str
    at: float
    channel: str
    reasons: list[str]
    state: dict[str, Any]


class Contacts:
    """The changes of one project in the order that they were made, in memory alone."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._changes: list[Contact] = []

    def note(self, custom_id: str, at: float, before: Mapping[str, Value], after: Mapping[str, Value]) -> None:
        """Keep what changed between two states of a person's native attributes; nothing where nothing did."""
        for channel in CHANNELS:
            reasons = _reasons(channel, before, after)
            if reasons:
                state: dict[str, Any] = {channel.has: channel.address in after}
                if channel.marketing in after:
                    state[channel.marketing.removeprefix("$")] = after[channel.marketing].value
                self._changes.append(Contact(custom_id, at, channel.name, reasons, state))

    def between(self, start: float, end: float, channels: frozenset[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Custom id and event of each change from `start` to before `end`, seconds since 1970."""
        for number, one in enumerate(self._changes):
            if start <= one.at < end and one.channel in channels:
                name = made_hex(self._project, "reachability", number, one.at)
                event = {"channel": one.channel, "id": name, "timestamp": rfc3339(one.at), "reasons": one.reasons}
                yield one.custom_id, event | one.state

    def clear(self) -> None:
        """Forget them all."""
        self._changes.clear()


def _reasons(channel: Channel, before: Mapping[str, Value], after: Mapping[str, Value]) -> list[str]:
    found = []
    old, new = before.get(channel.address), after.get(channel.address)
    if old != new:
        found.append(f"{channel.noun}_{'ADDED' if old is None else 'REMOVED' if new is None else 'UPDATED'}")
    marketing = after.get(channel.marketing)
    # A subscription that is reset to no value is in none of the documented reasons.
    if marketing is not None and marketing != before.get(channel.marketing):
        found.append(f"{_MARKETING[str(marketing.value)]}_{channel.name}_MARKETING")
    return found
