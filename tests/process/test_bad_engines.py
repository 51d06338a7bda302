"""Engines that fail in every way an engine can."""

from __future__ import annotations

import json
import pathlib
import time
import typing

import httpx
import pytest

import harness
from raw import Caller
from witness import Witness


class World(typing.NamedTuple):
    """Two engines of the same model, and each alone."""

    gateway: harness.Gateway
    first: Witness
    second: Witness


@pytest.fixture
def world(tmp_path: pathlib.Path) -> typing.Iterator[World]:
    """Fresh engines and a fresh gateway: circuits remember."""
    first, second = Witness(), Witness()
    patience = {"first_token_ms_max": 1000, "stall_ms_max": 1000, "adaptive": False, "calls_min": 1, "calls_start": 200, "calls_max": 200}
    config = [
        "[retry]\nattempts_max = 3\nopen_after = 5\nopen_ms = 500\n",
        harness.engine("first", first.url, health_path="/health", **patience),
        harness.engine("second", second.url, health_path="/health", **patience),
        harness.engine("first-a", first.url, kind="anthropic", **patience),
        harness.model("both", "first/real", "second/real"),
        harness.model("real", "first/real"),
        harness.model("other", "first-a/real"),
    ]
    gateway = harness.Gateway(tmp_path, "\n".join(config))
    yield World(gateway, first, second)
    gateway.kill()
    first.close()
    second.close()


def events(said: bytes) -> list[bytes]:
    """The data lines of a stream."""
    body = said.split(b"\r\n\r\n", 1)[1]
    return [line[6:] for line in body.replace(b"\r", b"").split(b"\n") if line.startswith(b"data: ")]


@pytest.mark.parametrize("protocol", ["chat", "completions", "responses", "messages"])
@pytest.mark.parametrize("model", ["real", "other"])
def test_a_cut_in_the_middle_is_said_in_the_clients_protocol(world: World, protocol: str, model: str) -> None:
    caller = Caller(world.gateway, protocol, "[[id=cut fault=cut@3 tokens=10]]", stream=True, model=model)
    assert caller.status() == 200
    said = caller.whole()
    assert said.count(b"engine_cut") >= 1, said[-1500:]
    last = json.loads(events(said)[-1]) if events(said)[-1] != b"[DONE]" else json.loads(events(said)[-2])
    if protocol == "messages":
        assert b"event: error" in said
        assert last["type"] == "error"
        assert last["error"]["code"] == "engine_cut"
    elif protocol == "responses":
        assert last["type"] in ("error", "response.failed")
    else:
        assert last["error"]["code"] == "engine_cut"
        assert last["error"]["trace_id"]
    assert said.count(b"word") >= 2, "what had come was passed on"


@pytest.mark.parametrize(
    ("orders", "status", "code"),
    [
        ("fault=garbage", 502, "engine_garbled"),
        ("fault=refuse", 502, "engine_failed"),
        ("fault=hang", 504, "engine_timeout"),
        ("status=500", 502, "engine_failed"),
        ("status=503", 502, "engine_failed"),
        ("status=400", 400, "witness says 400"),
        ("status=403", 502, "engine_rejected_key"),
    ],
)
def test_failures_before_the_first_byte(world: World, orders: str, status: int, code: str) -> None:
    for stream in (True, False):
        for model in ("real", "other"):
            caller = Caller(world.gateway, "chat", f"[[{orders}]]", stream=stream, model=model)
            said = caller.whole()
            assert code.encode() in said or b"engine_down" in said, said[-800:]
            assert caller.status() in (status, 502, 503), said[:300]
            caller.leave()
    assert world.gateway.is_alive()


def test_an_answer_cut_in_its_counted_body_is_an_error(world: World) -> None:
    """A unary answer that ends early is not passed off as whole."""
    caller = Caller(world.gateway, "chat", "[[fault=cut@1 tokens=50]]", model="other")
    said = caller.whole()
    assert caller.status() == 502, said[:500]
    straight = Caller(world.gateway, "chat", "[[fault=cut@1 tokens=50]]", model="real")
    with pytest.raises((AssertionError, OSError)):
        head = straight.whole()
        assert b" 502 " not in head[:20], "an error before anything was passed on is fine too"
        json.loads(head.split(b"\r\n\r\n", 1)[1])
        return
    assert world.gateway.is_alive()


def test_garbage_from_a_translated_engine(world: World) -> None:
    said = Caller(world.gateway, "chat", "[[fault=html]]", model="other").whole()
    assert b"engine_garbled" in said


def test_an_engine_that_falls_silent_in_the_middle(world: World) -> None:
    began = time.monotonic()
    caller = Caller(world.gateway, "chat", "[[id=silent fault=silent tokens=10]]", stream=True, model="real")
    said = caller.whole()
    assert b"engine_timeout" in said
    assert 0.8 < time.monotonic() - began < 5
    harness.until("the engine's call is ended", lambda: world.first.call("silent").left)


