"""Paths that pass through to an engine: who may use them, and what a slow or failing one does to others."""

from __future__ import annotations

import json
import pathlib
import typing

import httpx
import pytest

import harness
from witness import Witness

# An upload of this size streams: it is longer than what is received before the engine is asked.
LONG = 2 << 20
LIMITS = "[limits]\nuploads_max = 3\ntenant_uploads_max = 2\nupload_stall_ms_max = 1500\nupload_bytes_per_s_min = 1000000\n"


class Yard(typing.NamedTuple):
    """A gateway with keys before an engine that takes two calls at once."""

    gateway: harness.Gateway
    witness: Witness
    keys: dict[str, str]

    def ask(self, method: str, path: str, key: str = "files", **request: typing.Any) -> httpx.Response:
        """One request with that key."""
        return httpx.request(method, self.gateway.v1 + path, headers={"x-api-key": self.keys[key]}, timeout=20, **request)

    def begin(self, key: str = "files", sent: int = 0) -> typing.Any:
        """A raw upload of which only so much is sent."""
        raw = self.gateway.connect()
        head = f"POST /v1/uploads/slow HTTP/1.1\r\nhost: 127.0.0.1\r\nx-api-key: {self.keys[key]}\r\ncontent-length: {LONG}\r\n\r\n"
        raw.sendall(head.encode() + b"x" * sent)
        return raw


@pytest.fixture
def yard(tmp_path: pathlib.Path) -> typing.Iterator[Yard]:
    """Fresh for each test, as each changes what the gateway thinks of the engine."""
    witness = Witness()
    keys = {
        "files": harness.add_key(tmp_path / "data", "acme/files", "--pass-through"),
        "other": harness.add_key(tmp_path / "data", "other", "--pass-through"),
        "plain": harness.add_key(tmp_path / "data", "acme/plain"),
        "admin": harness.add_key(tmp_path / "data", "ops", "--admin"),
    }
    config = LIMITS + harness.engine("e", witness.url, pass_through=True, calls_max=4) + harness.model("real", "e/real")
    gateway = harness.Gateway(tmp_path, config)
    yield Yard(gateway, witness, keys)
    gateway.stop()
    witness.close()


def code(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of an error."""
    return answer.status_code, answer.json()["error"]["code"]


def test_only_a_key_made_for_it_passes(yard: Yard) -> None:
    for key in ("plain", "admin"):
        for method, path in (("GET", "/files"), ("POST", "/batches"), ("DELETE", "/models/ft:x"), ("GET", "/responses/resp_1")):
            answer = yard.ask(method, path, key)
            assert code(answer) == (403, "path_forbidden"), (key, path, answer.text)
            assert "--pass-through" in answer.json()["error"]["hint"]
    assert not yard.witness.calls(), "nothing reached the engine"
    assert yard.ask("POST", "/batches", json={"a": 1}).status_code == 200
    chat = {"model": "real", "messages": [{"role": "user", "content": "hello"}]}
    assert yard.ask("POST", "/chat/completions", "plain", json=chat).status_code == 200


def test_a_slow_upload_is_ended_and_is_not_the_engines_fault(yard: Yard) -> None:
    with yard.begin(sent=100_000) as raw:
        raw.settimeout(15)
        answer = raw.recv(65536)
        while b"\r\n\r\n" not in answer or b"body_timeout" not in answer:
            more = raw.recv(65536)
            assert more, answer
            answer += more
    assert answer.startswith(b"HTTP/1.1 408"), answer
    harness.until("the upload's call is ended", lambda: yard.witness.in_flight() == 0)
    line = json.loads(yard.gateway.line(r'"outcome":"body_timeout"'))
    attempt = line["call"]["attempts"][0]
    assert attempt["outcome"] == "body_timeout", line
    assert "status" not in attempt, "the engine said nothing"
    assert yard.ask("GET", "/files").status_code == 200, "the engine is well"


def test_uploads_are_bounded_and_calls_go_on_beside_them(yard: Yard) -> None:
    held = [yard.begin(sent=50_000) for _ in range(2)]
    harness.until("both are at the engine", lambda: running(yard) == 2)
    answer = yard.ask("POST", "/uploads/more", content=b"y" * LONG)
    assert code(answer) == (503, "uploads_full")
    assert int(answer.headers["retry-after"]) >= 1
    assert yard.ask("POST", "/uploads/more", "other", content=b"y" * LONG).status_code == 200, "another tenant has its own"
    assert yard.ask("POST", "/batches", json={"small": True}).status_code == 200, "a short body needs no place"
    for raw in held:
        raw.sendall(b"x" * (LONG - 50_000))
        assert raw.recv(65536).startswith(b"HTTP/1.1 200")
        raw.close()
    assert yard.ask("POST", "/uploads/more", content=b"y" * LONG).status_code == 200, "their places came back"


def running(yard: Yard) -> int:
    """Calls in flight on the engine."""
    state = httpx.get(yard.gateway.url + "/seawall/state", headers={"x-api-key": yard.keys["admin"]}, timeout=5).json()
    return sum(replica["running"] for engine in state["engines"] for replica in engine["replicas"])


def test_an_engine_that_fails_is_left_alone_but_its_answers_are_passed_on(yard: Yard) -> None:
    yard.witness.health = 503
    yard.witness.force = {"status": "503"}
    answers = [yard.ask("POST", "/batches", json={"n": n}) for n in range(5)]
    assert [answer.status_code for answer in answers] == [503] * 5, "the engine's own answer, each time"
    assert all("x-seawall-code" not in answer.headers for answer in answers)
    state = httpx.get(yard.gateway.url + "/seawall/state", headers={"x-api-key": yard.keys["admin"]}, timeout=5).json()
    assert state["engines"][0]["replicas"][0]["circuit"] != "closed"
    line = json.loads(yard.gateway.line(r'"outcome":"engine_failed"'))
    assert line["status"] == 503
    assert line["call"]["attempts"][0]["outcome"] == "server_error"
    assert line["call"]["attempts"][0]["status"] == 503


def test_a_limit_of_the_provider_holds_the_next_call_back(yard: Yard) -> None:
    yard.witness.force = {"status": "429", "retry_after": "2"}
    assert yard.ask("POST", "/batches", json={}).status_code == 429
    yard.witness.force = {}
    chat = {"model": "real", "messages": [{"role": "user", "content": "hello"}]}
    answer = yard.ask("POST", "/chat/completions", "plain", json=chat)
    assert answer.status_code == 200
    assert answer.headers["x-seawall-wait-cause"] == "rate_limit"
    assert int(answer.headers["x-seawall-wait-ms"]) >= 1000
