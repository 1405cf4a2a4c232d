"""One column for the input, or several joined under their names, and one for the answer, or one for each label.

Columns are found by their names and, where names say nothing, by what they hold.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Sequence

from rung.data.rows import as_text, parse_json
from rung.data.shapes.conversation import ROLES, is_conversation
from rung.data.shapes.seam import (
    BY_GUESS,
    BY_NAME,
    BY_STANDARD_NAMES,
    OPTIONAL,
    Claim,
    RowShape,
    Sample,
    Values,
    key_of,
)
from rung.data.shapes.values import is_scalar, json_list, listed
from rung.data.shapes.writing import beside, turn
from rung.types import Example

INPUT_NAMES = ("input", "question", "text", "message", "prompt", "query", "sentence", "utterance", "review", "content",
               "problem", "request", "source", "instruction", "email", "comment", "tweet", "ticket",
               "document", "article", "post", "inputs", "tokens", "words", "dialogue", "dialog", "ctx", "goal", "stem",
               "inquiry", "complaint", "narrative")  # fmt: skip
"""Names of columns that hold the input, the plainest first."""
PART_NAMES = ("subject", "title", "headline", "heading", "body", "description", "details", "premise",
              "hypothesis", "sentence1", "sentence2", "sentence_1", "sentence_2", "sent1", "sent2", "question1",
              "question2", "text1", "text2", "text_a", "text_b", "abstract")  # fmt: skip
"""Names of columns that hold a part of the input beside others."""
_TITLES = ("subject", "title", "headline", "heading")
_WHOSE = ("user", "customer", "consumer", "client")
_PAIRS = (("q", "a"), ("question", "query"), ("nl", "bash"), ("nl", "code"),
          ("src", "tgt"), ("src", "trg"), ("user", "assistant"), ("user", "bot"), ("user", "agent"),
          ("human", "assistant"), ("human", "ai"), ("human", "bot"), ("customer", "agent"), ("frage", "antwort"),
          ("pregunta", "respuesta"), ("domanda", "risposta"), ("pergunta", "resposta"), ("问题", "答案"),
          ("问题", "回答"), ("問題", "答案"), ("質問", "回答"), ("질문", "답변"), ("вопрос", "ответ"))  # fmt: skip
"""Names of an input and its answer that say so together: of common data sets, and in other languages."""
_OPTIONS = re.compile(
    r"choices|options|endings|answer_choices|[a-f]|(option|choice|opt|op|ending|sol|answer)_?[a-f0-9]"
)
"""Of columns that hold what is to be chosen from."""
_CLASSES = ("intent", "category", "class", "sentiment", "labels", "tags", "topics", "categories", "intents")
_OTHER_CLASSES = ("priority", "urgency", "severity", "department", "team", "queue", "topic", "emotion", "tone",
                  "subcategory", "sub_category")  # fmt: skip
"""Of classes that are as good an answer as a category, where few values repeat."""
_REPLIES = ("response", "reply", "agent_reply")
"""Of answers that may stand beside a message together with its class."""
_ASIDE = ("summary", "highlights", "translation", *_CLASSES)
"""Names of an answer that may stand aside of a question and its answer, too."""
_ANSWERS = (
    ("output",),
    ("outputs", "answer", "label", "target", "response", "completion", "expected", "expected_output", "reply",
     "solution", "gold", "gold_answer", "ground_truth", "output_text", "expected_answer", "correct_answer",
     "best_answer", "answerkey", "answer_key", "answer_text", "targets", "target_text", "agent_reply", "gold_label"),
    ("answers",),
    _ASIDE,
    ("label_text", "label_name", "result", "score", "rating", "stars", "polarity", "code", "canonical_solution", "sql",
     "ner_tags", "pos_tags", "chunk_tags"),
)  # fmt: skip
"""Names of columns that hold the answer, the plainest first; those in one line are equally plain."""
_IN_WORDS = ("label_text", "label_name", "text_label", "category_name", "class_name", "intent_name")
REFERENCES = ("references", "accepted_answers", "correct_answers", "reference_answers")
CONTEXT_NAMES = ("context", "passage", "paragraph", "evidence", "support", "schema", "contexts")
_META = ("id", "uuid", "index", "idx", "no", "nr", "row", "line", "group", "split", "date", "timestamp", "created_at",
         "url", "lang", "language", "", "unnamed:_0", "_id", "user_id", "prompt_id", "author", "rejected",
         "from", "to", "cc", "sender", "recipient", "time", "meta", "metadata", "cursor", "sort")  # fmt: skip
_SEARCHED = ("documents", "docs", "passages", "paragraphs", "chunks", "sources", "search_results", "facts", "turns")
"""Of columns of lists that belong to a question."""
_FEW_WORDS = 2
_LONGER = 2.5
_MOST_ASKED = 5
_A_LABEL = 12  # characters


def _recognise(sample: Sample) -> Sequence[Claim]:
    """Claims of every input with every answer that is sensible."""
    claims: list[Claim] = []
    if speakers_of(sample) is not None and not _named_answers(sample):
        return claims
    for field, answer, sure_of_answer, why_answer in _answers(sample):
        for source, sure, why in _sources(sample, listed(answer)):
            whys = "; ".join(part for part in (why, why_answer) if part)
            claims.append(Claim(min(sure, sure_of_answer), {"input": source, field: answer}, whys))
    return claims


Columns = str | tuple[str, ...]
_Answer = tuple[str, Columns, int, str]
"""A field (output or references), its columns, how sure, why."""
_Source = tuple[Columns, int, str]


def _answers(sample: Sample) -> list[_Answer]:
    """Columns that may hold the answer."""
    if "output" in sample.chosen:
        return [("output", sample.chosen["output"], BY_STANDARD_NAMES, "")]
    if named := _named_answers(sample):
        sure = BY_STANDARD_NAMES if "output" in map(key_of, named) else BY_NAME
        return [("output", c, sure, f'output: the column "{c}", by its name') for c in named]
    if accepted_ones := sample.chosen.get("references") or sample.column(*REFERENCES):
        why = f'the column "{accepted_ones}" lists accepted answers, the first is learnt'
        return [("references", accepted_ones, BY_STANDARD_NAMES, why)]
    if several := _label_columns(sample):
        names = ", ".join(several[:5]) + (", …" if len(several) > 5 else "")
        return [("output", several, BY_NAME, f"output: the columns {names}, which hold 1 where their label applies")]
    plain = [c for c in _plain(sample) if key_of(c) not in CONTEXT_NAMES]
    if beside_text := _records_beside_text(sample, plain):
        return beside_text
    rest = [c for c in plain if not _says_input(c)]
    if len(rest) > 1 and (closed := [c for c in rest if _is_closed(sample, c)]):
        found: list[_Answer] = [
            ("output", c, BY_GUESS, f'output: the column "{c}", whose few values repeat') for c in closed
        ]
        return found if len(found) <= _MOST_ASKED else []
    if "input" in sample.chosen or len(rest) < len(_plain(sample)):
        rest = [c for c in rest if not _is_constant(sample, c, _A_LABEL)]
        why = f'output: the column "{rest[0]}", the only one left' if rest else ""
        return [("output", rest[0], BY_GUESS, why)] if len(rest) == 1 else []
    rest = [c for c in rest if not _is_constant(sample, c)]
    if len(rest) == 2:  # neither is named: the input is clearly longer, or both ways are sensible
        short, long = sorted(rest, key=lambda c: _words(sample, c))
        if _words(sample, long) >= _LONGER * _words(sample, short):
            return [("output", short, BY_GUESS, f'output: the column "{short}", the shorter one')]
        return [("output", c, BY_GUESS, f'output: the column "{c}"') for c in reversed(rest)]
    return []


def _records_beside_text(sample: Sample, plain: Sequence[str]) -> list[_Answer]:
    """Columns of objects or lists beside a text, which they are made from; and what else may be the answer then."""
    records = [c for c in plain if _holds_records(sample, c)]
    texts = [c for c in plain if c not in records]
    if not records or not any(_is_text(sample, c) for c in texts):
        return []
    input_known = "input" in sample.chosen or any(map(_says_input, texts))
    unnamed = [c for c in texts if not _says_input(c) and not _is_constant(sample, c)]
    others = [c for c in unnamed if input_known or _is_closed(sample, c)]
    found: list[_Answer] = [
        ("output", c, BY_GUESS, f'output: the column "{c}", which holds objects or lists') for c in records
    ]
    found += [("output", c, BY_GUESS, f'output: the column "{c}", beside one of objects or lists') for c in others]
    return found if len(found) <= _MOST_ASKED else []


def _named_answers(sample: Sample) -> list[str]:
    """The columns with the plainest names of answers; several where they are equally plain."""
    found: list[str] = []
    pair = _pair(sample)
    for names in _ANSWERS:
        if names is _ASIDE and pair and all(_is_text(sample, c) for c in pair):
            return [pair[1]]
        found = [c for n in names if (c := sample.by_key.get(n)) and not sample.mostly(c, is_conversation)]
        if found:
            break
    if not found and pair:
        return [pair[1]]
    keys = [key_of(c) for c in found]
    if found and set(keys) <= set(_CLASSES):
        found += [c for n in _OTHER_CLASSES if (c := sample.by_key.get(n)) and _is_closed(sample, c)]
    elif found and set(keys) <= set(_REPLIES) and not {"question", "prompt", "query", "input"} & set(sample.by_key):
        found += [c for n in _CLASSES if (c := sample.by_key.get(n)) and _is_closed(sample, c)]
    if keys == ["label"]:  # a category beside it is as plain, but for its own name in words
        found += [sample.by_key[n] for n in _CLASSES if n in sample.by_key]
        words = sample.column(*_IN_WORDS)
        if words is not None and sample.mostly(found[0], lambda v: isinstance(v, int) or str(v).isdigit()):
            return [words]
    return found


def _sources(sample: Sample, answer: tuple[str, ...]) -> list[_Source]:
    """Columns that may hold the input, with how sure that is and why."""
    if "input" in sample.chosen:
        return [(sample.chosen["input"], BY_STANDARD_NAMES, "")]
    if (plain := sample.by_key.get("input")) and plain not in answer:
        return [(plain, BY_STANDARD_NAMES, f'input: the column "{plain}"')]
    if (pair := _pair(sample)) and pair[1] in answer:
        return [(pair[0], BY_NAME, f'input: the column "{pair[0]}", by its name')]
    options = [c for c in sample.free if c not in answer and _are_options(sample, c)]
    options = options if len(options) > 1 or (options and isinstance(sample.values(options[0])[0], list | dict)) else []
    columns = [c for c in _plain(sample) if c not in (*answer, *options)]
    named = sorted(filter(_says_input, columns), key=_plainness)
    texts = [c for c in columns if c in named and _is_text(sample, c)] or named[:1]
    others = [c for c in columns if c not in named and key_of(c) not in CONTEXT_NAMES and _is_text(sample, c)]
    if texts and others and all(key_of(c) in _TITLES for c in texts):
        below = max(others, key=lambda c: _words(sample, c))
        texts += [below] if _words(sample, below) > max(_words(sample, c) for c in texts) else []
    if len(texts) == 1 and not options:
        return [(texts[0], BY_NAME, f'input: the column "{texts[0]}", by its name')]
    if texts:
        texts += options
        names = ", ".join(texts)
        return [(tuple(texts), BY_NAME, f"input: the columns {names}, joined under their names")]
    columns = [c for c in columns if key_of(c) not in CONTEXT_NAMES] or columns
    if not columns:
        return []
    longest = max(others or columns, key=lambda c: _words(sample, c))
    why = "the longest text" if len(columns) > 1 else "the only one left"
    alone: _Source = (longest, BY_GUESS, f'input: the column "{longest}", {why}')
    if len(others) < 2:
        return [alone]
    return [(tuple(others), BY_GUESS, f"input: the columns {', '.join(others)}, joined under their names"), alone]


def _says_input(column: str) -> bool:
    """Whether a column's name says that it holds the input, or a part: message, ticket_subject, "Customer message"."""
    key = key_of(column)
    words = key.split("_")
    if key in INPUT_NAMES or key in PART_NAMES:
        return True
    return words[-1] in (*INPUT_NAMES, *PART_NAMES) and all(w in (*INPUT_NAMES, *PART_NAMES, *_WHOSE) for w in words)


