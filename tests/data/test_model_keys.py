"""What names a model in task.yaml: names, specs and prices; and that no secret is read or repeated."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from broken import TASK, write

from rung.data.model_keys import ENDPOINT_KEYS, looks_like_a_secret
from rung.data.task_file import read_task, task_record
from rung.errors import TaskError
from rung.types import ModelSpec, Price

KEY = "sk-proj-" + "aB3dE5fG7h" * 4
OPENAI = "{endpoint: https://api.openai.com/v1, name: gpt-5-mini}"


def models(tmp_path: Path, more: str) -> tuple[ModelSpec, ...]:
    return read_task(write(tmp_path, TASK + more)).models


def test_an_endpoint_becomes_canonical_json_without_defaults(tmp_path: Path) -> None:
    (model,) = models(
        tmp_path,
        "model: {name: gpt-5-mini, endpoint: 'HTTPS://API.openai.com/v1/chat/completions', timeout: 600, batch: false, "
        "response_format: auto, params: {}, key_env: MY_KEY}",
    )
    assert model.spec == '{"endpoint": "https://api.openai.com/v1", "key_env": "MY_KEY", "name": "gpt-5-mini"}'
    assert (model.name, model.price) == ("gpt-5-mini", None)


@pytest.mark.parametrize(
    "keys",
    [
        "endpoint: https://api.openai.com/v1/, name: gpt-5-mini",
        "endpoint: 'http://[::1]:8000/v1', name: ünï/m, timeout: 60, in_flight: 4",
        "endpoint: 'https://x.openai.azure.com/openai?api-version=2024-10-21', name: deployed",
        "endpoint: https://x.openai.azure.com/openai, name: deployed, api_version: 2024-10-21",
        "endpoint: http://localhost:11434/v1, name: 'llama3.2:3b', response_format: json_object, batch: true",
        "endpoint: https://a.b/v1, name: m, key_env: K_1, params: {reasoning_effort: low, stop: [a, b], top_p: 0.5}",
    ],
)
def test_the_spec_is_the_text_that_the_models_room_writes(tmp_path: Path, keys: str) -> None:
    from rung.models.endpoint import spec

    (model,) = models(tmp_path, f"model: {{{keys}}}")
    assert spec.parse(model.spec).text == model.spec


def test_a_version_of_azure_may_be_written_as_yaml_reads_a_date(tmp_path: Path) -> None:
    (model,) = models(tmp_path, "model: {endpoint: https://x.openai.azure.com, name: m, api_version: 2024-10-21}")
    assert json.loads(model.spec)["api_version"] == "2024-10-21"


def test_several_models_keep_their_order_names_and_prices(tmp_path: Path) -> None:
    found = models(
        tmp_path,
        "models:\n  - smollm2-135m-instruct\n  - {name: org/big, load_in_4bit: true, price: {usd_per_hour: 2}}\n"
        "  - {endpoint: https://openrouter.ai/api/v1, name: 'openai/gpt-oss-120b:free'}\n"
        f"  - {OPENAI[:-1]}, label: mini, price: {{usd_per_million_in: 0.25, usd_per_million_out: 2}}}}\n"
        "price: {usd_per_hour: 0.4}\n",
    )
    assert [(m.name, m.price) for m in found] == [
        ("smollm2-135m-instruct", Price(0.4)),
        ("big-4bit", Price(2.0)),
        ("gpt-oss-120b-free", None),
        ("mini", Price(None, 0.25, 2.0)),
    ]
    assert found[1].spec == "org/big:4bit" and "label" not in found[3].spec and "price" not in found[3].spec


def test_names_of_models_fit_folders_and_hold_no_at(tmp_path: Path) -> None:
    names = [m.name for m in models(tmp_path, f"models: ['a/b@c:d', 'a/.hidden', 'x/{'long' * 40}', 'a/ünïcode']")]
    assert names == ["b-c-d", "hidden", "long" * 15, "ünïcode"]


def test_one_model_at_two_providers_needs_labels(tmp_path: Path) -> None:
    twice = "models: [{endpoint: https://a/v1, name: x/m}, {endpoint: https://b/v1, name: m%s}]"
    with pytest.raises(TaskError, match=r"models 1 and 2 are both called m\. Name the two models differently"):
        models(tmp_path, twice % "")
    assert [m.name for m in models(tmp_path, twice % ", label: m-at-b")] == ["m", "m-at-b"]


def test_the_price_of_a_task_is_that_of_its_only_model(tmp_path: Path) -> None:
    price = "price: {usd_per_million_in: 1, usd_per_million_out: 2, usd_per_million_cached: 0.5}"
    for one in (f"model: {OPENAI}", f"models: [{OPENAI}]", "model: a/b"):
        assert models(tmp_path, f"{one}\n{price}")[0].price == Price(None, 1.0, 2.0, 0.5)
    assert models(tmp_path, f"model: {OPENAI}\nprice: {{usd_per_hour: 3}}")[0].price == Price(3.0)


def test_dollars_may_be_limited_where_a_model_may_cost_some(tmp_path: Path) -> None:
    for more in (
        f"model: {OPENAI}",
        f"models: [a/b, {OPENAI}]",
        "models: [a/b, {name: c/d, price: {usd_per_hour: 1}}]",
        "model: a/b\nprice: {usd_per_hour: 1}",
        "model: a/b\nprice: {usd_per_million_in: 1, usd_per_million_out: 2}",
    ):
        assert read_task(write(tmp_path, f"{TASK}{more}\nbudget: {{usd: 2}}")).budget.usd == 2
    with pytest.raises(TaskError, match="what the machine costs"):
        models(tmp_path, "models: [a/b, c/d]\nbudget: {usd: 2}")


def test_rungs_own_engine_answers_unless_the_task_names_vllm(tmp_path: Path) -> None:
    assert read_task(write(tmp_path)).engine == "local"
    task = read_task(write(tmp_path, TASK + "engine: vllm"))
    assert task.engine == "vllm" and task_record(task)["engine"] == "vllm"


def test_concurrency_is_one_unless_the_task_says_more(tmp_path: Path) -> None:
    assert read_task(write(tmp_path)).concurrency == 1
    task = read_task(write(tmp_path, TASK + "concurrency: 32"))
    assert task.concurrency == 32 and task_record(task)["concurrency"] == 32


@pytest.mark.parametrize(
    "task",
    [
        f"model: {{endpoint: https://a/v1, name: m, key_env: {KEY}}}",
        f"model: {{endpoint: https://a/v1, name: m, key_env: {KEY.replace('-', '_')}}}",
        f"model: {{endpoint: https://a/v1, name: m, key_env: gsk_{KEY[8:]}}}",
        f"model: {{endpoint: https://a/v1, name: m, api_key: {KEY}}}",
        f"model: {{endpoint: https://a/v1, name: m, token: {KEY}}}",
        f"model: {{name: a/b, key: {KEY}}}",
        f"models: [a/b, {{endpoint: https://a/v1, name: m, Authorization: Bearer {KEY}}}]",
        f"model: {{endpoint: https://a/v1, name: m, params: {{api_key: {KEY}}}}}",
        f"model: {{endpoint: https://a/v1, name: m, params: {{deep: [{{user: {KEY}}}]}}}}",
        f"model: {{endpoint: 'https://me:{KEY}@a/v1', name: m}}",
        f"model: {{endpoint: 'https://a/v1?key={KEY}', name: m}}",
        f"model: 'https://me:{KEY}@a/v1'",
        f"model: 'https://a/v1?key={KEY}'",
        f"model: {{endpoint: https://a/v1, name: m, timeout: {KEY}}}",
        f"model: {{endpoint: https://a/v1, name: m, response_format: {KEY}}}",
        f"api_key: {KEY}",
        f"token: {KEY}",
    ],
)
def test_a_secret_is_refused_and_not_repeated(tmp_path: Path, task: str) -> None:
    with pytest.raises(TaskError) as caught:
        models(tmp_path, task)
    said = str(caught.value)
    assert KEY[8:20] not in said and KEY.replace("-", "_")[:20] not in said
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert "environment variable" in said or "seconds" in said or "Use one of" in said


def test_names_of_variables_are_no_secrets_and_keys_are() -> None:
    for name in ("OPENAI_API_KEY", "MY_VERY_LONG_NAME_OF_A_VARIABLE_2", "AZUREOPENAIKEYEASTUS2PROD", "my_key_eu2"):
        assert not looks_like_a_secret(name), name
    for key in (
        KEY,
        "AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
        "a" * 12 + "0123456789abcdef0123",
        "hf_abcdefghijklmnopq",
    ):
        assert looks_like_a_secret(key), key


def page() -> str:
    return (Path(__file__).parents[2] / "docs" / "endpoints.md").read_text("utf-8")


def test_every_key_of_an_endpoint_is_documented() -> None:
    table = re.findall(
        r"^\| `(\w+)` \|", page().split("## Keys of an endpoint")[1].split("## Providers")[0], re.MULTILINE
    )
    assert tuple(table) == ENDPOINT_KEYS


def test_the_variables_of_keys_in_the_page_are_those_that_are_read() -> None:
    from rung.models.endpoint.spec import parse

    rows = re.findall(r"^\| [^|]+ \| `(http[^`]+)` \| (?:`(\w+)`|none)", page(), re.MULTILINE)
    assert len(rows) == 11
    for address, variable in rows:
        assert parse(f"{address}#m").key_variable == (variable or None), address


def test_the_example_of_the_page_is_a_task(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(instruction.*?)```", page(), re.DOTALL)
    task = read_task(write(tmp_path, example))
    assert [m.name for m in task.models] == ["smollm2-135m-instruct", "gpt-5-mini"]
    assert [m.price for m in task.models] == [Price(0.4), None] and task.concurrency == 8
