from __future__ import annotations

import pytest

from rung.data.folding import bare, folded, squeezed, views

TEXT = "How do I cancel my order from last week?"


def says(text: str) -> str:
    return squeezed(folded(text))


@pytest.mark.parametrize(
    "disguised",
    [
        TEXT.upper(),
        TEXT.replace(" ", "\u00a0"),
        TEXT.replace(" ", " \n\t"),
        TEXT.replace("cancel", "can\u200bcel"),
        TEXT.replace("cancel", "can\u00adcel"),
        TEXT.replace("cancel", "can-\ncel"),
        "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in TEXT),
        TEXT.replace("o", "\u043e"),
        TEXT.translate(str.maketrans("aeopcyxi", "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456")),
        TEXT.replace("o", "\u03bf"),
        TEXT.replace("a", "\u00e4"),
        f"<p>{TEXT.replace('cancel', '<b>cancel</b>')}</p><br/>",
        TEXT.replace(" ", "&nbsp;", 2).replace("w", "&#119;"),
        f"**{TEXT}**",
        f"## {TEXT}",
        f"- {TEXT}",
        f"1. {TEXT}",
        f"(23) {TEXT}",
        f"Q: {TEXT}",
        f"\u201c{TEXT}\u201d",
        f"({TEXT})",
        f"{TEXT}??!",
        f"{TEXT} \U0001f600\U0001f64f",
        f"{TEXT} :-)",
        f"Hi there, {TEXT}",
        f"Dear support team,\n\n{TEXT}",
        f"Guten Tag, {TEXT}",
        f"Please: {TEXT}",
        f"{TEXT} Thank you!",
        f"Re: {TEXT}",
        f"RE: Fwd: {TEXT}",
        f"AW: {TEXT}",
        f"Subject: Re[2]: {TEXT}".replace("Subject: ", ""),
        "> How do I cancel my\n> order from last week?",
        f"On Mon, 3 May 2021 at 10:00, Bob <bob@example.org> wrote:\n> {TEXT}",
        f"{TEXT}\n\nBest regards,\nJohn Smith",
        f"{TEXT} Kind regards, Ann",
        f"{TEXT}\n-- \nBob\nExample & Sons",
        f"{TEXT}\n\nSent from my iPhone",
        f"{TEXT}\n\nThanks,\nAnn",
        " ".join(TEXT.replace(" ", "")),
        "_".join(TEXT.upper().split()),
        TEXT.replace("order from", "order\\nfrom"),
    ],
)
def test_a_disguise_is_taken_away(disguised: str) -> None:
    assert squeezed(folded(disguised)).replace("_", "") == says(TEXT)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("I don't know why it can't come and won't", "I do not know why it cannot come and will not"),
        ("He isnt here and we dont know", "He isn't here and we don't know"),
        (
            "Gr\u00f6\u00dfe und F\u00fc\u00dfe der T\u00fcr f\u00fcr \u00c4rzte",
            "Groesse und Fuesse der Tuer fuer Aerzte",
        ),
        (
            "Gr\u00f6\u00dfe und F\u00fc\u00dfe der T\u00fcr",
            "Gr\u00c3\u00b6\u00c3\u0178e und F\u00c3\u00bc\u00c3\u0178e der T\u00c3\u00bcr",
        ),
        ("see http://example.org/a now", "see <https://www.example.org/a/> now"),
        (
            "\u0643\u062a\u0627\u0628 \u0623\u062d\u0645\u062f \u0647\u0646\u0627",
            "\u0643\u0640\u062a\u064e\u0627\u0628 \u0627\u062d\u0645\u062f \u0647\u0646\u0627",
        ),
        (
            "\u05e9\u05dc\u05d5\u05dd \u05dc\u05db\u05dd \u05d9\u05dc\u05d3\u05d9\u05dd",
            "\u05e9\u05b8\u05dc\u05d5\u05b9\u05dd \u05dc\u05db\u05dd \u05d9\u05dc\u05d3\u05d9\u05dd",
        ),
        ("It is so good that I will call you again", "It is sooo goood that I wil call you again"),
        ("room 12 of 30", "room \u0661\u0662 of \u0663\u0660"),
    ],
)
def test_two_ways_of_writing_are_one(a: str, b: str) -> None:
    assert says(a) == says(b)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("2 + 2", "2 - 2"),
        ("Is a < b?", "Is a > b?"),
        ("(2 + 3) * 4", "2 + (3 * 4)"),
        ("What is C#?", "What is C?"),
        ("1 23", "12 3"),
        ("1.5 litres", "15 litres"),
        ("Order 4711 is late", "Order 4712 is late"),
        ("What does <b> do?", "What does <i> do?"),
        ("\u00e0", "a"),
        ("great \U0001f600", "great \U0001f622"),
        ("f(x)=1", "f[x]=1"),
        ("\u043c\u0438\u0440", "mup"),
        ("What does \\n mean in it?", "What does \\t mean in it?"),
        ("Click [here](http://a.org) now", "Click [here](http://b.org) now"),
        ("Name: Ann\nFrom: Rome\nTo: Bari\nDate: Monday", "Name: Ann\nFrom: Oslo\nTo: Lima\nDate: Monday"),
    ],
)
def test_what_may_be_the_content_stays(a: str, b: str) -> None:
    assert says(a) != says(b)


