"""An answer as its bundle's solution reads it, while it is written: pieces that together are the prediction's text."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from rung.constraints import checked
from rung.serving.bundle import Bundle
from rung.serving.events import Begun, Done, Piece
from rung.solutions.answer import predicted
from rung.solutions.searching import FoundPassages
from rung.types import Constraint, Generation, Query


class Tidied:
    """Pieces of one answer. bundle None: as the model writes them. constraint: that the answer is held to.

    White space around an answer is no part of it, unless its decoding keeps the one before it. Where the bundle cites,
    its marks are found at the end only, so that the answer comes as one piece.
    """

    def __init__(
        self, bundle: Bundle | None, search: FoundPassages | None = None, constraint: Constraint | None = None
    ) -> None:
        self._bundle, self._constraint = bundle, constraint
        self._search = search or FoundPassages()
        solution = bundle.solution if bundle is not None else None
        self._whole = solution is not None and solution.cite and solution.retriever is not None
        self._strips = solution is not None and not solution.decoding.keep_space
        self._trims = solution is not None
        self._held = ""
        self._told = False

    def begun(self, begun: Begun) -> Begun:
        search = self._search
        return Begun(search.tokens_in + begun.tokens_in, search.tokens_cached + begun.tokens_cached)

    def piece(self, piece: Piece) -> Piece | None:
        """What can be told now; None where there is nothing yet."""
        if not self._trims:
            return piece
        text = self._held + piece.text
        if self._whole:
            self._held, text = text, ""
        else:
            if self._strips and not self._told:
                text = text.lstrip()
            kept = text.rstrip()
            self._held, text = text[len(kept) :], kept
        self._told = self._told or bool(text)
        return replace(piece, text=text) if text or piece.tokens else None

    def done(self, generation: Generation) -> tuple[Piece | None, Done]:
        """What was held back, and the end."""
        finish: Literal["stop", "length"] = "length" if generation.finish == "length" else "stop"
        tokens = (generation.tokens_in, generation.tokens_cached, generation.tokens_out)
        if self._bundle is None:
            return None, Done(generation.text, finish, *tokens, fault=self._fault(generation))
        bundle = self._bundle
        prediction = predicted(bundle.solution, Query("0", ""), generation, self._search)
        last = Piece(prediction.text) if self._whole and prediction.text else None
        return last, Done(
            prediction.text,
            finish,
            prediction.tokens_in,
            prediction.tokens_cached,
            prediction.tokens_out,
            bundle.sources(prediction),
            bundle.refuses(prediction),
            self._fault(generation),
        )

    def _fault(self, generation: Generation) -> str | None:
        """How the answer breaks its form. One that was cut is looked at here alone: in a run it counts as it stands."""
        if generation.error is not None or generation.finish != "length":
            return generation.error
        whole = replace(generation, text=generation.text.strip(), finish="stop")
        return checked(whole, self._constraint).error
