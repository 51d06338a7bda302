"""TLS towards clients and towards engines, with certificates of the test's own making."""

from __future__ import annotations

import asyncio
import pathlib
import re
import socket
import ssl
import threading
import time
import typing

import httpx
import pytest

import harness
from certificates import Authority, Pair
from frames import Http2
from witness import Witness

Gateways = list[harness.Gateway]
BODY = {"model": "real", "messages": [{"role": "user", "content": "[[tokens=4]]"}]}


class TlsWitness(Witness):
    """The witness behind TLS."""

    def __init__(self, pair: Pair) -> None:
        self.context = pair.server()
        super().__init__()
        self.url = f"https://localhost:{self.port}"

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        serving = asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512, limit=1 << 20, ssl=self.context)
        self.server = self.loop.run_until_complete(serving)
        self.port = self.server.sockets[0].getsockname()[1]
        started.set()
        self.loop.run_forever()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The one that the tests trust."""
    return Authority(tmp_path_factory.mktemp("ca"), "harbour")


class World(typing.NamedTuple):
    """A gateway that speaks TLS, what stands behind it, and who vouches for it."""

    gateway: harness.Gateway
    witness: Witness
    authority: Authority


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> typing.Iterator[World]:
    """One for the tests of TLS towards clients."""
    pair, witness = authority.issue("127.0.0.1", "localhost"), Witness()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(authority.file))  # for the harness's own requests
        gateway = harness.Gateway(tmp_path_factory.mktemp("tls"), config_in(pair, witness))
        yield World(gateway, witness, authority)
        assert gateway.stop() == 0
    witness.close()


def config_in(pair: Pair, witness: Witness) -> str:
    """TLS towards clients."""
    tls = f'[tls]\ncert = "{pair.cert}"\nkey = "{pair.key}"\n'
    return "\n".join([tls, harness.engine("e", witness.url, pass_through=True), harness.model("real", "e/real")])


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
def test_calls_over_https(world: World, version: str) -> None:
    """Chosen by ALPN, as every usual client does."""
    assert world.gateway.url.startswith("https://")
    two = version == "HTTP/2"
    trust = world.authority.client(("h2", "http/1.1") if two else ("http/1.1",))
    with httpx.Client(base_url=world.gateway.v1, http2=two, verify=trust, timeout=20) as client:
        answer = client.post("/chat/completions", json=BODY)
        assert (answer.status_code, answer.http_version) == (200, version)
        with client.stream("POST", "/chat/completions", json={**BODY, "stream": True}) as stream:
            assert stream.http_version == version
            assert sum("word" in line for line in stream.iter_lines()) == 4
        upload = client.post("/files", content=b"x" * (3 << 20), headers={"content-type": "application/octet-stream"})
        assert upload.json()["bytes"] == 3 << 20


@pytest.mark.parametrize(("offered", "chosen"), [(("h2", "http/1.1"), "h2"), (("http/1.1", "h2"), "h2"), (("http/1.1",), "http/1.1"), ((), None)])
def test_the_protocol_is_agreed_in_the_handshake(world: World, offered: tuple[str, ...], chosen: str | None) -> None:
    context = ssl.create_default_context(cafile=str(world.authority.file))
    if offered:
        context.set_alpn_protocols(list(offered))
    with context.wrap_socket(world.gateway.connect(), server_hostname="localhost") as raw:
        assert raw.selected_alpn_protocol() == chosen
        assert raw.version() in ("TLSv1.2", "TLSv1.3")
        if chosen != "h2":
            raw.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert raw.recv(4096).startswith(b"HTTP/1.1 200")


def test_old_versions_are_refused(world: World) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(world.authority.file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(OSError):
        context.wrap_socket(world.gateway.connect(), server_hostname="localhost")
    assert world.gateway.is_alive()


def test_a_stranger_to_the_authority_does_not_trust_it(world: World) -> None:
    """Of the test's own doubts: these certificates are really looked at."""
    with pytest.raises(httpx.ConnectError, match="(?i)certificate"):
        httpx.get(world.gateway.url + "/healthz", verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), timeout=5)


