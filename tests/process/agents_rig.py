"""What the tests of durable agents are made of: a Seawall that is killed and comes back on the same data, tools that
keep the truth on their own disk, and the HTTP API."""

from __future__ import annotations

import collections
import contextlib
import http.server
import json
import pathlib
import signal
import sys
import threading
import typing

import httpx

import harness

HERE = pathlib.Path(__file__).parent
OVER = ("done", "failed", "cancelled")


class Bank:
    """An HTTP tool that pays and answers only when it is told to: what is under way at a crash is known exactly."""

    def __init__(self) -> None:
        self.paid: collections.Counter[str] = collections.Counter()
        self.keys: list[str] = []
        self.lock, self.open = threading.Lock(), threading.Event()
        bank = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: typing.Any) -> None:
                pass

            def do_POST(self) -> None:  # noqa: N802
                said = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with bank.lock:
                    bank.paid[said["to"]] += 1
                    bank.keys.append(self.headers["idempotency-key"])
                bank.open.wait(60)
                with contextlib.suppress(OSError):
                    self.send_response(200)
                    self.send_header("content-length", "4")
                    self.end_headers()
                    self.wfile.write(b"paid")

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def config(self) -> str:
        """The tool as Seawall is told of it."""
        schema = {"type": "object", "required": ["to"], "properties": {"to": {"type": "string"}, "amount": {"type": "number"}}}
        url = f"http://127.0.0.1:{self.server.server_port}/"
        return f"[[tool]]\nname = \"transfer\"\nabout = \"Pays.\"\nurl = {json.dumps(url)}\nclass = \"irreversible\"\nschema = '{json.dumps(schema)}'\n"

    def close(self) -> None:
        """Ends it."""
        self.open.set()
        self.server.shutdown()
        self.server.server_close()


class Town:
    """Seawall with agents on one folder, through any number of crashes."""

    def __init__(self, folder: pathlib.Path, kinds: dict[str, str], config: str = "", kit: bool = True, agents: str = "") -> None:
        self.folder, self.truth = folder, folder / "truth"
        self.truth.mkdir(parents=True)
        (folder / "agents").mkdir()
        for kind, text in kinds.items():
            (folder / "agents" / f"{kind}.toml").write_text(text)
        parts = ["[agents]", f"folder = {json.dumps(str(folder / 'agents'))}", agents, "[sim]", "unary_ms = 1", 'output = "8"', config]
        if kit:
            command = [sys.executable, str(HERE / "mcp_server.py"), "--dir", str(self.truth)]
            parts += ["[[tool_server]]", 'name = "kit"', f"command = {json.dumps(command)}", "calls_max = 64"]
        self.config = "\n".join(parts) + "\n"
        self.gateway: harness.Gateway | None = None
        self.begin()

    def begin(self) -> None:
        """Starts on what is on the disk; waits until the tools are there."""
        self.gateway = harness.Gateway(self.folder, self.config)
        self.client = httpx.Client(base_url=self.gateway.url, timeout=30)
        harness.until("all tools are known", lambda: not any(kind["unmet"] for kind in self.get("/seawall/agents")["types"]))

    def crash(self) -> None:
        """kill -9, and back."""
        self.kill()
        self.begin()

    def kill(self) -> None:
        """kill -9."""
        self.client.close()
        typing.cast(harness.Gateway, self.gateway).kill()

    def reload(self, config: str) -> None:
        """Changes the config, and waits until it is in force; definitions are read anew with it."""
        gateway = typing.cast(harness.Gateway, self.gateway)
        self.config = config
        since = gateway.mark()
        gateway.configure(config)
        gateway.signal(signal.SIGHUP)
        gateway.line("the configuration is in force", since=since)

    def define(self, kind: str, text: str) -> None:
        """Writes a definition as an editor would; [`Town.reload`] or time puts it in force."""
        path = self.folder / "agents" / f"{kind}.toml"
        path.with_suffix(".new").write_text(text)
        path.with_suffix(".new").rename(path)

    def get(self, path: str, **query: typing.Any) -> typing.Any:
        """A GET that must succeed."""
        return self.answer(self.client.get(path, params=query))

    def post(self, path: str, body: typing.Any = None) -> typing.Any:
        """A POST that must succeed."""
        return self.answer(self.client.post(path, json=body or {}))

    def answer(self, answer: httpx.Response) -> typing.Any:
        """Its JSON, if it is a good answer."""
        assert answer.is_success, f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
        return answer.json()

    def start(self, agent: str, task: str, **more: typing.Any) -> str:
        """Starts a run; its id."""
        return self.post(f"/seawall/agents/{agent}/runs", {"task": task, **more})["run"]

    def run(self, run: str) -> dict[str, typing.Any]:
        """A run as it stands."""
        return self.get(f"/seawall/runs/{run}")

    def over(self, run: str, seconds: float = 20.0) -> dict[str, typing.Any]:
        """The run when it is over."""

        def ended() -> dict[str, typing.Any] | None:
            found = self.run(run)
            return found if found["state"] in OVER else None

        try:
            return harness.until(f"{run} is over", ended, seconds, 0.02)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.get(f'/seawall/why/{run}')}") from None

    def inbox(self, box: str) -> list[dict[str, typing.Any]]:
        """`approvals`, `questions` or `doubts`."""
        return self.get("/seawall/inbox")[box]

    def events(self, run: str) -> list[dict[str, typing.Any]]:
        """What happened in a run."""
        return self.get(f"/seawall/runs/{run}/events")["events"]

    def verified(self) -> None:
        """The journal's chain is whole, and nothing runs, waits or reserves without a reason."""
        found = self.get("/seawall/audit/verify", books=1)
        assert found["ok"] and found["books"]["right"], found

    def done(self, tool: str) -> list[dict[str, typing.Any]]:
        """What a tool of the kit really did."""
        path = self.truth / f"{tool}.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def close(self) -> None:
        """Ends it."""
        self.kill()


def kind(tools: str = "", more: str = "", task: str = "") -> str:
    """A definition; the task of a run is the script that the simulated model follows."""
    told = f"task = {json.dumps(task)}\n" if task else ""
    return f'model = "sim-small"\ninstructions = "Do as the task says."\noutput_tokens = 64\ntools = {json.dumps(tools.split())}\n{told}{more}\n'
