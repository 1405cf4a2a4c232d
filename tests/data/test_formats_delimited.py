"""CSV and TSV: the one sensible reading is taken and told, and values stay as they are written."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from rung.data.formats import read_table
from rung.data.rows import Table
from rung.errors import DataError

PAIRS = [(f"where is parcel {i}", ("late", "lost", "found")[i % 3]) for i in range(24)]


def table(folder: Path, text: str | bytes, name: str = "a.csv") -> Table:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(path)


def pairs(found: Table) -> list[tuple[object, ...]]:
    assert not found.problems, found.problems
    return [tuple(row.values.values()) for row in found.rows]


def lines(separator: str = ",", quote: str = "", end: str = "\n", header: str = "input,output") -> str:
    rows = [*([tuple(header.split(","))] if header else []), *PAIRS]
    return "".join(separator.join(f"{quote}{cell}{quote}" for cell in row) + end for row in rows)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize(("separator", "word"), [(",", "commas"), (";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_the_separator_is_found_and_told_where_the_name_promises_another(
    tmp_path: Path, name: str, quote: str, separator: str, word: str
) -> None:
    found = table(tmp_path, lines(separator, quote), name)
    assert pairs(found) == PAIRS and found.columns == ["input", "output"]
    own = separator == {"a.csv": ",", "a.tsv": "\t"}[name]
    assert (f"separated by {word}" in "; ".join(found.how)) != own and len(found.how) == (not own)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=;"])
def test_the_line_in_which_excel_names_the_separator_is_no_row(tmp_path: Path, line: str, mark: str) -> None:
    found = table(tmp_path, f"{mark}{line}\r\n" + lines(";", end="\r\n"))
    assert pairs(found) == PAIRS
    assert "the first line names the separator (Excel's sep=)" in found.how


def test_a_separator_that_excels_line_names_settles_two_readings(tmp_path: Path) -> None:
    text = "a;b,c;d\n" + "".join(f"{i};1,2;{i}\n" for i in range(9))
    assert table(tmp_path, "sep=,\n" + text).columns == ["a;b", "c;d"]
    assert table(tmp_path, "sep=;\n" + text).columns == ["a", "b,c", "d"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_all_line_ends_are_read(tmp_path: Path, end: str) -> None:
    assert pairs(table(tmp_path, lines(end=end))) == PAIRS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_all_encodings_give_the_same_text(tmp_path: Path, encoding: str) -> None:
    text = "input,output\n" + "où est « mon » café – l’été, naïf ?,là\n".replace("été, n", "été n") * 20
    found = table(tmp_path, text.encode(encoding))
    assert pairs(found)[0] == ("où est « mon » café – l’été naïf ?", "là")
    assert bool(found.how) == (encoding != "utf-8")


def test_values_stay_as_they_are_written(tmp_path: Path) -> None:
    found = table(tmp_path, "input,output\na,01\nb,1.0\nc,NA\nd,true\ne,null\nf, x \ng,1e3\n")
    assert [row[1] for row in pairs(found)] == ["01", "1.0", "NA", "true", "null", " x ", "1e3"]


def test_names_of_columns_lose_the_spaces_around_them(tmp_path: Path) -> None:
    assert table(tmp_path, lines(header=" Input ,OUTPUT")).columns == ["Input", "OUTPUT"]


def test_line_ends_and_quotes_inside_quotes_are_kept(tmp_path: Path) -> None:
    row = '"Dear ""team"",\r\n\r\nwhere is it, please\r\nme",late\r\n'
    found = table(tmp_path, "input,output\r\n" + row * 9)
    assert pairs(found) == [('Dear "team",\r\n\r\nwhere is it, please\r\nme', "late")] * 9
    assert [row.where for row in found.rows[:2]] == ["a.csv, line 2", "a.csv, line 6"]


def test_prose_in_a_cell_that_spans_lines_is_not_taken_for_rows(tmp_path: Path) -> None:
    row = '"Hello team, good day\nI wait, since Monday\nyours, A",late\n'
    found = table(tmp_path, "input,output\n" + row + lines(header=""))
    assert len(pairs(found)) == 25 and found.rows[0].values["output"] == "late"


def test_a_table_in_a_quoted_cell_stays_one_cell(tmp_path: Path) -> None:
    row = '"name,age\nBob,3\nAnn,4",json\n'
    found = table(tmp_path, "input,output\n" + row * 12)
    assert pairs(found) == [("name,age\nBob,3\nAnn,4", "json")] * 12


@pytest.mark.parametrize(("separator", "name"), [("\t", "a.tsv"), (",", "a.csv"), (";", "a.csv")])
def test_quotes_that_would_swallow_rows_are_text(tmp_path: Path, separator: str, name: str) -> None:
    rows = list(PAIRS)
    rows[3] = ('"where is it he asked', "late")
    rows[15] = ('and then nothing"', "lost")
    text = "".join(separator.join(row) + "\n" for row in [("input", "output"), *rows])
    found = table(tmp_path, text, name)
    assert pairs(found) == rows
    swallowed = "as a quoted cell, that of line 5 would span 13 lines and swallow rows"
    assert f"quotes are part of the text (line 5; {swallowed})" in found.how


@pytest.mark.parametrize("cell", ['"where is it" I asked', 'a 5" pipe', '"never closed', '"', '"""', '"a" and "b"'])
def test_stray_quotes_in_a_file_without_quoting_are_text(tmp_path: Path, cell: str) -> None:
    rows = [*PAIRS[:5], (cell, "late"), *PAIRS[5:]]
    found = table(tmp_path, "input\toutput\n" + "".join("\t".join(row) + "\n" for row in rows), "a.tsv")
    assert pairs(found) == rows


