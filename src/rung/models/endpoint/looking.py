"""Asks an endpoint for its list of models: to learn from it, to see that the key is taken, or to show the names.

What the list says is read in `listing`; what is kept of it is in `known`.
"""

from __future__ import annotations

import re

from rung.errors import ModelError
from rung.models.endpoint.asking import Asker
from rung.models.endpoint.listing import Listed, read_listing
from rung.models.endpoint.policy import CallFailed, Refused
from rung.models.endpoint.refusals import error_of_all, refusal_of

_LISTING_S, _LISTING_TRIES = 10.0, 2
_LISTING_ALONE = re.compile(r"missing scopes?|insufficient permissions?", re.IGNORECASE)
"""What OpenAI says of a key that may be used for answers and not for the list."""


async def look(asker: Asker, *, strict: bool = False) -> None:
    """Reads the list and keeps it. strict: raises ModelError where the key is refused. No other fault is an error.

    A 403 does not say that the key is wrong: gateways answer so to a path that they do not have.
    """
    try:
        listed = await _listing(asker)
    except Refused as refused:
        refusal = refusal_of(refused.status, refused.detail)
        if strict and refusal.cause == "key" and refused.status != 403 and not _LISTING_ALONE.search(refusal.said):
            raise error_of_all(refusal, refused.status, asker.spec, Listed()) from None
        if refused.status not in (401, 403):
            asker.known.keep_listing(None)
    except CallFailed:
        return
    else:
        asker.known.keep_listing(listed)


async def names_served(asker: Asker) -> tuple[str, ...]:
    """Names of the models that the endpoint lists now. Raises ModelError."""
    spec = asker.spec
    try:
        return (await _listing(asker)).names
    except Refused as refused:
        refusal = refusal_of(refused.status, refused.detail)
        raise error_of_all(refusal, refused.status, spec, Listed()) from None
    except CallFailed as failed:
        fact = f"its list of models did not come ({failed})"
        raise ModelError(f"{spec.where}: {fact}. Check the address {spec.endpoint}.") from None


async def _listing(asker: Asker) -> Listed:
    return await asker.calls.call(
        f"/models{asker.spec.query}",
        None,
        accept=lambda reply: read_listing(reply.body, asker.spec.name),
        headers=asker.headers,
        method="GET",
        timeout_s=_LISTING_S,
        attempts=_LISTING_TRIES,
    )
