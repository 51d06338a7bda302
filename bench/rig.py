"""What the benchmark is made of: pinned processes, their CPU time and memory, and the client."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
import typing
import urllib.error
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", REPOSITORY / "target"))
BINARY = pathlib.Path(os.environ.get("SEAWALL_BIN", TARGET / "release" / "seawall"))
CLIENT = TARGET / "release" / "seawall-bench-client"
CACHE = pathlib.Path(os.environ.get("SEAWALL_TEST_CACHE", pathlib.Path.home() / ".cache" / "seawall" / "tests"))
SGLANG_ROUTER = "sglang-router==0.3.2"

# The gateway has a core for itself; the engine and the client share the other.
GATEWAY_CORE, LOAD_CORE = 0, 1
ADDRESS = re.compile(r"^listening on https?://127\.0\.0\.1:([1-9]\d*)")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
START_S_MAX = 30.0


class Missing(Exception):
    """A peer that cannot be had here; the table says why."""


def pinned(core: int) -> typing.Callable[[], None]:
    """Runs in the child: one core, before anything else that wants it, and as many files as
    the system allows."""

    def prepare() -> None:
        os.sched_setaffinity(0, {core})
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, -15)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    return prepare


class Server:
    """A server under measurement, or the engine behind it."""

    def __init__(self, name: str, command: list[typing.Any], core: int, folder: pathlib.Path, port: int | None = None, announces: bool = False) -> None:
        self.name, self.log = name, folder / f"{name}.log"
        with self.log.open("w") as log:
            self.child = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=pinned(core), cwd=folder)
        try:
            self.port = self._announced() if announces else port
            self.to = f"127.0.0.1:{self.port}"
            self._answers()
        except BaseException:
            self.stop()
            raise

    def _announced(self) -> int:
        end = time.monotonic() + START_S_MAX
        while time.monotonic() < end and self.child.poll() is None:
            for line in self.log.read_text().splitlines():
                if found := ADDRESS.search(line):
                    return int(found[1])
            time.sleep(0.02)
        raise Missing(f"{self.name} did not say its address: {self.log.read_text()[-500:]}")

    def _answers(self) -> None:
        end = time.monotonic() + START_S_MAX
        while time.monotonic() < end and self.child.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            time.sleep(0.05)
        raise Missing(f"{self.name} does not answer: {self.log.read_text()[-500:]}")

    def get(self, path: str, key: str = "") -> typing.Any:
        """A JSON document that it serves."""
        request = urllib.request.Request(f"http://{self.to}{path}", headers={"authorization": f"Bearer {key}"} if key else {})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def post(self, path: str) -> None:
        """A command that it takes."""
        with urllib.request.urlopen(urllib.request.Request(f"http://{self.to}{path}", method="POST", data=b"{}"), timeout=10):
            pass

    def pids(self) -> list[int]:
        """It and its descendants."""
        parents: dict[int, list[int]] = {}
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rsplit(")", 1)[1].split()
                parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        found, open_ = [], [self.child.pid]
        while open_:
            pid = open_.pop()
            found.append(pid)
            open_ += parents.get(pid, [])
        return found

    def cpu_s(self) -> float:
        """User and system time so far, of all threads and processes."""
        total = 0.0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                # ticks of 10 ms; schedstat is finer but forgets threads that have ended
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                total += (int(fields[11]) + int(fields[12])) / TICKS_PER_S
        return total

    def rss_bytes(self) -> int:
        """Resident memory now, of all its processes."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                total += int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return total

    def stop(self) -> None:
        """Ends it."""
        self.child.terminate()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait(5)


class Peak:
    """The highest memory of a server while a block runs."""

    def __init__(self, server: Server) -> None:
        self.server, self.bytes, self.over = server, 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self.over.is_set():
            self.bytes = max(self.bytes, self.server.rss_bytes())
            self.over.wait(0.25)

    def __enter__(self) -> "Peak":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def client(command: str, to: str, seconds: float = 180.0, **flags: typing.Any) -> dict[str, typing.Any]:
    """Runs the client to its end; its report."""
    return finish(start_client(command, to, **flags), seconds)


