"""What whoever is on call sees: each attempt of a call, and what Seawall does by itself."""

from __future__ import annotations

import json
import pathlib
import socket
import ssl
import typing

import httpx
import pytest

import harness
from witness import Witness

KEYS = pathlib.Path(__file__).resolve().parents[2] / "crates" / "node" / "tests" / "tls"


def chat(text: str = "hello", model: str = "real", **more: typing.Any) -> dict[str, typing.Any]:
    """A chat request."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def pair(tmp_path: pathlib.Path) -> typing.Iterator[tuple[harness.Gateway, Witness, Witness]]:
    """A model with two engines, of which the first can be made to fail."""
    first, second = Witness(), Witness()
    config = "[retry]\npercent = 100\nopen_after = 100\n"
    config += harness.engine("first", first.url) + harness.engine("second", second.url)
    config += harness.model("real", "first/real", "second/real") + harness.model("lone", "first/real")
    gateway = harness.Gateway(tmp_path, config)
    yield gateway, first, second
    gateway.stop()
    first.close()
    second.close()


def logged(gateway: harness.Gateway, answer: httpx.Response) -> dict[str, typing.Any]:
    """The access log's line on that answer."""
    return json.loads(gateway.line('^{.*"trace":"' + answer.headers["x-seawall-trace"]))


def test_each_attempt_is_in_the_log_where_one_failed(pair: tuple[harness.Gateway, Witness, Witness]) -> None:
    gateway, first, _ = pair
    first.force = {"status": "500"}
    answer = httpx.post(gateway.v1 + "/chat/completions", json=chat(), timeout=20)
    assert (answer.status_code, answer.headers["x-seawall-engine"], answer.headers["x-seawall-attempts"]) == (200, "second", "2")
    call = logged(gateway, answer)["call"]
    assert call["sent"] == 2
    tried = [(attempt["engine"], attempt["outcome"], attempt.get("status")) for attempt in call["attempts"]]
    assert tried == [("first", "server_error", 500), ("second", "answered", 200)]
    assert call["attempts"][0]["replica"] == first.url
    assert call["attempts"][1]["began_ms"] >= call["attempts"][0]["began_ms"]
    assert call["attempts"][1]["first_byte_ms"] <= call["attempts"][1]["took_ms"]


def test_a_failed_call_says_how_often_it_was_tried(pair: tuple[harness.Gateway, Witness, Witness]) -> None:
    gateway, first, _ = pair
    first.force = {"status": "500"}
    answer = httpx.post(gateway.v1 + "/chat/completions", json=chat(model="lone"), timeout=20)
    assert answer.status_code == 502
    attempts = logged(gateway, answer)["call"]["attempts"]
    assert int(answer.headers["x-seawall-attempts"]) == len(attempts) >= 2
    assert {attempt["outcome"] for attempt in attempts} == {"server_error"}


def test_a_call_that_went_well_at_once_has_no_list(pair: tuple[harness.Gateway, Witness, Witness]) -> None:
    gateway, _, _ = pair
    answer = httpx.post(gateway.v1 + "/chat/completions", json=chat(), timeout=20)
    call = logged(gateway, answer)["call"]
    assert call["sent"] == 1
    assert "attempts" not in call


def test_a_count_made_here_has_a_line(pair: tuple[harness.Gateway, Witness, Witness]) -> None:
    gateway, _, _ = pair
    answer = httpx.post(gateway.v1 + "/messages/count_tokens", json=chat(), timeout=20)
    line = logged(gateway, answer)
    assert line["operation"] == "count_tokens"
    assert line["tokens_estimated"] == answer.json()["input_tokens"]


def test_a_field_in_another_case_is_refused(pair: tuple[harness.Gateway, Witness, Witness]) -> None:
    gateway, first, _ = pair
    answer = httpx.post(gateway.v1 + "/chat/completions", json=chat(Model="dearer"), timeout=20)
    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["param"]) == (400, "bad_field", "model")
    assert not first.calls()


def test_calls_beyond_the_byte_budget_are_refused_before_they_are_sent(tmp_path: pathlib.Path) -> None:
    witness = Witness()
    config = "[limits]\nmemory_bytes_max = 1048576\nbody_bytes_max = 100000\nanswer_bytes_max = 100000\n" + harness.engine("e", witness.url) + harness.model("real", "e/real")
    gateway = harness.Gateway(tmp_path, config)
    # Each stream holds two windows of 64 KiB: eight have room in 1 MiB but for their bodies.
    streams, clients = [], []
    try:
        for number in range(7):
            clients.append(httpx.Client(timeout=20))
            request = clients[-1].build_request("POST", gateway.v1 + "/chat/completions", json=chat(f"[[id=s{number} tokens=3000 token_ms=20]]", stream=True))
            streams.append(clients[-1].send(request, stream=True))
        assert [stream.status_code for stream in streams] == [200] * 7
        answer = httpx.post(gateway.v1 + "/chat/completions", json=chat("[[id=late]]"), timeout=20)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "memory_full")
        assert witness.call("late") is None
        for stream in streams:
            stream.close()
        harness.until("room again", lambda: httpx.post(gateway.v1 + "/chat/completions", json=chat(), timeout=20).status_code == 200)
        line = json.loads(gateway.line('"outcome":"memory_full"'))
        assert line["status"] == 503
    finally:
        for client in clients:
            client.close()
        gateway.stop()
        witness.close()


