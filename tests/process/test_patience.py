"""What only time shows: connections that idle, drip, say nothing or vanish. All of it is begun at
once, so that the longest wait is the only one."""

from __future__ import annotations

import concurrent.futures
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import typing

import pytest

import harness
from certificates import Authority
from raw import Caller
from witness import Witness

# limits::HEADER_WAIT_MS_MAX, and the time after which a peer that answers nothing is given up.
HEADER_WAIT_S = 15.0
DEAD_PEER_S = 30.0
# Longer than any limit on heads: a client's pool holds its connections for about this long.
IDLE_S = 20.0
LOADED_S = 5.0

Result = typing.Any


class World(typing.NamedTuple):
    """Everything that waits, by name, and what it waits for."""

    gateway: harness.Gateway
    witness: Witness
    waits: dict[str, "concurrent.futures.Future[Result]"]

    def of(self, name: str) -> Result:
        """How one of them ended."""
        return self.waits[name].result(55)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[World]:
    """Begins all waits together."""
    witness = Witness()
    config = [harness.engine("e", witness.url, pass_through=True), harness.model("real", "e/real")]
    gateway = harness.Gateway(tmp_path_factory.mktemp("patience"), "\n".join(config))
    pair = Authority(tmp_path_factory.mktemp("ca"), "harbour").issue("127.0.0.1")
    folder = tmp_path_factory.mktemp("patience-tls")
    tls = harness.Gateway(folder, f'[tls]\ncert = "{pair.cert}"\nkey = "{pair.key}"\n' + "\n".join(config), ready=False)
    tls.url = harness.ADDRESS.search(tls.line("^listening on https://"))[0]  # type: ignore[index]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        waits = {
            "idle": pool.submit(idle, gateway),
            "drip": pool.submit(drip, gateway),
            "second head": pool.submit(second_head, gateway),
            "silent": pool.submit(silent, gateway.connect()),
            "silent tls": pool.submit(silent, tls.connect()),
            "vanished": pool.submit(vanished, tmp_path_factory.mktemp("vanished"), witness),
        }
        yield World(gateway, witness, waits)
    tls.kill()
    assert gateway.stop() == 0
    witness.close()


