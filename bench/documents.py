"""Broken documents: is each met with one clear message, and are the others read all the same?

    python bench/documents.py [--seconds 5] [--json]

Makes a folder of over sixty broken files and a few sound ones, the same bytes each time, and reads it as a corpus. A
broken file is met well where exactly one finding names it (or none, where its text was read) and reading goes on. Each
file is also read alone, as the whole corpus: it is then read, or an error of rung's own says why not. Prints a line a
file, the seconds and the peak memory of the processes. --seconds: that one file may take (60 in use).
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from made_documents import archive_of, docx_of, paragraph, pdf_of, pptx_of, stream_of, word_table, xlsx_of

Outcome = Literal["read", "left out"]
Make = Callable[[Path], None]
TEXT = "The card costs 5 euros a year."


@dataclass(frozen=True)
class Broken:
    """expect: whether its text can be had. says: what the message must hold; "" where none is needed."""

    name: str
    make: Make
    expect: Outcome
    says: str = ""


def _bytes(content: bytes) -> Make:
    return lambda path: _write(path, content)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _link(target: str) -> Make:
    return lambda path: path.symlink_to(target)


def _closed(path: Path) -> None:
    path.write_text(TEXT)
    path.chmod(0)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _endless_pdf() -> bytes:
    """Forms that draw each other, 30 times each, twelve deep."""
    forms = [
        stream_of(
            b"/X Do " * 30,
            b"/Type /XObject /Subtype /Form /BBox [0 0 9 9] /Resources << /XObject << /X %d 0 R >> >>" % (7 + i),
        )
        for i in range(12)
    ]
    last = stream_of(b"0 0 1 1 re f", b"/Type /XObject /Subtype /Form /BBox [0 0 9 9]")
    return pdf_of([b"/X Do"], extra=[*forms, last], resources=b"/XObject << /X 6 0 R >>")


def _deep_xml(depth: int) -> str:
    return "<w:r>" * depth + "</w:r>" * depth


PDF = pdf_of([[(72, 720, 12, TEXT)]] * 3)
DOCX = docx_of(paragraph(TEXT))
XLSX = xlsx_of({"Fees": [["Card", "Fee"], ["Gold", "5"]]})
PPTX = pptx_of([("Fees", [TEXT])])
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
_BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;">]><d>&c;</d>'
)
WORD, BOOK, SLIDES = "word/document.xml", "xl/workbook.xml", "ppt/presentation.xml"

SOUND: dict[str, bytes] = {
    "sound.txt": TEXT.encode(),
    "sound.pdf": PDF,
    "sound.docx": DOCX,
    "sound.xlsx": XLSX,
    "sound.pptx": PPTX,
    "sound.html": f"<p>{TEXT}".encode(),
}


def broken_documents() -> list[Broken]:
    """Sixty and some kinds. Long because it is a list."""
    no_text, damaged = "holds no text", "damaged"
    return [
        # nothing in it
        Broken("empty.txt", _bytes(b""), "left out", no_text),
        Broken("empty.md", _bytes(b""), "left out", no_text),
        Broken("empty.pdf", _bytes(b""), "left out", "is not PDF"),
        Broken("empty.docx", _bytes(b""), "left out", "is not a Word file"),
        Broken("empty.html", _bytes(b""), "left out", no_text),
        Broken("empty.csv", _bytes(b""), "left out", no_text),
        Broken("spaces.txt", _bytes(b" \n\t\n" * 100), "left out", no_text),
        Broken("scripts.html", _bytes(b"<html><script>let a = 1</script><style>p {}</style>"), "left out", no_text),
        Broken("blank.pdf", _bytes(pdf_of([b""])), "left out", no_text),
        Broken("empty-body.docx", _bytes(docx_of("")), "left out", no_text),
        Broken("no-slides.pptx", _bytes(pptx_of([])), "left out", no_text),
        Broken("no-rows.xlsx", _bytes(xlsx_of({"A": []})), "left out", no_text),
        Broken("header-alone.csv", _bytes(b"id,text\n"), "left out", "no rows"),
        # cut off or damaged
        Broken("cut.pdf", _bytes(PDF[: len(PDF) // 2]), "left out", damaged),
        Broken("cut-end.pdf", _bytes(PDF[:-12]), "read"),
        Broken("cut-early.pdf", _bytes(PDF[:40]), "left out", damaged),
        Broken("cut.docx", _bytes(DOCX[: len(DOCX) // 2]), "left out", damaged),
        Broken("cut.xlsx", _bytes(XLSX[: len(XLSX) // 2]), "left out", damaged),
        Broken("cut.pptx", _bytes(PPTX[: len(PPTX) // 2]), "left out", damaged),
        Broken("cut.html", _bytes(f"<html><body><p>{TEXT}<table><tr><td".encode()), "read"),
        Broken("cut.jsonl", _bytes(b'{"id": "a", "text": "b"}\n{"id": "c", "te'), "read", "not valid JSON"),
        Broken("cut.txt.gz", _bytes(gzip.compress(TEXT.encode() * 99, mtime=0)[:60]), "left out", damaged),
        Broken("zeroed.pdf", _bytes(PDF[:300] + b"\0" * 200 + PDF[500:]), "read", "page 1 of 3"),
        Broken("noise.pdf", _bytes(b"%PDF-1.7\n" + bytes(range(256)) * 40), "left out", damaged),
        Broken("noise.docx", _bytes(b"PK\x03\x04" + bytes(range(256)) * 40), "left out", damaged),
        Broken("noise.xlsx", _bytes(b"PK\x03\x04" + bytes(range(256)) * 40), "left out", damaged),
        Broken("bad-xml.docx", _bytes(docx_of("", parts={WORD: "<w:document><w:p>"})), "left out", damaged),
        Broken("bad-xml.xlsx", _bytes(xlsx_of({}, parts={BOOK: "<workbook"})), "left out", damaged),
        Broken("bad-xml.pptx", _bytes(pptx_of([], parts={SLIDES: "<p"})), "left out", damaged),
        Broken("no-relations.pptx", _bytes(archive_of({"ppt/presentation.xml": "<p/>"})), "left out", damaged),
        Broken("page-count.pdf", _bytes(PDF.replace(b"/Count 3", b"/Count 9")), "read", "6 of 9 pages"),
        Broken("kids-in-a-circle.pdf", _bytes(PDF.replace(b"[6 0 R 8 0 R", b"[2 0 R 2 0 R")), "read", "2 of 3 pages"),
        # another thing than its name says
        Broken("text.pdf", _bytes(TEXT.encode()), "left out", "is not PDF"),
        Broken("text.docx", _bytes(TEXT.encode()), "left out", "is not a Word file"),
        Broken("text.xlsx", _bytes(TEXT.encode()), "left out", "is not an Excel file"),
        Broken("pdf.txt", _bytes(PDF), "read", "read as PDF"),
        Broken("page.txt", _bytes(f"<!DOCTYPE html><p>{TEXT}".encode()), "read", "read as a web page"),
        Broken("word.pptx", _bytes(DOCX), "read", "read as a Word file"),
        Broken("sheet.csv", _bytes(XLSX), "read", "read as an Excel file"),
        Broken("picture.txt", _bytes(PICTURE), "left out", "picture"),
        Broken("binary.txt", _bytes(bytes(range(256)) * 20), "left out", "binary"),
        Broken("binary.md", _bytes(b"\0\1\2\3" * 500), "left out", "binary"),
        Broken("zip.txt", _bytes(archive_of({"a": "b"})), "left out", "packed or binary"),
        Broken("packed.txt", _bytes(gzip.compress(TEXT.encode(), mtime=0)), "left out", "packed or binary"),
        Broken("old.docx", _bytes(OLE), "left out", "protected by a password, or of a format before 2007"),
        Broken("zip.docx", _bytes(archive_of({"a.txt": TEXT})), "left out", damaged),
        Broken("pointer.pdf", _bytes(b"version https://git-lfs.github.com/spec/v1\n"), "left out", "is not PDF"),
        # protected
        Broken("locked.pdf", _bytes(pdf_of([[(72, 720, 12, TEXT)]], password="a")), "left out", "password"),
        Broken("locked.xlsx", _bytes(OLE), "left out", "password"),
        Broken("closed.txt", _closed, "left out", "permission"),
        # made to hurt
        Broken("bomb.docx", _bytes(docx_of("", parts={WORD: b" " * 300_000_000})), "left out", "unpacks"),
        Broken("bomb.txt.gz", _bytes(gzip.compress(b"a" * 250_000_000, mtime=0)), "left out", "larger than"),
        Broken("entities.docx", _bytes(docx_of("", parts={WORD: _BOMB})), "left out", "entities"),
        Broken("entities.xlsx", _bytes(xlsx_of({}, parts={BOOK: _BOMB})), "left out", "entities"),
        Broken("entities.pptx", _bytes(pptx_of([], parts={SLIDES: _BOMB})), "left out", "entities"),
        Broken("deep.html", _bytes(b"<div>" * 200_000 + TEXT.encode()), "read"),
        Broken("deep-tables.html", _bytes(b"<table><tr><td>" * 20_000 + TEXT.encode()), "read"),
        Broken("deep.docx", _bytes(docx_of(_deep_xml(50_000))), "left out", "nested too deeply"),
        Broken("deep.json", _bytes(b"[" * 100_000), "read", "read as text"),
        Broken("endless.pdf", _bytes(_endless_pdf()), "left out"),
        Broken("wide-cell.html", _bytes(b"<table>" + b"<tr><td colspan=99999999 rowspan=99999999>a<td>b" * 50), "read"),
        Broken("huge-cell.csv", _bytes(b"id,text\n1," + b"a" * 10_500_000 + b"\n2,b\n"), "left out", "longer than"),
        Broken("huge.txt", _bytes(b"word " * 10_500_000), "left out", "larger than 50 MB"),
        Broken("far-cell.xlsx", _bytes(XLSX_FAR), "read"),
        Broken("two-million-items.html", _bytes(b"<li>a" * 2_000_000), "read"),
        # encodings
        Broken("cp1252.txt", _bytes("Die Gebühr beträgt 5 €.".encode("cp1252")), "read", "Windows-1252"),
        Broken("cp1251.txt", _bytes("Где мой заказ".encode("cp1251")), "left out", "not UTF-8"),
        Broken("cp1251.html", _bytes("<meta charset=windows-1251><p>Где мой заказ".encode("cp1251")), "read"),
        Broken("wrong-charset.html", _bytes("<meta charset=windows-1251><p>Gebühr".encode()), "read"),
        Broken("no-charset.html", _bytes("<meta charset=x-none><p>Где заказ".encode("cp1251")), "left out", "x-none"),
        Broken("utf16.txt", _bytes("Die Gebühr".encode("utf-16")), "read", "UTF-16"),
        Broken("mixed.txt", _bytes("Gebühr\n".encode() + "Gebühr\n".encode("cp1252")), "left out", "two encodings"),
        Broken("surrogates.jsonl", _bytes(b'{"id": 1, "text": "\\ud800"}\n{"text": "d"}\n'), "read", "surrogate"),
        # rows
        Broken("twice.jsonl", _bytes(b'{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n'), "read", "make ids unique"),
        Broken("no-file.csv", _bytes(b"url,file\nhttp://a/b,absent.html\n"), "left out", "is not there"),
        Broken("outside.csv", _bytes(b"url,file\nhttp://a/b,../../etc/passwd\n"), "left out", "outside the folder"),
        Broken("widths.csv", _bytes(b"id,text\n1,a\n2,b,c,d\n3,e\n"), "read", "fields"),
        # names and links
        Broken("link.txt", _link("absent.txt"), "left out", "a link to nothing"),
        Broken("circle.txt", _link("circle.txt"), "left out", "a link to nothing"),
        Broken("line\nbreak.txt", _bytes(TEXT.encode()), "read"),
        Broken("byte\udcff.txt", _bytes(TEXT.encode()), "read"),
        Broken("ü" * 120 + ".txt", _bytes(TEXT.encode()), "read"),
        Broken("pipe.txt", _fifo, "left out", "no file that holds data"),
        # pages
        Broken("scan.pdf", _bytes(pdf_of([b"0 0 500 700 re f"] * 2)), "left out", "Run text recognition"),
        Broken("half-scan.pdf", _bytes(pdf_of([[(72, 720, 12, TEXT)], b"0 0 500 700 re f"])), "read", "page 2 of 2"),
        Broken("huge-table.docx", _bytes(docx_of(word_table([["a", "b"]] * 1_000))), "read"),
    ]  # fmt: skip


XLSX_FAR = xlsx_of(
    {},
    parts={
        "xl/workbook.xml": '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://'
        'schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="A" sheetId="1" r:id="r1"/>'
        "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        '<Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" '
        'Target="worksheets/sheet1.xml"/></Relationships>',
        "xl/worksheets/sheet1.xml": '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
        '<sheetData><row r="1"><c r="A1"><v>1</v></c><c r="B1"><v>2</v></c></row><row r="1048576"><c r="A1048576">'
        '<v>5</v></c><c r="XFD1048576"><v>7</v></c></row></sheetData></worksheet>',
    },
)


def make_folder(folder: Path) -> tuple[list[Broken], list[str]]:
    """Writes all files; returns the broken ones, and the names of the sound ones."""
    made = []
    for broken in broken_documents():
        if broken.name == "closed.txt" and os.geteuid() == 0:
            continue  # root reads it
        broken.make(folder / broken.name)
        made.append(broken)
    for name, content in SOUND.items():
        (folder / name).write_bytes(content)
    return made, list(SOUND)


def measure(folder: Path) -> dict[str, Any]:
    """Reads the folder, then each file alone."""
    from rung.data.corpus import read_documents
    from rung.data.documents.collected import shown_name
    from rung.errors import RungError

    made, sound = make_folder(folder)
    begun = time.perf_counter()
    corpus = read_documents(folder)
    seconds = time.perf_counter() - begun
    ids = {d.id for d in corpus.documents}
    lines = []
    for broken in made:
        name = shown_name(broken.name)
        told = [f for f in corpus.findings if f.row == name or f.row.startswith(f"{name},")]
        is_read = any(i == name or i.startswith(f"{name}/") for i in ids)
        outcome: Outcome = "read" if is_read else "left out"
        message = told[0].message if told else ""
        alone, failed = "read", ""
        try:
            read_documents(folder / broken.name)
        except RungError as e:
            alone = str(e).splitlines()[0]
        except Exception as e:  # which the bench is there to find
            failed = f"{type(e).__name__}: {e}"
        one = len(told) == 1 if broken.says or outcome == "left out" else not told
        right = (
            one and outcome == broken.expect and broken.says in message and "Traceback" not in message and not failed
        )
        lines.append(
            {"file": name[:40], "outcome": outcome, "message": message, "check": told[0].check if told else "",
             "messages": len(told), "alone": alone, "failed": failed, "right": right}
        )  # fmt: skip
    peaks = [resource.getrusage(who).ru_maxrss / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "files": lines,
        "right": sum(line["right"] is True for line in lines),
        "of": len(lines),
        "sound_read": len(set(sound) & ids),
        "sound": len(sound),
        "seconds": seconds,
        "peak_gb": {"reading": peaks[0], "worker": peaks[1]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    from rung.data.documents import workers

    workers.SECONDS = options.seconds
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
        os.environ["RUNG_CACHE"] = cache
        found = measure(Path(folder))
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        print()
        return
    for line in found["files"]:
        mark = "" if line["right"] else "  <- not as expected" + (f" ({line['failed']})" if line["failed"] else "")
        print(f"{line['file']:<24}  {line['outcome']:<8}  {line['message'] or '-'}{mark}")
    peak = found["peak_gb"]
    print(
        f"\n{found['right']} of {found['of']} broken files are met with one clear message or read; "
        f"{found['sound_read']} of {found['sound']} sound ones are read. {found['seconds']:.1f} s, "
        f"peak {peak['reading']:.2f} GB here and {peak['worker']:.2f} GB in a worker."
    )


if __name__ == "__main__":
    main()
