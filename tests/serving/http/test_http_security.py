"""Keys, hosts and origins."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from http_server import HTTP, Start, WordByWord, chat_body, eventually
from rung.errors import RungError, ServingError
from rung.serving.http.errors import HttpRefusal
from rung.serving.http.security import ServerKeys, check_host, is_loopback, read_key

KEY, ADMIN = "key-of-a-client", "key-of-the-admin"
KEYS = ServerKeys(KEY, ADMIN)


def yes(_: object) -> str:
    return "yes"


def test_who_asks_needs_a_key_and_who_looks_needs_none(start: Start) -> None:
    server = start(WordByWord(yes), keys=KEYS)
    for key, status in ((None, 401), ("wrong-key", 401), (KEY + "x", 401), ("ключ", 401), (KEY, 200), (ADMIN, 200)):
        headers = {"Authorization": f"Bearer {key}".encode()} if key else {}
        for path in ("/v1/models", "/metrics"):
            assert HTTP.get(server.url + path, headers=headers).status_code == status
        reply = HTTP.post(f"{server.url}/v1/chat/completions", json=chat_body(), headers=headers)
        assert reply.status_code == status
        if status == 401:
            assert reply.json()["error"]["code"] == "invalid_api_key" and reply.headers["WWW-Authenticate"] == "Bearer"
    assert HTTP.get(f"{server.url}/v1/models", headers={"Authorization": f"Basic {KEY}"}).status_code == 401
    for path in ("/", "/health", "/ready", "/openapi.json"):
        assert HTTP.get(server.url + path).status_code == 200


def test_adapters_are_loaded_with_the_admin_key_alone(start: Start, tmp_path: Path) -> None:
    (tmp_path / "adapters" / "one").mkdir(parents=True)
    answerer = WordByWord(yes)
    server = start(answerer, keys=KEYS, adapters=tmp_path / "adapters")
    asked = {"lora_name": "mine", "lora_path": "one"}

    def post(path: str, body: object, key: str | None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return HTTP.post(server.url + path, json=body, headers=headers)

    assert post("/v1/load_lora_adapter", asked, None).status_code == 401
    assert post("/v1/load_lora_adapter", asked, KEY).status_code == 403
    done = post("/v1/load_lora_adapter", asked, ADMIN)
    assert (done.status_code, done.text) == (200, "Success: LoRA adapter 'mine' added successfully.")
    assert post("/v1/chat/completions", chat_body("mine"), KEY).status_code == 200
    assert Path(answerer.asks[-1].request.adapter or "").resolve() == tmp_path / "adapters" / "one"
    again = post("/v1/load_lora_adapter", asked, ADMIN)
    assert again.status_code == 400 and "loaded already" in again.json()["error"]["message"]
    assert post("/v1/load_lora_adapter", {**asked, "load_inplace": True}, ADMIN).status_code == 200
    outside = post("/v1/load_lora_adapter", {"lora_name": "x", "lora_path": "../.."}, ADMIN)
    assert outside.status_code == 400 and outside.json()["error"]["param"] == "lora_path"
    assert post("/v1/unload_lora_adapter", {"lora_name": "mine"}, KEY).status_code == 403
    done = post("/v1/unload_lora_adapter", {"lora_name": "mine"}, ADMIN)
    assert (done.status_code, done.text) == (200, "Success: LoRA adapter 'mine' removed successfully.")
    assert answerer.released == answerer.held and len(answerer.held) == 2
    assert post("/v1/unload_lora_adapter", {"lora_name": "mine"}, ADMIN).status_code == 404
    assert post("/v1/unload_lora_adapter", {"lora_name": "fake"}, ADMIN).status_code == 400

    def counted() -> str:
        return HTTP.get(f"{server.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}).text

    assert eventually(lambda: 'rung_requests_total{model="(adapters)",status="400"} 3.0' in counted())
    assert 'model="(adapters)",status="200"} 3.0' in counted() and 'model="other"' not in counted()


def test_without_an_admin_key_nobody_loads_adapters(start: Start, tmp_path: Path) -> None:
    server = start(WordByWord(yes), adapters=tmp_path)
    reply = HTTP.post(f"{server.url}/v1/load_lora_adapter", json={"lora_name": "a", "lora_path": "b"})
    assert reply.status_code == 403 and reply.json()["error"]["code"] == "no_admin_key"


@pytest.mark.parametrize("behind", ["%0A", "/", "%00", "%0D%0A"])
def test_no_spelling_of_a_path_goes_without_the_admin_key(start: Start, tmp_path: Path, behind: str) -> None:
    answerer = WordByWord(yes)
    for folder in ("one", "a"):
        (tmp_path / folder).mkdir()
    for keys in (ServerKeys(), ServerKeys(KEY, ADMIN)):
        server = start(answerer, keys=keys, adapters=tmp_path)
        asked, headers = {"lora_name": "mine", "lora_path": "one"}, {"Authorization": f"Bearer {KEY}"}
        url = f"{server.url}/v1/load_lora_adapter{behind}"
        assert HTTP.post(url, json=asked, headers=headers).status_code == 404
    assert not answerer.held


def test_who_needs_a_key_may_come_through_a_proxy_under_any_name(start: Start) -> None:
    server = start(WordByWord(yes), loopback=True, keys=KEYS)
    headers = {"Host": "models.example", "Authorization": f"Bearer {KEY}"}
    assert HTTP.get(f"{server.url}/v1/models", headers=headers).status_code == 200
    assert HTTP.get(f"{server.url}/v1/models", headers={"Host": "models.example"}).status_code == 401


def test_a_server_on_loopback_answers_to_its_own_names_alone(start: Start) -> None:
    server = start(WordByWord(yes), loopback=True)
    for host, status in ((f"localhost:{server.port}", 200), ("evil.example", 403), ("127.0.0.1.evil.example", 403)):
        assert HTTP.get(f"{server.url}/v1/models", headers={"Host": host}).status_code == status
    for good in ("127.0.0.1", "127.0.0.1:80", "[::1]:80", "LOCALHOST"):
        check_host(good)
    for bad in ("", None, "10.0.0.1", "localhost.evil", "[::2]"):
        with pytest.raises(HttpRefusal):
            check_host(bad)


def test_pages_of_other_origins_read_nothing_unless_theirs_is_named(start: Start) -> None:
    asking = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    for origins, allowed in (((), None), (("https://app.example",), "https://app.example")):
        server = start(WordByWord(yes), cors=origins, keys=KEYS)
        url = f"{server.url}/v1/chat/completions"
        assert HTTP.options(url, headers=asking).headers.get("Access-Control-Allow-Origin") == allowed
        refused = HTTP.post(url, json=chat_body(), headers={"Origin": "https://app.example"})
        assert refused.status_code == 401 and refused.headers.get("Access-Control-Allow-Origin") == allowed


def test_a_key_is_read_from_a_variable_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    (tmp_path / "key").write_text(f"{ADMIN}\n")
    assert read_key("MY_KEY", None, "api-key") == KEY
    assert read_key(None, tmp_path / "key", "api-key") == ADMIN
    assert read_key(None, None, "api-key") is None
    monkeypatch.setenv("MY_KEY", "")
    for variable, file in (("MY_KEY", None), ("OTHER", None), (None, tmp_path / "no"), ("MY_KEY", tmp_path / "key")):
        with pytest.raises(ServingError):
            read_key(variable, file, "api-key")


def test_a_variable_that_is_not_set_and_a_key_that_is_short_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "short")
    with pytest.raises(ServingError, match="8 or more"):
        read_key("MY_KEY", None, "api-key")
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ServingError, match="MY_KEY: the variable is not set"):
        read_key("MY_KEY", None, "api-key")


def test_which_hosts_are_this_machine_alone() -> None:
    assert is_loopback("127.0.0.1") and is_loopback("localhost") and is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    with pytest.raises(RungError, match="no such address"):
        is_loopback("no.such.host.invalid")