def _plainness(column: str) -> int:
    names, key = (*INPUT_NAMES, *PART_NAMES), key_of(column)
    return names.index(key) if key in names else len(names)


def _pair(sample: Sample) -> tuple[str, str] | None:
    """Two columns that are called question and answer, or something of the kind."""
    found = ((sample.by_key.get(q), sample.by_key.get(a)) for q, a in _PAIRS)
    return next(((q, a) for q, a in found if q and a), None)


def speakers_of(sample: Sample) -> str | None:
    """The column that says who speaks, where each row is one turn of a conversation."""
    column = sample.column("role", "from", "speaker", "sender")
    if column is None or not sample.mostly(column, lambda v: str(v).strip().lower() in ROLES):
        return None
    roles = {ROLES.get(str(v).strip().lower()) for v in sample.values(column)}
    return column if {"user", "assistant"} <= roles else None


def _flatten(values: Values) -> Iterator[Values] | None:
    """What a row's only column holds, where that is a mapping: {"translation": {"de": …, "en": …}}.

    Beside it may stand what is never an input or an answer: ids, "_index" and "_score" of Elasticsearch.
    """
    inner = [name for name, v in values.items() if isinstance(v, dict) and len(v) > 1 and _bears_rows(name)]
    if len(inner) != 1:
        return None
    beside = {name: v for name, v in values.items() if name != inner[0]}
    if not all((k := key_of(name)) in _META or k[0] == "_" or k.endswith("_id") for name in beside):
        return None
    found = values[inner[0]]
    assert isinstance(found, dict)
    return iter([{**beside, **found}])