def test_in_a_quoted_file_one_wrong_quote_does_not_undo_the_quoting(tmp_path: Path) -> None:
    text = "input,output\n" + '"one, two",late\n' * 10 + '"he said "hi" to me",lost\n' + '"x" y,lost\n'
    found = table(tmp_path, text)
    assert pairs(found)[-3:] == [("one, two", "late"), ('he said "hi" to me', "lost"), ('"x" y', "lost")]
    assert "part of the text (lines 12, 13)" in found.how[0]


def test_a_cell_of_many_lines_that_look_like_rows_is_told(tmp_path: Path) -> None:
    row = '"see, here:\n' + "a,1\nb,2\nc,3\nd,4\n" + 'end",late\n'
    found = table(tmp_path, "input,output\n" + row + lines(header=""))
    assert len(pairs(found)) == 25
    assert "line 2: a quoted cell spans 6 lines that look like rows" in found.how[0]


def test_separators_too_many_and_empty_rows_are_dropped_and_told(tmp_path: Path) -> None:
    text = lines().replace("\n", ",\n").replace("input,output,", "input,output") + ",,\n\n,,\n"
    found = table(tmp_path, text)
    assert pairs(found) == PAIRS
    assert found.how == ("lines with a separator too many at the end: 24", "lines without text, left out: 2")


def test_a_comma_before_a_space_belongs_to_text_that_nobody_quoted(tmp_path: Path) -> None:
    found = table(tmp_path, lines() + "please, where is it, now,late\n")
    assert pairs(found)[-1] == ("please, where is it, now", "late")
    assert found.how == ("a comma before a space is taken for a part of the text (line 26)",)


def test_a_record_of_another_width_is_a_problem_with_its_line(tmp_path: Path) -> None:
    found = table(tmp_path, lines() + "a,b,late\nalone\n")
    assert [p.where for p in found.problems] == ["a.csv, line 26", "a.csv, line 27"]
    assert found.problems[0].text == "3 fields, but the header has 2; quote text that holds the separator"


def test_without_a_header_columns_are_numbered_and_that_is_told(tmp_path: Path) -> None:
    found = table(tmp_path, lines(header=""))
    assert pairs(found) == PAIRS and found.columns == ["column_1", "column_2"]
    assert found.how == ("no header: the columns are called column_1, column_2",)


@pytest.mark.parametrize("header", ["frage,antwort", "Frage an uns,label", "x,late one", "question,late", "0,1"])
def test_a_header_is_not_mistaken_for_a_row(tmp_path: Path, header: str) -> None:
    assert table(tmp_path, lines(header=header)).columns == header.split(",")


def test_a_label_that_is_also_a_common_name_of_a_column_is_no_header(tmp_path: Path) -> None:
    text = "".join(f"text {i},{('question', 'comment')[i % 2]}\n" for i in range(20))
    assert table(tmp_path, text).columns == ["column_1", "column_2"]


def test_a_first_row_that_may_be_a_row_is_told(tmp_path: Path) -> None:
    text = "Where was he born?,Rome\n" + "".join(f"What is number {i}?,It is {i}\n" for i in range(20))
    found = table(tmp_path, text)
    assert found.how == (
        "the first line is read as the names of columns; if it is a row, write a line of names above it",
    )


def test_a_header_that_is_repeated_is_no_row(tmp_path: Path) -> None:
    found = table(tmp_path, lines() + lines())
    assert pairs(found) == PAIRS * 2
    assert found.how == ("lines that repeat the header, left out: 1",)


