"""Proxies named by the environment: engines are reached through them, and their failures are told."""

from __future__ import annotations

import base64
import pathlib
import socket
import threading
import time
import typing

import httpx
import pytest

import harness
from certificates import Authority
from test_tls import TlsWitness
from witness import Witness

Gateways = list[harness.Gateway]
# Resolved by nobody but the proxy.
HOST = "engine.test"
BODY = {"model": "real", "messages": [{"role": "user", "content": "[[tokens=4]]"}]}


class Proxy:
    """One that knows CONNECT, sends every name to one port, and keeps a record."""

    def __init__(self, port: int, mode: str = "tunnel") -> None:
        self.port, self.mode = port, mode
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:{}".format(self.server.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = raw.recv(4096)
            if not data:
                return
            head += data
        first, *lines = head.split(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        headers = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in lines}
        self.asked.append((first, headers))
        if self.mode == "hang":
            raw.recv(1)
        elif self.mode == "refuse":
            raw.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
        elif self.mode == "noise":
            raw.sendall(b"\x00\x01\x02 not a proxy\r\n\r\n")
        elif self.mode == "tunnel":
            there = socket.create_connection(("127.0.0.1", self.port))
            raw.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
            threading.Thread(target=carry, args=(raw, there), daemon=True).start()
            carry(there, raw)
        raw.close()

    def close(self) -> None:
        """Goes away."""
        self.server.close()


def carry(source: socket.socket, sink: socket.socket) -> None:
    """Bytes one way, until either side ends; then both do."""
    try:
        while data := source.recv(64 << 10):
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def serve(folder: pathlib.Path, gateways: Gateways, url: str, environment: dict[str, str], head: str = "", **settings: typing.Any) -> harness.Gateway:
    """A gateway whose engine is behind that URL."""
    engine = harness.engine("e", url, connect_ms_max=1500, **settings)
    config = "\n".join([head, "[retry]\nattempts_max = 1\n", engine, harness.model("real", "e/real")])
    gateway = harness.Gateway(folder, config, environment=environment)
    gateways.append(gateway)
    return gateway


def ask(gateway: harness.Gateway, **more: typing.Any) -> httpx.Response:
    """One call."""
    return httpx.post(gateway.v1 + "/chat/completions", json={**BODY, **more}, timeout=20)


def test_an_https_engine_through_a_proxy(tmp_path: pathlib.Path, gateways: Gateways) -> None:
    """The proxy sees a name and noise: the TLS inside is with the engine itself. Cancels get through it."""
    authority = Authority(tmp_path / "ca", "harbour")
    witness = TlsWitness(authority.issue(HOST))
    proxy = Proxy(witness.port)
    gateway = serve(tmp_path, gateways, f"https://{HOST}", {"HTTPS_PROXY": f"http://user:pa55@{proxy.address}"}, tls_ca_file=str(authority.file))
    assert ask(gateway).status_code == 200
    said = ask(gateway, stream=True)
    assert said.text.count("word") == 4
    assert {first for first, _ in proxy.asked} == {f"CONNECT {HOST}:443 HTTP/1.1"}
    expected = "Basic " + base64.b64encode(b"user:pa55").decode()
    assert {headers.get("proxy-authorization") for _, headers in proxy.asked} == {expected}
    assert "proxy-authorization" not in witness.order[0].headers, "the proxy's password is not the engine's"
    assert "pa55" not in gateway.output()
    content = "[[id=proxied tokens=5000 token_ms=10]]"
    with httpx.stream("POST", gateway.v1 + "/chat/completions", json={**BODY, "stream": True, "messages": [{"role": "user", "content": content}]}, timeout=20) as stream:
        next(stream.iter_lines())
        at = time.monotonic()
    seen = harness.until("the engine notices", lambda: witness.call("proxied").left and witness.call("proxied"))
    assert seen.left - at < 1
    witness.close()


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_a_plain_engine_through_a_proxy(tmp_path: pathlib.Path, witness: Witness, gateways: Gateways, variable: str) -> None:
    proxy = Proxy(witness.port)
    gateway = serve(tmp_path, gateways, f"http://{HOST}:8000", {variable: f"http://{proxy.address}"})
    assert ask(gateway).status_code == 200
    assert proxy.asked[0][0] == f"CONNECT {HOST}:8000 HTTP/1.1"


@pytest.mark.parametrize(
    ("environment", "head"),
    [
        ({"NO_PROXY": HOST}, ""),
        ({"NO_PROXY": "other.test, .test"}, ""),
        ({"no_proxy": "*"}, ""),
        ({}, "[proxy]\nuse_env = false\n"),
    ],
    ids=["by name", "by domain", "all", "switched off"],
)
def test_what_is_excepted_is_asked_directly(tmp_path: pathlib.Path, witness: Witness, gateways: Gateways, environment: dict[str, str], head: str) -> None:
    """The name is known to the proxy alone, so that asking directly fails, and soon."""
    proxy = Proxy(witness.port)
    gateway = serve(tmp_path, gateways, f"http://{HOST}:8000", {"HTTP_PROXY": f"http://{proxy.address}", **environment}, head)
    answer = ask(gateway)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "engine_down"
    assert not proxy.asked


def test_an_exception_for_others_changes_nothing(tmp_path: pathlib.Path, witness: Witness, gateways: Gateways) -> None:
    proxy = Proxy(witness.port)
    gateway = serve(tmp_path, gateways, f"http://{HOST}:8000", {"HTTP_PROXY": f"http://{proxy.address}", "NO_PROXY": "other.test,10.0.0.0/8"})
    assert ask(gateway).status_code == 200
    assert proxy.asked


def test_this_machine_is_never_behind_a_proxy(tmp_path: pathlib.Path, witness: Witness, gateways: Gateways) -> None:
    proxy = Proxy(witness.port)
    for number, url in enumerate([witness.url, witness.url.replace("127.0.0.1", "localhost")]):
        everything = {name: f"http://{proxy.address}" for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")}
        gateway = serve(tmp_path / str(number), gateways, url, everything)
        assert ask(gateway).status_code == 200
    assert not proxy.asked


@pytest.mark.parametrize("mode", ["refuse", "hang", "noise", "gone"])
def test_a_proxy_that_fails_is_an_engine_that_is_down(tmp_path: pathlib.Path, witness: Witness, gateways: Gateways, mode: str) -> None:
    """Within the time of a connect, with nothing of the call sent, and served again when it is well."""
    proxy = Proxy(witness.port, mode)
    if mode == "gone":
        proxy.close()
    gateway = serve(tmp_path, gateways, f"http://{HOST}:8000", {"HTTP_PROXY": f"http://{proxy.address}"})
    began = time.monotonic()
    answer = ask(gateway)
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["code"] == "engine_down"
    assert time.monotonic() - began < 4
    assert not witness.calls()
    if mode != "gone":
        proxy.mode = "tunnel"
        harness.until("calls flow again", lambda: ask(gateway).status_code == 200, 15, every=0.1)
