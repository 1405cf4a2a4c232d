from __future__ import annotations

from pathlib import Path

import pytest

from rung.data.checks import personal
from rung.data.checks.material import Material
from rung.data.sensitive import sensitive, unchecked
from rung.types import Document, Example, Finding, ModelSpec, Task

TASK = Task("t", Path("/t/task.yaml"), "Answer.", (Path("/t/e.jsonl"),), "exact_match", (ModelSpec("m", "m"),))


@pytest.mark.parametrize(
    ("check", "text", "value"),
    [
        ("email", "Write to jane.doe+x@mail.example.co.uk.", "jane.doe+x@mail.example.co.uk"),
        ("phone_number", "Ring me at +49 30 901820, thanks", "+49 30 901820"),
        ("phone_number", "It is (555) 123-4567 now", "(555) 123-4567"),
        ("phone_number", "my cell: 415-555-2671.", "415-555-2671"),
        ("phone_number", "020 7946 0958 is my office", "020 7946 0958"),
        ("phone_number", "Tel: 030/1234567", "030/1234567"),
        ("phone_number", "c'est le 06 12 34 56 78", "06 12 34 56 78"),
        ("phone_number", "phone 4155552671", "4155552671"),
        ("iban", "IBAN DE89 3704 0044 0532 0130 00 BIC COBA", "DE89 3704 0044 0532 0130 00"),
        ("iban", "to GB82WEST12345698765432 please", "GB82WEST12345698765432"),
        ("card_number", "card 4111 1111 1111 1111, exp", "4111 1111 1111 1111"),
        ("card_number", "5500005555555559", "5500005555555559"),
        ("identifier", "my SSN is 536-90-4399", "536-90-4399"),
        ("identifier", "BSN 111222333", "111222333"),
        ("identifier", "RSSMRA85T10A562S", "RSSMRA85T10A562S"),
        ("identifier", "DNI 12345678Z", "12345678Z"),
        ("identifier", "CPF 390.533.447-05", "390.533.447-05"),
        ("identifier", "NHS number 943 476 5919", "943 476 5919"),
        ("ip_address", "from 93.184.216.34 at noon", "93.184.216.34"),
        ("secret", "key AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
        ("secret", "ghp_abcdefghijklmnopqrstuvwxyz0123456789", "ghp_abcdefghijklmnopqrstuvwxyz0123456789"),
        ("secret", "password: hunter2abc", "hunter2abc"),
        ("secret", "pwd: hunter2abc", "hunter2abc"),
        ("secret", "postgres://u:s3cretpw1@db/x", "s3cretpw1"),
        ("phone_number", "电话13812345678，谢谢", "13812345678"),
        ("identifier", "身份证110101199003074514。", "110101199003074514"),
        ("card_number", "卡号4111111111111111是", "4111111111111111"),
        ("email", "メールはjane@corp.orgです", "jane@corp.org"),
        ("iban", "계좌 DE89370400440532013000입니다", "DE89370400440532013000"),
        ("secret", "-----BEGIN PRIVATE KEY-----\nMIIabc\n-----END PRIVATE KEY-----", None),
    ],
)
def test_personal_data_and_secrets_are_found_where_they_stand(check: str, text: str, value: str | None) -> None:
    (one,) = sensitive(text)
    assert (one.check, text[one.start : one.end]) == (check, text if value is None else value)


@pytest.mark.parametrize(
    "text",
    [
        "What is 123456789 * 987654321?",
        "Add 1,234,567 and 7654321, then 12 345 678",
        "On 2024-01-15 10:30:00, or 01.02.2023, or 12.05.21",
        "ISBN 978-3-16-148410-0, order 0012-3456-789",
        "pi is 3.14159265358979, phone bill 2023 17.50",
        "password: your_password_here",
        "the secret: nobody knows",
        "item 1234 5678 9012 3456 and 1Z999AA10123456784",
        "git@github.com:org/repo, @handle, a@b",
        "version 10.12.13.14, room 1.2.3.4, host 192.168.0.1",
        "std::vector<int> at 10:30:00",
        "Contact flight 2345 6789",
        "My phone broke, order 4155552671",
        "phone charger, EAN 4006381333931",
        "secret_name: my-lamp-secret-3",
        "价格は12345678円です, 2023年10月12日14時30分",
        "token_type: bearer-2024-x",
        "password = get_password2(user)",
    ],
)
def test_numbers_and_texts_that_only_resemble_them_are_not(text: str) -> None:
    assert sensitive(text) == []


def findings(inputs: list[str], documents: tuple[Document, ...] = ()) -> list[Finding]:
    rows = tuple(Example(str(i), text, "a", ("a",), row=f"line {i}") for i, text in enumerate(inputs))
    return list(personal.personal(Material(TASK, {None: rows}, rows, documents=documents)))


def test_a_finding_names_the_row_and_what_it_is_and_never_the_value() -> None:
    inputs = ["Write to jane@corp.org or joe@corp.org, tel +49 30 901820.", "my password: hunter2abc"]
    found = findings(inputs, (Document("faq", "Write to jane@corp.org."),))
    assert [(f.check, f.row) for f in found] == [
        ("email", "line 0"),
        ("phone_number", "line 0"),
        ("secret", "line 1"),
        ("email", "document faq"),
    ]
    assert "an e-mail address in the input (2 times)" in found[0].message
    assert not any(value in f.message for f in found for value in ("jane", "joe", "901820", "hunter2"))


def test_data_about_addresses_get_one_finding_and_documents_their_own() -> None:
    found = findings([f"Write to jane{i}@corp.org." for i in range(30)], (Document("faq", "Write to joe@corp.org."),))
    assert [(f.check, f.row, len(f.ids)) for f in found] == [("email", "", 30), ("email", "document faq", 0)]
    assert "30 of 30 rows hold an e-mail address" in found[0].message


def test_codes_whose_form_is_that_of_an_identifier_are_not_taken_for_one_by_chance() -> None:
    letters = "TRWAGMYFPDXBNJZSQVHLCKE"
    codes = [f"part {10_000_000 + 7 * i}{letters[i % 23]} is broken" for i in range(60)]
    assert any(sensitive(text) for text in codes)
    assert findings(codes) == []
    real = [f"DNI {n}{letters[n % 23]}" for n in range(12_345_670, 12_345_676)]
    assert {f.check for f in findings(real)} == {"identifier"}


@pytest.mark.parametrize(
    "others",
    [
        [
            "pay to DE89 3704 0044 0532 0130 00",
            "and to FR14 2004 1010 0505 0001 3M02 606",
            "DE02 1203 0000 0000 2020 51",
        ],
        ["tracking id 1234 5678 9012 3456", "tracking id 9876 5432 1098 7654", "order 1234567890123456"],
        [f"ref {n:016d}" for n in range(10**15 + 7, 10**15 + 40)],
    ],
)
def test_a_card_number_is_found_whatever_other_numbers_stand_in_the_data(others: list[str]) -> None:
    found = findings(["my card is 4111 1111 1111 1111", *others])
    assert [f.row for f in found if f.check == "card_number"] == ["line 0"]


@pytest.mark.parametrize("text", ["order no. 4111111111111111", "Tracking number: 4111 1111 1111 1111"])
def test_a_number_that_the_word_before_it_says_to_be_another_is_no_card(text: str) -> None:
    assert sensitive(text) == []


def test_what_lies_inside_a_find_says_nothing_about_numbers_of_other_kinds() -> None:
    assert unchecked("DE89 3704 0044 0532 0130 00") == {}
    assert unchecked("no 1111 2222 3333") == {"an Indian Aadhaar number": 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [("my password is hunter2secret, thanks", "hunter2secret"), ("Das Passwort ist Hallo123x.", "Hallo123x.")],
)
def test_a_password_that_a_sentence_tells_is_found(text: str, value: str) -> None:
    assert [text[one.start : one.end] for one in sensitive(text)] == [value]


@pytest.mark.parametrize("text", ["my password is not working", "the password is required", "password is wrong!!!"])
def test_a_sentence_about_a_password_is_none(text: str) -> None:
    assert sensitive(text) == []
