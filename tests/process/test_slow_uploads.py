"""Requests that come too slowly or are left behind: they hold no engine, and blame none."""

from __future__ import annotations

import json
import socket
import threading
import time
import typing

import httpx
import pytest

import harness
from raw import Caller
from witness import Witness

WAIT_S = 1.5
# Places for one tenant.
UPLOADS_MAX = 4
World = tuple[harness.Gateway, Witness]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[World]:
    """A gateway with little patience, and an engine that gives up on nobody."""
    witness = Witness()
    wait = f"{int(WAIT_S * 1000)}"
    limits = f"[limits]\nbody_wait_ms_max = {wait}\nupload_stall_ms_max = {wait}\nuploads_max = 16\ntenant_uploads_max = {UPLOADS_MAX}\nclient_stall_ms_max = {wait}\n"
    patience = {"first_token_ms_max": 4000, "stall_ms_max": 4000}
    config = [limits, "[retry]\nopen_after = 2\n", harness.engine("e", witness.url, pass_through=True, **patience), harness.model("real", "e/real")]
    gateway = harness.Gateway(tmp_path_factory.mktemp("uploads"), "\n".join(config))
    yield gateway, witness
    assert gateway.stop() == 0
    witness.close()


def begin(gateway: harness.Gateway, length: int, first: bytes = b"x") -> socket.socket:
    """An upload of which little has come."""
    raw = gateway.connect()
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw.sendall(b"POST /v1/files HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/octet-stream\r\ncontent-length: %d\r\n\r\n" % length + first)
    return raw


def drip(raw: socket.socket, every: float, seconds: float) -> tuple[float, bytes]:
    """A byte at a time: when it was ended, and with what words."""
    began = time.monotonic()
    raw.settimeout(every)
    while (took := time.monotonic() - began) < seconds:
        try:
            raw.sendall(b"x")
            return took, raw.recv(64 << 10)
        except TimeoutError:
            continue
        except OSError:
            return took, b""
    return took, b"never"


@pytest.mark.parametrize("size", [4 << 10, 64 << 20], ids=["small", "large"])
def test_uploads_of_a_byte_a_second_hold_no_engine(world: World, size: int) -> None:
    """Each is ended within its time, and the engine is not thought ill for it: others go on."""
    gateway, witness = world
    ends: list[tuple[float, bytes]] = []
    slow = [threading.Thread(target=lambda: ends.append(drip(begin(gateway, size), 1.0, 20)), daemon=True) for _ in range(UPLOADS_MAX)]
    for thread in slow:
        thread.start()
    while any(thread.is_alive() for thread in slow):
        caller = Caller(gateway, "chat", "x")
        assert caller.status() == 200, "the engine is well, whoever uploads slowly"
        caller.leave()
        # sleeps because others call now and then while the uploads drip
        time.sleep(0.1)
    assert Caller(gateway, "chat", "x").status() == 200
    assert len(ends) == UPLOADS_MAX
    for took, said in ends:
        assert took < 10, (took, said)
        assert said == b"" or said[9:12] in (b"408", b"400"), said[:300]
    harness.until("the engine holds none of them", lambda: witness.in_flight() == 0)
    assert gateway.state()["calls"] == 0


