"""Prompts whose words are searched: an instruction that is rewritten from wrong answers, and house rules stated.

Both start from the best prompt so far and learn from train alone, so that dev can show whether anything was gained.
"""

from __future__ import annotations

from dataclasses import replace

from rung.errors import BudgetSpent, NoGain
from rung.strategies.prompting import answering, demo_settings
from rung.strategies.registry import Cost, Texts
from rung.teaching.feedback import SHOWN_CHARACTERS
from rung.teaching.proposing import PROPOSAL_TOKENS
from rung.teaching.rules import DRAFTS, RULES_TOKENS, SHOWN, drafts, note_rules
from rung.teaching.search import ASKED, MINIBATCH, planned_calls, search
from rung.teaching.search_log import search_in_words, search_log
from rung.trials.choose import choose, fits
from rung.trials.workshop import Workshop, cut_of
from rung.types import Solution

_DEMOS = 8  # that the best prompt is taken to show, for the plan
_WRITTEN = 0.6  # of the room for a proposal, on average
_ABOUT_AN_EXAMPLE, _ASKING = 60, 250  # tokens beside the texts themselves: a judgement, what is asked for
_CHARACTERS_A_TOKEN = 3


# ---- the strategies -------------------------------------------------------------------------


def optimised_prompt(workshop: Workshop) -> Solution:
    """The best prompt with an instruction, or demos, that a search found on train.

    Raises NoGain where it found nothing better or train is too small, BudgetSpent where the time was up before.
    """
    start = _start(workshop)
    plain = replace(start, demos=(), demo_selection=None)
    found = search(workshop, start, [plain, *demo_settings(workshop, plain)])
    if found == start:
        if cut := cut_of(workshop.folder):
            raise BudgetSpent(cut)
        raise NoGain(search_in_words(search_log(workshop.folder)))
    return replace(found, name="optimised_prompt")


def stated_rules(workshop: Workshop) -> Solution:
    """The best prompt with house rules behind its instruction, which were induced from train; chosen on dev.

    Of two drafts and one that is edited from them. Raises NoGain where none of them can be used.
    """
    start = _start(workshop)
    written = drafts(workshop, start)
    variants = {
        f"rules-{d.number}": (d, replace(start, name=f"rules-{d.number}", instruction=d.behind(start.instruction)))
        for d in written
        if d.refused is None
    }
    fitting = [solution for _, solution in variants.values() if fits(workshop, solution)]
    if not fitting:
        note_rules(workshop.folder, written, None)
        why = next((d.refused for d in written if d.refused), "the prompt would be too long")
        raise NoGain(f"none of {len(written)} drafts of house rules could be used ({why})")
    chosen = choose(workshop, fitting)
    note_rules(workshop.folder, written, variants[chosen.name][0])
    return replace(chosen, name="stated_rules")


def _start(workshop: Workshop) -> Solution:
    """The best prompt, or the bare one under the task's constraint where none was built."""
    plain = replace(workshop.solution("start"), constraint=workshop.inputs.constraint)
    return replace(workshop.best_prompt or plain, name="start")


# ---- what they cost -------------------------------------------------------------------------


def cost_of_optimised_prompt(texts: Texts) -> Cost:
    """Answers to train examples while it searches, and to dev, with demos and an instruction of usual length."""
    longer = replace(texts, instruction=texts.instruction + _WRITTEN * PROPOSAL_TOKENS)
    return answering(longer, planned_calls(texts.train) + texts.dev, texts.own, demos=_demos(texts))


def taught_optimised_prompt(texts: Texts) -> Cost:
    """Proposals: each reads the instruction and a minibatch with its answers."""
    if not planned_calls(texts.train):
        return Cost()
    read = _WRITTEN * PROPOSAL_TOKENS + texts.instruction + _ASKING + MINIBATCH * _example(texts)
    return _asking(ASKED, read, _WRITTEN * PROPOSAL_TOKENS)


def cost_of_stated_rules(texts: Texts) -> Cost:
    """Answers to the examples that rules are drafted from, of three drafts to the screen, and to dev."""
    longer = replace(texts, instruction=texts.instruction + _WRITTEN * RULES_TOKENS)
    calls = min(texts.train, DRAFTS * SHOWN) + 4 * texts.screen // 3 + texts.dev
    return answering(longer, calls, texts.own, demos=_demos(texts))


def taught_stated_rules(texts: Texts) -> Cost:
    """The drafts, and one that is edited from them."""
    drafted = texts.instruction + _ASKING + SHOWN * _example(texts)
    edited = texts.instruction + _ASKING + DRAFTS * _WRITTEN * RULES_TOKENS
    written = _WRITTEN * RULES_TOKENS
    return _asking(DRAFTS, drafted, written) + _asking(1, edited, written)


def _demos(texts: Texts) -> float:
    return min(_DEMOS, texts.train) * (texts.own + texts.answer)


def _example(texts: Texts) -> float:
    """Tokens of an example as a proposer is shown it: input, answer, judgement with the right answer."""
    most = SHOWN_CHARACTERS / _CHARACTERS_A_TOKEN
    return min(most, texts.own) + 2 * min(most, texts.answer) + _ABOUT_AN_EXAMPLE


def _asking(calls: int, read: float, written: float) -> Cost:
    return Cost(calls=calls, read=calls * read, written=calls * written, sent=calls * read)
