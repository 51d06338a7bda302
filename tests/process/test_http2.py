"""HTTP/2: many calls on one connection, each with a life and a window of its own."""

from __future__ import annotations

import pathlib
import select
import signal
import time
import typing

import h2.errors
import httpx
import pytest

import harness
from frames import Http2, Stream
from witness import Witness

STALL_S = 1.5
# From the frame that leaves to the engine's notice; generous, as the machine may be busy.
NOTICE_S_MAX = 1.0
PLACES = 2

Gateways = list[harness.Gateway]
World = tuple[harness.Gateway, Witness]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[World]:
    """A gateway that soon cuts who takes nothing; its small engine has two places."""
    witness = Witness()
    fixed = {"adaptive": False, "calls_min": 1, "speaks": ["chat", "completions", "embeddings", "responses"]}
    config = [
        f"[limits]\nclient_stall_ms_max = {int(STALL_S * 1000)}\n",
        harness.engine("wide", witness.url, pass_through=True, calls_start=500, calls_max=500, **fixed),
        harness.engine("small", witness.url, pass_through=False, calls_start=PLACES, calls_max=PLACES, **fixed),
        harness.engine("other", witness.url, kind="anthropic"),
        harness.model("real", "wide/real"),
        harness.model("narrow", "small/real"),
        harness.model("translated", "other/real"),
    ]
    gateway = harness.Gateway(tmp_path_factory.mktemp("http2"), "\n".join(config))
    yield gateway, witness
    assert gateway.stop() == 0
    witness.close()


@pytest.fixture
def line(world: World) -> typing.Iterator[Http2]:
    """One connection."""
    line = Http2(world[0])
    yield line
    line.close()


def test_the_usual_client_over_http2(world: World) -> None:
    """Prior knowledge, as there is no TLS to agree in; every kind of answer."""
    with httpx.Client(base_url=world[0].v1, http1=False, http2=True, timeout=20) as client:
        body = {"model": "real", "messages": [{"role": "user", "content": "[[tokens=4]]"}]}
        answer = client.post("/chat/completions", json=body)
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
        with client.stream("POST", "/chat/completions", json={**body, "stream": True}) as stream:
            assert sum("word" in line for line in stream.iter_lines()) == 4
        assert client.post("/chat/completions", json={**body, "model": "ghost"}).status_code == 404
        assert client.post("/chat/completions", content=b"{").status_code == 400
        assert client.get("/models").status_code == 200


def test_many_streams_on_one_connection(world: World, line: Http2) -> None:
    """Each is whole, and together they take the time of one."""
    began = time.monotonic()
    streams = [line.call("chat" if n % 2 else "messages", "[[tokens=20 token_ms=20]]", stream=True, model="real" if n % 3 else "translated") for n in range(100)]
    line.pump("all end", lambda: all(stream.over for stream in streams))
    took = time.monotonic() - began
    assert {stream.status for stream in streams} == {200}
    assert {bytes(stream.body).count(b"word") for stream in streams} == {20}
    assert took < 10, "a hundred streams of 0.4 s one after another would take forty"


def test_more_streams_than_are_allowed_at_once(world: World, line: Http2) -> None:
    """The server says how many; beyond that a stream waits for its turn, and none is lost."""
    line.pump("the settings come", lambda: line.wire.remote_settings.max_concurrent_streams < 1 << 20)
    at_once = line.wire.remote_settings.max_concurrent_streams
    assert 10 <= at_once <= 1000
    done: list[Stream] = []
    running: list[Stream] = []
    while len(done) < at_once + 50:
        while len(running) < at_once:
            running.append(line.call("chat", "[[tokens=1]]", flush=False))
        line.flush()
        line.pump("one ends", lambda: any(stream.over for stream in running))
        done += [stream for stream in running if stream.over]
        running = [stream for stream in running if not stream.over]
    assert {stream.status for stream in done} == {200}


