"""An engine under the test's thumb: it does exactly what the prompt tells it to, and records
what it saw and when the other side left.

It shares no code with the simulated engine, so that a mistake in one does not hide behind the
same mistake in the other. A call carries its orders in its own text, between double brackets,
because prompts reach any engine whatever the protocol: `[[id=7 first_ms=50 token_ms=20 tokens=9]]`.

| order | meaning |
|---|---|
| `id=TEXT` | name of the call in the record |
| `tokens=N` | pieces of output (default 3) |
| `token_bytes=N` | size of a piece |
| `first_ms=N` `token_ms=N` | pauses before the first and between later pieces |
| `tools=N` | answer with N tool calls |
| `reply=WORD` | the text of every piece |
| `half_ms=N` | unary: send half of the body, then pause before the rest |
| `status=N` | answer with that status; a 429 says `retry_after=N` seconds (default 1) |
| `fault=cut@N`, `garbage`, `hang`, `refuse`, `silent`, `html` | break that way |
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import re
import threading
import time
import typing

ORDERS = re.compile(rb"\[\[([^\]\[]*)\]\]")
# A test that wants a call to last waits less than this.
HANG_S = 60.0
BODY_BYTES_MAX = 1 << 30


@dataclasses.dataclass
class Seen:
    """One call as the engine saw it; times are `time.monotonic()`."""

    id: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    body_bytes: int
    body_sha256: str
    began: float
    pieces: int = 0
    sent_bytes: int = 0
    ended: float | None = None
    left: float | None = None

    def json(self) -> typing.Any:
        """The body, parsed."""
        return json.loads(self.body)


class Left(Exception):
    """The other side closed the connection."""


class Pipe:
    """One connection, which knows at any time whether the other side has left."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.held, self.reading = reader, writer, b"", None
        self.gone = False
        writer.transport.set_write_buffer_limits(high=64 << 10)

    async def _more(self, seconds: float | None) -> bool:
        """Waits for bytes; False when the time is over. Notes the end of the stream."""
        if self.reading is None:
            self.reading = asyncio.ensure_future(self.reader.read(256 << 10))
        done, _ = await asyncio.wait({self.reading}, timeout=seconds)
        if not done:
            return False
        reading, self.reading = self.reading, None
        try:
            data = reading.result()
        except OSError:
            data = b""
        self.held += data
        self.gone = self.gone or not data
        if self.gone:
            raise Left
        return True

    async def line(self) -> bytes:
        """A line without its end."""
        while b"\r\n" not in self.held:
            await self._more(None)
        line, self.held = self.held.split(b"\r\n", 1)
        return line

    async def take(self, count: int) -> bytes:
        """Up to `count` bytes, at least one."""
        if not self.held:
            await self._more(None)
        data, self.held = self.held[:count], self.held[count:]
        return data

    async def pause(self, seconds: float) -> None:
        """Waits; raises `Left` at once when the other side goes."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self.held and self.reading is None:
                # sleeps because time itself is what the fault asks for
                await asyncio.sleep(left)  # a pipelined request: nothing to learn from more bytes
            else:
                await self._more(left)

    async def send(self, data: bytes) -> None:
        """Writes, waiting for room; raises `Left` when the other side goes meanwhile."""
        self.writer.write(data)
        drain = asyncio.ensure_future(self.writer.drain())
        try:
            while not drain.done():
                if self.reading is None:
                    self.reading = asyncio.ensure_future(self.reader.read(256 << 10))
                await asyncio.wait({drain, self.reading}, return_when=asyncio.FIRST_COMPLETED)
                if not drain.done():
                    await self._more(0)
            drain.result()
        except OSError as error:
            raise Left from error
        finally:
            drain.cancel()


class Witness:
    """The engine, on a thread and port of its own."""

    def __init__(self, models: tuple[str, ...] = ("real",)) -> None:
        self.models, self.seen, self.lock = models, {}, threading.Lock()
        self.order: list[Seen] = []
        self.health = 200
        # Orders for every call, over what the prompt says: to make one of two engines different.
        self.force: dict[str, str] = {}
        self.open_pipes: set[Pipe] = set()
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self.thread.start()
        assert started.wait(10)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        self.server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512, limit=1 << 20))
        self.port = self.server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        started.set()
        self.loop.run_forever()

    def close(self) -> None:
        """Goes away: the port refuses and open connections end."""

        async def end() -> None:
            self.server.close()
            for pipe in list(self.open_pipes):
                pipe.writer.transport.abort()

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(10)

    def reopen(self) -> None:
        """Comes back on the same port."""

        async def start() -> None:
            self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=512, limit=1 << 20)

        asyncio.run_coroutine_threadsafe(start(), self.loop).result(10)

    def call(self, name: str) -> Seen | None:
        """The call of that id, if it came."""
        with self.lock:
            return self.seen.get(name)

    def calls(self, prefix: str = "") -> list[Seen]:
        """All calls whose id begins so, in the order in which they came."""
        with self.lock:
            return [seen for seen in self.order if seen.id.startswith(prefix)]

    def in_flight(self) -> int:
        """Calls neither ended nor left."""
        with self.lock:
            return sum(1 for seen in self.order if seen.ended is None and seen.left is None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pipe = Pipe(reader, writer)
        self.open_pipes.add(pipe)
        try:
            while await self._request(pipe):
                pass
        except (Left, OSError, ValueError):
            pass  # left, or not HTTP: there is nobody to answer
        finally:
            self.open_pipes.discard(pipe)
            if pipe.reading is not None:
                pipe.reading.cancel()
            with contextlib.suppress(Exception):
                writer.close()

    async def _request(self, pipe: Pipe) -> bool:
        method, path, _ = (await pipe.line()).decode("latin-1").split(" ", 2)
        began, headers = time.monotonic(), {}
        while line := await pipe.line():
            name, value = line.decode("latin-1").split(":", 1)
            headers[name.strip().lower()] = value.strip()
        kept, size, digest = await self._body(pipe, headers)
        found = ORDERS.search(kept) or ORDERS.search(path.encode().replace(b"%5B", b"[").replace(b"%5D", b"]").replace(b"+", b" ").replace(b"%20", b" ").replace(b"%3D", b"="))
        orders = dict(word.split("=", 1) for word in found[1].decode().split() if "=" in word) if found else {}
        orders |= self.force
        seen = Seen(orders.get("id", f"#{len(self.order)}"), method, path, headers, kept, size, digest, began)
        if method == "POST" or orders:
            with self.lock:
                self.seen[seen.id] = seen
                self.order.append(seen)
        try:
            keep = await Answer(pipe, seen, orders, self).run()
            seen.ended = time.monotonic()
            return keep
        except (Left, OSError):
            seen.left = time.monotonic()
            raise

    async def _body(self, pipe: Pipe, headers: dict[str, str]) -> tuple[bytes, int, str]:
        """The body's first 4 MiB, its size and hash."""
        kept, size, digest = bytearray(), 0, hashlib.sha256()

        async def take(count: int) -> None:
            nonlocal size
            while count:
                data = await pipe.take(min(count, 256 << 10))
                count -= len(data)
                size += len(data)
                digest.update(data)
                kept.extend(data[: max(0, (4 << 20) - len(kept))])
                if size > BODY_BYTES_MAX:
                    raise Left

        if headers.get("transfer-encoding", "").lower() == "chunked":
            while count := int((await pipe.line()).split(b";")[0], 16):
                await take(count)
                await pipe.line()
            while await pipe.line():
                pass
        else:
            await take(int(headers.get("content-length", 0)))
        return bytes(kept), size, digest.hexdigest()


