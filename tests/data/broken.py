"""Broken tasks and data files, by name: each a builder of a folder and what the one error must say.

A builder writes into a folder and returns the path of the task.yaml to read. `says` is a fragment of the
message, which must also name the file in `file`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

TASK = "name: demo\ninstruction: Answer.\nexamples: examples.jsonl\n"
_JUDGE = "metric: judge\njudge: {name: m, rubric: r"


@dataclass(frozen=True)
class Broken:
    build: Callable[[Path], Path]
    says: str
    file: str = "task.yaml"


def rows(n: int = 20, **more: object) -> list[dict[str, object]]:
    """n good examples, no two alike."""
    return [{"input": f"question {i} about {'abcdefgh'[i % 8] * 3}", "output": f"answer {i}", **more} for i in range(n)]


def write(
    folder: Path, task: str | bytes = TASK, data: str | bytes | None = None, name: str = "examples.jsonl", **extra: str
) -> Path:
    """A folder with task.yaml, the examples and further text files (`a__b` writes a.b)."""
    folder.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(r) + "\n" for r in rows()) if data is None else data
    files: Mapping[str, str | bytes] = {
        "task.yaml": task,
        name: data,
        **{k.replace("__", "."): v for k, v in extra.items()},
    }
    for file, text in files.items():
        (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / "task.yaml"


def _task(more: str, says: str, **extra: str) -> Broken:
    return Broken(lambda folder: write(folder, TASK + more + "\n", **extra), says)


def _endpoint(more: str, says: str) -> Broken:
    return _task(f"model: {{endpoint: http://a/v1, name: m, {more}}}", says)


def _whole(text: str | bytes, says: str) -> Broken:
    return Broken(lambda folder: write(folder, text), says)


def _rows(change: Mapping[int, object], says: str, more: str = "") -> Broken:
    """Good rows but for some: position -> the row instead, or the raw line."""

    def build(folder: Path) -> Path:
        lines: list[object] = list(rows())
        for i, row in change.items():
            lines[i] = row
        text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in lines)
        return write(folder, TASK + more, text)

    return Broken(build, says, "examples.jsonl")


def _file(name: str, data: str | bytes, says: str, more: str = "") -> Broken:
    task = TASK.replace("examples.jsonl", name) + more
    return Broken(lambda folder: write(folder, task, data, name), says, name)


def _csv(says: str, header: str = "input,output", last: str = "x,y", more: str = "") -> Broken:
    good = "".join(f"question {i},answer {i}\n" for i in range(20))
    return _file("examples.csv", f"{header}\n{good}{last}\n", says, more)


def _long_line(folder: Path) -> Path:
    path = write(folder)
    with (folder / "examples.jsonl").open("ab") as file:
        for _ in range(40):
            file.write(b"x" * 1_000_000)
    return path


def _corpus(says: str, *, file: str = "corpus.jsonl", text: str | None = None) -> Broken:
    def build(folder: Path) -> Path:
        path = write(folder, TASK + f"corpus: {file}\n")
        if text is None:
            (folder / file).mkdir()
        else:
            (folder / file).write_text(text)
        return path

    return Broken(build, says, file)


def _folder_as_examples(folder: Path) -> Path:
    path = write(folder, TASK.replace("examples.jsonl", "more"))
    (folder / "more").mkdir()
    return path


def _task_is_a_folder(folder: Path) -> Path:
    (folder / "task.yaml").mkdir(parents=True)
    return folder / "task.yaml"


GOOD = {"input": "a", "output": "b"}
BROKEN: dict[str, Broken] = {
    # task.yaml as a file
    "no task": Broken(lambda folder: folder / "task.yaml", "no such file"),
    "task is a folder": Broken(_task_is_a_folder, "holds no task.yaml"),
    "empty task": _whole("", "the file is empty"),
    "only comments": _whole("# nothing\n", "the file is empty"),
    "task is a list": _whole("- a\n- b\n", "must be a mapping"),
    "task is a text": _whole("hello\n", "must be a mapping"),
    "bad YAML": _whole(TASK + "labels: [a, b\n", "not valid YAML"),
    "tab in YAML": _whole(TASK + "\tlabels: [a, b]\n", "line 4"),
    "task in Latin-1": _whole(TASK.replace("Answer", "Réponds").encode("latin-1"), "line 2: byte 0xe9 is not UTF-8"),
    "task with control characters": _whole(TASK + 'pattern: "\x07"\n', "line 4: not valid YAML"),
    "task nested too deeply": _whole(TASK + "labels: " + "[" * 1000 + "]" * 1000, "nested too deeply"),
    "impossible date": _whole(TASK + "pattern: 2020-13-45\n", "cannot be read"),
    "YAML aliases": _whole(TASK + "labels: &a [x, *a]\n", "aliases"),
    "Python object": _whole(TASK + "labels: !!python/object:os.system {}\n", "not valid YAML"),
    "half a surrogate pair": _whole(TASK + 'pattern: "\\ud800"\n', "surrogate"),
    # its keys
    "unknown key": _task("metrik: exact_match", 'line 4: unknown key "metrik". Did you mean "metric"?'),
    "unknown key of budget": _task("budget: {minute: 3}", 'unknown key "minute". Did you mean "minutes"?'),
    "key that is no text": _task("on: push", 'line 4: unknown key "on"'),
    "duplicate key": _task("name: other", 'line 4: the key "name" stands twice, first on line 1'),
    "key without value": _task("corpus:", 'line 4: "corpus" has no value'),
    "no instruction": _whole("examples: examples.jsonl\n", 'no "instruction"'),
    "no examples key": _whole("instruction: Answer.\n", 'no "examples"'),
    "empty instruction": _whole(TASK.replace("Answer.", '" "'), 'line 2: "instruction" is empty'),
    "instruction is a list": _whole(TASK.replace("Answer.", "[a]"), '"instruction" is a list, but must be text'),
    "name is a number": _whole(TASK.replace("demo", "12"), 'quote it: "12"'),
    "name with a slash": _whole(TASK.replace("demo", "a/b"), "cannot name the run's folder"),
    "target 90": _task("target: 90", "line 4: \"target\" is 90, but scores go from 0 to 1. Write target: 0.9"),
    "target 90 %": _task('target: "90%"', "Write target: 0.9"),
    "target 0": _task("target: 0", "above 0"),
    "target NaN": _task("target: .nan", "above 0"),
    "target true": _task("target: true", "is true or false"),
    "bad metric": _task("metric: exact_mach", 'Did you mean "exact_match"?'),
    "metric judge": _task("metric: judge", "metric is judge, but no judge is named"),
    "metric without file": _task("metric: python:score.py:score", "which does not exist"),
    "metric without function": _task("metric: python:score.py", "python:file.py:function"),
    "labels are a text": _task("labels: a, b", "Write labels: [first, second]"),
    "one label": _task("labels: [a]", "at least two"),
    "duplicate label": _task("labels: [a, b, a]", 'names "a" twice, items 1 and 3'),
    "empty label": _task('labels: [a, ""]', "empty label"),
    "label of a mapping is yes": _task("labels: {yes: agrees, maybe: does not}", "a label that YAML reads as true or"),
    "meaning is a list": _task("labels: {a: [b], c: d}", 'a list as the meaning of "a"'),
    "one label in a mapping": _task("labels: {a: first}", "at least two"),
    "label yes": _task("labels:\n  - yes\n  - maybe", 'line 5: "labels", item 1 is yes, which YAML reads as'),
    "label 1": _task("labels: [1, 2]", 'quote it: "1"'),
    "labels and pattern": _task("labels: [a, b]\npattern: a|b", "labels and pattern both"),
    "absent schema": _task("schema: answer.json", '"schema" names answer.json, which does not exist'),
    "schema not JSON": _task("schema: answer.json", "not valid JSON", answer__json="{type: object"),
    "schema is a list": _task("schema: answer.json", "a list, not a JSON object", answer__json="[]"),
    "schema with a date": _task("schema: {const: 2020-01-01}", "JSON cannot hold"),
    "bad pattern": _task("pattern: '(a'", "line 4: \"pattern\" is no regular expression"),
    "absent corpus": _task("corpus: docs/", 'line 4: "corpus" names docs/, which does not exist'),
    "corpus is a picture": _task("corpus: book.png", "cannot be read", book__png="x"),
    "unknown field": _task("fields: {inptu: question}", 'Did you mean "input"?'),
    "fields are a text": _task("fields: question", "Write fields:"),
    "one column twice": _task("fields: {input: a, output: a}", 'uses the column "a"'),
    "endpoint without a model": _task("model: {endpoint: http://localhost/v1}", 'line 4: "model" has no name. Write {'),
    "endpoint without an address": _task("model: {name: m, key_env: K}", "names no endpoint"),
    "endpoint that is no address": _task("model: {endpoint: localhost, name: m}", '"model.endpoint" is no address'),
    "endpoint called url": _task("model: {url: 'http://a/v1', name: m}", 'unknown key. Did you mean "endpoint"?'),
    "endpoint in 4 bits": _endpoint("load_in_4bit: true", "is an unknown key"),
    "endpoint with a password": _task("model: {endpoint: 'https://u:p@a/v1', name: m}", "holds a user, a password"),
    "endpoint with a key in the address": _task("model: {endpoint: 'https://a/v1?key=x', name: m}", "or parameters"),
    "endpoint with the name in the address": _task("model: {endpoint: 'https://a/v1#m', name: m}", "Write name: m"),
    "model at an address": _task(
        "model: https://example.com/v1/", "Write {endpoint: https://example.com/v1, name: MODEL, key_env: VARIABLE}"
    ),
    "model as JSON text": _task("model: '{\"endpoint\": \"http://a\"}'", "Write it without quotes"),
    "model is a number": _task("model: 7", 'quote it: "7"'),
    "an API key": _endpoint("api_key: sk-1", "into an environment variable"),
    "an API key beside the model": _task("api_key: sk-1", 'line 4: "api_key" would hold a secret'),
    "an API key as key_env": _endpoint("key_env: sk-12", "key_env: OPENAI_API_KEY"),
    "no seconds": _endpoint("timeout: 0", '"model.timeout" is 0, but must be a number'),
    "timeout in words": _endpoint("timeout: 2m", "is text, but must be a number of sec"),
    "no calls in flight": _endpoint("in_flight: 0", "a whole number from 1"),
    "response format": _endpoint("response_format: json", "Use one of auto, json_sch"),
    "params that rung sets": _endpoint("params: {n: 2}", "which rung sets itself"),
    "params with a date": _endpoint("params: {d: 2020-01-01}", "JSON cannot hold"),
    "price that is no number": _task("model: {name: a/b, price: {usd_per_hour: x}}", '"model.price.usd_per_hour" is'),
    "price without a price": _task("price: {}", '"price" says no price'),
    "price of half the tokens": _task("price: {usd_per_million_in: 1}", "needs usd_per_million_in and usd_per_million"),
    "price of a teacher is a number": _task(
        "teacher: {endpoint: http://a, name: m, price: 0.5}", "Write price: {usd_per_million_in: 0.25, usd_per_million"
    ),
    "price in euros": _task("price: {eur_per_hour: 1}", 'Did you mean "usd_per_hour"?'),
    "price twice": _task("price: {usd_per_hour: 1}\nmodel: {name: a, price: {usd_per_hour: 1}}", "price stands twice"),
    "model and models": _task("model: a/b\nmodels: [a/c]", "model and models both"),
    "no models": _task("models: []", 'line 4: "models" names no model. Write models:'),
    "models are a text": _task("models: a/b", '"models" is text, but must be a list'),
    "two models of one name": _task("models: [a/m, b/M]", "Name the two models differently with label:"),
    "second model is wrong": _task("models:\n  - a/b\n  - {name: c/d, prize: 1}", 'line 6: "models.prize", item 2'),
    "price of tokens for several": _task(
        "models: [a/b, c/d]\nprice: {usd_per_million_in: 1, usd_per_million_out: 2}", "Give each endpoint its own price"
    ),
    "price by the hour for endpoints": _task(
        "models: [{endpoint: http://a, name: m}, {endpoint: http://a, name: n}]\nprice: {usd_per_hour: 1}", "Delete it"
    ),
    "label with an at": _task("model: {name: a/b, label: x@y}", "holds '@', so it cannot name folders"),
    "label with a slash": _task("model: {name: a/b, label: x/y}", "so it cannot name folders"),
    "4 bits of a number": _task("model: {name: org/name, load_in_4bit: 4}", "Write load_in_4bit: true"),
    "misspelt 4 bits": _task("model: {name: org/name, load_in_4bits: true}", 'Did you mean "load_in_4bit"?'),
    "name of a model is a number": _task("model: {name: 7}", '"model.name" is a number, not text'),
    "absent model folder": _task("model: {name: ./absent, load_in_4bit: true}", "names ./absent, which does not exist"),
    "teacher without a name": _task("teacher: {endpoint: http://localhost}", '"teacher" has no name'),
    "teacher is a number": _task("teacher: 5", "Write teacher: {endpoint:"),
    "teacher in two": _task("teacher: [a, b]", '"teacher" is a list, which names no model. Write teacher:'),
    "teacher with a key": _task("teacher: {endpoint: http://a, name: m, api_key: x}", '"teacher.api_key" would hold'),
    "judge is a text": _task("metric: judge\njudge: gpt", '"judge" is text, but must be a mapping. Write'),
    "judge without a rubric": _task("metric: judge\njudge: {name: m}", '"judge" has no rubric: say what a good'),
    "rubric is a number": _task("metric: judge\njudge: {name: m, rubric: 5}", '"judge.rubric" is a number, but must'),
    "rubric is empty": _task("metric: judge\njudge: {name: m, rubric: ' '}", '"judge.rubric" is empty. Say what'),
    "judge names no model": _task("metric: judge\njudge: {rubric: r}", '"judge" names no model. Write judge:'),
    "judge is a number": _task("metric: judge\njudge: {name: 5, rubric: r}", '"judge.name" is a number, not text'),
    "model within judge": _task(f"{_JUDGE}, model: a}}", "what names the model stands beside the rubric"),
    "judge with a typo": _task(f"{_JUDGE}, sampels: 2}}", 'Did you mean "samples"?'),
    "judge with another name of its endpoint": _task(f"{_JUDGE}, base_url: u}}", 'Did you mean "endpoint"?'),
    "judge with another key": _task(f"{_JUDGE}, xyz: 2}}", "The keys here are rubric, mode, samples,"),
    "judge with a mode": _task(f"{_JUDGE}, mode: pair}}", '"judge.mode" is "pair". Did you mean "pairwise"?'),
    "judge with no sample": _task(f"{_JUDGE}, samples: 0}}", '"judge.samples" is 0, but must be a whole number from 1'),
    "fallback is a list": _task(f"{_JUDGE}, fallback: [a]}}", '"judge.fallback" is a list. Use one of exact_match'),
    "fallback that needs sets": _task(f"{_JUDGE}, fallback: label_set_f1}}", "judge.fallback: label_set_f1 compares"),
    "tolerance of a fallback": _task(f"{_JUDGE}}}\ntolerance: 0.1", "judge.fallback: tolerance says nothing"),
    "judge without its metric": _task("judge: {name: m, rubric: r}", "Write metric: judge, or delete judge"),
    "metric in capitals": _task("metric: Judge", 'Did you mean "judge"?'),
    "scores without a judge": _task("judged: examples.jsonl", "there is no judge to hold against them. Write judge:"),
    "rows are a number": _task("unlabelled: 5", '"unlabelled" must name files of rows, but holds a number'),
    "rows are no file": _task("synthetic: []", '"synthetic" names no file. Write synthetic: synthetic.jsonl'),
    "rows are not there": _task("preferences: exmaples.jsonl", "Did you mean examples.jsonl?"),
    "rows are an empty text": _task("judged: ''", "but holds an empty text. Write judged:"),
    "repeats once": _task("repeats: 1", '"repeats" is 1, but must be from 2 to 100. Write repeats: 10'),
    "repeats is a text": _task("repeats: often", '"repeats" is text, but must be a whole number. Write repeats: 10'),
    "cite without documents": _task("cite: true", "cite asks for sources, but there are no documents to name"),
    "cite with labels": _task("labels: [a, b]\ncite: true\ncorpus: .", "and labels leaves no room for them"),
    "cite with a pattern": _task("pattern: '[0-9]+'\ncite: true\ncorpus: .", "and pattern leaves no room for them"),
    "abstain is empty": _task("abstain: ''", '"abstain" is empty. Write abstain:'),
    "abstain is no label": _task("labels: [a, b]\nabstain: none", 'abstain is "none", which is no label'),
    "abstain breaks the pattern": _task("pattern: '[0-9]+'\nabstain: none", 'abstain is "none", which breaks'),
    "no concurrency": _task("concurrency: 0", '"concurrency" is 0, but should be greater than or equal to 1'),
    "concurrency is a text": _task("concurrency: many", "the requests that your product has in flight at once"),
    "absent model file": _task("model: m.gguf", "which does not exist"),
    "engine of another name": _task("engine: ollama", 'Write engine: vllm where vLLM is to answer'),
    "negative seed": _task("seed: -1", '"seed" is -1, but should be greater than or equal to 0'),
    "seed is a text": _task("seed: one", '"seed" is text, but must be a whole number'),
    "budget is a number": _task("budget: 30", "Write budget: {minutes: 30}"),
    "dollars without a price": _task("budget: {usd: 2}", "Write price: {usd_per_hour: 0.40}"),
    "dollars in words": _task("budget: {usd: one}", 'usd" is text, but must be a number. Write budget: {usd: 5}'),
    "dollars below none": _task("budget: {usd: -1}", "Write budget: {usd: 5}"),
    "dollars for an unnamed judge": _task("metric: judge\nbudget: {usd: 2}", "no judge is named. Write judge:"),
    "no minutes": _task("budget: {minutes: 0}", "should be greater than 0"),
    "absent examples": _whole(TASK.replace("examples.jsonl", "other.jsonl"), "line 3: \"examples\" names other.jsonl"),
    "examples are an empty folder": Broken(_folder_as_examples, "a folder without files of rows"),
    "unknown set": _whole(TASK.replace("examples.jsonl", "{train: examples.jsonl, tset: x}"), 'Did you mean "test"?'),
    "no test set": _whole(TASK.replace("examples.jsonl", "{train: examples.jsonl}"), 'has no "test"'),
    "one file for two sets": _whole(
        TASK.replace("examples.jsonl", "{train: examples.jsonl, test: examples.jsonl}"), "its own file"
    ),
    # examples
    "empty examples": _file("examples.jsonl", "", "the file holds no rows"),
    "blank examples": _file("examples.jsonl", "\n\n", "the file holds no rows"),
    "too few examples": _file("examples.jsonl", json.dumps(GOOD), "only 1 example; at least 12"),
    "invalid JSON line": _rows({3: '{"input": '}, "line 4: not valid JSON"),
    "NaN": _rows({3: '{"input": "a", "output": NaN}'}, 'line 4: "output" is null'),
    "infinity": _rows({3: '{"input": "a", "output": Infinity}'}, "line 4: Infinity is not a value in JSON"),
    "number too large": _rows({3: '{"input": "a", "output": 1e999}'}, "line 4: the number 1e999 is too large"),
    "JSON too deep": _rows({3: "[" * 100_000}, "line 4: not usable JSON"),
    "key twice in JSON": _rows({3: '{"input": "a", "input": "b"}'}, "stands twice"),
    "row is a list": _rows({3: ["a", "b"]}, "line 4: not an object"),
    "null output": _rows({3: {"input": "a", "output": None}}, 'line 4: "output" is null'),
    "empty input": _rows({3: {"input": " ", "output": "a"}}, 'line 4: "input" is empty'),
    "row without output": _rows({3: {"input": "a"}}, 'line 4: no "output"'),
    "many bad rows": _rows({i: {"input": "a"} for i in range(15)}, "15 problems in its rows"),
    "duplicate ids": _rows({3: {**GOOD, "id": "x"}, 5: {**GOOD, "id": "x"}}, 'line 6: the id "x" is that of examples'),
    "references are a mapping": _rows({3: {**GOOD, "references": {"b": 1}}}, "not a list of texts"),
    "references hold null": _rows({3: {**GOOD, "references": [None]}}, "holds nothing (null)"),
    "surrogate in a row": _rows({3: '{"input": "a", "output": "\\ud800"}'}, "surrogate"),
    "NUL in a row": _rows({3: '{"input": "a", "output": "b\\u0000"}'}, "NUL"),
    "unknown label": _rows(
        {i: {"input": f"q{i}", "output": "lost" if i else "lots"} for i in range(20)},
        'line 1: the answer "lots" is not one of the 2 labels; did you mean "lost"?',
        "labels: [lost, found]\n",
    ),
    "answer is no JSON": _rows({}, "20 problems", "metric: json_match\n"),
    "missing column": _file(
        "examples.jsonl",
        "".join(json.dumps({"first": f"q{i}", "second": "r", "third": "s"}) + "\n" for i in range(20)),
        "no column looks like the output; columns are first, second, third. Name them in task.yaml with fields: {input",
    ),
    "field names no column": _rows({}, 'no column "topic"', "fields: {group: topic}\n"),
    "examples in Windows-1251": _file(
        "examples.jsonl", '{"input": "Где мой заказ", "output": "a"}\n'.encode("cp1251"), "line 1: byte 12 of the line"
    ),
    "examples in two encodings": _file(
        "examples.jsonl", "".join(json.dumps({"input": f"é {i}"}, ensure_ascii=False) + "\n" for i in range(9)).encode()
        + '{"input": "é"}'.encode("latin-1"), "line 10: byte 12 of the line (0xe9) is not UTF-8, although 9 other lines"
    ),
    "examples in cut UTF-16": _file("examples.jsonl", json.dumps(GOOD).encode("utf-16")[:-1], "begins as UTF-16 but"),
    "binary examples": _file("examples.jsonl", bytes(range(256)) * 40, "holds binary data, not text"),
    "a 40 MB line": Broken(_long_line, "longer than 10 MB", "examples.jsonl"),
    "JSON holds no list": _file("examples.json", "{}", "must hold a list"),
    "broken JSON": _file("examples.json", "[\n{]", "line 2"),
    "CSV without column": _csv("columns are id, group", header="id,group"),
    "CSV with two separators": _file(
        "examples.csv", "input;a,b;output\n" * 2 + "a;b,c;d\n" * 20,
        "can be read in two ways. Split by commas: [input;a] [b;output]. Split by semicolons: [input] [a,b] [output]."
    ),
    "CSV with only a header": _file("examples.csv", "input,output\n", "a header but no rows"),
    "CSV row too long": _csv("line 22: 3 fields, but the header has 2", last="x,y,z"),
    "CSV row too short": _csv("line 22: 1 field, but", last="x"),
    "CSV open quote": _csv("line 22: a quote is opened here and never closed", last='x,"y\nand more'),
    "CSV bad quote": _csv("line 22: not valid CSV", last='"x, y" z,a'),
    "CSV bad quote over lines": _csv("line 22: not valid CSV to line 23", last='"x\n y" z,a'),
    "CSV huge field": _csv(
        "line 22: a field is longer than 10 MB", last='x,"' + ("y" * 1000 + "\n") * 10_100 + '"'
    ),
    "CSV with NUL": _csv("line 22: holds a NUL byte", last="x,\0"),
    "CSV column twice": _csv('two columns are called "input"', header="input,input"),
    "CSV empty cell": _csv('line 22: "output" is empty', last="x,"),
    # documents
    "empty corpus": _corpus("the file holds no rows", text=""),
    "corpus folder without texts": _corpus("no file of documents in the folder", file="docs"),
    "corpus is no PDF": _corpus("is not PDF, although its name ends in .pdf", file="book.pdf", text="text"),
    "corpus without text": _corpus('columns are id, one, two. Rename', text='{"id": 1, "one": "b", "two": "c"}'),
    "corpus with empty text": _corpus('no row holds text', text='{"id": 1, "text": ""}'),
    "corpus with duplicate ids": _corpus('the id "1" is', text='{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}'),
}  # fmt: skip