@pytest.mark.parametrize(("text", "name"), [(lines("\t"), "a.txt"), (lines(";"), "a.dat"), (lines(), "a.jsonl")])
def test_a_table_with_another_suffix_is_read_and_told(tmp_path: Path, text: str, name: str) -> None:
    found = table(tmp_path, text, name)
    assert pairs(found) == PAIRS
    assert "although the name ends in" in found.how[0]


def test_a_column_alone_needs_no_separator(tmp_path: Path) -> None:
    found = table(tmp_path, 'text\nfirst\n"second, quoted"\nthird\n')
    assert pairs(found) == [("first",), ("second, quoted",), ("third",)]


def test_prose_in_a_column_alone_stays_whole(tmp_path: Path) -> None:
    found = table(tmp_path, "text\nhello, you\none, two, three\n")
    assert pairs(found) == [("hello, you",), ("one, two, three",)]


def test_a_hundred_thousand_lines_are_read_in_seconds(tmp_path: Path) -> None:
    found = table(tmp_path, "input,output\n" + "where is it,late\n" * 50_000 + '"where, is it",lost\n' * 50_000)
    assert len(found.rows) == 100_000


def test_quotes_behind_a_backslash_are_understood(tmp_path: Path) -> None:
    row = '"he said \\"no, never\\" to me\nand left",late\n'
    found = table(tmp_path, lines(quote='"') + row * 3)
    assert pairs(found)[-1] == ('he said "no, never" to me\nand left', "late")
    assert found.how == ('quotes inside quoted text are written \\"',)


def test_backslashes_stay_where_quotes_are_doubled(tmp_path: Path) -> None:
    found = table(tmp_path, lines() + '"a \\""path\\"", C:\\new",late\n')
    assert pairs(found)[-1] == ('a \\"path\\", C:\\new', "late")


def test_columns_without_a_name_are_numbered_or_left_out_where_they_are_empty(tmp_path: Path) -> None:
    assert table(tmp_path, "input,output,,\na,b,,\nc,d,,\n").columns == ["input", "output"]
    assert table(tmp_path, "input,output,\na,b\nc,d\n").columns == ["input", "output"]
    assert pairs(table(tmp_path, ",input,\n1,a,b\n2,c,d\n")) == [("1", "a", "b"), ("2", "c", "d")]
    assert table(tmp_path, ",input,output\n0,a,b\n1,c,d\n").columns == ["", "input", "output"]


def test_files_that_were_joined_with_their_marks_are_read(tmp_path: Path) -> None:
    assert table(tmp_path, "\ufeff\ufeffinput,output\na,b\n").columns == ["input", "output"]


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_space_after_each_separator_belongs_to_no_cell(tmp_path: Path, quote: str) -> None:
    found = table(tmp_path, lines(", ", quote))
    assert pairs(found) == PAIRS and found.columns == ["input", "output"]
    assert found.how == ("a space after each separator is dropped",)


def test_columns_that_pandas_numbers_are_a_header_although_labels_are_numbers(tmp_path: Path) -> None:
    found = table(tmp_path, "0,1\n" + "".join(f"text {i},{i % 2}\n" for i in range(20)))
    assert found.columns == ["0", "1"] and len(found.rows) == 20


@pytest.mark.parametrize("separator", [",", "\t"])
def test_json_in_the_first_cell_makes_no_json_of_a_table(tmp_path: Path, separator: str) -> None:
    text = "".join(f'{{"id": {i}}}{separator}{("late", "lost")[i % 2]}\n' for i in range(20))
    assert len(pairs(table(tmp_path, text, "a.csv" if separator == "," else "a.tsv"))) == 20


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_quoted_cell_whose_lines_could_be_rows_stays_one_in_a_file_that_quotes(
    tmp_path: Path, separator: str
) -> None:
    rows = [*PAIRS, (f"if (a){separator} b\nend{separator} c", "late"), (f'one{separator}two "three"', "lost")]
    written = io.StringIO()
    csv.writer(written, delimiter=separator).writerows([("input", "output"), *rows])
    found = table(tmp_path, written.getvalue(), "a.tsv" if separator == "\t" else "a.csv")
    assert pairs(found) == rows
    assert not any("quote" in line for line in found.how)


def test_prose_between_semicolons_may_span_lines(tmp_path: Path) -> None:
    rows = [(str(i), "Hallo; wie geht es\nmir gut; danke", ("a", "b")[i % 2]) for i in range(12)]
    written = io.StringIO()
    csv.writer(written, delimiter=";").writerows([("id", "text", "label"), *rows])
    assert pairs(table(tmp_path, written.getvalue())) == rows


