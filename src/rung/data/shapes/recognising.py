"""Which shape the rows of a file have: every shape is asked, the surest answer counts, the user's word above all.

Two answers that are equally sure are alternatives where they read the first rows differently.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from rung.data.rows import Problem, Row, Table, as_text, nearest, shown_columns
from rung.data.shapes import alpaca, columns, messages, preference, prompt_completion, sharegpt, squad
from rung.data.shapes.columns import CONTEXT_NAMES, REFERENCES
from rung.data.shapes.conversation import defines_tools
from rung.data.shapes.labels import SeveralLabels, found_several, repeats
from rung.data.shapes.reading import Answers, EmptyAnswer, RowReader
from rung.data.shapes.seam import (
    BY_STANDARD_NAMES,
    LOOKED_AT,
    OPTIONAL,
    Claim,
    Fields,
    RowShape,
    Sample,
    by_key,
    key_of,
    system_column,
)
from rung.data.shapes.values import accepted, is_scalar, json_list, listed, whole
from rung.errors import DataError
from rung.text import visible
from rung.types import Example

SHAPES: dict[str, RowShape] = {
    "messages": messages.SHAPE,
    "sharegpt": sharegpt.SHAPE,
    "alpaca": alpaca.SHAPE,
    "prompt_completion": prompt_completion.SHAPE,
    "preference": preference.SHAPE,
    "squad": squad.SHAPE,
    "columns": columns.SHAPE,
}
"""Shapes by their name in task.yaml."""
_FLATTEN = [shape.flatten for shape in SHAPES.values() if shape.flatten is not None]
_ACCEPTED = re.compile(r"answer|reference|target|output|response|completion|solution|gold|truth|label|transl|summar")
"""Of a column whose lists hold accepted answers."""
_MOST_PROBLEMS = 100_000
_COMPARED = 20  # rows by which two readings are told apart


@dataclass(frozen=True)
class Recognised:
    """How rows are read. `shape` and `fields` are what `shape:` and `fields:` of task.yaml may say.

    columns: of the rows, those that hold several taken apart. fields: complete, with names as the file writes them.
    why: a clause for a comment. instruction: one that is the same in all rows, which is then the task's; None where
    there is none or rows differ. several: the labels, where each answer combines several of them. lists: some answers
    are lists of accepted answers, or of labels. sequences: a list is the answer itself: entities, a tag for each word.
    whole: the answers are numbers that are written with and without a point, so that 1 and 1.0 are one.
    alternatives: other sensible readings, equally sure; `rung run` refuses to choose, `rung init` may ask.
    """

    shape: str
    fields: Fields
    why: str
    columns: tuple[str, ...] = ()
    instruction: str | None = None
    several: SeveralLabels | None = None
    lists: bool = False
    sequences: bool = False
    whole: bool = False
    alternatives: tuple[Recognised, ...] = field(default=())

    @property
    def used(self) -> frozenset[str]:
        """The columns that are read."""
        return frozenset(column for columns in self.fields.values() for column in listed(columns))

    def answers(self, *, empty: bool) -> Answers:
        """How its answers are read where no task says it. empty: an answer may be empty."""
        several = self.several
        return Answers(
            several=several is not None,
            separator=several.separator if several else None,
            lists_are_json=self.sequences,
            empty=empty,
            whole=self.whole,
        )

    @property
    def needed(self) -> Fields:
        """The fields that choose it: those that are not read by their names anyway."""
        return {name: columns for name, columns in self.fields.items() if name not in OPTIONAL}

    @property
    def as_yaml(self) -> str:
        """What task.yaml says to choose it."""
        names = (f"{k}: {_yaml(v)}" for k, v in self.needed.items())
        return f"shape: {self.shape} with fields: {{{', '.join(names)}}}"

    @property
    def as_options(self) -> str:
        """What a command says to choose it."""
        pairs = (f"{name}={','.join(listed(columns))}" for name, columns in self.needed.items())
        return " ".join([f"--shape {self.shape}", *(f"--field {shlex.quote(pair)}" for pair in pairs)])


def recognised(
    columns: Sequence[str], rows: Sequence[Row], fields: Fields | None = None, shape: str | None = None
) -> Recognised:
    """The shape of rows and the columns that hold what. fields, shape: those that the user chose; they win.

    Raises DataError when no shape fits, or a column that the user names is absent; it says the columns and what to
    write. Deterministic: the first 200 rows decide, and all of them what is the same everywhere.
    """
    if shape is not None and shape not in SHAPES:
        raise DataError(f'"{shape}" is no shape of rows. The shapes are {", ".join(SHAPES)}.')
    rows, names = _flattened(rows, columns)
    place = rows[0].where if rows else "the data"
    chosen = _resolved(fields or {}, names, place)
    sample = Sample(tuple(names), [row.values for row in rows], chosen)
    claims = [(n, c) for n, one in SHAPES.items() if shape in (None, n) for c in one.recognise(sample)]
    if _complete(chosen):
        claims = [(shape or "columns", Claim(BY_STANDARD_NAMES, chosen, ""))]
    if not claims:
        raise DataError(_no_shape(sample, shape, place))
    surest = max(claim.sure for _, claim in claims)
    readings = [_reading(name, claim, sample, rows) for name, claim in claims if claim.sure == surest]
    first, *others = readings
    seen = _first_rows(first, rows)
    return replace(first, alternatives=tuple(other for other in others if _first_rows(other, rows) != seen))


def recognise(table: Table, fields: Fields, shape: str | None = None) -> Recognised:
    """The reading of a file. Raises DataError where there is none, or where two are sensible; it shows both."""
    found = recognised(table.columns, table.rows, fields, shape)
    if found.alternatives:
        ways = [f"  {reading.as_yaml} ({reading.why})" for reading in (found, *found.alternatives[:4])]
        raise DataError(
            f"{table.path.name}: its rows can be read in {len(found.alternatives) + 1} ways. "
            "Choose one in task.yaml with shape: and fields:.\n" + "\n".join(ways)
        )
    return found


def examples_of(
    rows: Iterable[Row], reading: Recognised, problems: list[Problem] | None = None
) -> Iterator[Example | None]:
    """The example of each row, its answer "" where there is none; None where it cannot be read. For first guesses.

    problems: takes the first rows that cannot be read for another reason than that they have no answer.
    """
    read = RowReader(reading.fields, reading.answers(empty=True))
    for row in flat(rows):
        try:
            yield read(row)
        except ValueError as e:
            if problems is not None and len(problems) < _MOST_PROBLEMS and not isinstance(e, EmptyAnswer):
                problems.append(Problem(row.where, str(e)))
            yield None


def flat(rows: Iterable[Row]) -> Iterable[Row]:
    """The rows, each that holds several taken apart."""
    for row in rows:
        inner = next((found for flatten in _FLATTEN if (found := flatten(row.values)) is not None), None)
        if inner is None:
            yield row
        else:
            several = list(inner)
            for number, values in enumerate(several, 1):
                place = f".{number}" if len(several) > 1 else ""
                yield Row(f"{row.where}{place}", f"{row.key}{place}", values)


def _flattened(rows: Sequence[Row], columns: Sequence[str]) -> tuple[list[Row], list[str]]:
    """The rows, each that holds several taken apart, and the columns that they then have."""
    found = list(flat(rows))
    if not found or (rows and found[0] is rows[0]):
        return found, list(dict.fromkeys([*columns, *(c for row in found[:1] for c in row.values)]))
    return found, list(dict.fromkeys(c for row in found[:LOOKED_AT] for c in row.values))


def _one_number_twice(rows: Sequence[Row], column: object) -> bool:
    if not isinstance(column, str):
        return False
    kinds = {
        whole(v) for row in rows if isinstance(v := row.values.get(column), int | float) and not isinstance(v, bool)
    }
    return kinds == {True, False}


def _reading(name: str, claim: Claim, sample: Sample, rows: Sequence[Row]) -> Recognised:
    """A claim with the optional columns, and what all rows have in common."""
    taken = {c for several in (*claim.fields.values(), *sample.chosen.values()) for c in listed(several)}
    fields: dict[str, str | tuple[str, ...]] = dict(claim.fields)
    for field_name in OPTIONAL:
        column = sample.by_key.get(field_name)
        if column is not None and column not in taken and field_name not in fields:
            fields[field_name] = column
    for field_name, column in _beside(name, sample).items():
        if column not in taken:
            fields.setdefault(field_name, column)
    fields = {name: c for name, c in {**fields, **sample.chosen}.items() if c != ()}  # (): the user wants it unread
    output = fields.get("output")
    several, lists, sequences = None, False, False
    if isinstance(output, tuple):
        several = SeveralLabels(tuple(sorted(output)), None, "one column for each label")
    elif output is not None:
        values = sample.values(output)
        several = found_several(values, output)
        several_each = [v for v in values if isinstance(v, list) and accepted(v) is not None]
        sequences = several is None and _are_sequences(several_each, output)
        lists = name == "squad" or (bool(several_each) and not sequences)
    reading = Recognised(
        name,
        fields,
        claim.why,
        sample.columns,
        several=several,
        lists=lists,
        sequences=sequences,
        whole=_one_number_twice(rows, output),
    )
    return replace(reading, instruction=_common_instruction(reading, rows))


def _beside(shape: str, sample: Sample) -> dict[str, str]:
    """Columns that belong to what is asked, whatever holds the input: what the system says, tools, a passage.

    In a table, a column may have such a name and hold something else, so there what it holds counts too.
    """
    system, tools = system_column(sample), sample.column("tools", "functions")
    if shape != "columns":
        return {name: c for name, c in (("instruction", system), ("tools", tools)) if c is not None}
    prompt = system is not None and key_of(system) != "system"  # a name that says it
    held = [("instruction", system, is_scalar if prompt else _is_sentence), ("tools", tools, defines_tools)]
    held.append(("references", sample.column(*REFERENCES), _is_list))
    held += [("context", sample.column(name), _is_sentence) for name in reversed(CONTEXT_NAMES)]
    return {name: c for name, c, holds in held if c is not None and sample.mostly(c, holds)}


def _is_list(value: object) -> bool:
    return json_list(value) is not None


def _is_sentence(value: object) -> bool:
    return len(as_text(value).split()) > 2


def _are_sequences(lists: Sequence[list[object]], column: str) -> bool:
    """Whether lists are answers themselves: entities, a tag for each word; others hold accepted answers."""
    if sum(map(repeats, lists)) > 0.1 * len(lists):
        return True
    return _ACCEPTED.search(key_of(column)) is None and any(len(items) > 1 for items in lists)


def _common_instruction(reading: Recognised, rows: Sequence[Row]) -> str | None:
    """The instruction that all rows have, the same in its visible form; None where one has none or another."""
    if not {"instruction", "tools"} & set(reading.fields) and reading.shape == "columns":
        return None
    read = RowReader(reading.fields, Answers(empty=True))
    found: str | None = None
    for row in rows:
        try:
            own = read.instruction_of(row.values)
        except ValueError:
            continue
        if own is None or (found is not None and own != found and visible(own) != visible(found)):
            return None
        found = own
    return found


def _first_rows(reading: Recognised, rows: Sequence[Row]) -> list[tuple[object, ...]]:
    """What a reading makes of the first rows, to compare it with another."""
    read = RowReader(reading.fields, Answers(empty=True))
    found: list[tuple[object, ...]] = []
    for row in rows[:_COMPARED]:
        try:
            e = read(row)
        except ValueError as error:
            found.append((type(error).__name__,))
        else:
            found.append((e.input, e.output, e.instruction, e.turns))
    return found


def _complete(fields: Fields) -> bool:
    """Whether the user named all that is needed; what the cells hold says the rest."""
    return "input" in fields and ("output" in fields or "references" in fields)


def _resolved(fields: Fields, names: Sequence[str], place: str) -> Fields:
    """The user's fields with columns as the file writes them. Raises DataError for one that is absent."""
    there = by_key(names)
    found: dict[str, str | tuple[str, ...]] = {}
    for name, several in fields.items():
        known = []
        for column in listed(several):
            own = column if column in names else there.get(key_of(column))
            if own is None:
                raise DataError(_absent(name, column, names, place))
            known.append(own)
        found[name] = known[0] if isinstance(several, str) else tuple(known)
    return found


