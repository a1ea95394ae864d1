"""A change of a profile by somebody else at Batch, by the rules of an update. Pure."""

from typing import Any

from connector.errors import UsageError
from connector.simulator.limits import Settings
from connector.simulator.rules import Judged, MalformedError, judge

_REMEDY = "give what an update would take"


def altered(custom_id: str, attributes: dict[str, Any], settings: Settings) -> Judged:
    """The change of this profile, or its creation.

    Raises:
        UsageError: A rule refuses the custom id or an attribute; the message never holds a value.
    """
    try:
        judged = judge({"identifiers": {"custom_id": custom_id}, "attributes": attributes}, settings)
    except MalformedError as error:
        raise UsageError(f"the profile cannot be altered: {error}", remedy=_REMEDY) from None
    if judged.refusals:
        first = judged.refusals[0]
        where = "" if first.attribute is None else f"'{first.attribute}': "
        raise UsageError(f"the profile cannot be altered: {where}{first.reason}", remedy=_REMEDY)
    return judged