def post(prompt: str) -> bytes:
    """A whole request."""
    body = json.dumps({"model": "real", "messages": [{"role": "user", "content": prompt}]}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def served(raw: socket.socket, prompt: str) -> bool:
    """Is a call on this connection answered?"""
    raw.sendall(post(prompt))
    said = b""
    while b'"total_tokens"' not in said:
        data = raw.recv(64 << 10)
        if not data:
            return False
        said += data
    return said.startswith(b"HTTP/1.1 200")


def idle(gateway: harness.Gateway) -> tuple[bool, bool]:
    """Two calls on one connection with a long pause between them."""
    raw = gateway.connect()
    first = served(raw, "[[id=idle-1]]")
    # sleeps because idling is the test
    time.sleep(IDLE_S)
    try:
        return first, served(raw, "[[id=idle-2]]")
    except OSError:
        return first, False


def drip(gateway: harness.Gateway) -> tuple[float, bytes]:
    """A head of one byte every half second: how long it is borne, and what is said."""
    raw, began = gateway.connect(), time.monotonic()
    raw.settimeout(0.5)
    for byte in b"GET /v1/models HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: " + b"a" * 1000:
        try:
            raw.sendall(bytes([byte]))
            return time.monotonic() - began, raw.recv(4096)
        except TimeoutError:
            if time.monotonic() - began > 45:
                break
        except OSError:
            return time.monotonic() - began, b""
    return time.monotonic() - began, b"never"


def second_head(gateway: harness.Gateway) -> tuple[float, bytes]:
    """A good request, and then half a head."""
    raw = gateway.connect(45)
    assert served(raw, "[[id=second-head]]")
    raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: ")
    began = time.monotonic()
    try:
        said = raw.recv(4096)
    except TimeoutError:
        said = b"never"
    except OSError:
        said = b""
    return time.monotonic() - began, said


def silent(raw: socket.socket) -> float:
    """A connection that says nothing: for how long it is held, or the longest that is looked."""
    began = time.monotonic()
    raw.settimeout(45)
    try:
        raw.recv(4096)
    except OSError:
        pass
    return time.monotonic() - began


# Runs in a network of its own, with one cable to ours.
LOST = """
import json, socket, sys
held = []
for name, stream in (("lost-stream", True), ("lost-quiet", False)):
    raw = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    orders = "tokens=5000 token_ms=20" if stream else "first_ms=55000"
    body = json.dumps({"model": "real", "stream": stream, "messages": [{"role": "user", "content": f"[[id={name} {orders}]]"}]})
    raw.sendall(f"POST /v1/chat/completions HTTP/1.1\\r\\nhost: a\\r\\nauthorization: Bearer {sys.argv[3]}\\r\\ncontent-length: {len(body)}\\r\\n\\r\\n{body}".encode())
    held.append(raw)
print("sent", flush=True)
while held[0].recv(65536):
    pass
"""


def vanished(folder: pathlib.Path, witness: Witness) -> dict[str, float] | str:
    """Clients behind a cable that is pulled: seconds until the engine's calls end."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        return "needs root and the `ip` command (iproute2)"
    space = f"sw{os.getpid()}"
    subnet = f"10.231.{os.getpid() % 250}"

    def ip(*words: str) -> bool:
        return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0

    config = "\n".join([harness.engine("e", witness.url), harness.model("real", "e/real")])
    key = harness.add_key(folder / "data", "acme")
    gateway = harness.Gateway(folder, config, "--listen", "0.0.0.0:0", ready=False)
    client: subprocess.Popen[str] | None = None
    try:
        port = gateway.line(r"listening on http://0\.0\.0\.0:[1-9]").rsplit(":", 1)[1].split("/")[0]
        made = ip("netns", "add", space) and ip("link", "add", f"{space}a", "type", "veth", "peer", "name", f"{space}b", "netns", space)
        made = made and ip("addr", "add", f"{subnet}.1/24", "dev", f"{space}a") and ip("link", "set", f"{space}a", "up")
        made = made and ip("-n", space, "addr", "add", f"{subnet}.2/24", "dev", f"{space}b") and ip("-n", space, "link", "set", f"{space}b", "up")
        if not made:
            return "no network of its own can be made here"
        command = ["ip", "netns", "exec", space, sys.executable, "-c", LOST, f"{subnet}.1", port.strip(), key]
        client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert client.stdout and client.stdout.readline() == "sent\n"
        harness.until("both arrive", lambda: witness.call("lost-stream") and witness.call("lost-quiet"))
        harness.until("it streams", lambda: witness.call("lost-stream").pieces > 10)
        assert ip("-n", space, "link", "set", f"{space}b", "down")
        at = time.monotonic()
        ended = {}
        for name in ("lost-stream", "lost-quiet"):
            seen = harness.until(f"{name} is given up", lambda name=name: witness.call(name).left and witness.call(name), 45, every=0.1)
            ended[name] = seen.left - at
        return ended
    finally:
        if client:
            client.kill()
            client.wait()
        ip("link", "del", f"{space}a")
        ip("netns", "del", space)
        gateway.kill()


def test_an_idle_connection_is_still_good(world: World) -> None:
    """Clients keep theirs for use again: one that ends under them costs a failed call."""
    assert world.of("idle") == (True, True)


def test_a_head_that_drips_is_not_borne_for_ever(world: World) -> None:
    took, said = world.of("drip")
    assert HEADER_WAIT_S - 5 < took < HEADER_WAIT_S + LOADED_S, (took, said)
    assert said == b"" or said.startswith(b"HTTP/1.1 408"), said


def test_half_a_second_head_is_not_either(world: World) -> None:
    took, said = world.of("second head")
    assert took < HEADER_WAIT_S + LOADED_S, (took, said)
    assert said == b"" or said.startswith(b"HTTP/1.1 408"), said


def test_a_connection_that_says_nothing_is_ended(world: World) -> None:
    """Before its first request there is nothing worth keeping; with TLS not even that."""
    assert world.of("silent") < HEADER_WAIT_S + LOADED_S
    assert world.of("silent tls") < HEADER_WAIT_S + LOADED_S


def test_a_client_whose_network_is_gone_is_given_up(world: World) -> None:
    """No goodbye comes from a pulled cable; the engine's calls end nevertheless."""
    ended = world.of("vanished")
    if isinstance(ended, str):
        pytest.skip(ended)
    assert max(ended.values()) < DEAD_PEER_S + LOADED_S + 5, ended


def test_all_are_forgotten(world: World) -> None:
    harness.until("nothing is left", lambda: world.gateway.state()["calls"] == 0)
    assert Caller(world.gateway, "chat", "x").status() == 200
