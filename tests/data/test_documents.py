from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from documents import broken_documents
from made_documents import docx_of, paragraph, pdf_of, pptx_of, ruled, word_table, xlsx_of
from rung.data.corpus import read_corpus, read_documents, texts_of
from rung.data.documents import workers
from rung.data.documents.markdown import pipe_table
from rung.data.documents.web_page import markdown_of
from rung.data.fixing import fix_task
from rung.data.task_file import read_task
from rung.errors import DataError
from rung.retrieval.chunk import chunk
from rung.types import Document, Finding

pytest.importorskip("pypdfium2")
pytest.importorskip("mammoth")
pytest.importorskip("pptx")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("RUNG_CACHE", str(folder))
    return folder


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    return folder


def only(folder: Path) -> Document:
    (document,) = read_corpus(folder)
    return document


def test_a_pdf_keeps_headings_paragraphs_tables_and_pages(docs: Path) -> None:
    first = [(72, 720, 24, "Fees"), (72, 680, 12, "A card costs"), (72, 664, 12, "5 euros."), (72, 600, 16, "Loans"),
             (72, 570, 12, "Loans are free of any fee, and are paid out at once.")]  # fmt: skip
    table = ruled(72, 500, [["Card", "Fee"], ["Gold", "12"]]) + b"\nBT /F1 12 Tf 1 0 0 1 72 400 Tm (After it.) Tj ET"
    (docs / "a.pdf").write_bytes(pdf_of([first, table]))
    loans = "Loans are free of any fee, and are paid out at once."
    page = "| Card | Fee |\n| --- | --- |\n| Gold | 12 |\n\nAfter it."
    text = f"# Fees\n\nA card costs\n5 euros.\n\n## Loans\n\n{loans}\f{page}"
    assert only(docs) == Document("a.pdf", text, "Fees", markdown=True)


def test_the_outline_of_a_pdf_names_its_headings_and_running_titles_go(docs: Path) -> None:
    pages = [
        [
            (72, 760, 10, f"Report of the bank {n}"),
            (72, 700, 12, f"{n}. Part {name}"),
            (72, 680, 12, f"Text of {name}."),
        ]
        for n, name in enumerate(("one", "two", "three", "four"), 1)
    ]
    outline = [(n, f"Part {name}") for n, name in enumerate(("one", "two", "three", "four"))]
    (docs / "a.pdf").write_bytes(pdf_of(pages, title="A report", outline=outline))
    document = only(docs)
    assert document.title == "A report" and "Report of the bank" not in document.text
    assert document.text.split("\f")[1] == "# 2. Part two\n\nText of two."


def test_a_word_file_keeps_headings_and_tables(docs: Path) -> None:
    body = paragraph("Leave", "Heading1") + paragraph("26 weeks.") + word_table([["Kind", "Days"], ["Flu", "5"]])
    (docs / "a.docx").write_bytes(docx_of(body, title="Handbook"))
    text = "# Leave\n\n26 weeks.\n\n| Kind | Days |\n| --- | --- |\n| Flu | 5 |"
    assert only(docs) == Document("a.docx", text, "Handbook", markdown=True)


def test_slides_and_sheets_are_pages(docs: Path) -> None:
    (docs / "a.pptx").write_bytes(pptx_of([("Plan", ["One", "Two"]), ("End", ["Only"])]))
    (docs / "b.xlsx").write_bytes(
        xlsx_of({"Prices": [["Item", "Price"], ["Pen", "2"]], "Stock": [["Item", "n"], ["Pen", "9"]]})
    )
    slides, sheets = read_corpus(docs)
    assert slides == Document("a.pptx", "# Plan\n\n- One\n- Two\f# End\n\nOnly", "Plan", markdown=True)
    assert sheets.text.split("\f")[0] == "# Prices\n\n| Item | Price |\n| --- | --- |\n| Pen | 2 |"
    assert read_corpus(docs / "b.xlsx") == (Document("b.xlsx", sheets.text, markdown=True),)