def _bears_rows(name: str) -> bool:
    """Whether a mapping of this name may be the row, not a value that a shape reads."""
    return key_of(name) not in _META and key_of(name) not in ("answers", "answer", "output", "label", "labels")


def _are_options(sample: Sample, column: str) -> bool:
    """Whether a column holds what is to be chosen from."""
    values = sample.values(column)
    return bool(values) and bool(_OPTIONS.fullmatch(key_of(column))) and not all(map(_is_bit, values))


def _plain(sample: Sample) -> list[str]:
    """Free columns that hold something and are neither ids, groups, … nor conversations."""
    beside = (*OPTIONAL, *_META)
    return [c for c in sample.free if (k := key_of(c)) not in beside and not k.endswith("_id") and sample.values(c)]


def _label_columns(sample: Sample) -> tuple[str, ...]:
    """Columns that hold only 1 and 0, or only true and false, of which there are two at least."""
    found = tuple(c for c in _plain(sample) if sample.mostly(c, _is_bit) and all(map(_is_bit, sample.values(c))))
    return found if len(found) > 1 else ()


def _is_bit(value: object) -> bool:
    return value in (0, 1) if isinstance(value, int | float) else value in ("0", "1", "0.0", "1.0", "true", "false")


def _is_text(sample: Sample, column: str) -> bool:
    """Whether a column holds texts: more than a word or two, and mostly different ones."""
    values = [as_text(v) for v in sample.values(column) if is_scalar(v)]
    return bool(values) and _words(sample, column) > _FEW_WORDS and len(set(values)) * 4 > len(values)


