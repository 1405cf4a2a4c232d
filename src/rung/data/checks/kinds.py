"""Every kind of finding by its name: what it is called on a page, what to do about it, and how sure it is.

How sure is measured on faults that were planted into clean data (`bench/checks.py`); a kind without a figure was not
measured, and the page says nothing of it. The order of KINDS is the order of findings of equal gravity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

Topic = Literal[
    "leakage", "answers", "labels", "form", "behaviour", "personal", "poison", "duplicates", "coverage", "size"
]


@dataclass(frozen=True)
class Kind:
    """A kind of finding. title: its name in the plural. todo: what to do. mended: what `rung check` can do itself."""

    title: str
    topic: Topic
    todo: str
    mended: Literal["", "fix", "mask"] = ""


@dataclass(frozen=True)
class Sureness:
    """Shares of planted faults that were found, and of finds that were planted faults."""

    recall: float | None = None
    precision: float | None = None


_MEND = "`--fix OUT` writes a copy without them."
_MASK = "Mask it with `--fix OUT --mask` if it is real; the model may learn it by heart."

KINDS: Mapping[str, Kind] = {
    # the test would flatter
    "leakage": Kind(
        "Test rows that stand in train",
        "leakage",
        "The test is not clean: its scores flatter. Take these rows out of train; `--fix OUT` does.",
        "fix",
    ),
    "corpus_holds_test": Kind(
        "Test rows whose question and answer stand in a document",
        "leakage",
        "Retrieval looks these up. Take them out of the corpus, unless users' own questions will stand in it.",
    ),
    "straddling_group": Kind(
        "Groups in more than one set",
        "leakage",
        "Keep each in one set, or name one file and let rung split it.",
    ),
    "dev_leakage": Kind(
        "Dev rows that stand in train",
        "leakage",
        "What is chosen by dev may be chosen wrongly. Take these rows out of train; `--fix OUT` does.",
        "fix",
    ),
    "few_groups": Kind("A test of too few groups", "size", "Use finer groups, or bring more of them."),
    "large_group": Kind("One group with most rows", "size", "Use finer groups, or bring rows of other groups."),
    # what a run cannot do with
    "unusable_row": Kind("Rows that cannot be used", "answers", f"Correct them. {_MEND}", "fix"),
    "split": Kind("Examples that cannot be split", "size", "Bring more examples, or smaller groups."),
    "beside": Kind("Files beside the examples that cannot be used", "form", "Correct them. `rung run` stops at them."),
    "unused_file": Kind("Files that nothing uses", "form", "Add what they need, or delete their key from task.yaml."),
    "unpriced": Kind(
        "Models without a price", "form", "A budget in dollars needs their prices. Add them in task.yaml."
    ),
    "without_vllm": Kind(
        "vLLM is to answer and is not here", "form", "Install it, or delete engine: from task.yaml. `rung run` stops."
    ),
    "unusable_constraint": Kind(
        "A constraint that cannot be used", "answers", "Correct labels:, schema: or pattern: in task.yaml."
    ),
    "metric": Kind(
        "Answers that the metric does not score as right",
        "answers",
        "The right answer should score 1. Correct the metric, or these answers.",
    ),
    "metric_fails": Kind(
        "Answers at which the metric fails",
        "answers",
        "They count as 0. Let the metric return 0 for what it cannot read.",
    ),
    "schema_mismatch": Kind("Answers that break the schema", "answers", "Correct the answers or schema: in task.yaml."),
    "pattern_mismatch": Kind("Answers that break the pattern", "answers", "Correct them or pattern: in task.yaml."),
    "no_number": Kind("Answers without a number", "answers", "Correct them, or choose another metric."),
    "checked_after": Kind("Keywords that no grammar holds", "answers", "No action: answers are checked afterwards."),
    "key_order": Kind("JSON keys in another order", "form", "No action; one order is easier to learn."),
    # labels
    "one_answer": Kind("All answers are the same", "labels", "No model is needed, or the wrong column was read."),
    "label_spelling": Kind(
        "Labels in more than one spelling", "labels", "Make them one; `--fix OUT` writes the declared one.", "fix"
    ),
    "label_case": Kind("Labels that differ only in case", "labels", "Make them one, if they are."),
    "label_lookalike": Kind("Labels that look the same", "labels", "Write them with letters of one script."),
    "label_only_in_test": Kind(
        "Labels that stand only in the test", "labels", "Nothing can learn them. Bring train examples of them."
    ),
    "label_not_in_test": Kind(
        "Labels that the test lacks", "labels", "Nothing is measured of them. Add test examples."
    ),
    "likely_wrong_label": Kind(
        "Labels that may be wrong",
        "labels",
        "Read these rows, the surest first. A classifier that learnt from the other rows doubts their labels.",
    ),
    "answer_of_another": Kind(
        "Answers that fit another input better", "labels", "See whether rows were mixed up, and correct them."
    ),
    "unlike_neighbours": Kind(
        "Answers unlike those of similar inputs", "labels", "Read these rows, and correct what is wrong."
    ),
    "imbalance": Kind(
        "One label has most rows",
        "labels",
        "Always giving it is the floor. Judge by more than accuracy, or add others.",
    ),
    "rare_label": Kind("Labels with few examples", "labels", "Bring more examples, or join labels."),
    "unused_label": Kind("Labels without an example", "labels", "Add examples, or remove the label."),
    "label_respelt": Kind("Labels in another spelling", "labels", "No action: they are read as the declared label."),
    "missing_group": Kind(
        "Groups that look missing", "labels", "No action: these rows are in a group of their own each."
    ),
    "turns_left_out": Kind("Turns after the last answer", "form", "No action: they are left out."),
    # duplicates
    "conflicting_answers": Kind(
        "Same or nearly the same input, different answers",
        "duplicates",
        "Decide which answer is right, or whether both are.",
    ),
    "exact_duplicate": Kind("Examples that stand twice", "duplicates", f"They count twice in training. {_MEND}", "fix"),
    "near_duplicate": Kind(
        "Nearly the same inputs", "duplicates", "No action: each group is kept in one set. Many add little to learn."
    ),
    # answers that teach the wrong thing
    "empty_answer": Kind("Empty answers", "behaviour", "Give the answer, or remove the row.", "fix"),
    "looks_missing": Kind("Values that look missing", "behaviour", "Fill them in, or remove the rows."),
    "output_equals_input": Kind("Answers equal to the input", "behaviour", "Check that the columns are right."),
    "refusal": Kind("Refusals", "behaviour", "Give the answer, unless the model is to refuse."),
    "as_an_ai": Kind('"As an AI" and the like', "behaviour", "Write what a user should read."),
    "placeholder": Kind("Stand-ins such as [NAME] or TODO", "behaviour", "Put in what belongs there."),
    "loop": Kind("Answers that repeat themselves", "behaviour", "Cut them, or remove the rows."),
    "truncated_answer": Kind("Answers that may be cut short", "behaviour", "Complete them, or remove the rows."),
    "repeated_answer": Kind("One long answer to many inputs", "behaviour", "See whether it answers them."),
    "boilerplate": Kind("Empty phrases", "behaviour", "Remove them; the others do without."),
    # form
    "broken_json": Kind("Answers that are no valid JSON", "form", f"Correct them. {_MEND}", "fix"),
    "json_keys": Kind("JSON answers with other keys", "form", "Give all answers the same keys."),
    "json_types": Kind("JSON values of another type", "form", "Write each key's values alike."),
    "explanation": Kind("Answers that go on to explain", "form", "Keep the answer alone, as the others do."),
    "fenced": Kind("Answers in a Markdown fence", "form", _MEND, "fix"),
    "prefixed": Kind('Answers with a heading such as "Answer:"', "form", "Write all answers alike."),
    "unit": Kind("Numbers with another unit, or with text", "form", "Convert them, and keep the number alone."),
    "answer_shape": Kind("Answers written in another way", "form", "Write all answers alike."),
    "language": Kind("Answers in another language or script", "form", "Translate them, unless this is meant."),
    "wrong_encoding": Kind("Text read in a wrong encoding", "form", "Export the data again as UTF-8."),
    "quoted": Kind("Answers in quotation marks, or without", "form", "Write all answers alike."),
    "casing": Kind("Answers in other casing", "form", "Write all answers alike."),
    "closing_punctuation": Kind("Answers with or without a full stop", "form", "Write all answers alike."),
    "markup": Kind("HTML or Markdown in answers", "form", "Write plain text, as the others do."),
    "whitespace": Kind("Spaces around answers", "form", _MEND, "fix"),
    "long_answer": Kind("Answers that will be cut", "form", "Shorten them, or leave them out."),
    "long_output": Kind("Answers far longer than the others", "form", "See whether more than the answer stands there."),
    "too_long": Kind("Inputs that exceed the context", "form", "Shorten them, or choose a model with more context."),
    # poison
    "hidden_instruction": Kind(
        "Orders to a model, hidden in the data", "poison", "Remove them, unless they are the task."
    ),
    "invisible_characters": Kind("Characters that show nothing", "poison", _MEND, "fix"),
    "chat_tokens": Kind("Control tokens of chat templates", "poison", "Remove them."),
    "role_marker": Kind("Lines that pose as a system turn", "poison", "Remove them, unless they are the task."),
    "encoded_text": Kind("Readable text in base64", "poison", "Look at it, and remove it if it is not meant."),
    "mixed_scripts": Kind("Words of mixed scripts", "poison", "Write them with letters of one script."),
    # personal data
    "secret": Kind(
        "Keys and passwords", "personal", "Make them invalid where they are used; `--fix OUT --mask`.", "mask"
    ),
    "card_number": Kind("Card numbers", "personal", _MASK, "mask"),
    "iban": Kind("Bank accounts (IBAN)", "personal", _MASK, "mask"),
    "identifier": Kind("Identity numbers", "personal", _MASK, "mask"),
    "email": Kind("E-mail addresses", "personal", _MASK, "mask"),
    "phone_number": Kind("Phone numbers", "personal", _MASK, "mask"),
    "ip_address": Kind("IP addresses", "personal", _MASK, "mask"),
    # the corpus
    "unknown_gold_id": Kind("gold_ids that no document has", "coverage", "Correct the ids, or add the documents."),
    "unread_documents": Kind(
        "Files of the corpus that are not read", "coverage", "Convert them, or install what reads them."
    ),
    "broken_document": Kind(
        "Documents that cannot be read", "coverage", "They are left out. Save them again, or convert them."
    ),
    "scanned_pages": Kind("Pages of pictures without text", "coverage", "Run text recognition (OCR) over these files."),
    "empty_document": Kind("Documents without text", "coverage", "Fill them in, or remove them."),
    "document_encoding": Kind("Documents that are not UTF-8", "coverage", "Check their special characters."),
    "document_form": Kind("How the corpus was understood", "coverage", "Correct the file where this is wrong."),
    "not_searched": Kind("Documents that were not searched", "coverage", "Check a part of the corpus at a time."),
    # how many
    "few_of_a_kind": Kind("Kinds of inputs with few examples", "coverage", "Bring more of them."),
    "few_examples": Kind("Few examples", "size", "Bring more."),
    "too_small": Kind(
        "Differences that the test is too small to show", "size", "Bring more examples to see smaller ones."
    ),
    "ignored": Kind("Findings that task.yaml ignores", "size", "No action."),
}

_ORDER = {check: place for place, check in enumerate(KINDS)}
_GRAVITY = {"error": 0, "warning": 1, "note": 2}


def kind_of_check(check: str) -> Kind:
    """The kind of a check; one without an entry, of a record of another version, is called by its name."""
    return KINDS.get(check) or Kind(check.replace("_", " ").capitalize(), "coverage", "")


def rank(check: str, severity: str) -> tuple[int, int]:
    """Sorts kinds: errors first, then warnings, and leakage first among equals."""
    return _GRAVITY.get(severity, 3), _ORDER.get(check, len(_ORDER))


@cache
def measured() -> Mapping[str, Sureness]:
    """Check -> how sure it is, as `bench/checks.py` measured; empty where nothing was."""
    try:
        record = json.loads(files("rung.data.checks").joinpath("measured.json").read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {check: Sureness(own.get("recall"), own.get("precision")) for check, own in record.items()}