def test_a_web_page_is_read_without_its_menus(docs: Path) -> None:
    page = (
        "<html><head><title>Fees - Bank</title><link rel=canonical href=https://b.example/fees></head><nav>Menu</nav>"
        "<h1>Fees</h1><p>A card\ncosts <b>5</b> euros.<ul><li>One<li>Two<ol><li>a</ol></ul><table>"
        "<caption>All</caption><tr><th>Card<th>Fee<tr><td rowspan=2>Gold<td>12<tr><td>13</table><pre># x\n  y</pre>"
        "<script>no</script><footer>Imprint</footer>"
    )
    (docs / "a.html").write_text(page)
    text = (
        "# Fees\n\nA card costs 5 euros.\n\n- One\n- Two\n  1. a\n\nAll\n\n"
        "| Card | Fee |\n| --- | --- |\n| Gold | 12 |\n| Gold | 13 |\n\n```\n# x\n  y\n```"
    )
    assert only(docs) == Document("a.html", text, "Fees", markdown=True, source="https://b.example/fees")


def test_a_page_that_is_nearly_all_menu_is_read_whole() -> None:
    assert "Opening hours" in markdown_of(f"<nav>{'Opening hours are long. ' * 20}</nav><p>x</p>").text


def test_lines_that_look_like_headings_or_code_are_marked_as_none_and_passages_show_them_as_they_are() -> None:
    page = "<p># 1 of the list<br>| x<p>``` a<ul><li># b</ul><table><tr><td># c<td>d<tr><td>e<td>f</table>"
    text = markdown_of(page).text
    assert text == "\\# 1 of the list\n| x\n\n\\``` a\n\n- # b\n\n| # c | d |\n| --- | --- |\n| e | f |"
    document = Document("d", f"# T\n\nabove\f{text}", markdown=True)
    (whole,), parts = chunk([document]), chunk([document], max_words=4)
    assert whole.text == document.text.replace("\f\\", "\n").replace("\\", "")
    assert len(parts) > 2 and {p.title for p in parts} == {"T"} and not any("\\" in p.text for p in parts)


def test_cells_of_a_table_that_arranges_a_page_stand_once() -> None:
    menu, long = "<td rowspan=3 colspan=2>Prices", "word " * 300
    page = f"<table><tr>{menu}<td>{long}<tr><td>two<tr><td>Prices too</table>"
    assert markdown_of(page).text == f"Prices\n\n{long.strip()}\n\ntwo\n\nPrices too"


def test_a_large_table_repeats_its_header() -> None:
    table = pipe_table([["Item", "Price"], *([f"Item {n}", str(n)] for n in range(200))])
    blocks = table.split("\n\n")
    assert len(blocks) > 2 and all(block.startswith("| Item | Price |\n| --- | --- |\n| Item ") for block in blocks)
    assert sum(block.count("\n") - 1 for block in blocks) == 200


def test_rows_in_a_folder_have_ids_behind_the_path_and_addresses_as_sources(docs: Path) -> None:
    (docs / "a.jsonl").write_text('{"id": 1, "text": "a", "url": "http://x/1"}\n{"text": "b"}\n')
    (docs / "b.csv").write_text("question,answer\nWhat?,That\n")
    assert read_corpus(docs) == (
        Document("a.jsonl/1", "a", source="http://x/1"),
        Document("a.jsonl/line-2", "b"),
        Document("b.csv", "| question | answer |\n| --- | --- |\n| What? | That |", markdown=True),
    )


def test_a_column_of_markdown_is_the_text(tmp_path: Path) -> None:
    path = tmp_path / "pages.jsonl"
    path.write_text('{"url": "https://b.example/a", "markdown": "# Fees"}\n')
    assert read_corpus(path) == (Document("line-1", "# Fees", markdown=True, source="https://b.example/a"),)