def _is_closed(sample: Sample, column: str) -> bool:
    """Whether a column holds a few short values again and again, as labels do."""
    values = [as_text(v) for v in sample.values(column)]
    return 2 <= len(set(values)) <= len(values) / 3 and _words(sample, column) <= _FEW_WORDS


def _holds_records(sample: Sample, column: str) -> bool:
    """Whether a column holds objects or lists, as they are or written as JSON, and is no list of words to be read."""
    if key_of(column) in _SEARCHED or _are_options(sample, column) or sample.mostly(column, is_conversation):
        return False
    if not _says_input(column):
        return sample.mostly(column, lambda v: _record(v) or json_list(v) is not None)
    return sample.mostly(column, _record)


def _record(value: object) -> bool:
    """Whether a value is an object, or a list of objects."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            value = parse_json(value)
        except ValueError:
            return False
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _is_constant(sample: Sample, column: str, least: int = 0) -> bool:
    """Whether all rows, and three at least, hold the same, of more than `least` characters."""
    values = [as_text(v) for v in sample.values(column)]
    return len(values) > 2 and len(set(values)) == 1 and len(values[0]) > least


def _words(sample: Sample, column: str) -> float:
    return statistics.fmean([len(as_text(v).split()) + len(as_text(v)) / 1000 for v in sample.values(column)] or [0])


def _rows(examples: Sequence[Example]) -> Iterator[dict[str, object]]:
    names = {e.instruction is not None for e in examples}
    turns = any(e.turns for e in examples)
    for e in examples:
        row: dict[str, object] = {"input": e.input, "output": e.output}
        if True in names:
            row = {"instruction": e.instruction or "", **row}
        if turns:
            row["turns"] = [turn(t) for t in e.turns]
        yield {**row, **beside(e)}


SHAPE = RowShape(_recognise, _rows, _flatten)
