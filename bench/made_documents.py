"""Small documents made without libraries: PDF, web pages, Word, PowerPoint and Excel files, the same bytes each time.

Tests and `bench/documents.py` read them back, so that no reader is held against itself.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

Said = tuple[float, float, float, str]
"""Left, height from below, size of letters, text."""
_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
_R = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_RELS = "http://schemas.openxmlformats.org/package/2006/relationships"
_PAD = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


# ---- PDF ----------------------------------------------------------------------------------------


def pdf_of(
    pages: Sequence[Sequence[Said] | bytes],
    *,
    title: str = "",
    outline: Sequence[tuple[int, str]] = (),
    password: str = "",
    extra: Sequence[bytes] = (),
    resources: bytes = b"",
) -> bytes:
    """pages: what stands on each, or its content stream. outline: (page from 0, heading). extra: further objects, of
    which the first is number 6. resources: entries of every page's resources."""
    first = 6 + len(extra)
    kids = " ".join(f"{first + 2 * i} 0 R" for i in range(len(pages)))
    marks = first + 2 * len(pages)
    ends = f"/First {marks} 0 R /Last {marks + len(outline) - 1} 0 R /Count {len(outline)}" if outline else ""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R /Outlines 5 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        f"<< /Title ({title}) >>".encode("latin-1"),
        f"<< /Type /Outlines {ends} >>".encode(),
        *extra,
    ]
    for i, page in enumerate(pages):
        content = page if isinstance(page, bytes) else b"\n".join(map(_shown, page))
        used = b"/Resources << /Font << /F1 3 0 R >> " + resources + b" >>"
        box = f"/Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {first + 2 * i + 1} 0 R ".encode()
        objects += [b"<< " + box + used + b" >>", stream_of(content)]
    for i, (page_number, heading) in enumerate(outline):
        beside = (f"/Prev {marks + i - 1} 0 R " if i else "") + (
            f"/Next {marks + i + 1} 0 R " if i + 1 < len(outline) else ""
        )
        target = f"/Dest [{first + 2 * page_number} 0 R /Fit]"
        objects.append(f"<< /Title ({heading}) /Parent 5 0 R {beside}{target} >>".encode("latin-1"))
    return _file_of(objects, _encryption(password) if password else None)


def stream_of(content: bytes, entries: bytes = b"") -> bytes:
    return b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(content), entries, content)


def ruled(left: float, bottom: float, rows: Sequence[Sequence[str]], width: float = 120, height: float = 20) -> bytes:
    """A content stream of a table with ruled lines."""
    right, top = left + width * len(rows[0]), bottom + height * len(rows)
    parts = [f"{left} {bottom + i * height} m {right} {bottom + i * height} l S" for i in range(len(rows) + 1)]
    parts += [f"{left + i * width} {bottom} m {left + i * width} {top} l S" for i in range(len(rows[0]) + 1)]
    for i, row in enumerate(rows):
        y = top - (i + 1) * height + 6
        parts += [_shown((left + j * width + 4, y, 10, cell)).decode("latin-1") for j, cell in enumerate(row)]
    return "\n".join(parts).encode("latin-1")


def _shown(said: Said) -> bytes:
    x, y, size, text = said
    written = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    return f"BT /F1 {size} Tf 1 0 0 1 {x} {y} Tm ({written}) Tj ET".encode("cp1252", "replace")


