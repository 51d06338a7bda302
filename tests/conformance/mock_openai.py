"""A stand-in for the whole OpenAI API, made from the types of the installed `openai` package.

The client's own test suite wants a server that answers every path with any object of the
right type. Its upstream uses a mock over the OpenAPI document; this one needs no document:
it reads which path each SDK method calls and which type it casts the answer to, and builds
the smallest valid value of that type.

    python mock_openai.py --port 0 [--log FILE]

prints `listening on http://127.0.0.1:PORT` and serves until it is stopped.
"""

from __future__ import annotations

import argparse
import ast
import http.server
import importlib
import json
import pathlib
import re
import socketserver
import threading
import types
import typing

import openai
from pydantic import BaseModel

CALLS = {"_get": "GET", "_post": "POST", "_delete": "DELETE", "_patch": "PATCH", "_put": "PUT", "_get_api_list": "GET"}
# Deeper than any answer type of the API; only a recursive type gets here.
DEPTH_MAX = 24
BODY_BYTES_MAX = 64 << 20


class Route(typing.NamedTuple):
    """One path of the API and what it answers with."""

    method: str
    pattern: re.Pattern[str]
    literal_chars: int
    module: str
    answer: ast.expr | None


def routes() -> list[Route]:
    """Reads every `self._post("/path", cast_to=Type)` of the SDK's resources, most literal path first."""
    root = pathlib.Path(openai.__file__).parent
    found: dict[tuple[str, str], Route] = {}
    for file in sorted((root / "resources").rglob("*.py")):
        module = "openai." + ".".join(file.relative_to(root).with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS:
                route = read_route(node, module)
                if route is not None:
                    found.setdefault((route.method, route.pattern.pattern), route)
    return sorted(found.values(), key=lambda route: (-route.literal_chars, route.pattern.pattern))


def read_route(call: ast.Call, module: str) -> Route | None:
    """One call of the SDK as a route; None where its path is not a literal."""
    if not call.args:
        return None
    path = call.args[0]
    if isinstance(path, ast.Call) and path.args:
        path = path.args[0]
    if not (isinstance(path, ast.Constant) and isinstance(path.value, str)):
        return None
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    method = CALLS[call.func.attr]  # type: ignore[attr-defined]
    if isinstance(keywords.get("method"), ast.Constant):
        method = keywords["method"].value.upper()  # type: ignore[attr-defined]
    parts = re.split(r"\{\w+\}", path.value)
    pattern = re.compile("/v1" + "[^/]+".join(re.escape(part) for part in parts) + "/?$")
    return Route(method, pattern, sum(map(len, parts)), module, keywords.get("page") or keywords.get("cast_to"))


def answer_type(route: Route) -> typing.Any:
    """The type that the SDK casts this route's answer to; `object` where it depends on the request."""
    if route.answer is None:
        return object
    module = importlib.import_module(route.module)
    try:
        return eval(compile(ast.Expression(route.answer), route.module, "eval"), dict(vars(module)))  # noqa: S307
    except Exception:  # a name that is local to the method: the answer's type depends on its arguments
        return object


def sample(kind: typing.Any, depth: int = 0) -> typing.Any:
    """The smallest JSON value of that type: required fields only, first literal, first variant."""
    if depth > DEPTH_MAX:
        return None
    if hasattr(kind, "__value__"):  # `type X = ...`
        return sample(kind.__value__, depth)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return sample(args[0], depth)
    if origin is typing.Literal:
        return args[0]
    if origin in (typing.Union, types.UnionType):
        return None if type(None) in args else sample(args[0], depth + 1)
    if origin in (list, typing.Sequence) or kind is list:
        return [sample(args[0], depth + 1)] if args and depth < 4 else []
    if origin is dict or kind is dict:
        return {}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return sample_model(kind, depth)
    plain = {"str": "string", "int": 1, "float": 0.5, "bool": True, "datetime": "2024-01-01T00:00:00Z", "date": "2024-01-01"}
    return plain.get(getattr(kind, "__name__", ""), {} if kind in (object, typing.Any) else None)


def sample_model(kind: type[BaseModel], depth: int) -> dict[str, typing.Any]:
    """The required and the never-null fields of a model, under the names that they have on the wire."""
    value = {}
    for name, field in kind.model_fields.items():
        if field.is_required() or field.default_factory is not None:
            value[field.alias or name] = sample(field.annotation, depth + 1)
    if "data" in kind.model_fields and "has_more" in kind.model_fields:
        value["has_more"] = False
    return value


CHAT_CHUNK = {
    "id": "chatcmpl-mock",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "mock",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
}


def stream_of(path: str, value: typing.Any) -> bytes:
    """A whole event stream for a call with `stream: true`."""
    if path.endswith("/responses"):
        event = {"type": "response.completed", "sequence_number": 0, "response": value}
        return b"event: response.completed\ndata: " + json.dumps(event).encode() + b"\n\n"
    chunk = CHAT_CHUNK if path.endswith("/chat/completions") else value
    return b"data: " + json.dumps(chunk).encode() + b"\n\ndata: [DONE]\n\n"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    table: typing.ClassVar[list[Route]] = []
    models: typing.ClassVar[list[str]] = []
    log_file: typing.ClassVar[typing.Any] = None
    log_lock = threading.Lock()
    timeout = 30

    def body(self) -> bytes:
        """Reads the request's body, chunked or not."""
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(min(int(self.headers.get("content-length") or 0), BODY_BYTES_MAX))
        whole = b""
        while size := int(self.rfile.readline(64).split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline(64)
            if len(whole) > BODY_BYTES_MAX:
                raise ValueError("body over the mock's limit")
        while self.rfile.readline(1024).strip():
            pass
        return whole

    def reply(self, status: int, kind: str, body: bytes) -> None:
        """Sends one whole answer."""
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def serve(self) -> None:
        """Finds the route and answers with a sample of its type."""
        body, path = self.body(), self.path.split("?")[0]
        if Handler.log_file is not None:
            with Handler.log_lock:
                Handler.log_file.write(json.dumps([self.command, self.path, body.decode("latin-1")]) + "\n")
                Handler.log_file.flush()
        if self.command == "GET" and path == "/v1/models":
            data = [{"id": name, "object": "model", "created": 1, "owned_by": "mock"} for name in Handler.models]
            return self.reply(200, "application/json", json.dumps({"object": "list", "data": data}).encode())
        route = next((r for r in Handler.table if r.method == self.command and r.pattern.match(path)), None)
        if route is None:
            error = {"error": {"message": f"no {self.command} {path}", "type": "invalid_request_error", "code": None}}
            return self.reply(404, "application/json", json.dumps(error).encode())
        kind = answer_type(route)
        if "BinaryResponseContent" in getattr(kind, "__name__", ""):
            return self.reply(200, "application/octet-stream", b"\x00\x01mock bytes\xff")
        if kind is type(None):
            return self.reply(200, "application/json", b"")
        value = {"text": "hi"} if kind is object else sample(kind)
        if re.search(rb'"stream":\s*true', body):
            return self.reply(200, "text/event-stream", stream_of(path, value))
        return self.reply(200, "application/json", json.dumps(value).encode())

    do_GET = do_POST = do_DELETE = do_PATCH = do_PUT = serve  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Says nothing: a failing test shows what it needs."""


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """One thread a connection; both peers close theirs."""

    daemon_threads = True
    request_queue_size = 256


def main() -> None:
    """Serves until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--log", help="append each request as a JSON line")
    parser.add_argument("--model", action="append", default=[], help="a name that GET /v1/models lists")
    options = parser.parse_args()
    Handler.table, Handler.models = routes(), options.model
    if options.log:
        Handler.log_file = open(options.log, "a", encoding="utf-8")  # noqa: SIM115 - open as long as the server
    server = Server(("127.0.0.1", options.port), Handler)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