def test_a_failed_first_target_is_replaced_by_the_next(world: World) -> None:
    """Before the first byte has gone to the client, and never after it."""
    world.first.close()
    for stream in (True, False):
        caller = Caller(world.gateway, "chat", f"[[id=over-{stream}]]", stream=stream, model="both")
        said = caller.whole()
        assert caller.status() == 200, said[:400]
        assert world.second.call(f"over-{stream}") is not None
        assert b"x-seawall-attempts" in said.lower()
    world.first.reopen()
    cut = Caller(world.gateway, "chat", "[[id=no-second fault=cut@2]]", stream=True, model="real").whole()
    assert cut.count(b"engine_cut") == 1


def test_a_circuit_opens_and_closes(world: World) -> None:
    """A dead engine is not asked for every call, and gets its calls back soon after it returns."""
    world.first.close()
    for caller in [Caller(world.gateway, "chat", "x", model="real") for _ in range(30)]:
        said = caller.whole()
        assert caller.status() in (502, 503)
        assert b"engine_" in said
    harness.until("the circuit is open", lambda: any(v > 0 for n, v in world.gateway.metrics().items() if n.startswith("seawall_replica_circuit")))
    shut = Caller(world.gateway, "chat", "x", model="real")
    said = shut.whole()
    assert shut.status() == 503
    assert b"engine_down" in said
    assert b"retry-after" in said.lower()
    world.first.reopen()

    def works() -> bool:
        caller = Caller(world.gateway, "chat", "x", model="real")
        status = caller.status()
        caller.leave()
        return status == 200

    harness.until("calls flow again", works, 20, every=0.1)


def test_retries_are_few_in_a_full_outage(world: World) -> None:
    """Calls on an engine that answers 500 are tried again at most for a tenth, and the floor of 180 a minute."""
    calls = 400
    for caller in [Caller(world.gateway, "chat", "[[id=out status=500]]", model="real") for _ in range(calls)]:
        assert caller.status() in (502, 503)
        caller.leave()
    attempts = len(world.first.calls("out"))
    assert attempts <= calls * 1.1 + 180, attempts


def test_a_rate_limited_engine_is_left_in_peace(world: World) -> None:
    """429 with retry-after: calls go to the next target meanwhile."""
    world.first.force = {"status": "429", "retry_after": "30"}
    for turn in range(5):
        caller = Caller(world.gateway, "chat", f"[[id=around-{turn}]]", model="both")
        assert caller.status() == 200
        caller.leave()
    assert len(world.second.calls("around-")) == 5
    assert len(world.first.calls("around-")) <= 2, "it had asked for half a minute of peace"


def test_a_rate_limit_reaches_the_client_when_there_is_no_way_around(world: World) -> None:
    """A short one is waited for; one past the client's deadline is told at once, with when to come back."""
    world.first.force = {"status": "429", "retry_after": "30"}
    caller = Caller(world.gateway, "chat", "x", model="real", headers={"x-seawall-deadline-ms": "5000"})
    said = caller.whole()
    assert caller.status() == 429, said[:300]
    assert b"retry-after" in said.lower()


def test_the_client_is_told_what_was_tried(world: World) -> None:
    answer = httpx.post(world.gateway.v1 + "/chat/completions", json={"model": "real", "messages": [{"role": "user", "content": "x"}]}, timeout=20)
    assert answer.headers["x-seawall-engine"].startswith("first")
    assert answer.headers["x-seawall-attempts"] == "1"
    assert answer.headers["x-seawall-trace"]
    assert int(answer.headers["x-seawall-wait-ms"]) >= 0


def test_a_trace_is_passed_on(world: World) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "tracestate": "a=b"}
    body = {"model": "real", "messages": [{"role": "user", "content": "[[id=traced]]"}]}
    answer = httpx.post(world.gateway.v1 + "/chat/completions", json=body, headers=headers, timeout=20)
    seen = world.first.call("traced")
    assert seen.headers["traceparent"].split("-")[1] == trace
    assert seen.headers["traceparent"] != headers["traceparent"], "our own span is between"
    assert trace in answer.headers["x-seawall-trace"]


def test_an_engine_that_dies_with_calls_in_flight(world: World) -> None:
    callers = [Caller(world.gateway, "chat", f"[[id=dying-{n} tokens=1000 token_ms=20]]", stream=True, model="real" if n % 2 else "other") for n in range(10)]
    harness.until("all run", lambda: world.first.in_flight() == 10)
    world.first.close()
    for caller in callers:
        said = caller.whole()
        assert b"engine_" in said, said[-300:]
    assert world.gateway.is_alive()
    harness.until("nothing is left", lambda: world.gateway.state()["calls"] == 0)