def test_how_a_file_of_rows_in_a_folder_was_understood_is_told(docs: Path) -> None:
    (docs / "a.csv").write_bytes("id;text\n1;Gebühr\n2;Öffnung\n".encode("cp1252"))
    read = read_documents(docs)
    documents, findings = read.documents, read.findings
    assert [d.text for d in documents] == ["Gebühr", "Öffnung"]
    assert any("a.csv: " in f.message and "Windows-1252" in f.message for f in findings), findings


def test_a_table_without_rows_is_no_document_and_a_link_to_a_folder_is_told(docs: Path, tmp_path: Path) -> None:
    (docs / "words.json").write_text('["one", "two"]')
    (docs / "empty.json").write_text("[{}]")
    (docs / "a.txt").write_text("text")
    (tmp_path / "elsewhere").mkdir()
    (docs / "link").symlink_to(tmp_path / "elsewhere")
    read = read_documents(docs)
    documents, findings = read.documents, read.findings
    assert [(d.id, d.text) for d in documents] == [("a.txt", "text"), ("words.json", '["one", "two"]')]
    told = {(f.check, f.row) for f in findings if f.row}
    assert told == {("broken_document", "link"), ("empty_document", "empty.json"), ("document_form", "words.json")}


def test_a_table_with_too_much_text_is_left_out(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rung.data.documents.tables.MAX_CHARACTERS", 10)
    (docs / "a.csv").write_text("a,b\n12345,123456\n")
    (docs / "b.txt").write_text("text")
    read = read_documents(docs)
    documents, (finding, _) = read.documents, read.findings
    assert [d.id for d in documents] == ["b.txt"] and "a.csv: holds over" in finding.message


def test_arrows_of_a_word_file_stay(docs: Path) -> None:
    (docs / "a.docx").write_bytes(docx_of(paragraph("Press ↑ twice.")))
    assert only(docs).text == "Press ↑ twice."


def test_a_list_of_fetched_pages_gives_sources_to_files(docs: Path) -> None:
    (docs / "pages").mkdir()
    (docs / "pages" / "1.html").write_text("<h1>Fees</h1><p>5 euros")
    (docs / "urls.csv").write_text("url,file\nhttps://b.example/fees,pages/1.html\nhttps://b.example/x,pages/2.html\n")
    page = Document("pages/1.html", "# Fees\n\n5 euros", "Fees", markdown=True, source="https://b.example/fees")
    read = read_documents(docs)
    documents, (absent, _) = read.documents, read.findings
    assert documents == (page,)
    assert absent.check == "broken_document" and "names pages/2.html, which is not there" in absent.message
    assert read_corpus(docs / "urls.csv") == (page,)
    assert texts_of(docs / "urls.csv") == [docs / "urls.csv", docs / "pages" / "1.html"]
    assert texts_of(docs) == [docs / "pages" / "1.html", docs / "urls.csv"]


def test_a_table_of_addresses_and_html_is_read_as_pages(tmp_path: Path) -> None:
    path = tmp_path / "pages.jsonl"
    path.write_text(json.dumps({"url": "https://b.example/fees", "html": "<title>T</title><h2>Fees</h2><p>5 euros"}))
    assert read_corpus(path) == (Document("line-1", "## Fees\n\n5 euros", "T", True, source="https://b.example/fees"),)


def test_files_of_the_task_and_folders_of_runs_are_no_documents(docs: Path) -> None:
    (docs / "runs").mkdir()
    for name in ("runs/task.json", "runs/events.jsonl", "runs/README.md", "a.md", "examples.jsonl"):
        (docs / name).write_text('{"text": "x"}')
    assert [d.id for d in read_corpus(docs, [docs / "examples.jsonl"])] == ["a.md"]
    assert texts_of(docs, [docs / "examples.jsonl"]) == [docs / "a.md"]


def test_scanned_pages_are_said_and_a_folder_of_them_is_an_error(docs: Path) -> None:
    (docs / "scan.pdf").write_bytes(pdf_of([b"0 0 500 700 re f"] * 2))
    with pytest.raises(DataError, match=r"scan.pdf: 2 of 2 pages \(1, 2\) hold no text"):
        read_corpus(docs)
    (docs / "a.txt").write_text("text")
    read = read_documents(docs)
    documents, findings = read.documents, read.findings
    assert [d.id for d in documents] == ["a.txt"] and {f.check for f in findings} == {"scanned_pages"}
    assert findings[-1].message == "docs: 1 of 2 files has pages without text that can be read."


def test_a_file_that_cannot_be_read_stops_no_other_and_alone_is_an_error(docs: Path) -> None:
    (docs / "a.pdf").write_bytes(pdf_of([[(72, 700, 12, "x")]], password="p"))
    (docs / "b.jsonl").write_text('{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n')
    read = read_documents(docs)
    documents, findings = read.documents, read.findings
    assert [d.id for d in documents] == ["b.jsonl/1"]
    assert [(f.check, f.severity) for f in findings] == [("broken_document", "warning")] * 3
    assert (findings[2].row, findings[2].count) == ("", 0)
    assert findings[2].message == "docs: 1 of 2 files and 1 row of the others cannot be read, and are left out."
    assert "b.jsonl, line 2" in findings[0].message and "protected by a password" in findings[1].message
    with pytest.raises(DataError, match=r"a\.pdf: is protected by a password"):
        read_corpus(docs / "a.pdf")


_SLOW = {"endless.pdf", "bomb.docx", "bomb.txt.gz", "huge.txt", "two-million-items.html", "deep.docx", "huge-cell.csv",
         "huge-table.docx", "far-cell.xlsx", "closed.txt"}  # fmt: skip


def test_each_broken_document_has_one_message_and_stops_no_other(docs: Path) -> None:
    """All that are quick; `bench/documents.py` reads the others too."""
    made = [broken for broken in broken_documents() if broken.name not in _SLOW]
    for broken in made:
        broken.make(docs / broken.name)
    (docs / "sound.txt").write_text("text")
    read = read_documents(docs)
    ids = {d.id for d in read.documents}

    def told(name: str) -> list[Finding]:
        return [f for f in read.findings if f.row == name or f.row.startswith(f"{name},")]

    for broken in made:
        name = broken.name.replace("\n", "\ufffd").replace("\udcff", "\ufffd")
        assert any(i == name or i.startswith(f"{name}/") for i in ids) == (broken.expect == "read"), name
        messages = [f.message for f in told(name)]
        assert len(messages) == (1 if broken.says or broken.expect == "left out" else 0), (name, messages)
        assert broken.says in "".join(messages) and "Traceback" not in "".join(messages), (name, messages)
    assert "sound.txt" in ids and len(made) >= 60


def test_a_file_that_takes_for_ever_costs_its_seconds_alone(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "SECONDS", 1.0)
    next(b for b in broken_documents() if b.name == "endless.pdf").make(docs / "a.pdf")
    (docs / "b.pdf").write_bytes(pdf_of([[(72, 700, 12, "read all the same")]]))
    read = read_documents(docs)
    documents, (finding, _) = read.documents, read.findings
    assert [d.text for d in documents] == ["read all the same"]
    assert finding.message.startswith("a.pdf: took over 1 seconds to be read")


def test_what_was_read_is_kept_by_content(docs: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (docs / "a.pdf").write_bytes(pdf_of([[(72, 700, 12, "one")]]))
    first = read_corpus(docs)
    (docs / "a.pdf").rename(docs / "moved.pdf")
    monkeypatch.setattr(workers, "_Worker", None)  # nothing is parsed again
    assert [d.text for d in read_corpus(docs)] == [d.text for d in first]
    (kept,) = (own_cache / "documents").rglob("*.json")
    kept.write_text("{")
    monkeypatch.undo()
    monkeypatch.setenv("RUNG_CACHE", str(own_cache))
    assert [d.text for d in read_corpus(docs)] == [d.text for d in first]
    monkeypatch.setattr("rung.data.documents.kept.python_version", lambda: "4.0.0")  # whose parser may read otherwise
    read_corpus(docs)
    assert len(list((own_cache / "documents").rglob("*.json"))) == 2


def test_ctrl_c_while_files_are_read_ends_at_once_and_leaves_no_process(docs: Path, tmp_path: Path) -> None:
    next(b for b in broken_documents() if b.name == "endless.pdf").make(docs / "a.pdf")
    code = f"""
import os, signal, sys, threading
from pathlib import Path
from rung.data.corpus import read_documents
from rung.data.documents import workers
threading.Timer(1.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    read_documents(Path({str(docs)!r}))
except KeyboardInterrupt:
    try:
        print("ended", os.waitpid(-1, os.WNOHANG))
    except ChildProcessError:
        print("no child is left")
"""
    environment = os.environ | {"RUNG_CACHE": str(tmp_path / "c")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=20)
    assert done.stdout.strip() == "no child is left", (done.stdout, done.stderr)


def test_a_worker_that_was_ended_starts_no_process_again(docs: Path) -> None:
    worker = workers._Worker()
    worker.end()
    assert "interrupted" in worker.parse(docs / "a.html", "web").problem and worker._process is None


def test_without_the_extra_files_are_counted_with_what_to_install(docs: Path, tmp_path: Path) -> None:
    (docs / "a.pdf").write_bytes(pdf_of([[(72, 700, 12, "one")]]))
    (docs / "b.html").write_text("<p>text")
    code = f"""
import sys
sys.modules["pypdfium2"] = None
from pathlib import Path
from rung.data.documents import workers
from rung.data.documents.reading import parse
workers._Worker.parse = lambda self, path, kind: parse(path, kind)
from rung.data.corpus import read_documents
read = read_documents(Path({str(docs)!r}))
documents, findings = read.documents, read.findings
print([d.id for d in documents], [(f.check, f.count, f.message) for f in findings])
"""
    environment = os.environ | {"RUNG_CACHE": str(tmp_path / "c")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "['b.html'] [('unread_documents', 1, 'docs: 1 of 2 files is not read (1 × .pdf)" in done.stdout, done.stderr
    assert 'pip install "rung[documents]"' in done.stdout


def test_names_that_utf8_cannot_hold_are_shown_and_kept_apart(docs: Path) -> None:
    for name in (b"a\xff.txt", b"a\xfe.txt"):
        (docs / os.fsdecode(name)).write_text("text")
    assert [d.id for d in read_corpus(docs)] == ["a\ufffd.txt", "a\ufffd.txt (2)"]


def test_many_files_tell_how_far_reading_is(docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_MANY_FILES", 2)
    for name in "ab":
        (docs / f"{name}.html").write_text(f"<p>{name}")
    said: list[str] = []
    read_documents(docs, said.append)
    assert said == ["Reading 2 files of documents (1 MB)."]
    read_documents(docs, said.append)  # kept
    assert len(said) == 1


def test_a_cleaned_copy_of_documents_keeps_pages_markdown_and_sources(docs: Path, tmp_path: Path) -> None:
    (docs / "a.pdf").write_bytes(pdf_of([[(72, 700, 12, "Write to mia@mail.example")], [(72, 700, 12, "two")]]))
    (docs / "b.html").write_text("<link rel=canonical href=https://b.example/x><p>text")
    rows = [json.dumps({"input": f"question number {n}", "output": f"answer {n}"}) for n in range(20)]
    (docs / "e.jsonl").write_text("\n".join(rows))
    task = tmp_path / "task.yaml"
    task.write_text("instruction: Answer.\nexamples: docs/e.jsonl\nmetric: exact_match\ncorpus: docs\n")
    fixed = fix_task(read_task(task), tmp_path / "out", mask=True)
    corpus = read_task(fixed.task).corpus
    assert corpus is not None and read_corpus(corpus) == (
        Document("a.pdf", "Write to <EMAIL_1>\ftwo", markdown=True),
        Document("b.html", "text", markdown=True, source="https://b.example/x"),
    )