def test_a_steady_upload_may_take_its_time(world: World) -> None:
    """Longer than any one wait, but never silent: it is whole at the engine."""
    gateway, witness = world
    size, pieces = 16 << 20, 16
    raw = begin(gateway, size, b"")
    began = time.monotonic()
    for _ in range(pieces):
        raw.sendall(b"y" * (size // pieces))
        # sleeps because that is the speed of the line
        time.sleep(2 * WAIT_S / pieces)
    assert time.monotonic() - began > WAIT_S
    raw.settimeout(10)
    said = raw.recv(64 << 10)
    assert said.startswith(b"HTTP/1.1 200"), said[:300]
    assert json.loads(said.split(b"\r\n\r\n", 1)[1])["bytes"] == size


def test_uploads_beyond_their_number_are_told_to_come_back(world: World) -> None:
    """One tenant may not take every place; who asks for an answer needs none of them."""
    gateway, witness = world
    begun = [begin(gateway, 64 << 20, b"x" * 1000) for _ in range(UPLOADS_MAX)]
    harness.until("all have a place", lambda: gateway.state()["calls"] == UPLOADS_MAX, 5)
    more = begin(gateway, 64 << 20, b"x" * 1000)
    said = more.recv(64 << 10)
    assert said[9:12] in (b"429", b"503"), said
    assert b"uploads_full" in said and b"retry-after:" in said, said
    assert Caller(gateway, "chat", "x").status() == 200
    for raw in [*begun, more]:
        raw.close()
    harness.until("their places are free", lambda: gateway.state()["calls"] == 0 and witness.in_flight() == 0, 5)
    with httpx.Client(base_url=gateway.v1, timeout=20) as client:
        assert client.post("/files", content=b"x" * (3 << 20)).status_code == 200


def test_an_upload_that_is_left_is_left_at_the_engine(world: World) -> None:
    """Also half way, and however the client leaves. The witness records what it has whole."""
    gateway, witness = world
    for how in ("close", "reset"):
        before = len(witness.order)
        raw = begin(gateway, 8 << 20, b"z" * (1 << 20))
        harness.until("it is under way", lambda: gateway.state()["calls"] == 1)
        if how == "reset":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        raw.close()
        harness.until("nothing runs", lambda: gateway.state()["calls"] == 0 and witness.in_flight() == 0, 5)
        assert not witness.order[before:], "half a file is not passed off as a whole one"
    assert Caller(gateway, "chat", "x").status() == 200


def pipelined(prompts: list[str]) -> bytes:
    """Requests one after another, none waiting for the answer before it."""
    bodies = [json.dumps({"model": "real", "messages": [{"role": "user", "content": prompt}]}).encode() for prompt in prompts]
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return b"".join(head % len(body) + body for body in bodies)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("fill", [0, 200_000], ids=["a small second", "a large second"])
def test_who_pipelines_and_leaves_ends_its_calls(world: World, how: str, fill: int) -> None:
    """The bytes of a second request must not hide that the client of the first has gone (I8)."""
    gateway, witness = world
    name = f"pipe-{how}-{fill}"
    raw = gateway.connect()
    raw.sendall(pipelined([f"[[id={name}-1 first_ms=20000]]"]))
    harness.until("the first arrives", lambda: witness.call(f"{name}-1"))
    raw.sendall(pipelined([f"[[id={name}-2 first_ms=20000]]" + "x" * fill])[: 60_000 if fill else None])
    # sleeps because the second request must have been read, of which nothing outside tells
    time.sleep(0.1)
    if how == "reset":
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    at = time.monotonic()
    raw.close()
    seen = harness.until("the engine notices", lambda: witness.call(f"{name}-1").left and witness.call(f"{name}-1"), 8)
    assert seen.left - at < 1
    harness.until("nothing is left", lambda: gateway.state()["calls"] == 0 and witness.in_flight() == 0)


def test_who_pipelines_over_a_stream_and_leaves_ends_it(world: World) -> None:
    gateway, witness = world
    caller = Caller(gateway, "chat", "[[id=pipe-stream tokens=5000 token_ms=10]]", stream=True)
    caller.until(b"word", 2)
    caller.raw.sendall(pipelined(["[[id=pipe-behind]]"]))
    caller.until(b"word", 5)
    at = caller.leave()
    seen = harness.until("the engine notices", lambda: witness.call("pipe-stream").left and witness.call("pipe-stream"))
    assert seen.left - at < 1
    assert witness.call("pipe-behind") is None, "it never had its turn"


def test_a_stream_of_requests_on_one_connection(world: World) -> None:
    """Sixty-four sent at once are answered in order, with little held."""
    gateway, witness = world
    raw = gateway.connect(20)
    raw.sendall(pipelined([f"[[reply=r{n}. tokens=1]]" for n in range(64)]))
    said = b""
    while said.count(b'"total_tokens"') < 64:
        data = raw.recv(64 << 10)
        assert data, said[-300:]
        said += data
    places = [said.index(b"r%d." % n) for n in range(64)]
    assert places == sorted(places)


def test_httpx_over_one_connection_after_an_upload(world: World) -> None:
    """A connection that carried a body is good for the next call."""
    gateway, _ = world
    with httpx.Client(base_url=gateway.v1, timeout=20) as client:
        for size in (1, 1 << 16, 3 << 20):
            assert client.post("/files", content=b"x" * size).json()["bytes"] == size
            body = {"model": "real", "messages": [{"role": "user", "content": "x"}]}
            assert client.post("/chat/completions", json=body).status_code == 200
