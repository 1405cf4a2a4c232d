"""SQuAD's rows: a question, a context, and answers as {"text": […], "answer_start": […]}; flat, or by paragraph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from rung.data.shapes.seam import BY_STRUCTURE, Claim, RowShape, Sample, Values
from rung.data.shapes.values import accepted


def _recognise(sample: Sample) -> Sequence[Claim]:
    answers, question = sample.column("answers"), sample.column("question")
    if answers is None or question is None or "output" in sample.chosen or not sample.mostly(answers, _with_texts):
        return ()
    fields: dict[str, str | tuple[str, ...]] = {"input": question, "output": answers}
    why = f'the answers in the texts of "{answers}" are all accepted, the first is learnt'
    return [Claim(BY_STRUCTURE, fields, why)]


def _with_texts(value: object) -> bool:
    """Answers as SQuAD writes them, the empty ones of questions that cannot be answered included."""
    if isinstance(value, dict):
        return isinstance(value.get("text"), list)
    return value == [] or (isinstance(value, list) and isinstance(value[0], dict) and accepted(value) is not None)


def _flatten(values: Values) -> Iterator[Values] | None:
    """The questions of an article, or of a paragraph, each with its context."""
    paragraphs = values.get("paragraphs")
    if isinstance(paragraphs, list):
        title = {"title": values["title"]} if "title" in values else {}
        return _questions([{**title, **p} for p in cast("list[object]", paragraphs) if isinstance(p, dict)])
    if isinstance(values.get("qas"), list) and "context" in values:
        return _questions([values])
    return None


def _questions(paragraphs: Sequence[Values]) -> Iterator[Values]:
    for paragraph in paragraphs:
        qas = paragraph.get("qas")
        for question in qas if isinstance(qas, list) else []:
            if isinstance(question, dict):
                yield {**{name: value for name, value in paragraph.items() if name != "qas"}, **question}


SHAPE = RowShape(_recognise, flatten=_flatten)