@pytest.mark.parametrize(
    "above",
    [
        "Tickets of 2024\n\n",
        "Tickets of 2024,\n,\n",
        "# exported on Monday, by Bob\n# 24 rows\n",
    ],
)
def test_a_title_above_the_header_is_left_out_and_told(tmp_path: Path, above: str) -> None:
    found = table(tmp_path, above + lines())
    assert pairs(found) == PAIRS and found.columns == ["input", "output"]
    assert "a title above the header is left out" in found.how
    assert found.rows[0].where == f"a.csv, line {above.count(chr(10)) + 2}"


def test_facts_and_groups_of_columns_above_the_header_are_a_title(tmp_path: Path) -> None:
    text = "Report,Tickets,\nDate,Monday,\n,,\nid,text,label\n" + "".join(
        f"{i},t {i},{'ab'[i % 2]}\n" for i in range(9)
    )
    assert table(tmp_path, text).columns == ["id", "text", "label"]


@pytest.mark.parametrize("header", [",tweet", "text,", "frage,", "tweet"])
def test_a_header_with_one_name_is_no_title(tmp_path: Path, header: str) -> None:
    rows = "".join(f"{i},hello {i}\n" if "," in header else f"hello {i}\n" for i in range(20))
    assert len(table(tmp_path, f"{header}\n{rows}").rows) == 20 - (header == "frage,")


def test_a_word_above_texts_is_a_name_although_the_other_is_a_label(tmp_path: Path) -> None:
    found = table(tmp_path, "email_body,spam\n" + "".join(f"mail {i},{('spam', 'ham')[i % 2]}\n" for i in range(20)))
    assert found.columns == ["email_body", "spam"] and len(found.rows) == 20
    assert "if it is a row" in found.how[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("".join(f'"{q},{a}"\n' for q, a in [("input", "output"), *PAIRS]), "quotes stand around each whole line"),
        (" input | output \n-----+-----\n" + lines(" | ", header=""), "line 2: is a line that was drawn"),
        ("| input | output |\n|---|---|\n" + "| a | b |\n" * 9, "line 2: is a line that was drawn"),
    ],
)
def test_what_only_looks_like_a_table_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        table(tmp_path, text)


def test_a_row_with_too_few_fields_gets_its_own_advice(tmp_path: Path) -> None:
    (problem,) = table(tmp_path, lines() + "Total\n").problems
    assert problem.text.startswith("1 field, but the header has 2; write the empty ones too")


@pytest.mark.parametrize("text", ["我的包裹在哪里", "Где моя посылка и почему", "where is it", "𝄞 café"])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_needs_no_mark_in_any_script(tmp_path: Path, text: str, encoding: str) -> None:
    rows = "".join(f"{text} {i},{'ab'[i % 2]}\n" for i in range(20))
    found = table(tmp_path, f"input,output\n{rows}".encode(encoding))
    assert found.rows[3].values["input"] == f"{text} 3"


@pytest.mark.parametrize(
    ("text", "encoding", "says"),
    [
        ("Şifremi değiştiremiyorum, lütfen yardım edin", "cp1254", "not Windows-1252 either"),
        ("Příliš žlutoučký kůň úpěl ďábelské ódy", "cp1250", "not Windows-1252 either"),
        ("Kje je moje naročilo, želim vračilo, še čakam", "cp1250", "not Windows-1252 either"),
        ("Nem működik a jelszó, kérem, erről küldjön üzenetet", "cp1250", "not Windows-1252 either"),
    ],
)
def test_another_encoding_of_europe_is_not_read_as_windows_1252(
    tmp_path: Path, text: str, encoding: str, says: str
) -> None:
    with pytest.raises(DataError, match=says):
        table(tmp_path, ("input\toutput\n" + f"{text}\tlate\n" * 20).encode(encoding), "a.tsv")


def test_icelandic_is_read_as_windows_1252(tmp_path: Path) -> None:
    text = "input\toutput\n" + "Það er ekki hægt að skrá sig inn, hvað á ég að gera? Þetta er\tlate\n" * 20
    found = table(tmp_path, text.encode("cp1252"), "a.tsv")
    (how,) = found.how
    assert how == "Windows-1252 (line 2 and 19 more are not UTF-8; its special characters are ð, Þ, á, æ, é)"


def test_a_byte_that_windows_1252_lacks_or_a_line_of_utf8_is_refused(tmp_path: Path) -> None:
    rows = b"input,output\n" + "café déjà,late\n".encode("cp1252") * 90
    with pytest.raises(DataError, match="not Windows-1252 either"):
        table(tmp_path, rows + b"\x9dcaf\xe9,late\n")
    with pytest.raises(DataError, match="although 1 other line is; two encodings are mixed"):
        table(tmp_path, rows + "café,late\n".encode())