@pytest.mark.parametrize("text", ["Hi", "Please help", "Thanks a lot", "1. a", "\u4f60\u597d"])
def test_a_greeting_that_is_all_there_is_stays(text: str) -> None:
    assert folded(text) != []


def test_nothing_but_punctuation_says_nothing() -> None:
    assert folded("???") == []


def test_a_cyrillic_text_with_latin_letters_in_its_words_is_read_as_cyrillic() -> None:
    moscow, capital = "\u043c\u043e\u0441\u043a\u0432\u0430", "\u0441\u0442\u043e\u043b\u0438\u0446\u0430"
    disguised = moscow.translate(str.maketrans("\u043e\u0430", "oa"))
    assert says(f"{disguised} {capital}") == says(f"{moscow} {capital}")


def test_parameters_that_follow_a_reader_are_left_out_of_addresses() -> None:
    plain = "see https://example.org/a?id=3 and https://example.org/b now"
    assert says(plain) == says(
        "see https://example.org/a?id=3&utm_source=x and https://example.org/b?fbclid=abc&gclid=q now"
    )


def test_a_reply_is_what_is_new_and_what_is_quoted() -> None:
    asked = "My parcel has not come yet and nobody answers me"
    reply = "We have sent it again today, it will be there by Friday"
    own, *parts = views(f"{reply}\n\n> {asked}")
    assert squeezed(own) == says(reply)
    assert says(asked) in [squeezed(part) for part in parts]
    whole, *parts = views(f"Any news?\n> {asked}")
    assert squeezed(whole) == says(f"Any news {asked}")
    assert [squeezed(part) for part in parts] == [says(asked)]


def test_a_reply_below_what_it_quotes_is_the_reply() -> None:
    reply = "We have sent it again today, it will be there by Friday"
    quoted = "On Mon, 3 May 2021, Ann wrote:\n> My parcel has not come yet\n> and nobody answers me"
    own, *parts = views(f"{quoted}\n\n{reply}")
    assert squeezed(own) == says(reply)
    assert says("My parcel has not come yet and nobody answers me") in [squeezed(part) for part in parts]


def test_the_headers_of_a_quoted_mail_begin_a_quotation() -> None:
    reply = "We have sent it again today, it will be there by Friday"
    mail = f"{reply}\n\nFrom: Ann <a@example.org>\nSent: Monday\nTo: Bob\nSubject: parcel\n\nIt has not come yet"
    own, *_ = views(mail)
    assert squeezed(own) == says(reply)


def test_a_mail_that_is_passed_on_is_the_mail() -> None:
    mail = f"FYI\n\n-----Original Message-----\nFrom: A <a@example.org>\nTo: B\nSubject: order\n\n{TEXT}"
    assert says(TEXT) in [squeezed(view) for view in views(mail)]


def test_signs_are_left_out_of_long_texts_alone() -> None:
    long = folded("He won it 5-0 and left the place at 8:00")
    assert bare(long) == ("hewonit50andlefttheplaceat800", True)
    assert bare(folded("5 - 0")) is None
    assert bare(folded("a b c")) == ("abc", False)


@pytest.mark.parametrize("filling", [" ", "\n", "*a ", "> ", "<b>", "-", "hi "])
def test_what_stands_many_times_takes_no_square_of_its_length(filling: str) -> None:
    assert views(filling * 60_000 + TEXT)
