"""An HTTP/2 client of one connection, so that a test decides each frame: when a stream is
reset, and whose window is opened."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import ssl
import time
import typing

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

import harness
from raw import PROTOCOLS

# The type of the frame that announces the end of a connection: error code, last stream.
GOAWAY = 7


@dataclasses.dataclass
class Stream:
    """What has come on one stream."""

    number: int
    status: int | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: bytearray = dataclasses.field(default_factory=bytearray)
    ended: bool = False
    reset: int | None = None
    # Is what came taken, so that more may come?
    takes: bool = True

    @property
    def over(self) -> bool:
        """Nothing more will come."""
        return self.ended or self.reset is not None


class Http2:
    """One connection; it does nothing but when it is pumped."""

    def __init__(self, gateway: harness.Gateway, tls: ssl.SSLContext | None = None, seconds: float = 20.0) -> None:
        raw = gateway.connect(seconds)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.raw = tls.wrap_socket(raw, server_hostname=gateway.address[0]) if tls else raw
        self.authority, self.scheme = "{}:{}".format(*gateway.address), "https" if tls else "http"
        self.wire = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.streams: dict[int, Stream] = {}
        # Each as error code and last stream.
        self.goaways: list[tuple[int, int]] = []
        self.closed, self.held = False, b""
        self.wire.initiate_connection()
        # The connection's window is out of the way: what a test closes is a stream's.
        self.wire.increment_flow_control_window(1 << 30)
        self.flush()

    def flush(self) -> None:
        """Sends what is to be sent. A peer that takes nothing more may still have said something
        that is to be read, so that a failed send is not the end: only a read finds that."""
        data = self.wire.data_to_send()
        if data and not self.closed:
            with contextlib.suppress(OSError):
                self.raw.sendall(data)

    def call(self, protocol: str, prompt: str, stream: bool = False, takes: bool = True, flush: bool = True, headers: dict[str, str] | None = None, **fields: typing.Any) -> Stream:
        """Begins one call."""
        path, make = PROTOCOLS[protocol]
        body = {"model": "real", **make(prompt), **fields}
        if stream:
            body["stream"] = True
        data = json.dumps(body).encode()
        head = [(":method", "POST"), (":path", path), (":authority", self.authority), (":scheme", self.scheme)]
        more = {"content-type": "application/json", "content-length": str(len(data)), **(headers or {})}
        number = self.wire.get_next_available_stream_id()
        self.wire.send_headers(number, head + list(more.items()))
        self.wire.send_data(number, data, end_stream=True)
        self.streams[number] = Stream(number, takes=takes)
        if flush:
            self.flush()
        return self.streams[number]

    def reset(self, stream: Stream) -> float:
        """Leaves one call; the moment of it."""
        self.wire.reset_stream(stream.number, h2.errors.ErrorCodes.CANCEL)
        now = time.monotonic()
        self.flush()
        return now

    def pump(self, what: str, done: typing.Callable[[], typing.Any], seconds: float = 15.0) -> typing.Any:
        """Reads until `done` says something true; fails with `what` after the time."""
        end = time.monotonic() + seconds
        while not (value := done()):
            left = end - time.monotonic()
            assert left > 0, f"not within {seconds} s: {what}; closed: {self.closed}, goaways: {self.goaways}"
            assert not self.closed, f"the connection ended before: {what}"
            self.hear(min(left, 0.05))
        return value

    def hear(self, seconds: float) -> None:
        """Takes what has come, if it comes within so long."""
        self.raw.settimeout(seconds)
        try:
            data = self.raw.recv(256 << 10)
        except (TimeoutError, ssl.SSLWantReadError):
            return
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return
        self._receive(data)
        self.flush()

    def _receive(self, data: bytes) -> None:
        """Gives whole frames to the codec, all but GOAWAY: after one it would take nothing more,
        though the streams below the one that GOAWAY names go on (RFC 9113 section 6.8)."""
        self.held += data
        while len(self.held) >= 9:
            length = int.from_bytes(self.held[:3], "big")
            if len(self.held) < 9 + length:
                return
            frame, self.held = self.held[: 9 + length], self.held[9 + length :]
            if frame[3] == GOAWAY:
                self.goaways.append((int.from_bytes(frame[13:17], "big"), int.from_bytes(frame[9:13], "big")))
                continue
            for event in self.wire.receive_data(frame):
                self._see(event)

    def _see(self, event: h2.events.Event) -> None:
        number = getattr(event, "stream_id", None)
        stream = self.streams.get(number) if number else None
        if stream is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            stream.headers = dict(event.headers)  # type: ignore[arg-type]
            stream.status = int(stream.headers[":status"])
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data
            with contextlib.suppress(h2.exceptions.ProtocolError, ValueError):
                self.wire.increment_flow_control_window(event.flow_controlled_length)
                if stream.takes:
                    self.wire.increment_flow_control_window(event.flow_controlled_length, number)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = int(event.error_code)

    def close(self) -> None:
        """Closes the connection without a word."""
        self.closed = True
        self.raw.close()
