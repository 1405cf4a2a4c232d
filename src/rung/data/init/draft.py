"""A first task.yaml for data: the guesses of this package put together, each with its reason, and tried on the data.

Knows all of `rung.data.init`, and asks `rung.data.shapes` how rows are read. Decides nothing that the user cannot
change in the text it returns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rung.data.examples import FEW_EMPTY
from rung.data.init.answers import AnswerForm, AnswersSeen, form_of
from rung.data.init.reading import MOST_ASKED, Ask, FilesRead, read_files
from rung.data.init.schemas import closed
from rung.data.init.sources import Sources, find_sources
from rung.data.init.yaml_text import as_comment, as_yaml, escaped, quoted
from rung.data.refusals import usual_refusal
from rung.data.rows import SCHEMA_SUFFIX, raise_problems
from rung.data.shapes import Recognised
from rung.data.shapes.seam import key_of
from rung.errors import DataError
from rung.text import normal_form
from rung.types import Document

_NAMED_LABELS = 30  # more of them make a long instruction, paid for on every request
_LABELS_ON_A_LINE = 12
_FEW_INSTRUCTIONS = 5
_INLINE_SCHEMA = 1_500  # characters; a longer one goes into a file of its own
SCHEMA_FILE = f"answer{SCHEMA_SUFFIX}"
_INSTRUCTIONS = {
    "label": "Classify the input. Answer with one of the labels only.",
    "labels": "Say which labels apply to the input. Answer with a JSON list of them.",
    "JSON object": "Answer with one JSON object only.",
    "JSON": "Answer with JSON only.",
    "call": 'Answer with the call of a tool as JSON: {"name": …, "arguments": {…}}.',
    "number": "Work out the answer. Answer with the number only.",
    "steps": "Work out the answer step by step. End with #### and the number.",
    "steps in words": "Work out the answer step by step. End with: The answer is, and the number.",
    "date": "Answer the question. Answer with the date only.",
    "code": "Answer the input. Answer with the text alone, without an explanation.",
    "long": "Answer the input in full sentences.",
    "span": "Answer the question with the words of the text.",
}


_SAY_LITTLE = re.compile(
    r"\d+|y|n|t|f|yes|no|true|false|ja|nein|oui|non|s[ií]|sim|não|low|medium|high|normal|none|maybe|unknown"
)
"""Labels that mean nothing without the name of their column."""
_NEGATIVE = ("no", "n", "false", "f", "nein", "non", "não")
_NAMES_NO_QUESTION = ("label", "labels", "output", "target", "answer", "class", "category", "result", "gold",
                      "expected", "response", "completion")  # fmt: skip


@dataclass(frozen=True)
class Draft:
    """text: of task.yaml, to be written into `folder`. files: name -> text of what belongs beside it.

    notes: what the user should not miss, one sentence each; they are comments of the text, too. plain: the same task
    with nothing said about the form of answers, for data that the draft fails on. faulty: some rows must be corrected.
    documents: of its corpus.
    """

    folder: Path
    text: str
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    plain: Draft | None = None
    faulty: bool = False
    documents: tuple[Document, ...] = ()


def draft_task(
    data: Sequence[str],
    *,
    docs: str | None = None,
    fields: Mapping[str, str | tuple[str, ...]] | None = None,
    shape: str | None = None,
    ask: Ask | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Draft:
    """A task.yaml for the files, folders, globs or hf:NAME of `data`.

    docs: the corpus. fields, shape: as task.yaml has them, where the user chose them. ask: answers a question about
    what is uncertain, at most two a call; None: nobody is there, and what has two sensible readings is an error.
    say: hears how far reading documents is. Raises DataError when there is no data file, it cannot be read, or its
    columns leave no guess.
    """
    read = read_files(find_sources(data, docs, say), dict(fields or {}), shape, ask)
    sources = read.sources
    if read.answers.n == 0 and not isinstance(read.reading.fields.get("output"), tuple):
        raise_problems([*read.problems, *read.unread])
        named = read.reading.fields
        column = named.get("output", named.get("references", named.get("input")))
        raise DataError(f'{sources.files[0].name}: the column "{column}" holds no answers. Fill it in.')
    several, columns = read.reading.several, read.reading.fields.get("output")
    form = form_of(
        read.answers,
        several=several.why if several else None,
        columns=columns if isinstance(columns, tuple) else (),
        squad=read.reading.shape == "squad",
        documents=sources.corpus is not None or "gold_ids" in read.reading.fields,
    )
    if read.reading.shape == "squad" and read.answers.empty:
        empty: dict[str, tuple[object, str]] = {
            "empty": ("allowed", f"{read.answers.empty} questions cannot be answered")
        }
    else:
        empty = _empty_answers(read.answers, ask)
    plain = replace(form, metric="exact_match", why="the same text", kind="answer", counts={}, keys=empty, schema=None)
    one_label = form.labels and "multi_label" not in form.keys
    form = plain if empty and one_label else replace(form, keys={**form.keys, **empty})  # no label is empty
    if sources.corpus is not None and _leaves_room(form):
        abstain = _abstain(read.answers)
        form, plain = (replace(f, keys={**f.keys, **abstain}) for f in (form, plain))
    return replace(_written(sources, read, form), plain=_written(sources, read, plain), faulty=form.faulty)


def _empty_answers(answers: AnswersSeen, ask: Ask | None) -> dict[str, tuple[object, str]]:
    """empty: allowed, where the user says that an empty answer is a right one."""
    if ask is None or answers.empty < FEW_EMPTY * (answers.n + answers.empty):
        return {}
    question = f"{answers.empty} of {answers.n + answers.empty} rows have no answer. Is an empty answer a right one?"
    right = ask(question, ("no: these rows have to be filled in or removed", "yes: there is nothing to answer"))
    return {"empty": ("allowed", f"{answers.empty} answers are empty")} if right else {}


def _abstain(answers: AnswersSeen) -> dict[str, tuple[object, str]]:
    """abstain: the usual answer where the documents hold none."""
    found = usual_refusal(answers.counts or {})
    if found is None:
        return {}
    text, rows = found
    return {"abstain": (text, f"{rows:,} of {answers.n:,} answers; right where the documents hold no answer")}


def _leaves_room(form: AnswerForm) -> bool:
    """Whether an answer may be any text, so that it can name sources or say that there is none."""
    return not form.labels and form.schema is None and "multi_label" not in form.keys


def _written(sources: Sources, read: FilesRead, form: AnswerForm) -> Draft:
    """The draft as text, line by line."""
    from rung.data.model_keys import DEFAULT_MODEL

    reading, total = read.reading, sum(read.rows.values())
    rows = f"{total} row{'s' if total != 1 else ''}"
    own = next(iter(read.instructions)) if len(read.instructions) == 1 else None
    instruction, why = (
        (own, "the same in all rows") if own else (_instruction(form, reading), "a guess; say what you want")
    )
    lines = [
        "# A first guess of rung init. Each comment gives the reason; correct what is wrong.",
        f"name: {as_yaml(_name(sources))}",
        f"instruction: {as_yaml(instruction)}  # {why}",
        f"examples: {as_yaml(sources.examples())}  # {rows}; columns: {as_comment(', '.join(read.columns))}",
        *(f"# {as_comment(note)}" for note in (*sources.notes, *_how(read))),
        *([f"# {as_comment(reading.why)}"] if reading.why else []),
        f"shape: {as_yaml(reading.shape)}",
        f"fields: {as_yaml(_fields(read))}",
    ]
    left = _left_out(read)
    if left:
        lines.append(f"# left out, as no field names them: {as_comment(', '.join(left))}")
    lines.append(f"metric: {form.metric}  # {as_comment(form.why)}")
    lines += [f"{key}: {as_yaml(value)}  # {as_comment(reason)}" for key, (value, reason) in form.keys.items()]
    lines += _label_lines(form)
    files: dict[str, str] = {}
    if form.schema is not None:
        text = json.dumps(form.schema, ensure_ascii=False)
        if len(text) > _INLINE_SCHEMA:
            files[SCHEMA_FILE] = json.dumps(form.schema, ensure_ascii=False, indent=2) + "\n"
        value = SCHEMA_FILE if files else escaped(text)
        lines.append(f"schema: {value}  # {_fixed(form.schema)}; all {read.answers.n} answers meet it")
    notes = (*form.notes, *_of_conversations(read))
    lines += [f"# {as_comment(note)}" for note in notes]
    documents = () if sources.corpus is None else sources.corpus.documents
    if sources.corpus is not None:
        lines.append(f"corpus: {as_yaml(sources.corpus.written)}  # {as_comment(sources.corpus.why)}")
        lines += _keys_of_documents(form)
    lines += [
        f"model: {DEFAULT_MODEL}  # the default: small, answers and trains on two CPU cores",
        "# model: {endpoint: https://api.openai.com/v1, name: gpt-5-mini}  # behind an API; its key: OPENAI_API_KEY",
        "# models: [ … ]  # instead of model: several, cheapest first, compared in one run",
        "# train_size: 200  # a diverse, clean subset of train is picked",
        "# target: 0.9  # good enough; climbing stops there",
        "# budget: {minutes: 30}",
        "seed: 0",
    ]
    return Draft(sources.folder, "\n".join(lines) + "\n", files, (*sources.notes, *notes), documents=documents)


def _keys_of_documents(form: AnswerForm) -> list[str]:
    """Keys that a task with documents may have, as comments."""
    lines = ["# retrieval: {kinds: [bm25, dense]}  # only some ways to find passages; all that work here are tried"]
    if _leaves_room(form):
        lines.append("# cite: true  # answers name the passages that they rest on")
        if "abstain" not in form.keys:
            lines.append("# abstain: I do not know.  # the answer where the documents hold none")
    return lines


def _fixed(schema: Mapping[str, object]) -> str:
    """What a schema fixes."""
    keys = list(dict.fromkeys(closed(schema)))
    named = as_comment(", ".join(keys[:5])) + (", …" if len(keys) > 5 else "")
    if not keys:
        return "fixes keys and types"
    return f"fixes keys, types and the values of {named} (delete enum where others can come)"


def _of_conversations(read: FilesRead) -> list[str]:
    """What rows bring beside an input and an answer: instructions that differ, earlier turns."""
    found = []
    asked = read.asked
    if len(asked) > 1:
        several = f"{len(asked):,}" if len(asked) < MOST_ASKED else f"{MOST_ASKED:,} or more"
        text = f"Rows carry {several} different instructions, and one metric judges them all."
        if len(asked) <= _FEW_INSTRUCTIONS:
            rows = " and ".join(f"{n:,}" for n in sorted(asked.values(), reverse=True))
            text = f"Rows carry {len(asked)} different instructions ({rows} rows), and one metric judges them all."
            text += " If they are different tasks, make a task of each."
        found.append(text)
    if read.with_turns:
        found.append(
            f"{read.with_turns:,} of {sum(read.rows.values()):,} rows have earlier turns, which the model sees before "
            "the input."
        )
    return found


def _how(read: FilesRead) -> list[str]:
    """What was recognised of the files, once for files that were read alike."""
    by_how: dict[str, list[str]] = {}
    for path, how in read.how.items():
        for text in how:
            by_how.setdefault(text, []).append(path.name)
    found = []
    for text, names in by_how.items():
        files = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        found.append(f"{files}: {text}")
    if read.id_twice is not None:
        found.append(f'the column "{read.id_twice}" names several rows alike, so it is not read as their id')
    group = read.reading.fields.get("group")
    if group:
        found.append(f'rows with the same "{group}" are kept in one set (group)')
    return found


def _fields(read: FilesRead) -> dict[str, object]:
    """fields: of task.yaml. A column of ids that names two rows alike is not read."""
    return {**read.fields, **({"id": None} if read.id_twice is not None else {})}


def _left_out(read: FilesRead) -> list[str]:
    """Columns that no field names."""
    return [column for column in read.columns if column and column not in read.reading.used]


def _label_lines(form: AnswerForm) -> list[str]:
    """labels: on one line, or each on a line with the number of its rows."""
    labels = form.labels
    if form.nearly:
        return [f"# labels: [{as_comment(', '.join(map(quoted, form.nearly)))}]"]
    if not labels:
        return []
    rarest = min(form.counts.values())
    what = "labels of the answers" if form.kind == "labels" else "distinct answers"
    why = f"all {len(labels)} {what}; the rarest has {rarest} row{'s' if rarest != 1 else ''}"
    if len(labels) <= _LABELS_ON_A_LINE:
        return [f"labels: [{', '.join(map(quoted, labels))}]  # {why}"]
    return [f"labels:  # {why}", *(f"  - {quoted(label)}  # {form.counts[label]} rows" for label in labels)]


def _instruction(form: AnswerForm, reading: Recognised) -> str:
    if "instruction" in reading.fields:
        return "Do what is asked."  # each row has an instruction of its own; this one is the preface
    labels = list(form.nearly) or form.labels
    if 0 < len(labels) <= _NAMED_LABELS:
        plain = all(label.isprintable() and not set(label) & set(',"') for label in labels)
        if not plain:
            return _INSTRUCTIONS[form.kind]
        named = ", ".join(labels)
        if form.kind == "labels":
            return f"Say which of these labels apply to the input: {named}. Answer with a JSON list of them."
        column, question = reading.fields.get("output"), ""
        asks = isinstance(column, str) and reading.shape == "columns" and key_of(column) not in _NAMES_NO_QUESTION
        if asks and all(_SAY_LITTLE.fullmatch(normal_form(label)) for label in labels):
            *first, last = sorted(labels, key=lambda label: normal_form(label) in _NEGATIVE)
            question = f" {column}: {', '.join(first)} or {last}?"
        return f"Classify the input.{question} Answer with one of these labels only: {named}."
    if form.kind == "number" and form.written:
        return f"Work out the answer. Answer with the number only, with {form.written}."
    default = (
        "Answer the question briefly." if form.metric == "token_f1" else "Answer the question. Give the answer only."
    )
    return _INSTRUCTIONS.get(form.kind, default)


def _name(sources: Sources) -> str:
    """The folder's name, or the file's, with what cannot stand in a folder's name replaced."""
    first = sources.files[0]
    named = (sources.folder.name, first.name.split(".")[0])
    return next((n for name in named if (n := re.sub(r"[^\w-]+", "-", name).strip("-_")[:30])), "task")