def start_client(command: str, to: str, **flags: typing.Any) -> subprocess.Popen[str]:
    """Starts the client on the load's core."""
    words = [str(CLIENT), command, "--to", to]
    for name, value in flags.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=pinned(LOAD_CORE))


def finish(child: subprocess.Popen[str], seconds: float = 180.0) -> dict[str, typing.Any]:
    """The report of a client that was started."""
    try:
        out, err = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        raise
    if child.returncode != 0:
        raise RuntimeError(f"client: {err}")
    return json.loads(out)


def build() -> None:
    """Compiles the gateway and the client, as they are to be measured."""
    environment = {**os.environ, "CARGO_TARGET_DIR": str(TARGET)}
    if "SEAWALL_BIN" not in os.environ:
        subprocess.run(["cargo", "build", "--quiet", "--release", "--package", "seawall-node"], cwd=REPOSITORY, env=environment, check=True)
    subprocess.run(["cargo", "build", "--quiet", "--release"], cwd=REPOSITORY / "bench" / "client", env=environment, check=True)


def start_engine(folder: pathlib.Path) -> Server:
    """The simulated engine: every answer on timers, so that it costs little itself."""
    return Server("engine", [BINARY, "sim", "--port", "0"], LOAD_CORE, folder, announces=True)


def start_gateway(folder: pathlib.Path, config: str, tenants: list[str]) -> tuple[Server, dict[str, str]]:
    """The gateway with a key for each tenant; the config file is kept beside its log."""
    keys = {}
    folder.mkdir(parents=True, exist_ok=True)
    for tenant in tenants:
        command = [BINARY, "key", "add", "--data", folder / "data", "--tenant", tenant, "--json"]
        ran = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=20, check=True)
        keys[tenant] = re.search(r"sk-sw-[\w-]{43}", ran.stdout)[0]  # type: ignore[index]
    (folder / "seawall.toml").write_text(config)
    command = [BINARY, "serve", "--config", folder / "seawall.toml", "--data", folder / "data", "--listen", "127.0.0.1:0"]
    return Server("gateway", command, GATEWAY_CORE, folder, announces=True), keys


NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000;
    upstream engine {{ server {engine}; keepalive 256; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header connection "";
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout 300s;
        }}
    }}
}}
"""


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return holder.getsockname()[1]


def start_nginx(folder: pathlib.Path, engine: Server) -> Server:
    """nginx as a plain reverse proxy: what moving the bytes costs."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise Missing("not installed (Debian: apt-get install nginx-light)")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, engine=engine.to, port=port))
    return Server("nginx", [program, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "nginx-error.log"], GATEWAY_CORE, folder, port)


def start_sglang_router(folder: pathlib.Path, engine: Server) -> Server:
    """sglang-router from PyPI, in a virtual environment of its own that is kept."""
    home = CACHE / SGLANG_ROUTER.replace("==", "-")
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True, timeout=120)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", SGLANG_ROUTER], check=True, timeout=600)
        except (subprocess.SubprocessError, OSError) as error:
            raise Missing(f"{SGLANG_ROUTER} could not be installed: {error}") from error
        (home / "installed").touch()
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    flags = ["--policy", "round_robin", "--log-level", "error", "--prometheus-port", free_port(), "--disable-retries", "--disable-circuit-breaker", "--max-concurrent-requests", "-1"]
    command = [python, "-m", "sglang_router.launch_router", "--host", "127.0.0.1", "--port", port, "--worker-urls", f"http://{engine.to}", *flags]
    server = Server("sglang-router", command, GATEWAY_CORE, folder, port)
    body = json.dumps({"model": "sim-small?unary_ms=0&output=1", "messages": [{"role": "user", "content": "x"}]}).encode()
    end = time.monotonic() + START_S_MAX
    while time.monotonic() < end:
        # it listens before it has found its worker
        request = urllib.request.Request(f"http://{server.to}/v1/chat/completions", data=body, headers={"content-type": "application/json"})
        with contextlib.suppress(OSError, urllib.error.URLError):
            with urllib.request.urlopen(request, timeout=5) as answer:
                if answer.status == 200:
                    return server
        time.sleep(0.2)
    server.stop()
    raise Missing(f"does not find its worker: {server.log.read_text()[-300:]}")