@pytest.mark.parametrize("sent", [b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x40\x00" + b"\xff" * 500, b"\x00" * 2000], ids=["http/1.1", "http/2", "half a hello", "zeros"])
def test_what_is_not_tls_is_closed(world: World, sent: bytes) -> None:
    """At once where the first bytes show it, and the server goes on."""
    raw = world.gateway.connect()
    raw.sendall(sent)
    if sent[:1] == b"\x16":
        raw.shutdown(socket.SHUT_WR)
    raw.settimeout(3)
    said = b""
    try:
        while data := raw.recv(4096):
            said += data
    except ConnectionResetError:
        pass
    assert len(said) < 64, "an alert at most"
    assert world.gateway.is_alive()


def test_a_client_that_leaves_ends_the_engines_call(world: World) -> None:
    """With and without TLS's own goodbye, over both protocols."""
    trust = world.authority.client()
    for name, polite in (("tls-polite", True), ("tls-rude", False)):
        raw = trust.wrap_socket(world.gateway.connect(), server_hostname="localhost")
        body = b'{"model":"real","stream":true,"messages":[{"role":"user","content":"[[id=%s tokens=5000 token_ms=10]]"}]}' % name.encode()
        raw.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        harness.until("it runs", lambda name=name: world.witness.call(name) and world.witness.call(name).pieces > 2)
        at = time.monotonic()
        if polite:
            raw.settimeout(0.2)
            try:
                raw.unwrap().close()
            except OSError:
                raw.close()
        else:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            raw.close()
        seen = harness.until("the engine notices", lambda name=name: world.witness.call(name).left and world.witness.call(name))
        assert seen.left - at < 1.5
    line = Http2(world.gateway, world.authority.client(("h2",)))
    stream = line.call("chat", "[[id=tls-reset tokens=5000 token_ms=10]]", stream=True)
    line.pump("it runs", lambda: stream.body)
    at = line.reset(stream)
    harness.until("the engine notices", lambda: world.witness.call("tls-reset").left)
    assert world.witness.call("tls-reset").left - at < 1
    line.close()


def test_many_handshakes_at_once(world: World) -> None:
    """A hundred clients that come together are all served."""
    trust, failed = world.authority.client(), []

    def ask() -> None:
        try:
            assert httpx.post(world.gateway.v1 + "/chat/completions", json=BODY, verify=trust, timeout=20).status_code == 200
        except Exception as error:  # told below, with all others
            failed.append(error)

    clients = [threading.Thread(target=ask, daemon=True) for _ in range(100)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(30)
    assert not failed, failed[:3]


def bad_certificates(folder: pathlib.Path, authority: Authority) -> dict[str, str]:
    """A `[tls]` for each way to get it wrong."""
    good, other = authority.issue("localhost"), authority.issue("localhost")
    noise, empty, shell = folder / "noise.pem", folder / "empty.pem", folder / "shell.pem"
    noise.write_bytes(b"not a certificate\n")
    empty.write_bytes(b"")
    shell.write_text("-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n")

    def tls(cert: pathlib.Path | None, key: pathlib.Path | None) -> str:
        return "[tls]\n" + (f'cert = "{cert}"\n' if cert else "") + (f'key = "{key}"\n' if key else "")

    return {
        "missing": tls(folder / "nowhere.pem", good.key),
        "noise": tls(noise, good.key),
        "empty": tls(empty, good.key),
        "a shell with nothing in it": tls(shell, good.key),
        "no key": tls(good.cert, None),
        "no certificate": tls(None, good.key),
        "exchanged": tls(good.key, good.cert),
        "another's key": tls(good.cert, other.key),
        "key is noise": tls(good.cert, noise),
        "a folder": tls(folder, good.key),
    }


@pytest.mark.parametrize("which", ["missing", "noise", "empty", "a shell with nothing in it", "no key", "no certificate", "exchanged", "another's key", "key is noise", "a folder"])
def test_a_bad_certificate_is_refused_before_anything_is_served(tmp_path: pathlib.Path, authority: Authority, gateways: Gateways, which: str) -> None:
    """`check` and `serve` agree: 64, the key named, and what to do."""
    text = bad_certificates(tmp_path, authority)[which]
    gateway = harness.Gateway(tmp_path, text, ready=False)
    gateways.append(gateway)
    assert gateway.wait() == 64, gateway.output()
    assert "tls" in gateway.output()
    assert "panic" not in gateway.output()
    checked = harness.seawall("check", "--config", gateway.config)
    said = checked.stdout + checked.stderr
    assert checked.returncode == 64, said
    assert re.search(r"toml:\d+: tls\.(cert|key)", said), said
    assert "PRIVATE KEY-----\nM" not in said, "no key is shown"


# towards engines


def serve_over(folder: pathlib.Path, gateways: Gateways, witness: Witness, **settings: typing.Any) -> harness.Gateway:
    """A gateway with an engine behind https."""
    engine = harness.engine("e", witness.url, connect_ms_max=800, pass_through=True, **settings)
    gateway = harness.Gateway(folder, "\n".join(["[retry]\nattempts_max = 1\n", engine, harness.model("real", "e/real")]))
    gateways.append(gateway)
    return gateway


def test_an_engine_behind_https(tmp_path: pathlib.Path, authority: Authority, gateways: Gateways) -> None:
    """With an authority of the operator's own; streams, uploads and cancels as without TLS."""
    witness = TlsWitness(authority.issue("localhost"))
    gateway = serve_over(tmp_path, gateways, witness, tls_ca_file=str(authority.file))
    with httpx.Client(base_url=gateway.v1, timeout=20) as client:
        assert client.post("/chat/completions", json=BODY).status_code == 200
        with client.stream("POST", "/chat/completions", json={**BODY, "stream": True}) as stream:
            assert sum("word" in line for line in stream.iter_lines()) == 4
        upload = client.post("/files", content=b"x" * (3 << 20))
        assert upload.json()["bytes"] == 3 << 20
        with client.stream("POST", "/chat/completions", json={**BODY, "stream": True, "messages": [{"role": "user", "content": "[[id=tls-out tokens=5000 token_ms=10]]"}]}) as stream:
            next(stream.iter_lines())
            at = time.monotonic()
    seen = harness.until("the engine notices", lambda: witness.call("tls-out").left and witness.call("tls-out"))
    assert seen.left - at < 1
    witness.close()


# What is wrong with an engine's certificate.
DISTRUST = ["no authority named", "another authority", "another host's certificate", "expired", "plain http there"]


def distrusted(folder: pathlib.Path, authority: Authority, gateways: Gateways, why: str) -> tuple[harness.Gateway, Witness]:
    """A gateway, and an engine that it must not speak to."""
    trusted = {"tls_ca_file": str(authority.file)}
    pair = authority.issue("elsewhere.test") if why.startswith("another host") else authority.issue("localhost", expired=why == "expired")
    if why == "no authority named":
        trusted = {}
    if why == "another authority":
        trusted = {"tls_ca_file": str(Authority(folder / "ca", "stranger").file)}
    witness: Witness = Witness() if why == "plain http there" else TlsWitness(pair)
    witness.url = witness.url.replace("http://127.0.0.1", "https://localhost")
    return serve_over(folder, gateways, witness, **trusted), witness


@pytest.mark.parametrize("why", DISTRUST)
def test_an_engine_that_cannot_be_trusted_is_not_spoken_to(tmp_path: pathlib.Path, authority: Authority, gateways: Gateways, why: str) -> None:
    """A clear refusal soon, and not a byte of the call has gone there."""
    gateway, witness = distrusted(tmp_path, authority, gateways, why)
    began = time.monotonic()
    for stream in (False, True):
        answer = httpx.post(gateway.v1 + "/chat/completions", json={**BODY, "stream": stream}, timeout=20)
        assert answer.status_code in (502, 503), answer.text
        error = answer.json()["error"]
        assert error["code"] in ("engine_down", "engine_failed"), error
        assert error["message"] and error["trace_id"]
    assert time.monotonic() - began < 8
    assert not witness.calls(), "nothing of the call was sent"
    assert gateway.is_alive()
    witness.close()


@pytest.mark.parametrize("why", DISTRUST)
def test_why_an_engine_is_not_spoken_to_is_logged(tmp_path: pathlib.Path, authority: Authority, gateways: Gateways, why: str) -> None:
    """The operator finds it out without a packet trace, and without a line for every call."""
    gateway, witness = distrusted(tmp_path, authority, gateways, why)
    since = gateway.mark()
    patience = {"x-seawall-deadline-ms": "1000"}
    for _ in range(5):
        assert httpx.post(gateway.v1 + "/chat/completions", json=BODY, headers=patience, timeout=20).is_error
    pattern = r"(?i)too long|timed? ?out|tls" if why == "plain http there" else r"(?i)certificate"
    gateway.line(pattern, 3, since)
    said = [line for line in gateway.output().splitlines()[since:] if re.search(pattern, line) and not line.startswith("{")]
    assert 1 <= len(said) <= 5, said
    witness.close()


@pytest.mark.parametrize("which", ["missing", "noise", "shell"])
def test_a_bad_authority_file_is_refused(tmp_path: pathlib.Path, which: str) -> None:
    file = tmp_path / "ca.pem"
    if which == "noise":
        file.write_text("not a certificate")
    if which == "shell":
        file.write_text("-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n")
    config = tmp_path / "seawall.toml"
    config.write_text(harness.engine("e", "https://localhost:1", tls_ca_file=str(file)))
    checked = harness.seawall("check", "--config", config)
    said = checked.stdout + checked.stderr
    assert checked.returncode == 64, said
    assert re.search(r"toml:\d+: engine\.e\.tls_ca_file", said), said
