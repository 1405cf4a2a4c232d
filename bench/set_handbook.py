"""A staff handbook, made: the same sentences recur under many headings, so that only the headings tell which applies.

Twenty subjects at three sites are sixty documents (Markdown, web pages, Word). Each has a chapter for each group of
staff and a section for each rule in it; sections differ in a figure or a name. Questions name subject, site, group and
rule, mostly in other words than the headings.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from html import escape

from made_documents import docx_of, html_of, paragraph, word_table
from made_sets import MadeSet, Row, taken

SITES = {
    "Bergen head office": ("in Bergen", "at headquarters", "at the Bergen office"),
    "Gdansk plant": ("in Gdansk", "at the Gdansk factory", "at the plant in Gdansk"),
    "Porto laboratory": ("in Porto", "at the Porto lab", "at the laboratory in Porto"),
}
STAFF = {
    "Permanent staff": ("a permanent employee", "someone with an open-ended contract", "permanent staff"),
    "Fixed-term staff": ("a fixed-term employee", "someone whose contract has an end date", "fixed-term staff"),
    "Apprentices": ("an apprentice", "a trainee in vocational training", "apprentices"),
    "Agency workers": ("an agency worker", "a temp who is sent by an agency", "agency workers"),
    "Shift supervisors": ("a shift supervisor", "a person who leads a shift", "shift supervisors"),
}
SUBJECTS = {
    "Annual leave": ("a holiday", "vacation"),
    "Sick leave": ("an absence through illness", "being off sick"),
    "Parental leave": ("leave after the birth of a child", "parental leave"),
    "Study leave": ("time off for an exam or a course", "study leave"),
    "Unpaid leave": ("time off without pay", "unpaid leave"),
    "Business travel": ("a journey for the company", "a business trip"),
    "Company cars": ("a car of the company", "a company car"),
    "Bicycle scheme": ("a leased bicycle", "the bicycle scheme"),
    "Work from home": ("a day at home", "working from home"),
    "Overtime": ("extra hours", "overtime"),
    "Protective equipment": ("helmet, gloves and boots", "protective equipment"),
    "Laptops and telephones": ("a laptop or a phone", "a device for mobile work"),
    "Training courses": ("a course outside the company", "further training"),
    "Relocation": ("moving house for the job", "a relocation"),
    "Meals and canteen": ("lunch at work", "the meal benefit"),
    "Gifts and hospitality": ("a present from a supplier", "a gift by a business partner"),
    "Side jobs": ("a second job", "work for another employer"),
    "Health checks": ("a check-up by the company's doctor", "a medical examination"),
    "Language classes": ("a class in another language", "language lessons"),
    "Childcare support": ("help with the costs of a nursery", "childcare support"),
}
_NAMES = [f"{a} {b}" for a in ("Ines", "Marek", "Solveig", "Tiago", "Agata", "Henrik", "Rute", "Pawel", "Liv", "Duarte")
          for b in ("Haugen", "Kowal", "Moreira", "Lunde", "Zielony", "Pinto", "Aasen", "Brito")]  # fmt: skip
_FORMS = [f"{letter}-{n}" for letter in "ABCDEFGHK" for n in range(101, 999, 7)]

Rule = tuple[tuple[str, ...], tuple[str, ...], Callable[[random.Random], str]]
RULES: dict[str, Rule] = {
    "Notice": (
        ("Requests reach the line manager at least {v} before the first day. Later ones are granted in emergencies.",
         "The line manager hears of it no later than {v} in advance. In an emergency a call is enough."),
        ("How long in advance does {who} have to ask for {what} {where}?",
         "What is the latest time to hand in a request for {what} for {who} {where}?"),
        lambda r: f"{r.randint(2, 60)} {r.choice(('working days', 'calendar days'))}",
    ),
    "Allowance": (
        ("The company pays at most {v} a year. What goes beyond that is borne by the person.",
         "Costs are met up to {v} in a calendar year; nothing is carried over into the next one."),
        ("What is the most that {who} {where} gets in a year for {what}?",
         "Up to which amount does the firm pay for {what}, for {who} {where}?"),
        lambda r: f"{r.randint(40, 990) * 5} euros",
    ),
    "Approval": (
        ("{v} decides on exceptions. A decision is given in writing and kept for the audit.",
         "Whatever departs from this page needs the consent of {v}, in writing."),
        ("Who may grant an exception about {what} for {who} {where}?",
         "Whose consent is needed if {who} {where} wants something unusual about {what}?"),
        lambda r: r.choice(_NAMES),
    ),
    "Form": (
        ("The form {v} is filled in, signed and handed to personnel services. Copies are not accepted.",
         "Personnel services need the signed form {v}. It lies in the entrance hall and on the intranet."),
        ("Which form does {who} {where} fill in for {what}?",
         "What paper has to be signed for {what} by {who} {where}?"),
        lambda r: r.choice(_FORMS),
    ),
    "Waiting period": (
        ("The entitlement begins {v} after the first day of work. Earlier service counts if the gap is short.",
         "It applies from {v} of service on; a gap of less than a month does no harm."),
        ("How long must {who} {where} have worked before {what} is possible?",
         "After what time in the job does the entitlement to {what} begin for {who} {where}?"),
        lambda r: f"{r.randint(1, 40)} {r.choice(('weeks', 'months'))}",
    ),
}  # fmt: skip
_PURPOSE = (
    "This page says what applies to {subject} at the site named above. It replaces all earlier rules and agreements.",
    "What follows was agreed with the works council. Whoever is in doubt asks personnel services before, not after.",
    "The rules differ by site and by group of staff. Read the chapter that is meant for you, and no other.",
)
_COMMON = (
    "Data of a request are kept for the time that the law asks for and are then deleted.",
    "Misuse is a breach of duty. It is dealt with by the person's manager and personnel services together.",
    "A person who feels treated unfairly may turn to the works council at any time.",
    "Part-time staff are treated in proportion to their hours unless a chapter says otherwise.",
    "Personnel services answer within a week. Silence is no consent.",
)


def handbook(seed: int = 0, questions: int = 240) -> MadeSet:
    draw = random.Random(f"handbook {seed}")
    files: dict[str, bytes] = {}
    asked: list[tuple[str, str, str, str, str]] = []
    for number, subject in enumerate(SUBJECTS):
        for place, site in enumerate(SITES):
            ending = ("md", "html", "docx")[(number + place) % 3]
            path = f"{site.split()[0].lower()}/{subject.lower().replace(' ', '-')}.{ending}"
            facts = _facts(draw)
            asked += [(path, subject, site, f"{staff}|{rule}", value) for (staff, rule), value in facts.items()]
            files[path] = _WRITERS[ending](f"{subject} – {site}", _sections(subject, facts, draw))
    rows = [_row(i, fact, draw) for i, fact in enumerate(taken(asked, questions, draw))]
    return MadeSet(
        "handbook",
        "Answer the question about the staff handbook with the fact only: an amount, a time, a form or a name.",
        files,
        rows,
    )


Fact = tuple[str, str]
Sections = list[tuple[int, str, list[str]]]


def _facts(draw: random.Random) -> dict[Fact, str]:
    """(group of staff, rule) -> value; no value stands twice in a document."""
    found: dict[Fact, str] = {}
    for staff in STAFF:
        for rule, (_, _, value) in RULES.items():
            said = value(draw)
            while said in found.values():
                said = value(draw)
            found[staff, rule] = said
    return found


def _sections(subject: str, facts: dict[Fact, str], draw: random.Random) -> Sections:
    """(level of the heading, heading, paragraphs)."""
    found: Sections = [(2, "Purpose", [p.format(subject=subject.lower()) for p in draw.sample(_PURPOSE, 2)])]
    wording = {rule: draw.choice(texts) for rule, (texts, _, _) in RULES.items()}  # alike in all chapters
    for staff in STAFF:
        found.append((2, staff, [f"This chapter is for {staff.lower()}. {draw.choice(_COMMON)}"]))
        order = list(RULES)
        draw.shuffle(order)
        found += [(3, rule, [wording[rule].format(v=facts[staff, rule])]) for rule in order]
    return [*found, (2, "For all", draw.sample(_COMMON, 3))]


def _row(number: int, fact: tuple[str, str, str, str, str], draw: random.Random) -> Row:
    path, subject, site, place, value = fact
    staff, rule = place.split("|")
    question = draw.choice(RULES[rule][1]).format(
        who=draw.choice(STAFF[staff]), where=draw.choice(SITES[site]), what=draw.choice(SUBJECTS[subject])
    )
    return Row(f"handbook-{number:03}", question, value, (path,), f"{path}/{staff}")


def _markdown(title: str, sections: Sections) -> bytes:
    parts = [f"# {title}"]
    for level, heading, said in sections:
        parts += [f"{'#' * level} {heading}", *said]
    return ("\n\n".join(parts) + "\n").encode()


def _html(title: str, sections: Sections) -> bytes:
    body = "".join(f"<h{n}>{escape(h)}</h{n}>" + "".join(f"<p>{escape(p)}</p>" for p in ps) for n, h, ps in sections)
    menu = "<nav><a href='/'>Home</a> <a href='/handbook'>Handbook</a> <a href='/contact'>Contact</a></nav>"
    return html_of(title, f"{menu}<main><h1>{escape(title)}</h1>{body}</main>")


def _docx(title: str, sections: Sections) -> bytes:
    body = paragraph(title, "Heading1")
    for level, heading, said in sections:
        body += paragraph(heading, f"Heading{level}") + "".join(map(paragraph, said))
    return docx_of(body + word_table([["Version", "Owner"], ["4", "Personnel services"]]), title=title)


_WRITERS: dict[str, Callable[[str, Sections], bytes]] = {"md": _markdown, "html": _html, "docx": _docx}
