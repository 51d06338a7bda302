"""What a client is told when something is wrong: its own protocol's shape, with code, hint and trace."""

from __future__ import annotations

import json
import pathlib
import typing

import anthropic
import httpx
import openai
import pytest

import harness
from conftest import World

HELLO = [{"role": "user", "content": "Say hello."}]
CHAT = "/v1/chat/completions"


def openai_error(response: httpx.Response) -> dict[str, typing.Any]:
    """The error object, complete as the table of codes promises."""
    assert response.headers["content-type"].startswith("application/json"), response.text
    error = response.json()["error"]
    for field in ("message", "type", "code", "hint", "trace_id"):
        assert isinstance(error[field], str), (field, error)
        assert error[field], (field, error)
    assert response.headers["x-seawall-trace"] == error["trace_id"]
    return error


def raises(kind: type[openai.APIStatusError], call: typing.Callable[[], object]) -> openai.APIStatusError:
    """The error that the call raises."""
    with pytest.raises(kind) as caught:
        call()
    return caught.value


def test_unknown_model(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    error = raises(openai.NotFoundError, lambda: client.chat.completions.create(model="nope", messages=HELLO))
    assert error.code == "model_unknown"
    openai_error(error.response)
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.messages.create(model="nope", messages=HELLO, max_tokens=5)
    body = caught.value.response.json()
    assert body["type"] == "error"
    assert body["error"]["type"] == "not_found_error"
    assert body["error"]["code"] == "model_unknown"
    assert body["error"]["hint"]
    assert body["request_id"]


# name, body, code, param that the message is about
BAD_BODIES = [
    ("empty", b"", "bad_json", None),
    ("cut", b'{"model": "openai-model", "messages": [', "bad_json", None),
    ("trailing", b'{"model": "openai-model", "messages": []} x', "bad_json", None),
    ("not utf-8", b'{"model": "openai-model\xff", "messages": []}', "bad_json", None),
    ("deep", b"[" * 100_000 + b"]" * 100_000, None, None),
    ("an array", b"[1,2]", None, None),
    ("model is a number", b'{"model": 7, "messages": []}', "bad_field", "model"),
    ("no model", b'{"messages": [{"role":"user","content":"x"}]}', "bad_field", "model"),
    ("messages is text", b'{"model": "openai-model", "messages": "hi"}', "bad_field", "messages"),
    ("no messages", b'{"model": "openai-model"}', "bad_field", "messages"),
    ("stream is text", b'{"model": "openai-model", "messages": [{"role":"user","content":"x"}], "stream": "yes"}', "bad_field", "stream"),
    ("max_tokens is text", b'{"model": "openai-model", "messages": [{"role":"user","content":"x"}], "max_tokens": "5"}', "bad_field", "max_tokens"),
    ("max_tokens is negative", b'{"model": "openai-model", "messages": [{"role":"user","content":"x"}], "max_tokens": -5}', "bad_field", "max_tokens"),
]


@pytest.mark.parametrize(("body", "code", "param"), [case[1:] for case in BAD_BODIES], ids=[case[0] for case in BAD_BODIES])
def test_bad_bodies(world: World, body: bytes, code: str | None, param: str | None) -> None:
    answer = httpx.post(world.gateway.url + CHAT, content=body, headers={"content-type": "application/json"}, timeout=20)
    assert answer.status_code == 400, answer.text
    error = openai_error(answer)
    assert error["code"] in ([code] if code else ["bad_json", "bad_field"])
    if param:
        assert error["param"] == param
    said = httpx.post(world.gateway.url + "/v1/messages", content=body, headers={"anthropic-version": "2023-06-01"}, timeout=20)
    assert said.status_code == 400, said.text
    assert said.json()["error"]["type"] == "invalid_request_error"


def test_body_over_the_limit(world: World) -> None:
    body = json.dumps({"model": "openai-model", "messages": [{"role": "user", "content": "x" * (5 << 20)}]}).encode()
    answer = httpx.post(world.gateway.url + CHAT, content=body, timeout=20)
    assert answer.status_code == 413
    assert openai_error(answer)["code"] == "body_too_large"

    def endless() -> typing.Iterator[bytes]:
        yield b'{"model": "openai-model", "messages": [{"role": "user", "content": "'
        for _ in range(5 << 4):
            yield b"x" * (64 << 10)

    chunked = httpx.post(world.gateway.url + CHAT, content=endless(), timeout=20)
    assert chunked.status_code == 413
    assert openai_error(chunked)["code"] == "body_too_large"


def test_unknown_paths_and_methods(world: World) -> None:
    nowhere = httpx.get(world.gateway.url + "/nowhere", timeout=20)
    assert nowhere.status_code == 404
    assert openai_error(nowhere)["code"] == "path_unknown"
    wrong = httpx.put(world.gateway.url + CHAT, content=b"{}", timeout=20)
    assert wrong.status_code == 405
    assert openai_error(wrong)["code"] == "method_not_allowed"


def test_bad_headers(world: World) -> None:
    asked = {"model": "openai-model", "messages": HELLO}
    answer = httpx.post(world.gateway.url + CHAT, json=asked, headers={"x-seawall-deadline-ms": "soon"}, timeout=20)
    assert answer.status_code == 400
    assert openai_error(answer)["code"] == "bad_header"


def test_an_engines_refusal_keeps_its_words(client: openai.OpenAI) -> None:
    for status, code in ((400, "engine_refused"), (401, "engine_rejected_key"), (500, "engine_failed")):
        for model in ("witness-openai", "witness-anthropic"):
            asked = [{"role": "user", "content": f"[[status={status}]]"}]
            with pytest.raises(openai.APIStatusError) as caught:
                client.chat.completions.create(model=model, messages=asked)
            if status == 400:
                assert "witness says 400" in str(caught.value)
                assert caught.value.response.headers["x-seawall-trace"]
                if model == "witness-openai":
                    continue  # the same protocol: the engine's own body, untouched
            assert openai_error(caught.value.response)["code"] == code, (status, model)


def test_a_rate_limited_engine_is_told_with_retry_after(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    asked = [{"role": "user", "content": "[[status=429]]"}]
    error = raises(openai.RateLimitError, lambda: client.chat.completions.create(model="witness-openai", messages=asked))
    assert openai_error(error.response)["code"] == "engine_rate_limited"
    assert int(error.response.headers["retry-after"]) >= 1


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, world: World) -> typing.Iterator[tuple[harness.Gateway, dict[str, str]]]:
    """A gateway with keys: every call needs one."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = {name: harness.add_key(folder / "data", f"acme/{name}") for name in ("rated", "spent", "narrow", "free")}
    keys["only"] = harness.add_key(folder / "data", "acme/only", "--model", "other")
    config = [
        harness.engine("sim", world.sim.url, kind="sim"),
        harness.model("fast", "sim/sim-small", price={"input": 1000.0, "output": 1000.0}),
        harness.model("other", "sim/sim-small"),
        harness.tenant("acme/rated", rate={"calls_per_min": 2}),
        harness.tenant("acme/spent", budget=[{"meter": "usd", "period": "day", "limit": 0.05}]),
        "[queue]\nwait_ms_max = 300\n",
    ]
    gateway = harness.Gateway(folder, "\n".join(config))
    yield gateway, keys
    gateway.stop()


def of_key(gateway: harness.Gateway, key: str) -> openai.OpenAI:
    """A client with that key."""
    return openai.OpenAI(base_url=gateway.v1, api_key=key, max_retries=0, timeout=20)


def test_keys(guarded: tuple[harness.Gateway, dict[str, str]]) -> None:
    gateway, keys = guarded
    assert of_key(gateway, keys["free"]).chat.completions.create(model="fast", messages=HELLO, max_tokens=3).choices
    for bad in ("wrong", "sk-sw-" + "A" * 43, keys["free"][:-1]):
        error = raises(openai.AuthenticationError, lambda bad=bad: of_key(gateway, bad).chat.completions.create(model="fast", messages=HELLO))
        assert openai_error(error.response)["code"] == "bad_key"
        raises(openai.AuthenticationError, lambda bad=bad: list(of_key(gateway, bad).models.list()))
    assert httpx.post(gateway.url + CHAT, json={"model": "fast", "messages": HELLO}, timeout=20).status_code == 401
    with pytest.raises(anthropic.AuthenticationError) as caught:
        anthropic.Anthropic(base_url=gateway.url, api_key="wrong", max_retries=0).messages.create(model="fast", messages=HELLO, max_tokens=3)
    assert caught.value.response.json()["error"]["type"] == "authentication_error"
    assert anthropic.Anthropic(base_url=gateway.url, api_key=keys["free"], max_retries=0).messages.create(model="fast", messages=HELLO, max_tokens=3).content


def test_a_key_for_some_models(guarded: tuple[harness.Gateway, dict[str, str]]) -> None:
    gateway, keys = guarded
    only = of_key(gateway, keys["only"])
    assert only.chat.completions.create(model="other", messages=HELLO, max_tokens=3).choices
    error = raises(openai.PermissionDeniedError, lambda: only.chat.completions.create(model="fast", messages=HELLO))
    assert openai_error(error.response)["code"] == "model_forbidden"
    assert [model.id for model in only.models.list()] == ["other"]


def test_a_tenants_rate(guarded: tuple[harness.Gateway, dict[str, str]]) -> None:
    gateway, keys = guarded
    rated = of_key(gateway, keys["rated"])
    with pytest.raises(openai.RateLimitError) as caught:
        for _ in range(5):
            rated.chat.completions.create(model="fast", messages=HELLO, max_tokens=3)
    assert openai_error(caught.value.response)["code"] == "rate_limited"
    assert int(caught.value.response.headers["retry-after"]) >= 1


def test_a_spent_budget(guarded: tuple[harness.Gateway, dict[str, str]]) -> None:
    gateway, keys = guarded
    spent = of_key(gateway, keys["spent"])
    with pytest.raises(openai.RateLimitError) as caught:
        for _ in range(50):
            spent.chat.completions.create(model="fast", messages=HELLO, max_tokens=10)
    assert openai_error(caught.value.response)["code"] == "budget_exhausted"
    assert int(caught.value.response.headers["retry-after"]) >= 1


def test_revoked_keys_stop_working(guarded: tuple[harness.Gateway, dict[str, str]]) -> None:
    gateway, _ = guarded
    made = harness.seawall("key", "add", "--data", gateway.data, "--tenant", "acme/brief", "--json")
    key, found = harness.KEY.search(made.stdout), json.loads(made.stdout)
    assert key

    def status() -> int:
        return httpx.get(gateway.url + "/v1/models", headers={"authorization": f"Bearer {key[0]}"}, timeout=20).status_code

    harness.until("a key made beside a running server works", lambda: status() == 200)
    assert harness.seawall("key", "revoke", str(found["id"]), "--data", gateway.data).returncode == 0
    harness.until("a revoked key stops working", lambda: status() == 401)


def test_no_key_and_no_prompt_is_ever_logged(guarded: tuple[harness.Gateway, dict[str, str]], tmp_path: pathlib.Path) -> None:
    gateway, keys = guarded
    secret = "a-secret-word-in-a-prompt"
    of_key(gateway, keys["free"]).chat.completions.create(model="fast", messages=[{"role": "user", "content": secret}], max_tokens=3)
    raises(openai.NotFoundError, lambda: of_key(gateway, keys["free"]).chat.completions.create(model="nope", messages=[{"role": "user", "content": secret}]))
    said = gateway.output() + httpx.get(gateway.url + "/metrics", timeout=5).text
    assert secret not in said
    assert not any(key in said for key in keys.values())
    stored = b"".join(file.read_bytes() for file in gateway.data.rglob("*") if file.is_file())
    assert secret.encode() not in stored
    assert not any(key.encode() in stored for key in keys.values())
