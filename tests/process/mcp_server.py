#!/usr/bin/env python3
"""An MCP server that misbehaves on request, without any SDK: over stdio or streamable HTTP, in both lifecycles.

    mcp_server.py [--http PORT] [--lifecycle both|stateless|session] [--dir DIR] [--page N]
                  [--rate 0.3] [--seed 1] [--bearer TOKEN] [--sse] [--stderr TEXT]

With `--http 0` it prints `port N` on its standard output. What its tools really did stands in files below `--dir`:
`put.log` and `pay.log` hold one JSON line for each execution, `calls.log` one for each call that arrived, `starts.log` one for
each start. A test counts lines there, whatever the caller believes.

Tools: `add` (read), `put` (idempotent: knows a key again and does not execute twice), `pay` (irreversible), `slow`, `flaky`
(fails at a rate), `crash` (exits), `big`, `echo_meta`, `grow` (adds a tool and says so), `ask`.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import pathlib
import random
import sys
import threading
import time
import typing
import uuid

STATELESS = "2026-07-28"
SESSION = "2025-11-25"
KEY = "seawall/idempotency-key"

# JSON-RPC's own codes.
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603


class Refusal(Exception):
    """A JSON-RPC error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def tool(name: str, about: str, arguments: dict[str, str], **hints: bool) -> dict[str, typing.Any]:
    properties = {argument: {"type": kind} for argument, kind in arguments.items()}
    card: dict[str, typing.Any] = {
        "name": name,
        "description": about,
        "inputSchema": {"type": "object", "properties": properties, "required": sorted(arguments)},
    }
    if hints:
        card["annotations"] = hints
    return card


TOOLS = [
    tool("add", "Adds two numbers.", {"a": "number", "b": "number"}, readOnlyHint=True),
    tool("put", "Stores a value.", {"name": "string", "value": "string"}, idempotentHint=True, destructiveHint=False),
    tool("pay", "Pays somebody.", {"to": "string", "amount": "number"}, destructiveHint=True),
    tool("slow", "Waits.", {"ms": "number"}, readOnlyHint=True),
    tool("flaky", "Fails now and then.", {}, idempotentHint=True),
    tool("crash", "Ends the server.", {}),
    tool("big", "Answers at length.", {"bytes": "number"}, readOnlyHint=True),
    tool("echo_meta", "Says what came in _meta.", {}, readOnlyHint=True),
    tool("grow", "Adds a tool.", {}),
    tool("ask", "Fails as the tool itself says.", {"code": "number"}, readOnlyHint=True),
]