def test_an_answer_without_room_is_relayed_or_refused_and_the_engine_not_blamed(tmp_path: pathlib.Path) -> None:
    """Two windows of 500 kB leave 48 kB: what can be passed on is, what must be held whole is not."""
    witness = Witness()
    limits = "[limits]\nmemory_bytes_max = 1048576\nbody_bytes_max = 10000\nanswer_bytes_max = 900000\nstream_window_bytes = 500000\n"
    engines = harness.engine("e", witness.url) + harness.engine("a", witness.url.replace("127.0.0.1", "localhost"), kind="anthropic")
    gateway = harness.Gateway(tmp_path, limits + engines + harness.model("same", "e/real") + harness.model("other", "a/real"))
    try:
        large = chat("[[tokens=200 token_bytes=1000]]", model="same")
        answer = httpx.post(gateway.v1 + "/chat/completions", json=large, timeout=20)
        assert (answer.status_code, len(answer.json()["choices"][0]["message"]["content"])) == (200, 200_000)
        answer = httpx.post(gateway.v1 + "/chat/completions", json={**large, "model": "other"}, timeout=20)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "memory_full")
        assert answer.headers["retry-after"] == "1"
        line = json.loads(gateway.line('"outcome":"memory_full"'))
        assert (line["status"], line["call"]["attempts"][0]["outcome"]) == (503, "memory_full")
        small = httpx.post(gateway.v1 + "/chat/completions", json=chat(model="other"), timeout=20)
        assert small.status_code == 200, "all room is given back"
    finally:
        gateway.stop()
        witness.close()


def test_why_a_replica_cannot_be_reached_is_in_the_state(tmp_path: pathlib.Path) -> None:
    """While it lasts; the log says when it begins and when it is over, and clients are told nothing of it."""
    witness = Witness()
    gateway = harness.Gateway(tmp_path, "[retry]\nattempts_max = 1\nopen_ms = 100\n" + harness.engine("e", witness.url, health_path="/health") + harness.model("real", "e/real"))

    def why() -> str | None:
        return gateway.state()["engines"][0]["replicas"][0]["why"]

    def call() -> httpx.Response:
        return httpx.post(gateway.v1 + "/chat/completions", json=chat(), headers={"x-seawall-deadline-ms": "1000"}, timeout=20)

    try:
        assert call().status_code == 200
        assert why() is None
        witness.close()
        refused = [call() for _ in range(4)]
        assert all(answer.is_error and "connection" not in answer.text.lower() for answer in refused)
        assert "Connection refused" in (why() or "")
        assert "Connection refused" in harness.seawall("models", "--url", gateway.url).stdout
        witness.reopen()
        harness.until("it answers", lambda: call().status_code == 200)
        assert why() is None
        gateway.line("reached again")
        assert gateway.output().count("cannot be reached") == 1
    finally:
        gateway.stop()
        witness.close()


def test_discovery_asks_every_replica_and_anew_after_a_reload(tmp_path: pathlib.Path) -> None:
    well = Witness(models=("from-second",))
    dead = f"http://127.0.0.1:{free_port()}"
    engine = f'[[engine]]\nname = "e"\nurls = ["{dead}", "{well.url}"]\n'
    gateway = harness.Gateway(tmp_path, engine)

    def models() -> list[str]:
        return [model["id"] for model in httpx.get(gateway.v1 + "/models", timeout=5).json()["data"]]

    try:
        harness.until("the second replica's model", lambda: "from-second" in models())
        newcomer = Witness(models=("newcomer-model",))
        gateway.configure(engine + f'[[engine]]\nname = "n"\nurl = "{newcomer.url}"\n')
        # Without waiting for the next round of questions, which is half a minute away.
        harness.until("a new engine's model", lambda: "newcomer-model" in models(), 10)
        newcomer.close()
    finally:
        gateway.stop()
        well.close()


def test_a_certificate_is_renewed_while_serving(tmp_path: pathlib.Path) -> None:
    cert, key = tmp_path / "gate.crt", tmp_path / "gate.key"

    def put(name: str, only_cert: bool = False) -> None:
        cert.write_text((KEYS / f"{name}.crt").read_text())
        if not only_cert:
            key.write_text((KEYS / f"{name}.key").read_text())

    put("one")
    witness = Witness()
    config = f'[tls]\ncert = "{cert}"\nkey = "{key}"\n' + harness.engine("e", witness.url) + harness.model("real", "e/real")
    gateway = harness.Gateway(tmp_path, config, ready=False)
    try:
        gateway.url = harness.ADDRESS.search(gateway.line("^listening on https://"))[0]  # type: ignore[index]

        def shown() -> str:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with gateway.connect() as raw, context.wrap_socket(raw) as secure:
                return ssl.DER_cert_to_PEM_cert(secure.getpeercert(binary_form=True) or b"").strip()

        one, two = ((KEYS / f"{name}.crt").read_text().strip() for name in ("one", "two"))
        assert shown() == one
        put("two", only_cert=True)
        gateway.line("the certificate was not renewed; the old one stays")
        assert shown() == one
        put("two")
        harness.until("the new certificate", lambda: shown() == two, 10)
        assert gateway.child.poll() is None
    finally:
        gateway.stop()
        witness.close()