@pytest.mark.parametrize("protocol", ["chat", "responses", "messages", "embeddings", "pass-through"])
@pytest.mark.parametrize("when", ["before the first byte", "in the middle"])
def test_a_reset_ends_the_engines_call_and_no_other(world: World, line: Http2, protocol: str, when: str) -> None:
    gateway, witness = world
    name = f"reset-{protocol}-{when.split()[0]}"
    other = line.call("chat", f"[[id=other-{name} tokens=40 token_ms=15]]", stream=True)
    if when == "before the first byte":
        stream = line.call(protocol, f"[[id={name} first_ms=20000]]", stream=False)
    elif protocol == "embeddings":
        stream = line.call(protocol, f"[[id={name} half_ms=20000 tokens=20000]]")
    else:
        stream = line.call(protocol, f"[[id={name} tokens=2000 token_ms=10]]", stream=True)
    line.pump("it arrives", lambda: witness.call(name))
    if when == "in the middle":
        line.pump("it begins", lambda: witness.call(name).pieces >= 1 and (stream.body or protocol == "embeddings"))
    at = line.reset(stream)
    line.pump("the engine notices", lambda: witness.call(name).left or witness.call(name).ended)
    seen = witness.call(name)
    assert seen.left is not None, "it ran to its end though its client had gone"
    assert seen.left - at < NOTICE_S_MAX
    line.pump("the other goes on", lambda: other.over)
    assert other.ended and bytes(other.body).count(b"word") == 40
    assert not line.goaways


def test_a_reset_in_the_queue(world: World, line: Http2) -> None:
    """It leaves the queue, and never starts."""
    gateway, witness = world
    holders = [line.call("chat", f"[[id=h2-holder-{n} first_ms=20000]]", model="narrow") for n in range(PLACES)]
    for n in range(PLACES):
        line.pump("they hold", lambda n=n: witness.call(f"h2-holder-{n}"))
    waiting = [line.call("chat", f"[[id=h2-waiting-{n}]]", model="narrow") for n in range(5)]
    line.pump("they wait", lambda: gateway.queued() == 5)
    for stream in waiting:
        line.reset(stream)
    line.pump("the queue is empty", lambda: gateway.queued() == 0)
    for stream in holders:
        line.reset(stream)
    line.pump("nothing is left", lambda: gateway.state()["calls"] == 0 and witness.in_flight() == 0)
    assert not witness.calls("h2-waiting"), "a call that was left in the queue never starts"


def test_a_closed_connection_ends_all_its_calls(world: World) -> None:
    gateway, witness = world
    line = Http2(gateway)
    for n in range(10):
        line.call("chat", f"[[id=closing-{n} tokens=5000 token_ms=10 first_ms={n % 2 * 20000}]]", stream=n % 2 == 0)
    line.pump("all run", lambda: len(witness.calls("closing-")) == 10)
    line.close()
    at = time.monotonic()
    harness.until("all are left", lambda: all(seen.left for seen in witness.calls("closing-")), 5)
    assert max(seen.left for seen in witness.calls("closing-")) - at < NOTICE_S_MAX


def test_a_window_that_is_never_opened(world: World) -> None:
    """Holds nobody up, costs little, and is cut alone after the stall limit, with its engine's call."""
    gateway, witness = world
    line = Http2(gateway)
    before = gateway.rss_bytes()
    stuck = line.call("chat", "[[id=stuck tokens=40000 token_bytes=4000]]", stream=True, takes=False)
    line.pump("its window is full", lambda: len(stuck.body) >= 65_000)
    at = time.monotonic()
    brisk = line.call("chat", "[[id=brisk tokens=20 token_ms=20]]", stream=True)
    line.pump("the other is served meanwhile", lambda: brisk.ended, STALL_S)
    assert bytes(brisk.body).count(b"word") == 20
    assert not stuck.over
    steady = line.call("chat", f"[[id=steady tokens={int(3 * STALL_S * 20)} token_ms=50]]", stream=True)
    line.pump("it is cut", lambda: stuck.over or line.closed or witness.call("stuck").left, 3 * STALL_S)
    harness.until("the engine's call ends", lambda: witness.call("stuck").left)
    assert 0.5 * STALL_S < witness.call("stuck").left - at < 3 * STALL_S
    assert witness.call("stuck").sent_bytes < 16 << 20, "the engine was made to wait"
    assert gateway.rss_bytes() - before < 8 << 20
    line.pump("its neighbour goes on", lambda: steady.ended or line.closed, 6 * STALL_S)
    assert steady.ended and not line.closed and stuck.over and not stuck.ended
    line.close()


