"""What was found out about an endpoint, kept as facts beside its answers, so that a continued run does not ask again.

Habits of its interface, the mode that holds each constraint, its list of models, its speed, and which models served.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from rung.models.endpoint.call_cache import CallCache
from rung.models.endpoint.listing import Listed, listed_from
from rung.models.endpoint.protocol import Habits
from rung.models.endpoint.structured import Form, Mode
from rung.types import Speed

DAY_S = 86_400.0
_SEEN_S = 3600.0  # how often it is written down that a model still serves
_HELD = 20  # a mode is given up where more than one of so many replies does not fit


class EndpointFacts:
    """Facts of one endpoint and model. scope: begins the names of its facts. first: the habits to begin with.

    Its methods may be called from several threads. now: seconds since 1970.
    """

    def __init__(self, cache: CallCache, scope: str, first: Habits, now: Callable[[], float] = time.time) -> None:
        self._cache, self._scope, self._now = cache, scope, now
        self._lock = threading.Lock()
        kept = cache.facts(f"{scope} habits")
        self.habits_proven = bool(kept)
        self._habits = Habits(**kept) if kept else first
        self._modes: dict[str, dict[str, Any]] = cache.facts(f"{scope} tried modes")
        for tried in self._modes.values():  # a failure may have been an outage: it is believed for a day
            tried["failed"] = {m: at for m, at in tried.get("failed", {}).items() if abs(now() - at) < DAY_S}
        self._held = Counter({(key, tried["proven"]): _HELD for key, tried in self._modes.items() if "proven" in tried})
        self._broken: Counter[tuple[str, str]] = Counter()
        self._served: dict[str, float] = cache.facts(f"{scope} served")
        self._label_tokens: dict[str, list[list[int]]] = cache.facts(f"{scope} label tokens")
        self._speed = cache.facts(f"{scope} speed")
        listing = cache.facts(f"{scope} listing")
        self._listed_at: float | None = listing["at"] if listing else None
        self.listed = listed_from(listing["listed"]) if listing else Listed()
        self.served: Counter[str] = Counter()
        """Names of the models that answered in this process, with how often."""
        self.fingerprints: Counter[str] = Counter()
        self.used: Counter[str] = Counter()
        """Modes that held answers of this process to a constraint, with how often."""

    # ---- habits -----------------------------------------------------------------------------

    @property
    def habits(self) -> Habits:
        return self._habits

    def learn(self, habits: Habits) -> None:
        with self._lock:
            self._habits = habits
            self._keep("habits", habits.record())

    def prove_habits(self) -> None:
        """A request was answered: the habits are those of the endpoint."""
        if not self.habits_proven:
            self.habits_proven = True
            self.learn(self._habits)

    # ---- modes ------------------------------------------------------------------------------

    def mode(self, form: Form, wanted: tuple[Mode, ...]) -> Mode:
        """The best of these modes that has not failed for this constraint."""
        failed = self._modes.get(form.key, {}).get("failed", ())
        return next((mode for mode in wanted if mode not in failed), "none")

    def mode_proven(self, form: Form, mode: Mode) -> bool:
        return mode == "none" or bool(self._modes.get(form.key, {}).get("proven") == mode)

    def prove_mode(self, form: Form, mode: Mode) -> None:
        """A reply fits."""
        self._held[form.key, mode] += 1
        if not self.mode_proven(form, mode):
            with self._lock:
                self._modes.setdefault(form.key, {})["proven"] = mode
                self._keep("tried modes", self._modes)

    def is_broken(self, form: Form, mode: Mode) -> bool:
        """A reply does not fit although this mode holds all to the constraint. Whether that is often: it fails then."""
        self._broken[form.key, mode] += 1
        return self._broken[form.key, mode] * _HELD > self._held[form.key, mode]

    def mode_failed(self, form: Form, mode: Mode) -> None:
        """From now on another mode is used for this constraint. Nothing happens where that was said before."""
        with self._lock:
            failed = self._modes.setdefault(form.key, {}).setdefault("failed", {})
            if mode not in failed:
                failed[mode] = self._now()
                self._keep("tried modes", self._modes)

    def label_tokens(self, form: Form) -> list[list[int]] | None:
        """Tokens of each label, empty where the server does not tell them; None: it was not asked yet."""
        return self._label_tokens.get(f"{form.key} {self.listed.weights}")

    def keep_label_tokens(self, form: Form, tokens: list[list[int]]) -> None:
        with self._lock:
            self._label_tokens[f"{form.key} {self.listed.weights}"] = tokens
            self._keep("label tokens", self._label_tokens)

    # ---- served models ----------------------------------------------------------------------

    def saw(self, model: str, fingerprint: str) -> bool:
        """A model has answered. Whether another one had answered in this process before, and not this one."""
        with self._lock:
            names = set(self.served)
            self.served[model] += 1
            if fingerprint:
                self.fingerprints[fingerprint] += 1
            if self._now() - self._served.get(model, 0.0) > _SEEN_S:
                self._served[model] = self._now()
                self._keep("served", self._served)
            return bool(names) and model not in names

    def is_current(self, model: str) -> bool:
        """Whether answers of this served model count: it was seen within a day of the one that was seen last.

        A name may be pointed to another model; answers of the former one are then not the model's any more. What no
        model answered, but a filter, counts on.
        """
        if not model:
            return True
        with self._lock:
            newest = max(self._served.values(), default=0.0)
            return self._served.get(model, 0.0) > newest - DAY_S - _SEEN_S

    # ---- the list of models and the speed ---------------------------------------------------

    @property
    def listing_is_old(self) -> bool:
        return self._listed_at is None or self._now() - self._listed_at > DAY_S

    def keep_listing(self, listed: Listed | None) -> None:
        """None: there was none to read, so that an earlier one stays, and it is asked for again after a day."""
        self._listed_at = self._now()
        self.listed = self.listed if listed is None else listed
        self._keep("listing", {"at": self._listed_at, "listed": self.listed.record()})

    @property
    def speed(self) -> Speed | None:
        return Speed(**self._speed) if self._speed else None

    def keep_speed(self, speed: Speed) -> None:
        self._speed = {"read": speed.read, "write": speed.write, "train": speed.train}
        self._keep("speed", self._speed)

    def _keep(self, name: str, record: dict[str, Any]) -> None:
        self._cache.set_fact(f"{self._scope} {name}", record)
