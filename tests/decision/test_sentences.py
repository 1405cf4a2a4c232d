"""What the headline, the warnings and the reasons say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from evidence_cases import CLEAR, GRADED, LORA, ZERO, N, candidate, evidence

from rung.decision import ClosedBook, Skills, cause_evidence, decide
from rung.types import BreakEven, Diagnosis, LeftEarly, MetricInfo, Score, Skipped

KEPT_OUT = Skipped("rag", "rag", "budget", "about 7.0 more minutes would pass the budget.", minutes=6.4, matters=True)

# ---- headlines --------------------------------------------------------------------------------


def test_the_headline_says_what_to_do_how_good_it_is_and_by_how_much() -> None:
    decision = decide(evidence([ZERO, LORA], CLEAR))
    assert decision.headline == (
        "Fine-tune: lora answers 81 % of the sealed test right (76–86 %), 41 points above the best prompt."
    )
    assert "lora minus zero_shot: 41 points (36 to 46), p < 0.001 after Holm." in decision.reasons
    assert (
        "The floor (most_frequent), which looks at no input, is 12 %; lora minus most_frequent: 69 points (64 to 74), "
        "p < 0.001." in decision.reasons
    )


def test_the_cheaper_family_is_chosen_within_the_margin_and_the_doubt_is_said() -> None:
    decision = decide(evidence([candidate("few_shot", "prompt", 0.80), LORA], {("few_shot", "lora"): 0.6}))
    assert (decision.choice, decision.solution) == ("prompt", "few_shot")
    assert decision.headline.endswith("; lora is 1 point above it, which is within the margin.")
    [reason] = [r for r in decision.reasons if r.startswith("lora minus few_shot")]
    assert reason == (
        "lora minus few_shot: 1 point (-4 to 6); the margin that matters is 2 points. "
        "A difference of up to 6 points cannot be excluded."
    )


def test_a_dearer_family_that_is_no_better_is_compared_and_not_chosen() -> None:
    decision = decide(evidence([candidate("few_shot", "prompt", 0.85), LORA]))
    assert decision.headline.endswith("; nothing dearer to build scores higher.")
    assert any(r.startswith("lora minus few_shot: -4 points (-9 to 1)") for r in decision.reasons)


def test_what_is_passed_over_though_as_good_and_cheaper_per_request_is_named_with_the_reason() -> None:
    few = replace(candidate("few_shot", "prompt", 0.80, tokens_in=184), latency_s_p50=0.97)
    lora = replace(candidate("lora", "fine-tune", 0.80, tokens_in=51), latency_s_p50=0.67)
    (said,) = [r for r in decide(evidence([few, lora])).reasons if "cheaper per request" in r]
    assert said == (
        "lora is within 2 points of the best too and cheaper per request (51 tokens read against 184, 5 written "
        "against 5, 0.67 s against 0.97 s), but dearer to build and to change than few_shot, which is what decides "
        "between approaches."
    )
    priced = [replace(few, cost_per_1k_usd=0.5), replace(lora, cost_per_1k_usd=0.2)]
    assert any("(0.2 against 0.5 USD per 1,000)" in r for r in decide(evidence(priced)).reasons)
    for other in (replace(lora, tokens_in=180), candidate("lora", "fine-tune", 0.75, tokens_in=51)):
        assert not any("per request" in r for r in decide(evidence([few, other])).reasons)


def test_a_longer_prompt_of_the_same_approach_is_not_said_to_be_dearer_to_build() -> None:
    short, long = candidate("lora_short", "fine-tune", 0.8, tokens_in=6), candidate("lora", "fine-tune", 0.8001)
    others = [candidate("rag_lora", "rag+fine-tune", 0.7)]
    headline = decide(evidence([short, long, *others])).headline
    assert headline.endswith("; lora scores the same and reads and writes more tokens.")


def test_the_command_for_what_the_budget_kept_out_is_named() -> None:
    short = Skipped("lora_short", "fine-tune", "budget", "the budget leaves no time for it", minutes=3.0)
    taught = Skipped("distilled_lora", "fine-tune", "budget", "the budget leaves no time for it", minutes=8.0)
    known = evidence([ZERO, LORA], CLEAR, skipped=(taught, short), go_on="rung run task.yaml --minutes 26 --again")
    assert (
        "To try distilled_lora and lora_short as well (about 11 more minutes): `rung run task.yaml --minutes 26 "
        "--again`." in decide(known).next
    )


def test_a_difference_that_rounds_to_nothing_is_not_called_a_lead() -> None:
    equal = [candidate("few_shot", "prompt", 0.80), candidate("lora", "fine-tune", 0.8001)]
    assert decide(evidence(equal)).headline.endswith("; lora scores the same and is dearer to build.")


def test_an_undecided_headline_gives_the_difference_and_the_number_of_examples() -> None:
    few = replace(candidate("few_shot", "prompt", 0.77), dev=Score(0.80, 0.75, 0.85, N))
    decision = decide(evidence([few, LORA], {("few_shot", "lora"): 0.12}))
    assert decision.headline == (
        "Undecided: lora is 4 points above few_shot on the sealed test (-1 to 9), too close to call with 200 examples."
    )
    assert any(
        r.startswith("The difference is above the margin of 2 points; p = 0.12 after Holm.") for r in decision.reasons
    )


def test_of_one_family_alone_the_headline_says_that_nothing_else_was_tested() -> None:
    decision = decide(evidence([candidate("few_shot", "prompt", 0.44, tokens_in=900), ZERO]))
    assert "no other approach than prompt was tested" in decision.headline


def test_a_cheaper_candidate_that_scores_higher_and_falls_short_leaves_it_undecided() -> None:
    few = candidate("few_shot", "prompt", 0.60, half=0.18)
    lora = candidate("lora", "fine-tune", 0.567, half=0.18)
    p = {("most_frequent", "few_shot"): 0.08, ("most_frequent", "lora"): 0.031}
    decision = decide(evidence([few, lora], p, half=0.15, floor=1 / 3))
    assert (decision.choice, decision.solution) == ("undecided", "lora")
    assert decision.headline == (
        "Undecided: few_shot, which is simpler to build, is 3.3 points above lora on the sealed test (-12 to 18), but "
        "is not shown to beat the floor of 33 %."
    )
    assert any(r.startswith("The difference is in favour of few_shot; p = 1.00 after Holm.") for r in decision.reasons)
    assert decision.next[0].endswith(
        "more labelled test examples would show few_shot above the floor, if it stays there."
    )
    assert decision.next[1] == "Meanwhile ship lora: few_shot is not shown to beat the floor."
    assert decision.next[2] == (
        "What would change the verdict: lora significantly above few_shot, or few_shot shown to beat the floor."
    )
    said = " ".join((decision.headline, *decision.reasons, *decision.next))
    assert "-3.3 points above" not in said and "lora is" not in decision.headline
    same = decide(evidence([few, replace(lora, test=few.test)], p, half=0.15, floor=1 / 3))
    assert "few_shot, which is simpler to build, scores the same as lora" in same.headline


def test_a_dearer_candidate_that_scores_higher_and_falls_short_is_not_hidden() -> None:
    pair = [ZERO, candidate("lora", "fine-tune", 0.50)]
    decision = decide(evidence(pair, {("most_frequent", "lora"): 0.2}))
    assert decision.solution == "zero_shot"
    assert decision.headline.endswith(
        "; lora is dearer to build and scores higher, but is not shown to beat the floor of 12 %."
    )


def test_a_test_that_is_too_small_to_show_anything_says_so() -> None:
    five = candidate("few_shot", "prompt", 1.0, half=0.4)
    small = replace(five, test=Score(1.0, 0.57, 1.0, 5))
    known = evidence([small], {("most_frequent", "few_shot"): 0.0625}, floor=0.0)
    against = tuple(replace(c, n=5, low=-0.04, high=1.0, standard_error=0.0) for c in known.against_floor)
    decision = decide(replace(known, against_floor=against, n_test=5))
    assert decision.headline == (
        "None: the best candidate, few_shot, answers 100 % of the sealed test right (57–100 %), which cannot be shown "
        "to beat the floor of 0 % with so few examples (5)."
    )
    assert decision.next == (
        "About 1 more labelled test example would show few_shot above the floor, if it stays there.",
        "What would change the verdict: a candidate that is shown to beat the floor of 0 % and has a mean of at least "
        "5 %.",
    )


def test_a_none_headline_names_the_obstacle() -> None:
    decision = decide(evidence([candidate("lora", "fine-tune", 0.15)]))
    assert decision.headline == (
        "None: the best candidate, lora, answers 15 % of the sealed test right (10–20 %), "
        "which is not shown to beat the floor of 12 %."
    )
    little = decide(evidence([candidate("lora", "fine-tune", 0.04, half=0.03)], floor=0.0))
    assert "too little to ship (below 5 %)" in little.headline


def test_where_one_answer_is_always_right_no_model_is_needed() -> None:
    decision = decide(evidence([candidate("zero_shot", "prompt", 1.0)], floor=1.0))
    assert decision.choice == "none" and "no model is needed" in decision.headline and len(decision.next) == 1


def test_graded_metrics_are_written_as_scores() -> None:
    decision = decide(evidence([ZERO, LORA], CLEAR, metric=GRADED))
    assert decision.headline == (
        "Fine-tune: lora reaches a token_f1 of 0.81 on the sealed test (0.76–0.86), 0.41 above the best prompt."
    )
    tone = MetricInfo("python:m.py:tone", GRADED.score)
    assert "lora reaches a tone of 0.81" in decide(evidence([LORA], metric=tone)).headline


def test_nearly_all_is_not_written_as_all() -> None:
    assert "answers 99.6 % of" in decide(evidence([candidate("few_shot", "prompt", 0.996)])).headline
    assert "answers 100 % of" in decide(evidence([candidate("few_shot", "prompt", 1.0)])).headline


# ---- no language model needed -----------------------------------------------------------------


LEARNS = "which learns from the same examples without a language model,"


@pytest.mark.parametrize(
    ("learner", "p", "headline", "warning"),
    [
        (
            0.90,
            0.003,
            "reaches 90 % and is better than lora (p = 0.003).",
            "is better than lora on the sealed test (tfidf_linear minus lora: 9 points (4 to 14), p = 0.003).",
        ),
        (
            0.79,
            0.4,
            "reaches 79 %, as much as lora within the margin of 2 points.",
            "reaches as much as lora within the margin of 2 points on the sealed test (lora minus tfidf_linear: 2 "
            "points (-3 to 7), p = 0.40).",
        ),
        (
            0.77,
            0.12,
            "reaches 77 % and is not shown to be worse than lora.",
            "is not shown to be worse than lora on the sealed test (lora minus tfidf_linear: 4 points (-1 to 9), "
            "p = 0.12).",
        ),
    ],
)
def test_of_a_baseline_that_learns_is_said_what_was_shown(
    learner: float, p: float, headline: str, warning: str
) -> None:
    decision = decide(evidence([ZERO, LORA], {**CLEAR, ("tfidf_linear", "lora"): p}, learner=learner))
    assert (decision.choice, decision.solution) == ("fine-tune", "lora")
    assert decision.headline.endswith(f" You may not need a language model: tfidf_linear, which uses none, {headline}")
    assert decision.warnings == (f"tfidf_linear, {LEARNS} {warning} It costs next to nothing to run.",)
    assert decision.next[:2] == (
        f"Consider tfidf_linear first: it uses no language model, reaches {100 * learner:.0f} % on the sealed test, "
        "and costs next to nothing to run. docs/statistics.md says how it is built.",
        "Ship lora.",
    )


def test_a_baseline_that_learns_is_not_named_where_it_hardly_does_the_task() -> None:
    better = candidate("lora", "fine-tune", 0.60, half=0.18)
    known = evidence([better], {("most_frequent", "lora"): 0.01}, floor=0.33, learner=0.36, half=0.3)
    wide = tuple(
        replace(c, test=Score(0.36, 0.22, 0.54, 30)) if c.name == "tfidf_linear" else c for c in known.candidates
    )
    decision = decide(replace(known, candidates=wide))
    assert decision.solution == "lora" and not decision.warnings
    assert "No language model" not in decision.headline and "Consider" not in decision.next[0]
    near = tuple(
        replace(c, test=Score(0.59, 0.3, 0.7, 30)) if c.name == "tfidf_linear" else c for c in known.candidates
    )
    assert "as much as lora" in decide(replace(known, candidates=near)).headline


def test_a_baseline_that_is_shown_worse_is_only_a_reason() -> None:
    decision = decide(evidence([ZERO, LORA], CLEAR, learner=0.6))
    assert "No language model" not in decision.headline and not decision.warnings
    assert any(
        r.startswith("tfidf_linear, which learns without a language model, reaches 60 %") for r in decision.reasons
    )


def test_where_no_candidate_is_good_enough_a_baseline_that_is_gets_named() -> None:
    weak = candidate("lora", "fine-tune", 0.15)
    assert "tfidf_linear, which uses none, reaches 70 %" in decide(evidence([weak], learner=0.7)).headline
    assert "No language model" not in decide(evidence([weak], learner=0.10)).headline  # below the floor itself


# ---- warnings ---------------------------------------------------------------------------------


def test_what_was_begun_and_given_up_is_not_said_to_be_untried() -> None:
    begun = replace(KEPT_OUT, why="the budget was spent while training", begun=True)
    assert (
        "rag (retrieval) was begun and given up: the budget was spent while training."
        in (decide(evidence([ZERO, LORA], CLEAR, skipped=(begun,))).warnings[0])
    )


def test_what_the_budget_kept_out_stands_first_in_a_finished_verdict_too() -> None:
    cut = replace(LORA, cut="the budget was spent after step 90 of 250")
    fault = Skipped("rag_lora", "rag+fine-tune", "fault", "its loss stopped being a number")
    lost = Skills("lora", -0.13, -0.2, -0.06, 242, True)
    decision = decide(
        evidence([ZERO, cut], CLEAR, skipped=(fault, KEPT_OUT), skills=(lost,), test_reads=2, notes=("A note.",))
    )
    assert decision.warnings == (
        "rag (retrieval) was not tried: about 7.0 more minutes would pass the budget. It could change the verdict. It "
        "would take about 7 more minutes.",
        "rag_lora (retrieval with fine-tuning) was not tried: its loss stopped being a number.",
        "lora was stopped before it was built to its end: the budget was spent after step 90 of 250.",
        "lora lost general skills: of 242 general prompts it answers 13 points fewer than the base model (6 to 20). "
        "Use it "
        "for this task alone.",
        "The sealed test was opened 2 times. Each further opening makes a win by chance more likely.",
        "A note.",
    )
    assert not any("was not tried" in reason for reason in decision.reasons)
    assert "To try rag as well, give the run a larger budget (about 7 more minutes)." in decision.next


def test_a_rival_at_the_floor_is_a_warning() -> None:
    pair = [candidate("few_shot", "prompt", 0.15), candidate("lora", "fine-tune", 0.20)]
    decision = decide(evidence(pair, {("few_shot", "lora"): 0.2}))
    assert decision.warnings == ("few_shot is not shown to beat the floor of 12 %, so it is not shipped meanwhile.",)


def test_lost_skills_are_a_warning_with_the_candidate_that_keeps_them() -> None:
    repaired = replace(LORA, name="lora_replay", test=None)
    lost = Skills("lora", -0.13, -0.2, -0.06, 242, True, repaired="lora_replay")
    kept = Skills("lora_replay", 0.06, 0.0, 0.1, 242, False)
    known = evidence([ZERO, LORA, repaired], CLEAR, skills=(lost, kept))
    [warning] = decide(known).warnings
    assert "of 242 general prompts it answers 13 points fewer than the base model (6 to 20)" in warning
    assert "or take lora_replay: it was trained with the base model's own answers mixed in" in warning
    assert "reaches 81 % on dev" in warning
    [alone] = decide(replace(known, skills=(lost,))).warnings
    assert alone.endswith("Use it for this task alone.")
    also_lost = replace(kept, loses=True, difference=-0.1, low=-0.15, high=-0.05)
    assert not any("or take lora_replay" in w for w in decide(replace(known, skills=(lost, also_lost))).warnings)


def test_lost_skills_are_no_warning_where_the_repaired_candidate_is_shipped() -> None:
    repaired = replace(LORA, name="lora_replay")
    lost = Skills("lora", -0.13, -0.2, -0.06, 242, True, repaired="lora_replay")
    kept = Skills("lora_replay", 0.06, 0.0, 0.1, 242, False)
    pairs = {("zero_shot", "lora_replay"): 0.001}
    decision = decide(evidence([ZERO, replace(LORA, test=None), repaired], pairs, skills=(lost, kept)))
    assert decision.solution == "lora_replay" and not any("lost general skills" in w for w in decision.warnings)
    assert any("lora, before its repair, lost 13 points" in reason for reason in decision.reasons)


def test_answers_that_did_not_come_or_could_not_be_scored_are_a_warning() -> None:
    faulty = replace(LORA, failed_calls=3, unscored=2, unscored_why="m.py, line 3: no JSON")
    decision = decide(evidence([ZERO, faulty], CLEAR))
    assert decision.warnings == (
        "lora: the model gave no usable answer to 3 and the metric could not score 2 of the inputs. These count as 0. "
        "The metric failed first with: m.py, line 3: no JSON.",
    )


# ---- reasons ----------------------------------------------------------------------------------


def test_causes_and_what_does_not_apply_are_reasons() -> None:
    decision = decide(
        evidence(
            [ZERO],
            diagnosis=(
                Diagnosis("knowledge", 0.6, 0.5, 0.7, "fixed by the gold passages"),
                Diagnosis("format", 0.2, 0.1, 0.3),
            ),
            skipped=(Skipped("rag", "rag", "plan", "the task has no corpus"),),
            left_early=(LeftEarly("few_shot", "after 40 of 80 dev examples zero_shot was 20 points ahead."),),
        )
    )
    assert (
        "Why the best prompt fails: missing knowledge, 60 % of its wrong answers (50–70 %); fixed by the gold passages."
        in decision.reasons
    )
    assert "Another cause: answers in the wrong form, 20 % of its wrong answers (10–30 %)." in decision.reasons
    assert "rag was not tried: the task has no corpus." in decision.reasons
    assert (
        "few_shot was stopped early on dev: after 40 of 80 dev examples zero_shot was 20 points ahead."
        in decision.reasons
    )
    assert not decision.warnings


def test_a_cause_whose_interval_reaches_zero_may_be_chance() -> None:
    decision = decide(evidence([ZERO, LORA], diagnosis=(Diagnosis("knowledge", 0.04, 0.0, 0.21),)))
    assert any(
        "4 % of its wrong answers (0–21 %); not shown to be more than chance." in reason for reason in decision.reasons
    )
    assert not any("bring documents" in step for step in decision.next)
    fixed = (Diagnosis("convention", 0.04, 0.0, 0.21, "fixed by fine-tuning"),)
    said = " ".join(decide(evidence([ZERO, LORA], diagnosis=fixed)).reasons)
    assert "fixed by fine-tuning, but not shown to be more than chance." in said and "this may be" not in said


def test_where_nothing_is_learnt_wrong_answers_in_the_data_are_not_excluded() -> None:
    rest = Diagnosis("reasoning", 1.0, 0.9, 1.0, "nothing that was tried fixed it", fixed=False)
    weak = candidate("lora", "fine-tune", 0.11)
    noisy = decide(evidence([weak], diagnosis=(rest,), learner=0.11))
    assert any("reference answers that do not follow from the inputs would look" in reason for reason in noisy.reasons)
    places = [next(i for i, s in enumerate(noisy.next) if words in s) for words in ("Read some of the wrong", "larger")]
    assert places == sorted(places) and "classifier" in noisy.next[places[0]]
    learnt = decide(evidence([weak], diagnosis=(rest,), learner=0.5))
    assert not any("would look the same" in reason for reason in learnt.reasons)


def test_what_was_left_out_by_the_user_stands_first_where_nothing_works() -> None:
    left = [Skipped(n, "fine-tune", "plan", "left out by --only") for n in ("few_shot", "lora")]
    off = Skipped("full", "fine-tune", "plan", "off by default, about 3.0 min; name it with --only")
    corpus = Skipped("rag", "rag", "plan", "left out by --only")  # the task has none
    decision = decide(evidence([candidate("zero_shot", "prompt", 0.11)], skipped=(*left, corpus, off)))
    assert decision.headline.startswith("None of what was tried: the best candidate, zero_shot, ")
    assert decision.next[0].startswith("Try what --only left out: few_shot and lora.")
    assert decision.reasons[0] == "few_shot and lora were left out by --only, so nothing is known of what they can do."
    assert not any("larger model" in step for step in decision.next)
    one = decide(evidence([candidate("zero_shot", "prompt", 0.11)], skipped=(left[1],)))
    assert one.reasons[0] == "lora was left out by --only, so nothing is known of what it can do."
    assert decide(evidence([candidate("zero_shot", "prompt", 0.11)])).headline.startswith("None: ")


def test_what_the_base_model_can_do_stands_beside_the_skills_that_are_kept() -> None:
    for share, words in (
        (
            0.4,
            "lora keeps its general skills: a change of 0 points (-2 to 2) on 242 general prompts, of which the base "
            "model answers 40 %.",
        ),
        (
            0.03,
            "lora had hardly any general skills to lose: a change of 0 points (-2 to 2) on 242 general prompts, of "
            "which the base model answers 3 %.",
        ),
    ):
        kept = Skills("lora", 0.0, -0.02, 0.02, 242, False, base=share)
        assert words in decide(evidence([ZERO, LORA], CLEAR, skills=(kept,))).reasons


def test_skills_are_not_said_to_be_kept_where_a_loss_is_not_ruled_out() -> None:
    open_end = Skills("lora", -0.074, -0.15, 0.003, 242, False, base=0.27)
    said = (
        "lora is not shown to lose more than 2 points of its general skills, and may have lost up to 15 points: a "
        "change of -7.4 points (-15 to 0.3) on 242 general prompts, of which the base model answers 27 %."
    )
    assert said in decide(evidence([ZERO, LORA], CLEAR, skills=(open_end,))).reasons
    lost = Skills("lora", -0.13, -0.2, -0.06, 242, True, repaired="lora_replay")
    repaired = [ZERO, LORA, replace(LORA, name="lora_replay", test=None)]
    known = evidence(repaired, CLEAR, skills=(lost, replace(open_end, candidate="lora_replay")))
    [warning] = decide(known).warnings
    assert "mixed in, is not shown to lose more than 2 points of general skills, and reaches" in warning


def test_nothing_fixed_it_never_stands_beside_what_fixed_it() -> None:
    fixed = Diagnosis("knowledge", 0.5, 0.4, 0.6, "fixed by both")
    rest = Diagnosis("knowledge+reasoning", 0.3, 0.2, 0.4, "nothing fixed it", fixed=False)
    said = " ".join(decide(evidence([ZERO], diagnosis=(fixed, rest))).reasons)
    assert "fixed by both" in said and "nothing fixed it" not in said
    assert (
        "What stays wrong, by elimination: missing knowledge and reasoning, or the size of the model, 30 % of its "
        "wrong "
        "answers (20–40 %); the experiments fixed a part of it and not this part." in said
    )
    assert cause_evidence(rest, (rest,)) == "nothing fixed it"


@pytest.mark.parametrize(
    ("skipped", "kept"),
    [
        (Skipped("lora", "fine-tune", "target", "few_shot is confidently above the target"), False),
        (Skipped("lora", "fine-tune", "plan", "left out by --only"), False),
        (Skipped("rag", "rag", "plan", "left out by --only"), True),  # there is no corpus
        (Skipped("few_shot", "prompt", "target", "enough was reached"), True),  # another prompt was tried
        (Skipped("lora", "fine-tune", "plan", "the model cannot be trained"), True),
        (Skipped("lora", "fine-tune", "gain", "it could gain 1 point"), True),
    ],
)
def test_nothing_is_eliminated_where_a_family_was_spared(skipped: Skipped, kept: bool) -> None:
    rest = Diagnosis("reasoning", 1.0, 0.9, 1.0, "nothing fixed it", fixed=False)
    decision = decide(evidence([ZERO], diagnosis=(rest,), skipped=(skipped,)))
    assert decision.diagnosis == ((rest,) if kept else ())


def test_a_cause_by_elimination_leads_the_headline_only_where_everything_that_matters_was_tried() -> None:
    rest = Diagnosis("reasoning", 1.0, 0.9, 1.0, "nothing fixed it", fixed=False)
    whole = decide(evidence([ZERO], diagnosis=(rest,)))
    assert whole.headline.endswith(
        "By elimination, most of what stays wrong comes from reasoning, or the size of the model."
    )
    partial = decide(evidence([ZERO], diagnosis=(rest,), skipped=(KEPT_OUT,)))
    assert "reasoning" not in " ".join((partial.headline, *partial.reasons, *partial.next))
    assert partial.diagnosis == ()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (0.70, "The target of 70 % is met by lora, even by the low end of its interval."),
        (0.80, "The target of 80 % is met by the mean of lora, not by the low end of its interval."),
        (0.85, "The target of 85 % is missed by lora by 4 points; its interval includes the target."),
        (0.90, "The target of 90 % is missed by lora by 9 points."),
    ],
)
def test_the_target_is_set_beside_the_choice(target: float, words: str) -> None:
    decision = decide(evidence([ZERO, LORA], CLEAR, target=target))
    assert words in decision.reasons
    assert any("To reach the target" in step for step in decision.next) == (target > 0.81)


def test_one_figure_is_written_alike_in_all_sentences() -> None:
    weak = candidate("lora", "fine-tune", 0.345)
    known = evidence([weak], floor=1 / 3)
    thousand = tuple(replace(c, test=replace(c.test, n=1200)) for c in known.candidates if c.test)
    decision = decide(replace(known, candidates=thousand))
    said = " ".join((decision.headline, *decision.reasons, *decision.next))
    assert said.count("33.3 %") == 3 and "33 %" not in said


def test_training_without_passages_is_set_beside_what_reads_them() -> None:
    both = candidate("rag_lora", "rag+fine-tune", 0.85)
    decision = decide(evidence([LORA, both], {("lora", "rag_lora"): 0.001}, closed_book=ClosedBook("lora", 0.30)))
    assert (
        "Fine-tuning without passages (lora) reaches 30 % on dev, where the facts are new to it; rag_lora, which reads "
        "passages, reaches 85 %." in decision.reasons
    )


def test_a_break_even_gives_the_saving_and_the_interval_of_requests() -> None:
    pays = BreakEven("lora", "few_shot", 0.0312, 12_340.0, 9_100.0, None)
    [said] = [r for r in decide(evidence([ZERO, LORA], CLEAR, break_even=(pays,))).reasons if "USD" in r]
    assert said.startswith(
        "lora saves 0.0312 USD per 1,000 requests against few_shot, and has paid for its training after about 13,000 "
        "requests (9,100 to no number)."
    )


def test_the_floor_says_which_answer_it_always_gives_shortened() -> None:
    def floor_of(frequent: str) -> str:
        reasons = decide(evidence([ZERO, LORA], CLEAR, frequent=frequent)).reasons
        return next(r for r in reasons if r.startswith("The floor"))

    assert floor_of("I do not\nknow.").startswith(
        'The floor (most_frequent), which always answers "I do not know." and looks at no input, is 12 %;'
    )
    assert f'"{"word " * 7}word…"' in floor_of("word " * 30)
    assert floor_of("").startswith("The floor (most_frequent), which looks at no input,")
