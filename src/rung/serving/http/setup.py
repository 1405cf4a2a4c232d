"""What the parts of a server share."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.requests import Request

from rung.serving.http.answering import InFlight
from rung.serving.http.limits import HttpLimits
from rung.serving.http.logs import RequestLog, RequestRecord
from rung.serving.http.security import ServerKeys
from rung.serving.sampling import RequestSample
from rung.serving.service import ModelService

RECORD = "rung.record"
"""Where the record of a request stands in its ASGI scope."""
ABORT = "rung.abort"
"""And the function that ends its connection at once."""


@dataclass(frozen=True)
class HttpSetup:
    """loopback: requests must name this machine as their host. cors: origins whose pages may read answers. sample:
    keeps some requests; None: none is kept."""

    service: ModelService
    keys: ServerKeys = field(default_factory=ServerKeys)
    limits: HttpLimits = field(default_factory=HttpLimits)
    log: RequestLog = field(default_factory=lambda: RequestLog(quiet=True))
    loopback: bool = False
    cors: tuple[str, ...] = ()
    sample: RequestSample | None = None
    in_flight: InFlight = field(default_factory=InFlight)


def record_of(request: Request) -> RequestRecord:
    record: RequestRecord = request.scope[RECORD]
    return record
