from __future__ import annotations

import pytest

from rung.retrieval import languages as module
from rung.retrieval.languages import language_of, languages_of
from rung.types import Document

SENTENCES = {
    "english": "The card is replaced within five days if it was lost by the owner, and that is free of charge.",
    "german": "Die Karte wird nach fünf Tagen ersetzt, wenn sie der Inhaber verloren hat, und das ist kostenlos.",
    "french": "La carte est remplacée dans les cinq jours si elle a été perdue par le titulaire, et c'est gratuit.",
    "spanish": "La tarjeta se cambia en cinco días si la perdió el titular, y eso no cuesta nada para los clientes.",
    "portuguese": "O cartão é trocado em cinco dias se foi perdido pelo titular, e isso não custa nada aos clientes.",
    "italian": "La carta viene sostituita in cinque giorni se è stata persa dal titolare, e questo non costa nulla.",
    "dutch": "De kaart wordt binnen vijf dagen vervangen als die door de eigenaar is verloren, en dat is gratis.",
    "swedish": "Kortet byts ut inom fem dagar om det har förlorats av ägaren, och det är gratis för alla kunder.",
    "finnish": "Kortti vaihdetaan viiden päivän kuluessa, jos se on kadonnut, ja se on ilmaista, mutta vain kerran.",
    "polish": "Karta jest wymieniana w ciągu pięciu dni, jeśli się zgubiła, i to nie kosztuje nic, a nowa jest po to.",
    "turkish": "Kart kaybolursa beş gün içinde değiştirilir ve bu ücretsiz bir hizmet olarak en kısa sürede sunulur.",
    "russian": "Карта заменяется в течение пяти дней, если она была потеряна, и это не стоит ничего для клиента.",
    "greek": "Η κάρτα αντικαθίσταται σε πέντε ημέρες αν χαθεί από τον κάτοχο, και αυτό είναι δωρεάν για όλους.",
    "hindi": "कार्ड पाँच दिनों में बदला जाता है यदि वह खो गया है और यह ग्राहक के लिए मुफ्त है।",
    "arabic": "يتم استبدال البطاقة في خمسة أيام إذا كان هذا من فقدان من العميل على أن ذلك هو مجاني.",
}
OTHERS = {
    "vietnamese": "Thẻ được thay trong năm ngày nếu khách làm mất và không có phí cho các lần này của khách.",
    "ukrainian": "Картку замінюють за п'ять днів, якщо її було втрачено, і це не коштує нічого для клієнта, як і там.",
    "chinese": "银行卡丢失后请立即挂失，可以免费补办。每天可以取款七次。",
    "codes": "WS-3000 42.7 kg EAN 4006381333931; X1 | X2 | X3",
    "thai": "บัตรหายทำอย่างไร การโอนเงินใช้เวลาหนึ่งวัน",
}


def corpus(*texts: str) -> list[Document]:
    return [Document(str(i), text) for i, text in enumerate(texts * 10)]


@pytest.mark.parametrize("language", SENTENCES)
def test_the_language_of_a_corpus_is_recognised(language: str) -> None:
    assert languages_of(corpus(SENTENCES[language])) == language


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS.keys())
def test_no_language_is_named_where_none_has_a_stemmer(text: str) -> None:
    assert languages_of(corpus(text)) == ""


def test_no_language_is_named_whose_stemmer_an_older_package_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "languages", lambda: ("english",))
    assert [languages_of(corpus(SENTENCES[name])) for name in ("english", "german")] == ["english", ""]


@pytest.mark.parametrize("other", ["german", "russian", "vietnamese"])
def test_no_language_is_named_where_two_share_the_corpus(other: str) -> None:
    texts = {**SENTENCES, **OTHERS}
    assert languages_of(corpus(texts["english"], texts[other])) == ""


def test_a_few_passages_in_another_language_do_not_matter() -> None:
    assert languages_of([*corpus(*[SENTENCES["english"]] * 5), Document("x", SENTENCES["german"])]) == "english"


def test_tables_among_the_passages_do_not_matter() -> None:
    assert languages_of(corpus(SENTENCES["english"], SENTENCES["english"], OTHERS["codes"])) == "english"


@pytest.mark.parametrize("passages", [[], [Document("a", "")], [Document("a", SENTENCES["english"])]])
def test_too_little_text_says_nothing(passages: list[Document]) -> None:
    assert languages_of(passages) == ""


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where is the parcel that I have ordered from you", "english"),
        ("Wo ist das Paket, das ich bei euch bestellt habe und nicht da ist", "german"),
        ("Hvor er pakken som jeg har bestilt, og som ikke er kommet til meg?", "danish or norwegian"),
        ("i have to do a return by friday, it is so slow", ""),
        ("a man o man s film, to see by men in a van", ""),
        ("Hi", ""),
        ("", ""),
    ],
)
def test_the_language_of_one_text_is_named_only_where_it_is_sure(text: str, language: str) -> None:
    assert language_of(text) == language