def _absent(name: str, column: str, names: Sequence[str], place: str) -> str:
    guess = nearest(column, names) or "COLUMN"
    here = shown_columns(names)
    way_out = f"Name it in task.yaml with fields: {{{name}: {guess}}}, or to rung init with --field {name}={guess}."
    return f'{place}: no column "{column}"; columns are {here}. {way_out}'


def _no_shape(sample: Sample, shape: str | None, place: str) -> str:
    if shape is not None:
        return (
            f'{place}: the rows do not have the shape "{shape}"; columns are {shown_columns(sample.columns)}. '
            "Correct shape: in task.yaml, or delete it to have the shape recognised."
        )
    if (speakers := columns.speakers_of(sample)) is not None:
        return (
            f'{place}: each row is one turn of a conversation, by its "{speakers}". '
            'Put the turns of a conversation into one row: {"messages": [{"role": "user", "content": …}, …]}.'
        )
    missing_one = "input" if "output" in sample.chosen else "output"
    return (
        f"{place}: no column looks like the {missing_one}; columns are {shown_columns(sample.columns)}. "
        "Name them in task.yaml with fields: {input: COLUMN, output: COLUMN}, or to rung init with "
        "--field input=COLUMN --field output=COLUMN."
    )


def _yaml(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else f"[{', '.join(value)}]"
