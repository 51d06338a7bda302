"""Clients that are slow, broken or hostile: each gets an HTTP error where HTTP allows one, and the server lives."""

from __future__ import annotations

import contextlib
import json
import pathlib
import select
import socket
import time
import typing

import httpx
import pytest

import harness
from raw import Caller
from witness import Witness

# What one slow reader may cost the gateway.
SLOW_READER_BYTES_MAX = 256 << 10
SLOW_READERS = 20


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[tuple[harness.Gateway, Witness]]:
    """A gateway with small limits."""
    witness = Witness()
    limits = {"body_bytes_max": 1 << 20, "body_wait_ms_max": 1500, "client_stall_ms_max": 3000, "header_wait_ms_max": None}
    head = "[limits]\n" + "".join(f"{key} = {value}\n" for key, value in limits.items() if value is not None)
    config = [head, harness.engine("e", witness.url, pass_through=True), harness.engine("a", witness.url, kind="anthropic"), harness.model("real", "e/real"), harness.model("other", "a/real")]
    gateway = harness.Gateway(tmp_path_factory.mktemp("clients"), "\n".join(config))
    yield gateway, witness
    gateway.stop()
    witness.close()


def answer(raw: socket.socket, seconds: float = 10.0) -> bytes:
    """Everything that the server says until it closes, or nothing more comes."""
    raw.settimeout(seconds)
    said = b""
    try:
        while data := raw.recv(64 << 10):
            said += data
            if b"\r\n\r\n" in said and complete(said):
                break
    except TimeoutError:
        raise AssertionError(f"no whole answer within {seconds} s: {said[:500]!r}") from None
    except ConnectionResetError:
        pass
    return said


def complete(said: bytes) -> bool:
    """Whether the counted body is all there."""
    head, body = said.split(b"\r\n\r\n", 1)
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return b"chunked" in head.lower() and body.endswith(b"0\r\n\r\n")


