"""Samples of one prompt: seeds of their own, drawn in one call."""

from __future__ import annotations

from dataclasses import replace

from rung.testing import FakeModel
from rung.trials.sampling import DrawnTogether
from rung.types import Decoding, Message, Request

SAMPLES = [Decoding(8, temperature=1.0, seed=seed) for seed in (11, 22, 33)]


def asked(text: str, decoding: Decoding) -> Request:
    return Request((Message("user", text),), decoding)


def test_every_row_and_every_sample_has_another_seed_and_all_of_a_prompt_are_drawn_in_one_call() -> None:
    model = FakeModel(lambda request: str(request.decoding.seed))
    drawn = DrawnTogether(model, lambda _: SAMPLES)
    texts = [[g.text for g in drawn.generate([asked(text, d) for text in ("one", "two")])] for d in SAMPLES]
    assert len({seed for row in texts for seed in row}) == 6
    assert model.calls == [6]
    again = DrawnTogether(FakeModel(lambda request: str(request.decoding.seed)), lambda _: SAMPLES)
    assert again.generate([asked("two", SAMPLES[2])])[0].text == texts[2][1], "whatever it is asked together with"
    drawn.forget()
    drawn.generate([asked("one", SAMPLES[0])])
    assert model.calls == [6, 3]


def test_a_greedy_request_keeps_its_seed() -> None:
    model = FakeModel(lambda request: str(request.decoding.seed))
    drawn = DrawnTogether(model, lambda decoding: [decoding])
    assert drawn.generate([asked("one", replace(SAMPLES[0], temperature=0.0))])[0].text == "11"