class Server:
    """The tools and what they did; shared by all connections."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.lock = threading.Lock()
        self.random = random.Random(options.seed)
        self.tools = list(TOOLS)
        self.cancelled: set[typing.Any] = set()
        self.subscribers: list[typing.Callable[[dict[str, typing.Any]], None]] = []
        self.note("starts", {"pid": os.getpid()})

    def note(self, file: str, what: dict[str, typing.Any]) -> None:
        if self.options.dir:
            path = pathlib.Path(self.options.dir, f"{file}.log")
            with self.lock, path.open("a") as out:
                out.write(json.dumps(what, sort_keys=True) + "\n")

    def put_before(self, key: str) -> bool:
        """Was it executed, by this process or one before it?"""
        if not self.options.dir or not key:
            return False
        path = pathlib.Path(self.options.dir, "put.log")
        return path.exists() and any(json.loads(line)["key"] == key for line in path.read_text().splitlines())

    def capabilities(self) -> dict[str, typing.Any]:
        return {"tools": {"listChanged": True}}

    def answer(self, message: dict[str, typing.Any], send: typing.Callable[[dict[str, typing.Any]], None]) -> typing.Any:
        """The result of a request; `send` is for what goes out beside it."""
        method, params = message["method"], message.get("params") or {}
        meta = params.get("_meta") or {}
        if method in ("initialize", "server/discover"):
            return self.greet(method, params, meta)
        if method == "ping":
            return {}
        if method == "tools/list":
            return self.page(params.get("cursor"))
        if method == "tools/call":
            return self.call(message["id"], params, meta, send)
        raise Refusal(METHOD_NOT_FOUND, f"no method {method}")

    def greet(self, method: str, params: dict[str, typing.Any], meta: dict[str, typing.Any]) -> typing.Any:
        info = {"name": "mcp_server.py", "version": "1"}
        if method == "initialize":
            if self.options.lifecycle == "stateless":
                raise Refusal(METHOD_NOT_FOUND, "no method initialize")
            asked = params.get("protocolVersion")
            version = asked if asked in (SESSION, "2025-06-18") else SESSION
            return {"protocolVersion": version, "capabilities": self.capabilities(), "serverInfo": info}
        if self.options.lifecycle == "session":
            raise Refusal(METHOD_NOT_FOUND, "no method server/discover")
        return {
            "resultType": "complete",
            "supportedVersions": [STATELESS],
            "capabilities": self.capabilities(),
            "serverInfo": info,
            "ttlMs": 0,
            "cacheScope": "private",
        }

    def page(self, cursor: str | None) -> dict[str, typing.Any]:
        start = int(cursor or 0)
        end = start + (self.options.page or len(self.tools))
        result: dict[str, typing.Any] = {
            "resultType": "complete",
            "tools": self.tools[start:end],
            "ttlMs": 0,
            "cacheScope": "private",
        }
        if end < len(self.tools):
            result["nextCursor"] = str(end)
        return result

    def call(
        self,
        request: typing.Any,
        params: dict[str, typing.Any],
        meta: dict[str, typing.Any],
        send: typing.Callable[[dict[str, typing.Any]], None],
    ) -> dict[str, typing.Any]:
        name, arguments, key = params["name"], params.get("arguments") or {}, meta.get(KEY, "")
        self.note("calls", {"tool": name, "key": key})
        act = getattr(self, f"tool_{name}", None)
        if act is None:
            raise Refusal(INVALID_PARAMS, f"no tool {name}")
        try:
            text = act(arguments, key, request=request, meta=meta, send=send)
        except KeyError as missing:
            raise Refusal(INVALID_PARAMS, f"the argument {missing} is missing") from missing
        except ValueError as failed:
            return {"resultType": "complete", "content": [{"type": "text", "text": str(failed)}], "isError": True}
        return {"resultType": "complete", "content": [{"type": "text", "text": text}], "isError": False}

    def tool_add(self, arguments: dict[str, typing.Any], key: str, **_: typing.Any) -> str:
        return json.dumps(arguments["a"] + arguments["b"])

    def tool_put(self, arguments: dict[str, typing.Any], key: str, **_: typing.Any) -> str:
        if self.put_before(key):
            return "stored before"
        self.note("put", {"key": key, "name": arguments["name"], "value": arguments["value"]})
        return "stored"

    def tool_pay(self, arguments: dict[str, typing.Any], key: str, **_: typing.Any) -> str:
        self.note("pay", {"key": key, "to": arguments["to"], "amount": arguments["amount"]})
        return "paid"

    def tool_slow(self, arguments: dict[str, typing.Any], key: str, *, request: typing.Any, **_: typing.Any) -> str:
        until = time.monotonic() + arguments["ms"] / 1000
        while time.monotonic() < until:
            if request in self.cancelled:
                self.note("cancelled", {"key": key})
                return "cancelled"
            # sleeps because being slow is what this tool is for
            time.sleep(0.005)
        return "slept"

    def tool_flaky(self, arguments: dict[str, typing.Any], key: str, **_: typing.Any) -> str:
        with self.lock:
            fails = self.random.random() < self.options.rate
        if fails:
            raise Refusal(INTERNAL_ERROR, "out of order")
        return "fine"

    def tool_crash(self, arguments: dict[str, typing.Any], key: str, **_: typing.Any) -> str:
        print("about to crash", file=sys.stderr, flush=True)
        os._exit(3)

    def tool_big(self, arguments: dict[str, typing.Any], key: str, **_: typing.Any) -> str:
        return "x" * int(arguments["bytes"])

    def tool_echo_meta(
        self, arguments: dict[str, typing.Any], key: str, *, meta: dict[str, typing.Any], **_: typing.Any
    ) -> str:
        return json.dumps(meta, sort_keys=True)

    def tool_grow(
        self,
        arguments: dict[str, typing.Any],
        key: str,
        *,
        send: typing.Callable[[dict[str, typing.Any]], None],
        **_: typing.Any,
    ) -> str:
        with self.lock:
            self.tools.append(tool(f"grown_{len(self.tools)}", "Is new.", {}, readOnlyHint=True))
            subscribers = list(self.subscribers)
        changed = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        if not subscribers:
            send(changed)
        for tell in subscribers:
            tell(dict(changed))
        return "grown"

    def tool_ask(self, arguments: dict[str, typing.Any], key: str, **_: typing.Any) -> str:
        raise ValueError(f"no good: {arguments['code']}")


def respond(
    server: Server, message: dict[str, typing.Any], send: typing.Callable[[dict[str, typing.Any]], None]
) -> dict[str, typing.Any]:
    """The response to a request."""
    response: dict[str, typing.Any] = {"jsonrpc": "2.0", "id": message["id"]}
    try:
        response["result"] = server.answer(message, send)
    except Refusal as refusal:
        response["error"] = {"code": refusal.code, "message": str(refusal)}
    return response


def subscription(message: dict[str, typing.Any]) -> tuple[dict[str, typing.Any], dict[str, typing.Any]]:
    """The acknowledgment of a subscription, and the `_meta` of what it brings."""
    meta = {"io.modelcontextprotocol/subscriptionId": message["id"]}
    params = {"notifications": (message.get("params") or {}).get("notifications") or {}, "_meta": meta}
    return {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params}, meta


def serve_stdio(server: Server) -> None:
    lock = threading.Lock()

    def send(message: dict[str, typing.Any]) -> None:
        with lock:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()

    def work(message: dict[str, typing.Any]) -> None:
        send(respond(server, message, send))

    for line in sys.stdin:
        message = json.loads(line)
        if message.get("method") == "notifications/cancelled":
            server.cancelled.add(message["params"]["requestId"])
        elif message.get("method") == "subscriptions/listen" and server.options.lifecycle != "session":
            acknowledgment, meta = subscription(message)
            send(acknowledgment)

            def tell(news: dict[str, typing.Any], meta: dict[str, typing.Any] = meta) -> None:
                send({**news, "params": {"_meta": meta}})

            server.subscribers.append(tell)
        elif "id" in message and "method" in message:
            threading.Thread(target=work, args=(message,), daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    """Streamable HTTP: a POST for each message."""

    protocol_version = "HTTP/1.1"
    server: "Listener"

    def log_message(self, format: str, *args: typing.Any) -> None:
        pass

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def allowed(self) -> bool:
        token = self.server.tools.options.bearer
        if token and self.headers.get("authorization") != f"Bearer {token}":
            self.reply(401, www_authenticate="Bearer")
            return False
        return True

    def do_POST(self) -> None:  # noqa: N802
        body = self.rfile.read(int(self.headers["content-length"]))
        if not self.allowed():
            return
        message = json.loads(body)
        stateless = self.headers.get("mcp-protocol-version") == STATELESS
        session = self.headers.get("mcp-session-id")
        greets = message.get("method") in ("initialize", "server/discover")
        if session and session not in self.server.sessions:
            return self.reply(404)
        if not stateless and not greets and not session:
            return self.reply(400, b"no session")
        if message.get("method") == "notifications/cancelled":
            self.server.tools.cancelled.add(message["params"]["requestId"])
        if "id" not in message or "method" not in message:
            return self.reply(202)
        if message["method"] == "subscriptions/listen":
            return self.listen(message)
        self.send_answer(message)

    def send_answer(self, message: dict[str, typing.Any]) -> None:
        aside: list[dict[str, typing.Any]] = []
        response = respond(self.server.tools, message, aside.append)
        headers = {}
        if message["method"] == "initialize" and "result" in response:
            headers["mcp_session_id"] = uuid.uuid4().hex
            self.server.sessions.add(headers["mcp_session_id"])
        if self.server.tools.options.sse or aside:
            events = "".join(f"event: message\ndata: {json.dumps(event)}\n\n" for event in [*aside, response])
            return self.reply(200, events.encode(), content_type="text/event-stream", **headers)
        self.reply(200, json.dumps(response).encode(), content_type="application/json", **headers)

    def listen(self, message: dict[str, typing.Any]) -> None:
        """A subscription is a stream that ends when the client goes."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        gone = threading.Event()
        acknowledgment, meta = subscription(message)

        def tell(news: dict[str, typing.Any]) -> None:
            try:
                self.wfile.write(f"data: {json.dumps(news)}\n\n".encode())
                self.wfile.flush()
            except OSError:
                gone.set()

        tell(acknowledgment)
        self.server.tools.subscribers.append(lambda news: tell({**news, "params": {"_meta": meta}}))
        gone.wait(timeout=600)
        self.close_connection = True

    def do_GET(self) -> None:  # noqa: N802
        self.reply(405)

    def do_DELETE(self) -> None:  # noqa: N802
        self.server.sessions.discard(self.headers.get("mcp-session-id") or "")
        self.reply(200)


class Listener(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # A burst of calls that come on connections of their own must not meet a full backlog.
    request_queue_size = 256

    def __init__(self, tools: Server) -> None:
        super().__init__(("127.0.0.1", tools.options.http), Handler)
        self.tools = tools
        self.sessions: set[str] = set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--http", type=int, metavar="PORT", help="listen on this port of 127.0.0.1; 0 is any")
    parser.add_argument("--lifecycle", choices=["both", "stateless", "session"], default="both")
    parser.add_argument("--dir", help="where the logs go")
    parser.add_argument("--page", type=int, help="tools on one page of the list")
    parser.add_argument("--rate", type=float, default=0.3, help="share of calls of `flaky` that fail")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bearer", help="the token that a client must have")
    parser.add_argument("--sse", action="store_true", help="answer with event streams")
    parser.add_argument("--stderr", help="say this on standard error at start")
    options = parser.parse_args()
    if options.stderr:
        print(options.stderr, file=sys.stderr, flush=True)
    server = Server(options)
    if options.http is None:
        serve_stdio(server)
        return
    listener = Listener(server)
    print(f"port {listener.server_address[1]}", flush=True)
    listener.serve_forever()


if __name__ == "__main__":
    main()
