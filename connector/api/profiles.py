"""The two update endpoints: a body of operations in, an outcome for that chunk out."""

from datetime import UTC, datetime
from typing import Literal

from connector.api._http import Client, EndpointLimit, Limits, NoAnswerError, NotSentError
from connector.outcome import Outcome, classify, no_answer, not_sent

Endpoint = Literal["update", "mass_update"]

PATHS: dict[Endpoint, str] = {"update": "/profiles/update", "mass_update": "/profiles/mass-update"}

MASS_UPDATE_ABOVE = 10_000
"""Changes up to which `endpoint: auto` takes the live endpoint: 34 s at its 300 a second."""


def choose(endpoint: Literal["auto", "update", "mass_update"], changes: int) -> Endpoint:
    """The endpoint of a run: one for all its chunks, so that no profile's calls can overtake each other."""
    if endpoint != "auto":
        return endpoint
    return "update" if changes <= MASS_UPDATE_ABOVE else "mass_update"


def limit(limits: Limits, endpoint: Endpoint) -> EndpointLimit:
    """What that endpoint takes."""
    return limits.update if endpoint == "update" else limits.mass_update


async def send(client: Client, endpoint: Endpoint, content: bytes, rows: int) -> Outcome:
    """POST one chunk.

    Args:
        client: An open client.
        endpoint: Which of the two.
        content: The request body: `rows` operations.
        rows: How many operations it holds.
    """
    try:
        answer = await client.post(PATHS[endpoint], content)
    except NotSentError as error:
        return not_sent(f"no connection: {error}")
    except NoAnswerError as error:
        return no_answer(f"no answer: {error}")
    return classify(answer, rows, now=datetime.now(UTC))


async def probe(client: Client) -> Outcome:
    """What Batch makes of our keys: POSTs an empty array to the live endpoint, which changes nobody.

    SPLIT (400: malformed) means that the keys were accepted before the body was judged. That is inferred: Batch
    documents neither the order of its checks nor what an empty array does.

    Args:
        client: An open client.
    """
    return await send(client, "update", b"[]", 0)
