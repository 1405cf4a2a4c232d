"""Answers that would teach a model what nobody wants: refusals, stand-ins, empty phrases, loops, answers cut short.

A model learns what a few rows do, too. What many answers do is taken for what they are meant to be: one note says so.
Answers of label tasks are names and are not looked at. Each distinct answer is read once.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from rung.data.checks import phrases
from rung.data.checks.habits import CLEAR, LEAST, percent
from rung.data.checks.material import Material
from rung.data.checks.shares import SeenRow, told
from rung.text import units, visible
from rung.types import Example, Finding

MANY = 0.2
"""Share of answers from which a habit is what the answers are meant to be like."""
LONG = 60
"""Characters of an answer that should end as a sentence does."""
REPEATED = 5
"""Rows with one long answer from which it may be a form letter."""

_PLACEHOLDER_SIGNS = re.compile(r"[\[{<$]|TODO|FIXME|TBD|[Ll]orem|xxx|XXX|^\W*(?:placeholder|tba|dummy|asdf|foo)")
_REMEMBERED = 50_000  # answers whose checks are kept
_WHAT = {
    "refusal": ("a refusal to answer", "Give the answer, or remove the row; keep it only if the model is to refuse."),
    "as_an_ai": ('a phrase such as "as an AI"', "Write the answer that a user should read, or remove the row."),
    "placeholder": ("a stand-in such as [NAME], {{name}} or TODO", "Put in what belongs there, or remove the row."),
    "boilerplate": ("an empty phrase of a chat assistant", "Remove the phrase; other answers do without."),
    "loop": ("text that repeats itself", "Cut the answer where it begins to repeat, or remove the row."),
}
"""Check -> what the answer holds, and what to do."""
_NOTES = frozenset({"boilerplate"})
"""A matter of taste."""

_ENDS = re.compile(r"""[.!?…。！？؟।:;)\]}>"'”’»`*]\s*$""")
_GOES_ON = re.compile(
    r"(?:[,–—-]|\b(?:the|a|an|of|and|or|but|to|in|on|at|by|for|from|with|as|that|which|because|is|are|was|were|be|will|"
    r"can|your|our|their|its|der|die|das|den|dem|ein|eine|und|oder|mit|von|für|zu|ist|dass|le|la|les|des|et|ou|"
    r"dans|avec|pour|que|el|los|las|del|y|con|para|por|il|di|che|e|per|het|een|en|van|met|voor))\s*$",
    re.I,
)
"""An end after which a sentence must go on."""
_NOT_PROSE = re.compile(r"[{}\[\]<>=|]|^\s*(?:[-*•]|\d+[.)]) ", re.M)


def behaviour(material: Material) -> Iterator[Finding]:
    """Findings about answers that teach unwanted behaviour."""
    task, examples = material.task, material.examples
    if not task.empty_answers:
        yield from _empty(examples, frozenset(task.labels or ()))
    if task.labels is not None or task.multi_label or task.metric == "label_accuracy":
        return
    known: dict[str, tuple[str, ...]] = {}
    seen: list[SeenRow] = []
    for example in examples:
        output = example.output
        checks = known.get(output)
        if checks is None:
            checks = tuple(_habits(output))
            if len(known) < _REMEMBERED:
                known[output] = checks
        seen += (SeenRow(check, example, "answer") for check in checks)
    yield from told(seen, len(examples), _WHAT, MANY, _NOTES)
    yield from _cut_short(examples)
    yield from _repeated(examples)


def _habits(output: str) -> Iterator[str]:
    """Checks that one answer fails."""
    if len(output) >= 8:
        small = output[:2_000].lower()
        if phrases.says(phrases.REFUSAL, output[:400], small):
            yield "refusal"
        if phrases.says(phrases.AS_AN_AI, output[:2_000], small):
            yield "as_an_ai"
        if phrases.says(phrases.BOILERPLATE, output[:400], small) or (
            len(output) > 400 and phrases.says(phrases.BOILERPLATE, output[-200:], output[-200:].lower())
        ):
            yield "boilerplate"
    if _PLACEHOLDER_SIGNS.search(output) and phrases.PLACEHOLDER.search(output):
        yield "placeholder"
    if len(output) >= LONG and _loops(output):
        yield "loop"


def _loops(output: str) -> bool:
    """Whether runs of four words mostly repeat, a line stands there four times running, or one sign 40 times."""
    if re.search(r"([^\W_])\1{39}", output[:20_000]):
        return True
    words = units(output[:20_000])
    if len(words) < 24:
        return False
    runs = list(zip(words, words[1:], words[2:], words[3:], strict=False))
    most = Counter(runs).most_common(1)[0][1]
    if len(set(runs)) < 0.5 * len(runs) and most >= 4 and not _NOT_PROSE.search(output):
        return True
    lines = [line.strip() for line in output.splitlines() if len(line.strip()) > 8]
    return any(len(set(lines[i : i + 4])) == 1 for i in range(len(lines) - 3))


def _cut_short(examples: Sequence[Example]) -> Iterator[Finding]:
    """Long answers of prose without an end, where nearly all others have one."""
    prose = [e for e in examples if len(e.output) >= LONG and not _NOT_PROSE.search(e.output)]
    open_ended = [e for e in prose if not _ENDS.search(e.output)]
    if len(prose) < LEAST or len(open_ended) > (1 - CLEAR) * len(prose):
        return
    share = percent(len(prose) - len(open_ended), len(prose))
    for e in open_ended:
        if _GOES_ON.search(e.output[-40:]):
            message = "The answer ends in the middle of a sentence. Complete it, or remove the row."
            yield Finding("truncated_answer", "warning", e.row, message, (e.id,))
        else:
            message = f"The answer ends without a closing mark; {share} of such answers end with one. Is it complete?"
            yield Finding("truncated_answer", "note", e.row, message, (e.id,))


def _empty(examples: Sequence[Example], labels: frozenset[str]) -> Iterator[Finding]:
    """Answers in which a reader sees nothing."""
    for example in examples:
        if not example.output.strip() or (not example.output.isascii() and not visible(example.output)):
            if example.output in labels:
                continue
            message = (
                "The answer shows nothing. Give one, or remove the row; keep it only if no answer is the right one."
            )
            yield Finding("empty_answer", "warning", example.row, message, (example.id,))


def _repeated(examples: Sequence[Example]) -> Iterator[Finding]:
    """One long answer to many inputs, where answers are otherwise their rows' own."""
    times = Counter(hash(e.output) for e in examples if len(e.output) >= LONG)
    if len(times) < 0.5 * len(examples):
        return
    least = max(REPEATED, 0.01 * len(examples))
    holders: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        if len(example.output) >= LONG and times[hash(example.output)] >= least:
            holders[example.output].append(example)
    for rows in holders.values():
        inputs = {e.query.text for e in rows}
        if len(inputs) >= least:
            message = (
                f"{len(rows):,} different inputs have the same long answer (first {rows[0].row}). "
                "See whether it answers them; a form letter teaches to send it."
            )
            yield Finding("repeated_answer", "note", "", message, tuple(e.id for e in rows))