def _file_of(objects: Sequence[bytes], encryption: bytes | None) -> bytes:
    out = io.BytesIO()
    out.write(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, body in enumerate([*objects, *([encryption] if encryption else [])], 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = out.tell()
    count = len(places) + 1
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % count + b"".join(b"%010d 00000 n \n" % p for p in places))
    locked = b"/Encrypt %d 0 R /ID [<00> <00>] " % (count - 1) if encryption else b""
    out.write(b"trailer\n<< /Size %d /Root 1 0 R /Info 4 0 R %s>>\nstartxref\n%d\n%%%%EOF\n" % (count, locked, start))
    return out.getvalue()


def _encryption(password: str) -> bytes:
    """The standard security handler, revision 2. What is locked is not encrypted: no reader comes so far."""
    padded = (password.encode() + _PAD)[:32]
    owner = _rc4(hashlib.md5(padded).digest()[:5], padded)
    key = hashlib.md5(padded + owner + b"\xfc\xff\xff\xff" + b"\0").digest()[:5]
    user = _rc4(key, _PAD)
    return b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >>" % (owner.hex().encode(), user.hex().encode())


def _rc4(key: bytes, data: bytes) -> bytes:
    box, j = list(range(256)), 0
    for i in range(256):
        j = (j + box[i] + key[i % len(key)]) % 256
        box[i], box[j] = box[j], box[i]
    out, i, j = bytearray(), 0, 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + box[i]) % 256
        box[i], box[j] = box[j], box[i]
        out.append(byte ^ box[(box[i] + box[j]) % 256])
    return bytes(out)


# ---- web pages ----------------------------------------------------------------------------------


def html_of(title: str, body: str, language: str = "") -> bytes:
    """body: its HTML."""
    said = f" lang='{language}'" if language else ""
    head = f"<head><meta charset='utf-8'><title>{escape(title)}</title></head>"
    return f"<!DOCTYPE html><html{said}>{head}<body>{body}</body></html>".encode()


# ---- Office -------------------------------------------------------------------------------------