def post(path: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """A request's bytes."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json", *headers]
    if length is not None or not any("transfer-encoding" in header for header in headers):
        lines.append(f"content-length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


CHAT = "/v1/chat/completions"
GOOD = json.dumps({"model": "real", "messages": [{"role": "user", "content": "x"}]}).encode()
DEEP = b'{"model":"real","messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}"

# name, bytes, statuses that are right; None where HTTP has no answer to give
HOSTILE: list[tuple[str, bytes, tuple[int, ...]]] = [
    ("binary", bytes(range(256)) * 4 + b"\r\n\r\n", (400,)),
    ("tls on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200 + b"\r\n\r\n", (400,)),
    ("no version", b"GET /v1/models\r\n\r\n", (400,)),
    ("bad version", b"GET /v1/models HTTP/9.9\r\n\r\n", (400, 505)),
    ("bad header name", b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nbad header: 1\r\n\r\n", (400,)),
    ("a header of 100 KB", b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + b"a" * 100_000 + b"\r\n\r\n", (431, 400)),
    ("5,000 headers", b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n" + b"".join(b"x-%d: 1\r\n" % n for n in range(5000)) + b"\r\n", (431, 400)),
    ("a path of 100 KB", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", (414, 431, 400)),
    ("negative length", b"POST " + CHAT.encode() + b" HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: -1\r\n\r\n", (400,)),
    ("length that is no number", b"POST " + CHAT.encode() + b" HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: many\r\n\r\n", (400,)),
    ("two lengths", b"POST " + CHAT.encode() + b" HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef", (400,)),
    ("length and chunked", b"POST " + CHAT.encode() + b" HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", (400,)),
    ("bad chunk size", post(CHAT, b"zz\r\nabc\r\n0\r\n\r\n", "transfer-encoding: chunked"), (400,)),
    ("a chunk too big for any number", post(CHAT, b"fffffffffffffffff\r\nabc", "transfer-encoding: chunked"), (400, 413)),
    ("chunk of 1 GB", post(CHAT, b"40000000\r\n" + b"a" * (2 << 20), "transfer-encoding: chunked"), (413,)),
    ("length over the limit", post(CHAT, b"{", length=1 << 40), (413,)),
    ("expects to be refused", post(CHAT, b"", "expect: 100-continue", length=1 << 30), (413, 417)),
    ("nested 50,000 deep", post(CHAT, DEEP), (400,)),
    ("null bytes", post(CHAT, b"\x00" * 1000), (400,)),
    ("invalid utf-8", post(CHAT, b'{"model":"\xc3\x28","messages":[]}'), (400,)),
    ("half a surrogate", post(CHAT, b'{"model":"\\ud800","messages":[{"role":"user","content":"x"}]}'), (400, 404)),
    ("huge number", post(CHAT, b'{"model":"real","messages":[{"role":"user","content":"x"}],"max_tokens":1e400}'), (400,)),
    ("other content type", post(CHAT, GOOD, "content-encoding: br"), (400, 415, 200)),
    ("bad trace header", post(CHAT, GOOD, "traceparent: 00-zz-zz-zz"), (200,)),
    ("bad deadline", post(CHAT, GOOD, "x-seawall-deadline-ms: -1"), (400,)),
    ("bad class", post(CHAT, GOOD, "x-seawall-class: emperor"), (400,)),
    ("a run's name of 10 KB", post(CHAT, GOOD, "x-seawall-run: " + "r" * 10_000), (400, 200)),
    ("key that is not ascii", post(CHAT, GOOD).replace(b"host: 127.0.0.1", b"host: 127.0.0.1\r\nauthorization: Bearer \xff\xfe"), (200, 400, 401)),
    ("path with dots", b"GET /v1/../../etc/passwd HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", (404, 400, 200)),
    ("method that is not one", b"BREW /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", (405, 400, 404, 501)),
]


@pytest.mark.parametrize(("sent", "statuses"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_bytes_get_an_answer(world: tuple[harness.Gateway, Witness], sent: bytes, statuses: tuple[int, ...]) -> None:
    gateway, _ = world
    raw = gateway.connect()
    try:
        raw.sendall(sent)
    except OSError:
        pass  # it may answer and close before it has read it all
    said = answer(raw)
    assert said.startswith(b"HTTP/1.1 "), said[:200]
    assert int(said[9:12]) in statuses, said[:500]
    assert gateway.is_alive()


def test_a_body_that_never_comes(world: tuple[harness.Gateway, Witness]) -> None:
    """Half a body, then silence: 408 after the configured time, not a held connection."""
    gateway, _ = world
    for sent in (post(CHAT, GOOD[:20], length=len(GOOD)), post(CHAT, b"5\r\n{\"mod", "transfer-encoding: chunked")):
        raw = gateway.connect()
        raw.sendall(sent)
        began = time.monotonic()
        said = answer(raw, 8)
        assert said.startswith(b"HTTP/1.1 408"), said[:300]
        assert b"body_timeout" in said
        assert 1 < time.monotonic() - began < 5


def test_a_body_that_drips(world: tuple[harness.Gateway, Witness]) -> None:
    """One byte every 0.2 s keeps no place for ever."""
    gateway, _ = world
    raw = gateway.connect()
    raw.sendall(post(CHAT, b"", length=len(GOOD)))
    began = time.monotonic()
    raw.settimeout(0.2)
    said = b""
    for byte in GOOD * 2:
        try:
            raw.sendall(bytes([byte]))
            said += raw.recv(4096)
            break
        except TimeoutError:
            assert time.monotonic() - began < 8, "the body's time is over and nobody says so"
        except OSError:
            break
    assert said.startswith(b"HTTP/1.1 408"), said[:200]


def test_a_client_that_leaves_in_its_body(world: tuple[harness.Gateway, Witness]) -> None:
    gateway, _ = world
    for sent in (post(CHAT, GOOD[:20], length=len(GOOD)), post(CHAT, b"5\r\n{\"mod", "transfer-encoding: chunked"), b"POST /v1/ch"):
        raw = gateway.connect()
        raw.sendall(sent)
        raw.close()
    harness.until("nothing is left", lambda: gateway.state()["calls"] == 0)
    assert gateway.is_alive()


def test_pipelined_requests_are_answered_in_order(world: tuple[harness.Gateway, Witness]) -> None:
    gateway, witness = world
    bodies = [json.dumps({"model": "real", "messages": [{"role": "user", "content": f"[[id=pipe-{n} reply=r{n} tokens=1]]"}]}).encode() for n in range(4)]
    raw = gateway.connect()
    raw.sendall(b"".join(post(CHAT, body) for body in bodies))
    said = b""
    while said.count(b"chatcmpl") < 4:
        data = raw.recv(64 << 10)
        assert data, said
        said += data
    assert [said.index(b"r%d " % n) for n in range(4)] == sorted(said.index(b"r%d " % n) for n in range(4))


def test_half_closed_clients_still_get_their_answer_or_are_left(world: tuple[harness.Gateway, Witness]) -> None:
    """A client that closes its writing side: the call ends one way or the other, and nothing leaks."""
    gateway, witness = world
    caller = Caller(gateway, "chat", "[[id=half-closed first_ms=300]]")
    harness.until("it arrives", lambda: witness.call("half-closed"))
    caller.raw.shutdown(socket.SHUT_WR)
    harness.until("it ends", lambda: witness.in_flight() == 0, 5)
    harness.until("the gateway has forgotten it", lambda: gateway.state()["calls"] == 0)


def test_slow_readers_cost_little(world: tuple[harness.Gateway, Witness]) -> None:
    """Each takes 2 KB/s of a 600 MB answer: memory stays, and the engine is made to wait."""
    gateway, witness = world
    wanted = "tokens=37500 token_bytes=16000"
    warm = Caller(gateway, "chat", "[[id=warm tokens=2000 token_bytes=1000]]", stream=True)
    warm.whole()
    before, callers = gateway.rss_bytes(), []
    for number in range(SLOW_READERS):
        caller = Caller(gateway, "chat" if number % 2 else "messages", f"[[id=slow-{number} {wanted}]]", stream=True, model="real" if number % 4 < 2 else "other")
        caller.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        callers.append(caller)
    peak, end = 0, time.monotonic() + 4
    while time.monotonic() < end:
        for caller in callers:
            caller.raw.recv(2048 // 4)
        peak = max(peak, gateway.rss_bytes())
        # sleeps because that is the reading speed
        time.sleep(0.25)  # the reading speed, not a wait for anything
    sent = [witness.call(f"slow-{number}").sent_bytes for number in range(SLOW_READERS)]
    for caller in callers:
        caller.leave()
    assert peak - before <= SLOW_READERS * SLOW_READER_BYTES_MAX, f"{(peak - before) // SLOW_READERS} bytes each"
    # The kernels' socket buffers on both hops take some megabytes; 600 do not go anywhere.
    assert max(sent) < 40 << 20, "the engine was not held back"
    harness.until("the engine is told that they left", lambda: witness.in_flight() == 0)


def test_a_client_that_stops_reading_is_cut(world: tuple[harness.Gateway, Witness]) -> None:
    """After the configured time without taking a byte; its engine call ends with it."""
    gateway, witness = world
    caller = Caller(gateway, "chat", "[[id=stopped tokens=6000 token_bytes=100000]]", stream=True)
    caller.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    caller.raw.recv(1024)
    began = time.monotonic()
    harness.until("the engine's call ends", lambda: witness.call("stopped").left, 15)
    assert 2 < time.monotonic() - began < 12
    assert any(value for name, value in gateway.metrics().items() if name.startswith("seawall_connections_cut"))
    caller.leave()


def faults(raw: socket.socket, seconds: float) -> bool:
    """Does the connection fail within so long? Nothing is read."""
    poll = select.poll()
    poll.register(raw, 0)
    return bool(poll.poll(seconds * 1000))


def test_who_still_sends_after_the_last_answer_is_heard_out(world: tuple[harness.Gateway, Witness]) -> None:
    """The server half-closes and reads on for a moment: bytes on their way cost nobody the end of an answer."""
    gateway, _ = world
    lingered = 'seawall_connections_cut_total{why="client_lingers"}'
    before = gateway.metrics().get(lingered, 0)
    caller = Caller(gateway, "chat", "[[tokens=400 token_bytes=500]]", headers={"connection": "close"})
    caller.whole()
    for _ in range(4):
        caller.raw.sendall(b"x" * 1_000)
        assert not faults(caller.raw, 0.05), "reset while the client still listens"
    assert caller.raw.recv(1) == b"", "the server's side is closed in good order"
    caller.raw.close()
    # One that never closes is left after a second, and one that sends without end at once.
    silent = Caller(gateway, "chat", "hello", headers={"connection": "close"})
    silent.whole()
    ended = time.monotonic()
    harness.until("it is left", lambda: gateway.metrics().get(lingered, 0) == before + 1, 5)
    assert time.monotonic() - ended > 0.5
    talker = Caller(gateway, "chat", "hello", headers={"connection": "close"})
    talker.whole()
    sent = 0
    while not faults(talker.raw, 0.005):
        sent += len(b"x" * 4_000)
        assert sent < 1_000_000, "it is heard for ever"
        with contextlib.suppress(OSError):
            talker.raw.sendall(b"x" * 4_000)
    assert sent > 40_000
    assert gateway.metrics()[lingered] == before + 2


def test_slow_headers_are_cut(tmp_path: pathlib.Path, gateways: list[harness.Gateway]) -> None:
    """A thousand connections that never finish their headers do not keep others out."""
    gateway = harness.Gateway(tmp_path, "[limits]\nconnections_max = 1200\n")
    gateways.append(gateway)
    held = []
    for _ in range(1000):
        raw = gateway.connect()
        raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: ")
        held.append(raw)
    assert gateway.is_alive(), "others are served meanwhile"
    # 15 s is limits::HEADER_WAIT_MS_MAX
    held[0].settimeout(25)
    said = held[0].recv(4096)
    assert said == b"" or said.startswith(b"HTTP/1.1 408"), said
    for raw in held:
        raw.close()


def test_connections_over_the_limit_are_told_or_closed(tmp_path: pathlib.Path, gateways: list[harness.Gateway]) -> None:
    gateway = harness.Gateway(tmp_path, "[limits]\nconnections_max = 20\n")
    gateways.append(gateway)
    held = [gateway.connect() for _ in range(40)]
    for raw in held:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
        raw.settimeout(0.5)
    served = 0
    for raw in held:
        try:
            said = raw.recv(4096)
        except (TimeoutError, ConnectionResetError):
            continue
        served += said.startswith(b"HTTP/1.1 200")
        assert said == b"" or said.startswith((b"HTTP/1.1 200", b"HTTP/1.1 503")), said
    assert 10 <= served <= 20
    for raw in held:
        raw.close()
    harness.until("it serves again", gateway.is_ready)


def test_many_requests_leave_nothing_behind(world: tuple[harness.Gateway, Witness]) -> None:
    """Tasks, descriptors and calls return to where they were."""
    gateway, _ = world

    def figures() -> tuple[int, int]:
        return gateway.threads(), len(list(pathlib.Path(f"/proc/{gateway.pid}/fd").iterdir()))

    with httpx.Client(base_url=gateway.v1, timeout=20) as client:
        body = {"model": "real", "messages": [{"role": "user", "content": "x"}]}
        for _ in range(20):
            assert client.post("/chat/completions", json=body).status_code == 200
    before = figures()
    for turn in range(200):
        caller = Caller(gateway, "chat" if turn % 2 else "messages", "x", stream=turn % 3 == 0, model="real" if turn % 5 else "other")
        caller.status()
        caller.leave()
    harness.until("calls are gone", lambda: gateway.state()["calls"] == 0)
    harness.until("descriptors are back", lambda: figures()[1] <= before[1] + 5, 10)
    assert figures()[0] <= before[0] + 1, "no thread is left"