class Answer:
    """One answer in the making."""

    def __init__(self, pipe: Pipe, seen: Seen, orders: dict[str, str], witness: Witness) -> None:
        self.pipe, self.seen, self.orders, self.witness = pipe, seen, orders, witness
        self.path = seen.path.split("?")[0]
        self.tokens = int(orders.get("tokens", 3))
        self.first_s = int(orders.get("first_ms", 0)) / 1000
        self.token_s = int(orders.get("token_ms", 0)) / 1000
        self.tools = int(orders.get("tools", 0))
        self.fault = orders.get("fault", "")
        piece = orders.get("reply", "word")
        self.piece = (piece + " ").ljust(int(orders.get("token_bytes", 0)), "x")

    async def run(self) -> bool:
        """Answers; True when the connection may be used again."""
        if self.fault == "refuse":
            raise Left
        if self.fault == "hang":
            await self.pipe.pause(HANG_S)
        if self.fault == "garbage":
            await self.pipe.send(b"\x16\x03\x01 this is no HTTP \x00\xff\r\n\r\n")
            return False
        if self.seen.method == "GET" and self.path == "/health":
            return await self.whole({}, self.witness.health)
        if self.seen.method == "GET" and self.path == "/v1/models":
            data = [{"id": name, "object": "model", "created": 1, "owned_by": "witness"} for name in self.witness.models]
            return await self.whole({"object": "list", "data": data})
        if "status" in self.orders:
            status = int(self.orders["status"])
            error = {"message": f"witness says {status}", "type": "witness_error", "code": "witness"}
            return await self.whole({"type": "error", "error": error}, status)
        if re.search(rb'"stream"\s*:\s*true', self.seen.body) or self.orders.get("sse") == "1":
            return await self.stream()
        await self.pipe.pause(self.first_s)
        if self.fault == "html":
            return await self.whole("<html>not an API</html>", kind="text/html")
        return await self.whole(self.value())

    async def whole(self, value: typing.Any, status: int = 200, kind: str = "application/json") -> bool:
        """A unary answer."""
        body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        more = f"retry-after: {self.orders.get('retry_after', 1)}\r\n" if status == 429 else ""
        head = f"HTTP/1.1 {status} Witness\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nx-request-id: up-{self.seen.id}\r\n{more}\r\n"
        if "half_ms" in self.orders or self.fault.startswith("cut"):
            await self.pipe.send(head.encode() + body[: len(body) // 2])
            self.seen.pieces = 1
            if self.fault.startswith("cut"):
                return False
            await self.pipe.pause(int(self.orders["half_ms"]) / 1000)
            await self.pipe.send(body[len(body) // 2 :])
        else:
            await self.pipe.send(head.encode() + body)
        self.seen.sent_bytes += len(body)
        return True

    async def stream(self) -> bool:
        """An event stream, one piece a write."""
        await self.pipe.pause(self.first_s)
        await self.pipe.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        before, piece, after = self.events()
        cut = int(self.fault.split("@")[1]) if self.fault.startswith("cut@") else None
        if before:
            await self.chunk(before)
        for index in range(self.tokens):
            if cut == index:
                return False
            if self.fault == "silent" and index == 1:
                await self.pipe.pause(HANG_S)
            if index:
                await self.pipe.pause(self.token_s)
            await self.chunk(piece)
            self.seen.pieces += 1
        if cut is not None:
            return False
        await self.chunk(after)
        await self.pipe.send(b"0\r\n\r\n")
        return True

    async def chunk(self, data: bytes) -> None:
        """One HTTP chunk."""
        await self.pipe.send(b"%x\r\n%s\r\n" % (len(data), data))
        self.seen.sent_bytes += len(data)

    def calls(self) -> list[tuple[str, dict[str, typing.Any]]]:
        """The tool calls to answer with: id and arguments."""
        return [(f"call_{index}", {"city": f"city{index}"}) for index in range(self.tools)]

    def value(self) -> dict[str, typing.Any]:
        """The unary answer of the path's protocol."""
        text = self.piece * self.tokens
        if self.path.endswith("/chat/completions"):
            message: dict[str, typing.Any] = {"role": "assistant", "content": None if self.tools else text}
            if self.tools:
                message["tool_calls"] = [{"id": id, "type": "function", "function": {"name": "weather", "arguments": json.dumps(arguments)}} for id, arguments in self.calls()]
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if self.tools else "stop", "logprobs": None}
            return {"id": "chatcmpl-w", "object": "chat.completion", "created": 1, "model": "real", "choices": [choice], "usage": self.openai_usage()}
        if self.path.endswith("/messages/count_tokens"):
            return {"input_tokens": 7}
        if self.path.endswith("/messages"):
            return self.message()
        if self.path.endswith("/completions"):
            choice = {"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}
            return {"id": "cmpl-w", "object": "text_completion", "created": 1, "model": "real", "choices": [choice], "usage": self.openai_usage()}
        if self.path.endswith("/embeddings"):
            data = [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}]
            return {"object": "list", "model": "real", "data": data, "usage": {"prompt_tokens": 7, "total_tokens": 7}}
        if self.path.endswith("/responses") and self.seen.method == "POST":
            return self.response("completed")
        return {"object": "witness", "method": self.seen.method, "path": self.seen.path, "bytes": self.seen.body_bytes, "sha256": self.seen.body_sha256}

    def openai_usage(self) -> dict[str, typing.Any]:
        """Usage with a cached part."""
        return {"prompt_tokens": 7, "completion_tokens": self.tokens, "total_tokens": 7 + self.tokens, "prompt_tokens_details": {"cached_tokens": 2}}

    def message(self, blank: bool = False) -> dict[str, typing.Any]:
        """An Anthropic message."""
        content: list[dict[str, typing.Any]] = [{"type": "text", "text": self.piece * self.tokens}]
        if self.tools:
            content = [{"type": "tool_use", "id": id, "name": "weather", "input": arguments} for id, arguments in self.calls()]
        usage = {"input_tokens": 5, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 0, "output_tokens": 1 if blank else self.tokens}
        stop = None if blank else "tool_use" if self.tools else "end_turn"
        return {"id": "msg_w", "type": "message", "role": "assistant", "model": "real", "content": [] if blank else content, "stop_reason": stop, "stop_sequence": None, "usage": usage}

    def response(self, status: str) -> dict[str, typing.Any]:
        """A Responses object."""
        part = {"type": "output_text", "text": self.piece * self.tokens, "annotations": []}
        output = [{"type": "message", "id": "msg_w", "status": status, "role": "assistant", "content": [part]}] if status == "completed" else []
        usage = {"input_tokens": 7, "input_tokens_details": {"cached_tokens": 2}, "output_tokens": self.tokens, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 7 + self.tokens}
        head = {"id": "resp_w", "object": "response", "created_at": 1, "status": status, "model": "real", "error": None, "incomplete_details": None, "instructions": None, "metadata": {}}
        rest = {"parallel_tool_calls": True, "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0}
        return {**head, "output": output, "usage": usage if status == "completed" else None, **rest}

    def events(self) -> tuple[bytes, bytes, bytes]:
        """What goes before the pieces, one piece, and what goes after."""
        if self.path.endswith("/chat/completions"):
            return self.chat_events()
        if self.path.endswith("/messages"):
            return self.message_events()
        if self.path.endswith("/responses"):
            return self.response_events()
        if self.path.endswith("/completions"):
            chunk = {"id": "cmpl-w", "object": "text_completion", "created": 1, "model": "real", "choices": [{"index": 0, "text": self.piece, "finish_reason": None}]}
            last = {**chunk, "choices": [{"index": 0, "text": "", "finish_reason": "stop"}], "usage": self.openai_usage()}
            return b"", data_event(chunk), data_event(last) + b"data: [DONE]\n\n"
        return b"", data_event({"piece": self.piece}), b"data: [DONE]\n\n"

    def chat_events(self) -> tuple[bytes, bytes, bytes]:
        """Chat chunks; tool calls go out whole before the pieces."""

        def chunk(delta: dict[str, typing.Any], finish: str | None = None) -> bytes:
            choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
            return data_event({"id": "chatcmpl-w", "object": "chat.completion.chunk", "created": 1, "model": "real", "choices": choices})

        before = chunk({"role": "assistant", "content": None if self.tools else ""})
        for index, (id, arguments) in enumerate(self.calls()):
            text = json.dumps(arguments)
            before += chunk({"tool_calls": [{"index": index, "id": id, "type": "function", "function": {"name": "weather", "arguments": ""}}]})
            before += chunk({"tool_calls": [{"index": index, "function": {"arguments": text[:5]}}]})
            before += chunk({"tool_calls": [{"index": index, "function": {"arguments": text[5:]}}]})
        if self.tools:
            self.tokens = 0
        after = chunk({}, "tool_calls" if self.tools else "stop")
        if b"include_usage" in self.seen.body:
            head = {"id": "chatcmpl-w", "object": "chat.completion.chunk", "created": 1, "model": "real"}
            after += data_event({**head, "choices": [], "usage": self.openai_usage()})
        return before, chunk({"content": self.piece}), after + b"data: [DONE]\n\n"

    def message_events(self) -> tuple[bytes, bytes, bytes]:
        """Anthropic events."""
        before = named_event({"type": "message_start", "message": self.message(blank=True)}) + named_event({"type": "ping"})
        if self.tools:
            for index, (id, arguments) in enumerate(self.calls()):
                text = json.dumps(arguments)
                before += named_event({"type": "content_block_start", "index": index, "content_block": {"type": "tool_use", "id": id, "name": "weather", "input": {}}})
                for part in (text[:5], text[5:]):
                    before += named_event({"type": "content_block_delta", "index": index, "delta": {"type": "input_json_delta", "partial_json": part}})
                before += named_event({"type": "content_block_stop", "index": index})
            piece, after, self.tokens = b"", b"", 0
        else:
            before += named_event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
            piece = named_event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": self.piece}})
            after = named_event({"type": "content_block_stop", "index": 0})
        delta = {"stop_reason": "tool_use" if self.tools else "end_turn", "stop_sequence": None}
        after += named_event({"type": "message_delta", "delta": delta, "usage": {"output_tokens": max(self.tokens, 1)}})
        return before, piece, after + named_event({"type": "message_stop"})

    def response_events(self) -> tuple[bytes, bytes, bytes]:
        """Responses events; sequence numbers are not looked at by the client."""
        item = {"type": "message", "id": "msg_w", "status": "in_progress", "role": "assistant", "content": []}
        part = {"type": "output_text", "text": "", "annotations": []}
        at = {"item_id": "msg_w", "output_index": 0, "content_index": 0}
        text = self.piece * self.tokens
        full = {**part, "text": text}

        def event(kind: str, number: int, **more: typing.Any) -> bytes:
            return named_event({"type": "response." + kind, "sequence_number": number, **more})

        before = event("created", 0, response=self.response("in_progress")) + event("in_progress", 1, response=self.response("in_progress"))
        before += event("output_item.added", 2, output_index=0, item=item) + event("content_part.added", 3, part=part, **at)
        piece = event("output_text.delta", 4, delta=self.piece, logprobs=[], **at)
        after = event("output_text.done", 5, text=text, logprobs=[], **at) + event("content_part.done", 6, part=full, **at)
        after += event("output_item.done", 7, output_index=0, item={**item, "status": "completed", "content": [full]})
        return before, piece, after + event("completed", 8, response=self.response("completed"))


def data_event(value: typing.Any) -> bytes:
    """A server-sent event without a name."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def named_event(value: dict[str, typing.Any]) -> bytes:
    """A server-sent event named by its type."""
    return b"event: " + value["type"].encode() + b"\n" + data_event(value)