def archive_of(parts: Mapping[str, str | bytes]) -> bytes:
    """A zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return out.getvalue()


def paragraph(text: str, style: str = "") -> str:
    """A paragraph of Word. style: "Heading1", …"""
    said = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{said}<w:r><w:t xml:space='preserve'>{escape(text)}</w:t></w:r></w:p>"


def word_table(rows: Sequence[Sequence[str]]) -> str:
    cells = ("".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) for row in rows)
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


def docx_of(body: str, *, title: str = "", parts: Mapping[str, str | bytes] | None = None) -> bytes:
    """body: paragraphs and tables. parts: of the archive, instead of those that are made."""
    styles = "".join(
        f'<w:style w:type="paragraph" w:styleId="Heading{n}"><w:name w:val="heading {n}"/></w:style>' for n in (1, 2, 3)
    )
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml"
    made: dict[str, str | bytes] = {
        "[Content_Types].xml": _types(
            {"/word/document.xml": f"{main}.document.main+xml", "/word/styles.xml": f"{main}.styles+xml"}
        ),
        "_rels/.rels": _relations({"officeDocument": "word/document.xml"}),
        "word/_rels/document.xml.rels": _relations({"styles": "styles.xml"}),
        "word/styles.xml": f"<w:styles {_W}>{styles}</w:styles>",
        "word/document.xml": f"<w:document {_W}><w:body>{body}</w:body></w:document>",
    }
    if title:
        made["docProps/core.xml"] = (
            f'<c xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{escape(title)}</dc:title></c>'
        )
    return archive_of(made | dict(parts or {}))


def xlsx_of(sheets: Mapping[str, Sequence[Sequence[str]]], *, parts: Mapping[str, str | bytes] | None = None) -> bytes:
    """sheets: name -> rows of texts."""
    main = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    types = {"/xl/workbook.xml": f"{main}.sheet.main+xml"}
    made: dict[str, str | bytes] = {}
    listed, relations = "", {}
    for number, (name, rows) in enumerate(sheets.items(), 1):
        types[f"/xl/worksheets/sheet{number}.xml"] = f"{main}.worksheet+xml"
        relations[f"worksheet{number}"] = f"worksheets/sheet{number}.xml"
        listed += f'<sheet name="{escape(name)}" sheetId="{number}" r:id="worksheet{number}"/>'
        cells = ("".join(f'<c t="inlineStr"><is><t>{escape(c)}</t></is></c>' for c in row) for row in rows)
        data = "".join(f"<row>{row}</row>" for row in cells)
        made[f"xl/worksheets/sheet{number}.xml"] = f"<worksheet {_s()}><sheetData>{data}</sheetData></worksheet>"
    made = {
        "[Content_Types].xml": _types(types),
        "_rels/.rels": _relations({"officeDocument": "xl/workbook.xml"}),
        "xl/_rels/workbook.xml.rels": _relations(relations),
        "xl/workbook.xml": f'<workbook {_s()} xmlns:r="{_R}"><sheets>{listed}</sheets></workbook>',
    } | made
    return archive_of(made | dict(parts or {}))


def pptx_of(slides: Sequence[tuple[str, Sequence[str]]], *, parts: Mapping[str, str | bytes] | None = None) -> bytes:
    """slides: title and lines of each."""
    main = "application/vnd.openxmlformats-officedocument.presentationml"
    types = {"/ppt/presentation.xml": f"{main}.presentation.main+xml"}
    made: dict[str, str | bytes] = {}
    listed, relations = "", {}
    for number, (title, lines) in enumerate(slides, 1):
        types[f"/ppt/slides/slide{number}.xml"] = f"{main}.slide+xml"
        relations[f"slide{number}"] = f"slides/slide{number}.xml"
        listed += f'<p:sldId id="{255 + number}" r:id="slide{number}"/>'
        shapes = _shape(2, '<p:ph type="title"/>', [title]) + _shape(3, '<p:ph idx="1"/>', lines)
        made[f"ppt/slides/slide{number}.xml"] = (
            f"<p:sld {_p()}><p:cSld><p:spTree>{_GROUP}{shapes}</p:spTree></p:cSld></p:sld>"
        )
    made = {
        "[Content_Types].xml": _types(types),
        "_rels/.rels": _relations({"officeDocument": "ppt/presentation.xml"}),
        "ppt/_rels/presentation.xml.rels": _relations(relations),
        "ppt/presentation.xml": f"<p:presentation {_p()}><p:sldIdLst>{listed}</p:sldIdLst></p:presentation>",
    } | made
    return archive_of(made | dict(parts or {}))


_GROUP = '<p:nvGrpSpPr><p:cNvPr id="1" name=""/><p:cNvGrpSpPr/><p:nvPr/></p:nvGrpSpPr><p:grpSpPr/>'


def _shape(number: int, place: str, lines: Sequence[str]) -> str:
    said = "".join(f"<a:p><a:r><a:t>{escape(line)}</a:t></a:r></a:p>" for line in lines)
    named = f'<p:nvSpPr><p:cNvPr id="{number}" name="{number}"/><p:cNvSpPr/><p:nvPr>{place}</p:nvPr></p:nvSpPr>'
    at = f'<p:spPr><a:xfrm><a:off x="0" y="{number}"/><a:ext cx="9" cy="9"/></a:xfrm></p:spPr>'
    return f"<p:sp>{named}{at}<p:txBody><a:bodyPr/>{said}</p:txBody></p:sp>"


def _s() -> str:
    return 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def _p() -> str:
    drawing = "http://schemas.openxmlformats.org/drawingml/2006/main"
    main = "http://schemas.openxmlformats.org/presentationml/2006/main"
    return f'xmlns:p="{main}" xmlns:a="{drawing}" xmlns:r="{_R}"'


def _types(parts: Mapping[str, str]) -> str:
    named = "".join(f'<Override PartName="{name}" ContentType="{kind}"/>' for name, kind in parts.items())
    rels = '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    xml = '<Default Extension="xml" ContentType="application/xml"/>'
    return f'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">{rels}{xml}{named}</Types>'


def _relations(targets: Mapping[str, str]) -> str:
    """Id -> target; the id without its number is the type."""
    made = "".join(
        f'<Relationship Id="{name}" Type="{_R}/{name.rstrip("0123456789")}" Target="{target}"/>'
        for name, target in targets.items()
    )
    return f'<Relationships xmlns="{_RELS}">{made}</Relationships>'
