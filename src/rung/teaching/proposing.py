"""What a model is asked for a better instruction, and which of its replies can be used.

A weak model replies with nothing, with pages, or with the examples that it was shown. Such a reply is refused with a
reason, before anything is spent on trying it. Knows nothing of the search that asks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rung.errors import came
from rung.teaching.feedback import shortened
from rung.text import normal_form
from rung.trials.choose import TURN_TOKENS
from rung.types import Decoding, Example, Generation, Message, Model, Request

PROPOSAL_TOKENS = 400
"""Room of a proposed instruction."""

TEMPERATURE = 0.7
"""Of proposals: the same examples are shown again to another seed, and shall bring another text."""

_SYSTEM = "You write the instruction that a language model follows."
_TASK = (
    "Write a better instruction for the same task. Say what is to be answered and in which form, and state the rules "
    "and conventions by which the right answers above are right. State what holds for all inputs, and copy no "
    "example. Use at most {words} words. Write only the new instruction, between <instruction> and </instruction>."
)
_LEAST_WORDS = 3
_COPIED = 2  # examples that an instruction may hold word for word
_COPIED_CHARACTERS = 20  # a shorter input stands in a text by chance
_WORDS_A_TOKEN = 0.6
_ALREADY = "it was proposed before"
_TAGGED = re.compile(r"<instruction>(.*?)(?:</instruction>|$)", re.DOTALL | re.IGNORECASE)
_FENCED = re.compile(r"\A```[\w-]*\n(.*?)\n?```\Z", re.DOTALL)


def request_for_instruction(
    model: Model, instruction: str, shown: Sequence[tuple[Example, str, str]], causes: str, seed: int
) -> Request:
    """shown: (example, answer, feedback). causes: in a sentence, of other wrong answers; may be empty.

    As many of the examples are shown as fit the model's context.
    """
    head = f"A language model is given this instruction:\n\n<instruction>\n{instruction}\n</instruction>"
    head = f"{head}\n\n{causes}" if causes else head
    cases = [
        f"### Example {n}\nInput: {shortened(e.query.text)}\nAnswer: {shortened(text)}\nJudgement: {judged}"
        for n, (e, text, judged) in enumerate(shown, 1)
    ]
    task = _TASK.format(words=round(_WORDS_A_TOKEN * PROPOSAL_TOKENS))
    return request_within(model, _SYSTEM, head, cases, task, Decoding(PROPOSAL_TOKENS, TEMPERATURE, seed))


def request_within(
    model: Model, system: str, head: str, cases: Sequence[str], task: str, decoding: Decoding
) -> Request:
    """One request of head, cases and task, with as many of the cases, from the first, as fit the model's context."""
    room = model.context_length - decoding.max_new_tokens - 2 * TURN_TOKENS
    room -= sum(map(model.count_tokens, (system, head, task)))
    fitting: list[str] = []
    for case in cases:
        room -= model.count_tokens(case) + TURN_TOKENS
        if room < 0:
            break
        fitting.append(case)
    turns = Message("system", system), Message("user", "\n\n".join([head, *fitting, task]))
    return Request(turns, decoding)


def instruction_in(reply: Generation) -> str:
    """The instruction that the reply proposes, which may be empty: what stands between the tags, else all of it."""
    tagged = _TAGGED.findall(reply.text)
    text = (tagged[-1] if tagged else reply.text).strip()
    fenced = _FENCED.match(text)
    return (fenced[1] if fenced else text).strip()


def refused(reply: Generation, text: str, train: Sequence[Example], known: Sequence[str]) -> str | None:
    """Why the proposed text cannot be an instruction, as a sentence part; None where it can.

    train: examples that it must not copy. known: instructions that were proposed before.
    """
    if not came(reply.error):
        return f"there was no proposal ({reply.error})"
    if reply.finish == "length" and "</instruction>" not in reply.text.lower():
        return f"the proposal was longer than {PROPOSAL_TOKENS} tokens and was cut off"
    if len(text.split()) < _LEAST_WORDS and len(text) < _COPIED_CHARACTERS:
        return "the proposal was empty" if not text else "the proposal was no instruction"
    if normal_form(text) in map(normal_form, known):
        return _ALREADY
    if (copied := copies(text, train)) > _COPIED:
        return f"the proposal copied {copied} examples"
    return None


def copies(text: str, train: Sequence[Example]) -> int:
    """How many inputs of train stand in the text word for word; very short ones do not count."""
    said = normal_form(text)
    inputs = {normal_form(e.input) for e in train}
    return sum(len(i) >= _COPIED_CHARACTERS and i in said for i in inputs)