def test_resets_by_the_thousand(world: World) -> None:
    """Calls begun and reset at once (CVE-2023-44487): the connection may be ended, the server may not."""
    gateway, witness = world
    line = Http2(gateway)
    for _ in range(20):
        if line.closed or line.goaways:
            break
        for _ in range(100):
            stream = line.call("chat", "[[id=rapid first_ms=5000]]", flush=False)
            line.wire.reset_stream(stream.number, h2.errors.ErrorCodes.CANCEL)
        line.flush()
        # Window for the next ones, or the end.
        line.hear(1.0)
    line.close()
    harness.until("nothing is left of them", lambda: gateway.state()["calls"] == 0 and witness.in_flight() == 0)
    assert gateway.is_alive()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\x00\x08\x06\x00\x00\x00\x00\x00pingping" * 20_000,
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" * 20_000,
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82" + b"\x00\x40\x00\x09\x00\x00\x00\x00\x01" + b"\x00" * 16384 + (b"\x00\x40\x00\x09\x00\x00\x00\x00\x01" + b"\x40\x01a\x7f\xff\xff" * 2730 + b"aaaa") * 200,
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + b"a" * 100_000,
        bytes(range(256)) * 100,
    ],
    ids=["pings", "settings", "continuation", "a frame too long", "noise"],
)
def test_hostile_frames(world: World, sent: bytes) -> None:
    """A flood is answered, or the connection ended; memory stays and others are served."""
    gateway, _ = world
    before = gateway.rss_bytes()
    raw = gateway.connect(5)
    raw.settimeout(2)
    try:
        raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + sent)
        raw.recv(1 << 16)
    except OSError:
        pass  # ended by the server, or held back: both are right
    assert gateway.is_alive()
    assert gateway.rss_bytes() - before < 16 << 20
    raw.close()


def test_a_drain_says_goaway(tmp_path: pathlib.Path, witness: Witness, gateways: Gateways) -> None:
    """SIGTERM: the client is told to open no more streams, those it has finish, exit 0."""
    config = ["[limits]\ndrain_grace_ms = 100\ndrain_ms_max = 20000\n", harness.engine("e", witness.url), harness.model("real", "e/real")]
    gateway = harness.Gateway(tmp_path, "\n".join(config))
    gateways.append(gateway)
    line, idle = Http2(gateway), Http2(gateway)
    streams = [line.call("chat", f"[[id=drain-{n} tokens=100 token_ms=20]]", stream=True) for n in range(5)]
    unary = line.call("chat", "[[id=drain-unary first_ms=1500]]")
    line.pump("all run", lambda: all(stream.body for stream in streams) and witness.call("drain-unary"))
    gateway.signal(signal.SIGTERM)
    line.pump("it is told", lambda: line.goaways, 5)
    assert line.goaways[0][0] == 0, "no error"
    idle.pump("the idle one is told and ended", lambda: idle.goaways or idle.closed, 5)
    line.pump("they finish", lambda: all(stream.over for stream in [*streams, unary]))
    assert {bytes(stream.body).count(b"word") for stream in streams} == {100}
    assert (unary.status, unary.ended) == (200, True)
    assert gateway.wait(10) == 0


def test_a_drain_hears_its_clients_out(tmp_path: pathlib.Path, witness: Witness, gateways: Gateways) -> None:
    """What a client sends after the last stream ended does not reset the connection; and a client that
    stays for ever keeps the process no longer than a second."""
    config = ["[limits]\ndrain_grace_ms = 100\ndrain_ms_max = 20000\n", harness.engine("e", witness.url), harness.model("real", "e/real")]
    gateway = harness.Gateway(tmp_path, "\n".join(config))
    gateways.append(gateway)
    line = Http2(gateway)
    stream = line.call("chat", "[[id=last tokens=50 token_ms=20]]", stream=True)
    line.pump("it runs", lambda: stream.body)
    gateway.signal(signal.SIGTERM)
    line.pump("the answer ends", lambda: stream.over)
    began = time.monotonic()
    poll = select.poll()
    poll.register(line.raw, 0)
    for _ in range(5):
        line.wire.increment_flow_control_window(1_000)
        line.flush()
        assert not poll.poll(50), "reset while the client still listens"
    assert gateway.wait(5) == 0
    assert time.monotonic() - began < 2.5
    line.close()


def test_a_drain_ends_at_its_deadline_with_a_word(tmp_path: pathlib.Path, witness: Witness, gateways: Gateways) -> None:
    config = ["[limits]\ndrain_grace_ms = 100\ndrain_ms_max = 1000\n", harness.engine("e", witness.url), harness.model("real", "e/real")]
    gateway = harness.Gateway(tmp_path, "\n".join(config))
    gateways.append(gateway)
    line = Http2(gateway)
    stream = line.call("chat", "[[id=endless tokens=100000 token_ms=20]]", stream=True)
    line.pump("it runs", lambda: stream.body)
    gateway.signal(signal.SIGTERM)
    line.pump("it is ended", lambda: stream.over or b"error" in stream.body, 6)
    assert b"error" in stream.body, "the client is told, in its stream"
    assert gateway.wait(8) == 0
    harness.until("the engine's call is ended too", lambda: witness.call("endless").left is not None)
