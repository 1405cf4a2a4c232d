"""Whether twins under a disguise leak: each text stands twice, once disguised, and the answers are random.

    python bench/disguises.py [--data examples.jsonl] [--rows 300] [--seeds 3] [--json]

rung splits the rows as it splits any task. For each disguise: the share of twins that are kept in one set, with the
same random answer and with another one each; rows grouped with a stranger; and the test score of an answerer that
copies the answer of the nearest row of train (character 4-grams). Nothing can be learnt from random answers, so a score
above chance is a leak. Without --data the texts are made here: free sentences, and templates filled in.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rung.types import Example

ANSWERS = ("refund", "delivery", "broken")
Disguise = Callable[[str, random.Random], str]

OPENINGS = """I ordered|Last week I bought|My neighbour recommended|We are still waiting for|Somebody sent me
|I would like to return|Nobody told us about|My daughter uses|You charged me twice for
|The shop in town no longer sells"""
THINGS = """a blue kettle|the folding bicycle|an electric toothbrush|this garden chair|the second-hand piano
|the desk lamp|a pair of running shoes|the wireless keyboard|a set of kitchen knives|the children's tent
|an old map of Bohemia
|the café table|a leather notebook|two woollen blankets"""
MIDDLES = """and the parcel arrived open|but the colour is wrong|because the manual was missing
|which stopped working yesterday
|although my account shows another order|and the driver left it at a different house|and nobody answers the telephone
|so I ask what happens next|while the price on your page has changed"""
ENDS = """Can you help me with that?|What should I do now?|I need an answer before Friday.|Is there a form for this?
|My wife is quite angry.|The receipt is in the box.|How long will it take?|I have written about it already.
|Where do I find the address?"""
PARTS = tuple([part.strip() for part in parts.split("|")] for parts in (OPENINGS, THINGS, MIDDLES, ENDS))
TEMPLATES = (
    "What is the capital of {}?",
    "Which river flows through {}?",
    "Who was the first mayor of {} in our times?",
)


def free_texts(rows: int, draw: random.Random) -> list[str]:
    """Sentences of independent parts, no two with more than half of their parts in common."""
    found: list[tuple[str, ...]] = []
    while len(found) < rows:
        parts = tuple(draw.choice(part) for part in PARTS)
        if all(sum(a == b for a, b in zip(parts, other, strict=True)) < 3 for other in found):
            found.append(parts)
    return [f"{a} {b} {c}. {d}" for a, b, c, d in found]


def templated_texts(rows: int, draw: random.Random) -> list[str]:
    """Templates filled in with made-up names."""
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    names = sorted({"".join(draw.choices(syllables, k=4)).capitalize() for _ in range(4 * rows)})
    draw.shuffle(names)
    return [draw.choice(TEMPLATES).format(name) for name in names[:rows]]


def _inside(text: str, sign: str, draw: random.Random) -> str:
    """The sign inside some words."""
    return " ".join(
        w[: len(w) // 2] + sign + w[len(w) // 2 :] if len(w) > 3 and draw.random() < 0.5 else w for w in text.split()
    )


def _typo(text: str, draw: random.Random) -> str:
    words = text.split()
    longest = max(range(len(words)), key=lambda n: len(words[n]))
    place = draw.choice([n for n, w in enumerate(words) if len(w) > 4 and w.isalpha()] or [longest])
    word, at = words[place], draw.randrange(1, len(words[place]) - 1)
    kinds = (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + draw.choice("qxzjk") + word[at + 1 :],
        word[:at] + draw.choice("qxzjk") + word[at:],
    )
    return " ".join([*words[:place], draw.choice([k for k in kinds if k != word]), *words[place + 1 :]])


def _shuffled(text: str, draw: random.Random) -> str:
    words = text.split()
    draw.shuffle(words)
    return " ".join(words)


ADDED = """I am a customer for ten years.|My number has not changed.|The weather is fine.|You are the best shop in town.
|This is the third time that I write.|I live on the second floor.""".replace("\n", "").split("|")
LOOK_ALIKES = str.maketrans("aeopcxyi", "\u0430\u0435\u043e\u0440\u0441\u0445\u0443\u0456")
DISGUISES: dict[str, Disguise] = {
    "none": lambda text, draw: text,
    "zero-width": lambda text, draw: _inside(text, "\u200b", draw),
    "soft hyphen": lambda text, draw: _inside(text, "\u00ad", draw),
    "word joiner": lambda text, draw: text.replace(" ", " \u2060"),
    "full width": lambda text, draw: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "decomposed": lambda text, draw: unicodedata.normalize("NFD", text),
    "look-alikes": lambda text, draw: text.translate(LOOK_ALIKES),
    "some look-alikes": lambda text, draw: "".join(
        c.translate(LOOK_ALIKES) if draw.random() < 0.3 else c for c in text
    ),
    "accents": lambda text, draw: text.replace("a", "\u00e1").replace("o", "\u00f6"),
    "capitals": lambda text, draw: text.upper(),
    "no punctuation": lambda text, draw: re.sub(r"[^\w\s]", "", text),
    "more punctuation": lambda text, draw: text.replace(" ", ", ", 2).rstrip(".?") + " ...?!?",
    "double spaces": lambda text, draw: text.replace(" ", "  "),
    "no-break spaces": lambda text, draw: text.replace(" ", "\u00a0"),
    "tabs and lines": lambda text, draw: text.replace(" ", "\t", 2).replace(" ", "\n", 2),
    "other order": _shuffled,
    "entities": lambda text, draw: text.replace(" ", "&nbsp;", 3).replace("e", "&#101;", 2).replace("'", "&#39;"),
    "tags": lambda text, draw: "<p>" + re.sub(r"(\w{5,})", r"<b>\1</b>", text, count=2) + "</p><br/>",
    "markdown": lambda text, draw: "## " + re.sub(r"(\w{5,})", r"**\1**", text, count=2),
    "Re:": lambda text, draw: draw.choice(["Re: ", "RE: Fwd: ", "AW: ", "FW: ", "SV: "]) + text,
    "quoted": lambda text, draw: "\n".join("> " + line for line in text.split("  ")),
    "passed on": lambda text, draw: f"FYI\n\n-----Original Message-----\nFrom: A <a@b.org>\nSubject: {text}",
    "reply above": lambda text, draw: (
        f"{text}\n\nOn Mon, 3 May 2021, Ann wrote:\n> Thank you for your message.\n> We will see."
    ),
    "signature": lambda text, draw: f"{text}\n\nBest regards,\nAnn Miller",
    "mail signature": lambda text, draw: f"{text}\n-- \nAnn Miller\nMiller & Sons\n+49 30 123456",
    "from my phone": lambda text, draw: f"{text}\n\nSent from my iPhone",
    "greeting": lambda text, draw: draw.choice(["Hi, ", "Hello, ", "Dear support team,\n", "Good morning. "]) + text,
    "please": lambda text, draw: "Please, " + text,
    "thanks": lambda text, draw: text + " Thank you!",
    "emoji": lambda text, draw: text + " \U0001f600\U0001f64f",
    "numbered": lambda text, draw: f"{draw.randint(1, 99)}. {text}",
    "bullet": lambda text, draw: "- " + text,
    "in quotes": lambda text, draw: f"\u201c{text}\u201d",
    "in brackets": lambda text, draw: f"({text})",
    "question marks": lambda text, draw: text + "???",
    "typo": _typo,
    "hyphenated": lambda text, draw: _inside(text, "-\n", draw),
    "underscores": lambda text, draw: re.sub(r"\W+", "_", text).strip("_").upper(),
    "written lines": lambda text, draw: re.sub(r"(?<=\w) (?=\w)", r"\\n", text, count=2),
    "reply below": lambda text, draw: (
        f"On Mon, 3 May 2021, Ann wrote:\n> Thank you for your message.\n> We will see.\n\n{text}"
    ),
    "written twice": lambda text, draw: f"{text} {text}",
    "sentence added": lambda text, draw: f"{text} {draw.choice(ADDED)}",
    "ticket number": lambda text, draw: f"Ticket #{draw.randint(1000, 9999)}: {text}",
    "cut": lambda text, draw: text[: int(0.85 * len(text))],
    "spaced out": lambda text, draw: re.sub(r"(?<=\w)(?=\w)", " ", text),
}


def measure(texts: Sequence[str], disguise: Disguise, seed: int) -> Counter[str]:
    """Counts for one disguise: twins, kept, kept_other, strangers, rows; right and tested of the answerer."""
    from rung.data.near_duplicates import near_duplicate_groups
    from rung.data.split import split_examples
    from rung.types import Example, ModelSpec, Task

    draw = random.Random(seed)
    twins = [(text, disguise(text, draw)) for text in texts]
    answers = [draw.choice(ANSWERS) for _ in twins]
    others = [draw.choice([a for a in ANSWERS if a != answer]) for answer in answers]
    counts: Counter[str] = Counter()
    for name, second in (("kept", answers), ("kept_other", others)):
        rows = [
            Example(f"{n}{side}", text, answer, (answer,), row=f"line {n}")
            for n, pair in enumerate(twins)
            for side, text, answer in zip("ab", pair, (answers[n], second[n]), strict=True)
        ]
        groups = near_duplicate_groups(rows)
        task = Task("t", Path("t"), "Answer.", (), "exact_match", (ModelSpec("m", "m"),), seed=seed)
        split = split_examples({None: tuple(rows)}, groups, task)
        home = {e.id: part for part, members in (("train", split.train), ("dev", split.dev)) for e in members}
        home |= dict.fromkeys(split.test.ids, "test")
        counts[name] = sum(home[f"{n}a"] == home[f"{n}b"] for n in range(len(twins)))
        if name == "kept":
            members: dict[str, set[str]] = {}
            for row in rows:
                members.setdefault(groups[row.id], set()).add(row.id[:-1])
            counts["strangers"] = sum(len(members[groups[row.id]]) > 1 for row in rows)
            train = [row for row in rows if home[row.id] == "train"]
            tested = [row for row in rows if home[row.id] == "test"]
            counts["right"], counts["tested"] = nearest_right(train, tested), len(tested)
    counts["twins"], counts["rows"] = len(twins), 2 * len(twins)
    return counts


def nearest_right(train: Sequence[Example], tested: Sequence[Example]) -> int:
    """How many rows the answer of the nearest row of train is right for, by the cosine of character 4-grams."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(4, 4))
    known = grams.fit_transform([row.input for row in train])
    nearest = (grams.transform([row.input for row in tested]) @ known.T).toarray().argmax(axis=1)
    return sum(train[n].output == row.output for n, row in zip(nearest, tested, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, help="a JSONL file with a column input")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="names of disguises, with commas")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    from rung.evaluation.intervals import wilson

    found: dict[str, dict[str, float]] = {}
    chosen = options.only.split(",") if options.only else list(DISGUISES)
    if not options.json:
        print(f"{'disguise':18} kept  other answers  with strangers  nearest answer on test, chance {1 / 3:.0%}")
    for name in chosen:
        total: Counter[str] = Counter()
        for seed in range(options.seeds):
            total += measure(texts_of(options, seed), DISGUISES[name], seed)
        # Twins of one set have one answer: half as many independent answers as rows.
        low, high = wilson(total["right"] / 2, total["tested"] // 2, alpha=0.05 / len(chosen))
        found[name] = {
            "kept": total["kept"] / total["twins"],
            "kept_other_answer": total["kept_other"] / total["twins"],
            "with_strangers": total["strangers"] / total["rows"],
            "nearest": total["right"] / total["tested"],
            "low": low,
            "high": high,
        }
        if not options.json:
            f = found[name]
            print(
                f"{name:18} {f['kept']:5.1%} {f['kept_other_answer']:9.1%} {f['with_strangers']:15.1%}"
                f"   {f['nearest']:.1%} ({low:.1%} to {high:.1%}){'' if low <= 1 / 3 else '  LEAK'}",
                flush=True,
            )
    if options.json:
        print(json.dumps({"disguises": found}, indent=1))


def texts_of(options: argparse.Namespace, seed: int) -> list[str]:
    """The clean texts, as many as --rows says at most."""
    draw = random.Random(seed)
    if options.data is None:
        return free_texts(options.rows // 2, draw) + templated_texts(options.rows - options.rows // 2, draw)
    lines = options.data.read_text("utf-8").splitlines()
    texts = list(dict.fromkeys(str(json.loads(line)["input"]) for line in lines if line.strip()))
    return draw.sample(texts, min(len(texts), options.rows))


if __name__ == "__main__":
    main()
