"""A client made of one socket, so that a test decides each byte and the moment of leaving."""

from __future__ import annotations

import json
import socket
import time
import typing

import harness

# What asks for what in each protocol: path, and the body for a prompt.
PROTOCOLS: dict[str, tuple[str, typing.Callable[[str], dict[str, typing.Any]]]] = {
    "chat": ("/v1/chat/completions", lambda text: {"messages": [{"role": "user", "content": text}]}),
    "completions": ("/v1/completions", lambda text: {"prompt": text}),
    "responses": ("/v1/responses", lambda text: {"input": text}),
    "messages": ("/v1/messages", lambda text: {"messages": [{"role": "user", "content": text}], "max_tokens": 100_000}),
    "embeddings": ("/v1/embeddings", lambda text: {"input": text}),
    "pass-through": ("/v1/other/path", lambda text: {"text": text}),
}


class Caller:
    """One call on a connection of its own."""

    def __init__(self, gateway: harness.Gateway, protocol: str, prompt: str, stream: bool = False, seconds: float = 20.0, **fields: typing.Any) -> None:
        path, make = PROTOCOLS[protocol]
        headers = fields.pop("headers", {})
        body = {"model": "real", **make(prompt), **fields}
        if stream:
            body["stream"] = True
        self.raw = gateway.connect(seconds)
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.held = b""
        self.send(path, json.dumps(body).encode(), headers)

    def send(self, path: str, body: bytes, headers: dict[str, str]) -> None:
        """Sends the request, whole."""
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.raw.sendall(f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode() + body)

    def until(self, mark: bytes, count: int = 1) -> bytes:
        """Reads until the mark has come that often."""
        while self.held.count(mark) < count:
            data = self.raw.recv(64 << 10)
            assert data, f"ended before {mark!r}: {self.held[-2000:]!r}"
            self.held += data
        return self.held

    def status(self) -> int:
        """The status of the answer."""
        return int(self.until(b"\r\n\r\n")[9:12])

    def rest(self) -> bytes:
        """All that comes until the server closes or nothing comes in the socket's time."""
        while data := self.raw.recv(64 << 10):
            self.held += data
        return self.held

    def whole(self) -> bytes:
        """Status line to the end of the last chunk or the whole counted body."""
        head = self.until(b"\r\n\r\n").split(b"\r\n\r\n")[0].lower()
        if b"transfer-encoding: chunked" in head:
            return self.until(b"\r\n0\r\n\r\n")
        length = next((int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
        while len(self.held) < len(head) + 4 + length:
            data = self.raw.recv(64 << 10)
            assert data, "ended inside the body"
            self.held += data
        return self.held

    def leave(self) -> float:
        """Closes the connection as an application that exits does; the moment of it."""
        now = time.monotonic()
        self.raw.close()
        return now
