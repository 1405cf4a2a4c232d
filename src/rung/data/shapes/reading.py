"""Rows to examples, whatever their shape: the columns are known, and the value of a cell says what it is.

A list of turns is a conversation, a list of texts holds accepted answers, and a number stays as JSON writes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from rung.data.rows import Row, as_text
from rung.data.shapes.conversation import (
    Conversation,
    is_conversation,
    messages_of,
    said_plainly,
    split_at_answer,
    system_of,
    tools_in_words,
    transcript,
    unlearnt_of,
)
from rung.data.shapes.labels import Labels, UnknownLabel, as_answer, several
from rung.data.shapes.seam import Fields, Values
from rung.data.shapes.values import (
    FOUND_BY,
    accepted,
    gold_ids_of,
    group_of,
    json_list,
    listed,
    missing,
    nothing,
    references_of,
    squad_texts,
    whole,
)
from rung.text import visible
from rung.types import Example, Message, Role

MAX_ANSWER = 1_000_000
"""Characters of an answer; a longer one is a mistake of the file, and no model can write it."""
_SHARED = 200  # characters up to which equal texts are kept once
_MOST_SHARED = 50_000
_TRUE = frozenset({"1", "true", "yes", "y", "x", "1.0"})
_FALSE = frozenset({"0", "false", "no", "n", "", "0.0"})


class EmptyAnswer(ValueError):
    """A row whose answer is empty or null, where the task does not allow it."""


class WrongLabel(ValueError):
    """A row whose answer is no declared label; `answer` is its text."""

    def __init__(self, answer: str) -> None:
        super().__init__(answer)
        self.answer = answer


@dataclass(frozen=True)
class Answers:
    """How the answers of a file are read.

    labels: those that the task declares. several: an answer is several of them. separator: of several without declared
    ones. lists_are_json: a list is the answer itself, not several accepted ones. empty: an answer may be empty.
    whole: numbers with a point that are whole are written without it. missing_is_none: "nan" or "NULL" is no answer.
    """

    labels: Labels | None = None
    several: bool = False
    separator: str | None = None
    lists_are_json: bool = False
    empty: bool = False
    whole: bool = False
    missing_is_none: bool = False


class RowReader:
    """Rows of one file -> examples.

    fields: complete, with the columns as the file names them. said: what the task's instruction says already, in its
    visible form; a row that says the same says nothing of its own. same: the instruction is the same in all rows, so
    that it counts as said where the task's instruction holds it. prefix: before the ids of rows that bring none.
    left_out: number of rows with turns after the answer. respelt: label -> number of rows that write it otherwise.
    """

    def __init__(
        self, fields: Fields, answers: Answers = Answers(), prefix: str = "", said: str = "", same: bool = False
    ) -> None:
        self.fields = fields
        self.answers = answers
        self.prefix = prefix
        self._said, self._same = said, same
        self._kept: dict[str, str] = {}
        self._alone: dict[str, tuple[str, ...]] = {}
        self._repeated: dict[str, str | None] = {}
        self.left_out = 0
        self.missing_groups = 0
        self.respelt: dict[str, int] = {}

    def __call__(self, row: Row) -> Example:
        """Raises ValueError that says which column of the row is wrong, and how."""
        values = row.values
        talk = self._talk(values)
        if talk is None:
            source, instruction, turns, output = self._source(values), None, self._turns(values), self._output(values)
        else:
            turns = (*self._turns(values), *talk.turns)
            source, instruction, output = talk.input or "", talk.instruction, self._checked(talk.answer or "")
            self.left_out += talk.after > 0
        instruction = self._own(values, instruction)
        if not source.strip() or (instruction and missing(source)):
            if not instruction:
                raise ValueError(f"{self._named('input')} is empty; fill it in or remove the row")
            source, instruction = instruction, None  # Alpaca: where there is no input, the instruction is it
        answer, references = output
        column = self.fields.get("references")
        if column is not None:
            more = references_of(values.get(str(column)), str(column), answer)
            if self.answers.labels is not None:
                more = tuple(map(self._label, more))
            references = tuple(dict.fromkeys((*references, *more)))
        return Example(
            id=self._id(values) or f"{self.prefix}{row.key}",
            input=source,
            output=answer,
            references=references,
            group=self._group(values),
            context=self._share(self._text(values, "context")) or None,
            gold_ids=gold_ids_of(values.get(str(self.fields["gold_ids"])), str(self.fields["gold_ids"]))
            if "gold_ids" in self.fields
            else (),
            row=row.where,
            instruction=instruction,
            turns=turns,
            gold_found=values.get(str(self.fields.get("gold_by"))) == FOUND_BY,
        )

    def instruction_of(self, values: Values) -> str | None:
        """What a row asks for beyond the task's instruction, without reading the rest of it."""
        columns = (self.fields.get("input"), self.fields.get("output"))
        said = (values.get(c) for c in columns if isinstance(c, str))
        systems = (system_of(v) for v in said if isinstance(v, list) or (isinstance(v, str) and v[:1] == "["))
        return self._own(values, next((text for text in systems if text), None))

    # ---- what is asked ----

    def _talk(self, values: Values) -> Conversation | None:
        """The conversation of a row whose input or output is one; None for rows of plain texts.

        Raises ValueError where it has no answer, or nothing that is answered.
        """
        source = values.get(asked) if isinstance(asked := self.fields.get("input", ""), str) else None
        answer = values.get(given) if isinstance(given := self.fields.get("output", ""), str) else None
        before, after = _said_in(source), _said_in(answer)
        if not given:
            before = before or transcript(source)
        elif source is None or (isinstance(source, str) and isinstance(answer, str) and source.strip() in answer):
            after = after or transcript(answer)  # one that does not repeat the input is itself what is asked for
        if before is None and after is None:
            return None
        if after is not None and any(m.role != "assistant" for m in after):
            before = None if any(m.role == "user" for m in after) else before  # the whole conversation stands there
        elif after is None and given:
            after = [Message("assistant", self._first_text(answer, str(given)))]
        if before is None and source is not None and not any(m.role == "user" for m in after or ()):
            before = [Message("user", as_text(source))]
        talk = split_at_answer([*(before or ()), *(after or ())], unlearnt_of(answer if given else source))
        place = given if after and given else asked
        if talk.answer is None:
            fact = f'"{place}" holds no turn of the assistant that is to be learnt'
            raise EmptyAnswer(f"{fact}, so no answer; add it or remove the row")
        if talk.input is None:
            raise ValueError(f'"{place}" holds no turn of the user before the answer; add it or remove the row')
        return talk

    def _source(self, values: Values) -> str:
        """The input of plain texts: a column, or several under their names."""
        columns = listed(self.fields["input"]) if "input" in self.fields else ()
        if len(columns) == 1:
            column = columns[0]
            if column not in values and "instruction" not in self.fields:
                raise ValueError(f'no "{column}"; add it or remove the row')
            if nothing(values.get(column)) and "instruction" not in self.fields:
                raise ValueError(f'"{column}" is null; give a value or remove the row')
            return _as_text(values.get(column), column)
        parts = [(column.strip(), text) for column in columns if (text := _as_text(values.get(column), column).strip())]
        return "\n".join(f"{name}: {text}" for name, text in parts)

    def _own(self, values: Values, instruction: str | None) -> str | None:
        """What the row asks for beyond the task's instruction: its system turns, its instruction, its tools."""
        parts = [
            instruction,
            self._text(values, "instruction"),
            tools_in_words(self._cell(values, "tools")),
        ]
        text = "\n\n".join(part for part in parts if part and part.strip())
        if not text:
            return None
        if text not in self._repeated:
            if len(self._repeated) > _MOST_SHARED:
                self._repeated.clear()
            seen = visible(text)
            told = seen == self._said or (self._same and seen in self._said)
            self._repeated[text] = None if told else text
        return self._repeated[text]

    def _turns(self, values: Values) -> tuple[Message, ...]:
        value = self._cell(values, "turns")
        if nothing(value) or value == "" or value == []:
            return ()
        if is_conversation(value):
            return tuple(messages_of(value))
        pairs = json_list(value)
        if pairs is None or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise ValueError(f'{self._named("turns")} is no list of turns; write [{{"role": "user", "content": …}}, …]')
        roles: tuple[Role, Role] = ("user", "assistant")
        said = (zip(roles, pair, strict=True) for pair in pairs if isinstance(pair, list))
        return tuple(Message(role, as_text(text)) for pair in said for role, text in pair)

    # ---- what is answered ----

    def _output(self, values: Values) -> tuple[str, tuple[str, ...]]:
        """The answer and all accepted ones, as columns say them."""
        if "output" not in self.fields:
            if "references" not in self.fields:
                fact = "is no conversation with an answer"
                raise ValueError(f"{self._named('input')} {fact}; correct it or remove the row")
            column = str(self.fields["references"])
            found = references_of(values.get(column), column, "")
            if not found and not self.answers.empty:
                raise EmptyAnswer(f'"{column}" holds no answer; add one or remove the row')
            return self._checked(found[0] if found else "")
        columns = self.fields["output"]
        if not isinstance(columns, str):
            labels = [column.strip() for column in columns if _applies(values.get(column), column)]
            order = self.answers.labels.order if self.answers.labels else None
            if order is not None and (other := next((label for label in labels if label not in order), None)):
                raise WrongLabel(other)
            return self._checked(as_answer(labels, order))
        value = values.get(columns)
        if columns not in values:
            raise EmptyAnswer(f'no "{columns}"; add it or remove the row')
        if self.answers.several:
            return self._kept_once(self._several(value, self._named("output")))
        if nothing(value):
            raise EmptyAnswer(f'"{columns}" is null; give a value or remove the row')
        if self.answers.lists_are_json and squad_texts(value) is None:
            return self._checked(_as_text(value, columns))
        texts = accepted(value)
        if texts is None:
            if self.answers.whole and whole(value):
                value = int(value)  # type: ignore[call-overload]
            return self._checked(_as_text(value, columns))
        found = tuple(dict.fromkeys(_as_text(text, columns) for text in texts))
        answer, _ = self._checked(found[0] if found else "")
        rest = [self._label(text) for text in found[1:]] if self.answers.labels else list(found[1:])
        return answer, tuple(dict.fromkeys((answer, *rest)))

    def _checked(self, text: str) -> tuple[str, tuple[str, ...]]:
        """An answer as a label where labels are declared. Raises ValueError for an empty or endless one."""
        answers = self.answers
        if answers.several:
            return self._kept_once(self._several(text, self._named("output")))
        if (alone := self._alone.get(text)) is not None:
            return alone[0], alone
        if not text.strip():
            if not answers.empty:
                raise EmptyAnswer(f"{self._named('output')} is empty; fill it in or remove the row")
            return self._kept_once("")
        if answers.labels is not None:
            return self._kept_once(self._label(text))
        if len(text) > MAX_ANSWER:
            raise ValueError(f"the answer has {len(text):,} characters, which no model can write; correct the row")
        if answers.missing_is_none and missing(text):
            raise EmptyAnswer(f'the answer "{text.strip()}" stands for nothing; give an answer or remove the row')
        return self._kept_once(text)

    def _several(self, value: object, named: str) -> str:
        labels = self.answers.labels
        try:
            found = several(value, labels, self.answers.separator)
        except UnknownLabel as e:
            raise WrongLabel(e.text) from e
        except ValueError as e:
            raise ValueError(f"{named} {e}") from e
        return as_answer(found, labels.order if labels else None)

    def _label(self, text: str) -> str:
        labels = self.answers.labels
        assert labels is not None
        found = labels.match(text)
        if found is None:
            raise WrongLabel(text)
        if found != text and visible(found) != text.strip():
            self.respelt[found] = self.respelt.get(found, 0) + 1
        return found

    def _first_text(self, value: object, column: str) -> str:
        texts = accepted(value)
        return _as_text(texts[0] if texts else value, column)

    # ---- the rest ----

    def _id(self, values: Values) -> str:
        return self._text(values, "id").strip()

    def _group(self, values: Values) -> str | None:
        column = self.fields.get("group")
        if column is None:
            return None
        value = values.get(str(column))
        group = group_of(value)
        if group is None:
            self.missing_groups += isinstance(value, str) and bool(value.strip())
            return None
        return self._share(group)

    def _cell(self, values: Values, name: str) -> object:
        column = self.fields.get(name)
        return None if column is None else values.get(str(column))

    def _text(self, values: Values, name: str) -> str:
        several = self.fields.get(name, ())
        found = (_as_text(said_plainly(v), c) for c in listed(several) if not nothing(v := values.get(c)))
        return "\n\n".join(text for text in found if not missing(text))

    def _named(self, name: str) -> str:
        columns = listed(self.fields.get(name, self.fields.get("input", name)))
        return " and ".join(f'"{column}"' for column in columns)

    def _share(self, text: str) -> str:
        """The text, one object for equal short texts: a million rows share their labels and groups."""
        if len(text) > _SHARED:
            return text
        if len(self._kept) > _MOST_SHARED:
            self._kept.clear()
        return self._kept.setdefault(text, text)

    def _kept_once(self, answer: str) -> tuple[str, tuple[str, ...]]:
        """The answer and itself as its only reference, one tuple for equal short answers."""
        if len(answer) > _SHARED:
            return answer, (answer,)
        if len(self._alone) > _MOST_SHARED:
            self._alone.clear()
        alone = self._alone.setdefault(answer, (answer,))
        return alone[0], alone


def _said_in(value: object) -> list[Message] | None:
    """The turns of a value that is a conversation; None where it is something else."""
    return messages_of(value) if isinstance(value, str | list) and is_conversation(value) else None


def _as_text(value: object, column: str) -> str:
    try:
        return as_text(value)
    except ValueError as e:
        raise ValueError(f'"{column}" {e}') from e


def _applies(value: object, column: str) -> bool:
    """Whether the label of a column of ones and noughts applies to a row."""
    text = as_text(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f'"{column}" is {text[:40]}, neither 1 nor 0; write 1 where the label applies')
