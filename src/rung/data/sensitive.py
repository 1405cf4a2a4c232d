"""Personal data and secrets in a text: where each one stands, and what it is.

Numbers are taken for identifiers only with their checksum (python-stdnum), numbers without a checksum of their own only
beside a word that says what they are, phone numbers only as a numbering plan has them (phonenumbers). Keys are found by
`credentials`. Cheap patterns come first, so that a text without digits, "@" and keys costs microseconds.
Knows texts, not examples; nothing here prints or keeps what it finds.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from rung.data.credentials import credentials, may_hold_key

LONGEST = 1_000_000
"""Characters of one text that are searched."""


@dataclass(frozen=True, slots=True)
class Sensitive:
    """One find. check: as a finding names it. name: what it is, in words. start, end: where it stands in the text.

    checked: a checksum alone says that it is one, so that many numbers of this form without it speak against it.
    """

    check: str
    name: str
    start: int
    end: int
    checked: bool = False


def sensitive(text: str) -> list[Sensitive]:
    """Every find in a text, in order; none overlaps another."""
    text = text[:LONGEST]
    found: list[Sensitive] = []
    if may_hold_key(text):
        found += (Sensitive("secret", *one) for one in credentials(text))
    if "@" in text:
        found += (Sensitive("email", "an e-mail address", *m.span()) for m in _EMAIL.finditer(text))
    if _NUMBER_LIKE.search(text):
        found += _identifiers(text)
        found += _phones(text)
    if _ADDRESS_LIKE.search(text):
        found += _ip_addresses(text)
    return _apart(found) if found else found


def unchecked(text: str) -> Counter[str]:
    """Identifier -> how many numbers of its form lack its checksum: many say that the form means something else here.

    Only of identifiers that a checksum alone makes one, card numbers aside: one that is missed costs more than a false
    alarm. What lies inside a find (the digits of an IBAN) says nothing.
    """
    text = text[:LONGEST]
    if not _NUMBER_LIKE.search(text):
        return Counter()
    forms = [kind for kind in _KINDS if kind.words is None]
    wrong = [(kind.name, m) for kind in forms for m in kind.form.finditer(text) if not kind.valid(m.group())]
    found = sensitive(text) if wrong else []
    return Counter(name for name, m in wrong if all(m.end() <= one.start or m.start() >= one.end for one in found))


def _apart(found: list[Sensitive]) -> list[Sensitive]:
    """Without those that overlap one that was found first."""
    kept: list[Sensitive] = []
    for one in found:
        if all(one.end <= other.start or one.start >= other.end for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.start)


LETTER = r"[^\W\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]"
"""A letter or digit, but of Thai, Chinese, Japanese or Korean, which stand beside numbers without a space."""

# ---- e-mail and network addresses -------------------------------------------------------------

_EMAIL = re.compile(
    rf"(?<!{LETTER})(?<![.+%-])(?!git@)[A-Za-z0-9](?:[A-Za-z0-9._%+-]{{0,62}}[A-Za-z0-9_+-])?@"
    rf"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?\.)+[A-Za-z]{{2,24}}(?!{LETTER}|-)"
)
_ADDRESS_LIKE = re.compile(r"\d\.\d{1,3}\.\d|[0-9a-fA-F]{1,4}:[0-9a-fA-F]{1,4}:[0-9a-fA-F]{1,4}:")
_IP = re.compile(r"(?<![\w.:-])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{0,4}){3,7})(?![\w:-]|\.\d)")


def _ip_addresses(text: str) -> Iterator[Sensitive]:
    import ipaddress

    for match in _IP.finditer(text):
        if re.search(r"\b(?:version|release|v)\W{0,2}$", text[max(0, match.start() - 12) : match.start()], re.I):
            continue
        try:
            address = ipaddress.ip_address(match.group())
        except ValueError:
            continue
        parts = match.group().split(".")
        small = len(parts) == 4 and max(map(int, parts)) < 20  # 1.2.3.4 is a section or a version
        if address.is_global and not small:
            yield Sensitive("ip_address", "an IP address", *match.span())


# ---- identifiers --------------------------------------------------------------------------------

_SEPARATED = r"[ ().\-/+A]?"
_NUMBER_LIKE = re.compile(
    rf"\d(?:{_SEPARATED}\d){{6}}|[A-Z]{{6}}\d\d[A-Z]\d\d[A-Z]\d{{3}}[A-Z]|[A-Z]{{2}} ?\d\d ?\d\d ?\d"
)
_BEFORE, _AFTER = rf"(?<!{LETTER})(?<![.,\-/])", rf"(?!{LETTER}|[.,\-/]\d)"
_NEAR = 40
"""Characters before a number in which a word must stand that says what it is."""


@dataclass(frozen=True)
class _Identifier:
    """A kind of identifier. form: how it is written. module: of stdnum. words: one must stand before it, if any."""

    name: str
    form: re.Pattern[str]
    module: str
    words: re.Pattern[str] | None = None
    check: str = "identifier"

    def valid(self, text: str) -> bool:
        return bool(_validator(self.module)(text))


@cache
def _validator(module: str) -> Callable[[str], bool]:
    found: Callable[[str], bool] = import_module(f"stdnum.{module}").is_valid
    return found


def _kind(name: str, form: str, module: str, words: str | None = None, check: str = "identifier") -> _Identifier:
    asked = None if words is None else re.compile(rf"\b(?:{words})", re.I)
    return _Identifier(name, re.compile(f"{_BEFORE}(?:{form}){_AFTER}"), module, asked, check)


_KINDS = (
    _kind("a US social security number", r"\d{3}-\d{2}-\d{4}", "us.ssn"),
    _kind("a US social security number", r"\d{9}", "us.ssn", r"ssn|social security"),
    _kind("a Brazilian CPF", r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf"),
    _kind("an Italian codice fiscale", r"[A-Z]{6}\d\d[A-Z]\d\d[A-Z]\d{3}[A-Z]", "it.codicefiscale"),
    _kind("a Spanish DNI", r"\d{8}[- ]?[A-Z]", "es.dni"),
    _kind("a Spanish NIE", r"[XYZ]-?\d{7}-?[A-Z]", "es.nie"),
    _kind("a French NIR", r"[12] ?\d\d ?\d\d ?\d[\dAB] ?\d{3} ?\d{3} ?\d\d", "fr.nir"),
    _kind("a Chinese identity number", r"\d{17}[\dX]", "cn.ric"),
    _kind("a Swedish personnummer", r"(?:\d\d)?\d{6}[-+]\d{4}", "se.personnummer"),
    _kind("a Finnish henkilötunnus", r"\d{6}[-+A]\d{3}[0-9A-Y]", "fi.hetu"),
    _kind("a Korean registration number", r"\d{6}-\d{7}", "kr.rrn"),
    _kind("a Belgian national number", r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d", "be.nn"),
    _kind("an Indian Aadhaar number", r"\d{4} \d{4} \d{4}", "in_.aadhaar"),
    _kind("an Indian PAN", r"[A-Z]{5}\d{4}[A-Z]", "in_.pan", r"pan\b|permanent account"),
    _kind("a Dutch BSN", r"\d{9}|\d{4}\.\d{2}\.\d{3}|\d{3} ?\d{3} ?\d{3}", "nl.bsn", r"bsn|burgerservice|sofi"),
    _kind("a German tax number", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", "de.idnr", r"steuer|id-?nr|tin\b|tax"),
    _kind("a UK NHS number", r"\d{3}[ -]?\d{3}[ -]?\d{4}", "gb.nhs", r"nhs"),
    _kind("a Polish PESEL", r"\d{11}", "pl.pesel", r"pesel"),
    _kind("a Norwegian fødselsnummer", r"\d{6} ?\d{5}", "no.fodselsnummer", r"f[øo]dselsn|personn|fnr"),
    _kind("a Danish CPR number", r"\d{6}-?\d{4}", "dk.cpr", r"cpr|personn"),
    _kind("a Canadian SIN", r"\d{3}[- ]?\d{3}[- ]?\d{3}", "ca.sin", r"sin\b|social insurance|\bnas\b"),
    _kind("an Australian TFN", r"\d{3} ?\d{3} ?\d{3}", "au.tfn", r"tfn|tax file"),
    _kind("a South African identity number", r"\d{6} ?\d{4} ?\d{3}", "za.idnr", r"\bid\b|identity|rsa"),
    _kind("an IMEI", r"\d{15}|\d{2}-\d{6}-\d{6}-\d", "imei", r"imei"),
)
_NINO = re.compile(
    rf"{_BEFORE}(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]{_AFTER}"
)
_IBAN = re.compile(rf"(?<!{LETTER})(?<![.\-/])[A-Z]{{2}}\d{{2}}(?: ?[A-Z0-9]{{1,4}}){{3,8}}(?!{LETTER})")
_CARD = re.compile(rf"{_BEFORE}(?:\d{{4}}(?:[ -]?\d{{4}}){{3}}|3\d{{3}}[ -]?\d{{6}}[ -]?\d{{4,5}}|4\d{{12}}){_AFTER}")
_NO_CARD = re.compile(
    r"\b(?:order|invoice|ticket|tracking|parcel|shipment|sku|ean|gtin|serial|batch|bestell\w*|rechnungs?\w*|auftrag\w*|"
    r"artikel\w*|sendung\w*|commande|facture|pedido|factura|ordine|fattura)"
    r"(?:[ _-]?(?:number|num|no|nr|id|code))?\W{0,4}$",
    re.I,
)
"""Words directly before a number of another kind: one in 50 numbers of 16 digits could be that of a card."""
_CARD_ISSUER = re.compile(
    r"4\d{12}(?:\d{3})?$|5[1-5]\d{14}$|2(?:2[2-9]|[3-6]\d|7[01])\d{13}$|3[47]\d{13}$|6(?:011|5\d\d|4[4-9]\d)\d{12}$"
    r"|3(?:0[0-5]|[68]\d)\d{11}$|35(?:2[89]|[3-8]\d)\d{12}$"
)


def _identifiers(text: str) -> Iterator[Sensitive]:
    yield from _ibans(text)
    for match in _CARD.finditer(text):
        if _is_card(match.group()) and not _NO_CARD.search(text, max(0, match.start() - _NEAR), match.start()):
            yield Sensitive("card_number", "a card number", *match.span())
    for kind in _KINDS:
        for match in kind.form.finditer(text):
            if kind.words is not None and not kind.words.search(text, max(0, match.start() - _NEAR), match.start()):
                continue
            if kind.valid(match.group()):
                yield Sensitive(kind.check, kind.name, *match.span(), checked=kind.words is None)
    for match in _NINO.finditer(text):
        yield Sensitive("identifier", "a UK national insurance number", *match.span())


def _is_card(written: str) -> bool:
    digits = re.sub(r"[ -]", "", written)
    return bool(_CARD_ISSUER.match(digits)) and len(set(digits)) > 1 and _validator("luhn")(digits)


def _ibans(text: str) -> Iterator[Sensitive]:
    """The longest part that is valid, because capitals may follow an IBAN."""
    for match in _IBAN.finditer(text):
        end = match.end()
        while end - match.start() >= 15:
            if _validator("iban")(text[match.start() : end]):
                yield Sensitive("iban", "an IBAN", match.start(), end)
                break
            end = text.rfind(" ", match.start(), end)


# ---- phone numbers --------------------------------------------------------------------------------

_PHONE = re.compile(
    rf"(?<!{LETTER})(?<![.,\-/+$€£#:=^*])(?:\+|00|\()?\(?\d(?:[ ().\-/\u00a0]{{0,2}}\d){{6,14}}"
    rf"(?!{LETTER}|%|[.,:]\d|[-/.]{LETTER})"
)
_DATE = re.compile(
    r"(?:19|20)\d\d[-/. ](?:0?[1-9]|1[0-2])[-/. ][0-3]?\d(?!\d)|[0-3]?\d[-/. ][0-3]?\d[-/. ](?:19|20)\d\d(?!\d)"
    r"|[0-3]?\d([-/.])[0-3]?\d\1\d\d(?!\d)"
)
_PHONE_WORDS = re.compile(
    r"\b(?:phone|tele?ph|tel\b|telefo|t[ée]l[ée]ph|cell\b|mobile|mobil\b|handy|m[oó]vil|portable|whats ?app|fax|sms|"
    r"hotline)|电话|手机|電話|전화|тел",
    re.I,
)
_OTHER_NUMBER = re.compile(
    r"\b(?:order|invoice|ticket|case|ref(?:erence)?|sku|ean|gtin|isbn|issn|upc|serial|s/n|item|part|model|account|"
    r"customer|contract|policy|tracking|parcel|batch|id|no\. of|bestell\w*|rechnung\w*|auftrag\w*|kunden\w*|artikel\w*|"
    r"vertrag\w*|sendung\w*|commande|facture|pedido|factura|ordine|fattura|ordre)\b",
    re.I,
)
"""Words before numbers of other kinds: "my phone broke, order 123456789"."""
_MAY_MEAN_PHONE = re.compile(r"\b(?:call|ring|text|dial|reach|contact|anruf|erreich|appele|llam|number is)", re.I)
_LEAST_WITHOUT_WORD = 9
"""Digits of a number that counts as a phone number beside a word that may mean other things, too."""
_US = re.compile(r"(?:\+?1[ .-])?(?:\(\d{3}\) ?|\d{3}([.-]))\d{3}(?(1)\1|[-.])\d{4}")
_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "NL", "IN", "AU", "BR", "JP", "CN", "PL", "CH", "AT", "BE")


def _phones(text: str) -> Iterator[Sensitive]:
    for match in _PHONE.finditer(text):
        written = match.group()
        end = match.end()
        if written.count("(") < written.count(")"):
            continue
        if _is_phone(written, text[max(0, match.start() - _NEAR) : match.start()]):
            yield Sensitive("phone_number", "a phone number", match.start(), end)


def _is_phone(written: str, before: str) -> bool:
    """Whether digits are a phone number: international and valid, of an unmistakable form, or beside a word for one."""
    digits = re.sub(r"\D", "", written)
    long = len(digits) >= _LEAST_WITHOUT_WORD
    if len(digits) > 15 or _DATE.match(written) or len(set(digits)) < 3:
        return False
    if "." in written and " " in written and not written.startswith(("+", "(")):
        return False  # an amount beside another number
    if written.startswith(("+", "(+")):
        return _possible_phone("+" + digits) if long else _valid_phone("+" + digits, None)
    if written.startswith("00"):
        return _valid_phone("+" + digits[2:], None)
    words = [*_PHONE_WORDS.finditer(before), *(_MAY_MEAN_PHONE.finditer(before) if long else ())]
    said = bool(words) and not _OTHER_NUMBER.search(before, max(word.end() for word in words))
    if _US.fullmatch(written):
        return said or written.startswith("(") or _valid_phone(digits, "US")
    grouped = not written.isdigit()
    if written.startswith(("0", "(0")):
        return (said or (grouped and long)) and any(
            _valid_phone(digits, r, written if grouped and not said else None) for r in _REGIONS[1:]
        )
    return said and any(_valid_phone(digits, region) for region in _REGIONS)


def _possible_phone(digits: str) -> bool:
    """Whether a country's numbers have so many digits. Parts of a plan that are not given out yet count, too."""
    import phonenumbers

    try:
        number: Any = phonenumbers.parse(digits, None)
    except phonenumbers.NumberParseException:
        return False
    reason = phonenumbers.is_possible_number_with_reason(number)
    return bool(reason == phonenumbers.ValidationResult.IS_POSSIBLE)


def _valid_phone(digits: str, region: str | None, grouped: str | None = None) -> bool:
    """Whether the numbering plan has it. grouped: as it is written, where its groups must be those of the plan."""
    import phonenumbers

    try:
        number: Any = phonenumbers.parse(digits, region)
    except phonenumbers.NumberParseException:
        return False
    return bool(phonenumbers.is_valid_number(number)) and (grouped is None or _usual_groups(grouped, number))


def _usual_groups(written: str, number: Any) -> bool:
    """Whether a number is written in groups that its plan has, or with one group for its area and one for the rest."""
    import phonenumbers

    groups = re.findall(r"\d+", written)
    usual = re.findall(r"\d+", phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL))
    return groups == usual or (len(groups) == 2 and 2 <= len(groups[0]) <= 6 and len(groups[1]) >= 5)
