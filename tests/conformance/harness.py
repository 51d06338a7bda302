"""Starts the real binary and simulated engines for the outer tests, and ends them by pid.

Every wait is bounded. Nothing here knows the product beyond its command line, its config
file and HTTP: what these tests see is what a user sees.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import time
import typing

import httpx

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("SEAWALL_BIN", REPOSITORY / "target" / "release" / "seawall"))
# Starting takes milliseconds; the rest is for a machine that is busy with other tests.
START_S_MAX = 20.0
# Lines of output kept per process, for the message of a failing test.
LINES_MAX = 4_000
# Files that tests leave for the next run (the openai client's source, a compiled model).
CACHE = pathlib.Path(os.environ.get("SEAWALL_TEST_CACHE", pathlib.Path.home() / ".cache" / "seawall" / "tests"))

ADDRESS = re.compile(r"https?://(?:127\.0\.0\.1|localhost|\[::1\]):[1-9]\d*")
KEY = re.compile(r"sk-sw-[A-Za-z0-9_-]{43}")


def until(what: str, done: typing.Callable[[], typing.Any], seconds: float = 10.0, every: float = 0.01) -> typing.Any:
    """Calls `done` until it returns something true; fails with `what` after the time."""
    end = time.monotonic() + seconds
    while True:
        value = done()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        # sleeps because a condition of another process is polled, within a limit
        time.sleep(every)


class Process:
    """A child process whose output is read all the time, so that it never blocks on a pipe."""

    def __init__(self, arguments: list[typing.Any], environment: dict[str, str] | None = None, **popen: typing.Any) -> None:
        # What the machine happens to have (keys, proxies) must not change a test.
        clean = {k: v for k, v in os.environ.items() if not re.match(r"(SEAWALL_|OPENAI_|ANTHROPIC_|.*_proxy$)", k, re.I)}
        clean["RUST_BACKTRACE"] = "1"
        self.arguments = [str(argument) for argument in arguments]
        self.lines: collections.deque[str] = collections.deque(maxlen=LINES_MAX)
        self.changed = threading.Condition()
        self.child = subprocess.Popen(
            self.arguments,
            env={**clean, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            **popen,
        )
        atexit.register(self._end)
        self.readers = [threading.Thread(target=self._read, args=(pipe,), daemon=True) for pipe in (self.child.stdout, self.child.stderr)]
        for reader in self.readers:
            reader.start()

    def _end(self) -> None:
        """Whatever happened to the test: no process outlives the run."""
        if self.child.poll() is None:
            self.child.kill()

    def _read(self, pipe: typing.Any) -> None:
        for line in pipe:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    @property
    def pid(self) -> int:
        """The child's pid."""
        return self.child.pid

    def output(self) -> str:
        """What it has printed so far."""
        with self.changed:
            return "\n".join(self.lines)

    def mark(self) -> int:
        """How many lines it has printed, to look only at later ones."""
        with self.changed:
            return len(self.lines)

    def line(self, pattern: str | re.Pattern[str], seconds: float = START_S_MAX, since: int = 0) -> str:
        """The first line that matches, waiting for it."""
        pattern = re.compile(pattern) if isinstance(pattern, str) else pattern
        end = time.monotonic() + seconds
        with self.changed:
            while True:
                for line in list(self.lines)[since:]:
                    if pattern.search(line):
                        return line
                if self.child.poll() is not None and not any(reader.is_alive() for reader in self.readers):
                    raise AssertionError(f"ended with {self.child.returncode} before {pattern.pattern!r}:\n" + "\n".join(self.lines))
                if time.monotonic() > end:
                    raise AssertionError(f"no line {pattern.pattern!r} within {seconds} s:\n" + "\n".join(self.lines))
                self.changed.wait(0.1)

    def wait(self, seconds: float = 20.0) -> int:
        """Its exit code, waiting for the end."""
        try:
            code = self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n{self.output()}") from None
        for reader in self.readers:
            reader.join(2)
        return code

    def signal(self, number: int) -> None:
        """Sends a signal."""
        self.child.send_signal(number)

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        if self.child.poll() is None:
            self.child.kill()
        self.wait()

    def stop(self) -> int:
        """Asks it to end; kills it if it does not."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(10)
            except subprocess.TimeoutExpired:
                self.child.kill()
        return self.wait()

    def rss_bytes(self) -> int:
        """Resident memory now."""
        fields = pathlib.Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def threads(self) -> int:
        """How many threads it has."""
        return len(os.listdir(f"/proc/{self.pid}/task"))


class Sim(Process):
    """`seawall sim`: the simulated engine, alone."""

    def __init__(self, *arguments: typing.Any) -> None:
        super().__init__([BINARY, "sim", "--port", "0", *arguments])
        self.url = ADDRESS.search(self.line(ADDRESS))[0]  # type: ignore[index]

    def state(self) -> dict[str, typing.Any]:
        """What the engine has seen."""
        return httpx.get(self.url + "/sim/state", timeout=10).raise_for_status().json()

    def fault(self, **body: typing.Any) -> None:
        """Commands a fault."""
        httpx.post(self.url + "/sim/fault", json=body, timeout=10).raise_for_status()


class Gateway(Process):
    """`seawall serve` on a free port with a config file and a data directory of its own."""

    def __init__(
        self,
        folder: pathlib.Path,
        config: str,
        *arguments: typing.Any,
        environment: dict[str, str] | None = None,
        ready: bool = True,
        **popen: typing.Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.data, self.config = folder, folder / "data", folder / "seawall.toml"
        self.configure(config)
        command = [BINARY, "serve", "--config", self.config]
        for flag, value in (("--data", self.data), ("--listen", "127.0.0.1:0")):
            if flag not in arguments:
                command += [flag, value]
        super().__init__([*command, *arguments], environment, **popen)
        if ready:
            self.url = ADDRESS.search(self.line(re.compile("^listening on " + ADDRESS.pattern)))[0]  # type: ignore[index]
            until("ready", self.is_ready, START_S_MAX)

    @property
    def v1(self) -> str:
        """The base URL that an OpenAI client is given."""
        return self.url + "/v1"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, for a raw socket."""
        host, port = self.url.split("://")[1].rsplit(":", 1)
        return host, int(port)

    def configure(self, config: str) -> None:
        """Writes the config file, whole at once."""
        fresh = self.config.with_suffix(".new")
        fresh.write_text(config)
        fresh.rename(self.config)

    def is_ready(self) -> bool:
        """Whether `/readyz` says so."""
        if self.child.poll() is not None:
            raise AssertionError(f"ended with {self.child.returncode}:\n{self.output()}")
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(self.url + "/readyz", timeout=5).status_code == 200
        return False

    def is_alive(self) -> bool:
        """Whether it runs and `/healthz` answers."""
        return self.child.poll() is None and httpx.get(self.url + "/healthz", timeout=5).status_code == 200

    def metrics(self) -> dict[str, float]:
        """`/metrics`: each series, with its labels, and its value."""
        text = httpx.get(self.url + "/metrics", timeout=5).raise_for_status().text
        rows = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in rows}

    def metric(self, name: str) -> float:
        """The sum of all series of that name."""
        return sum(value for series, value in self.metrics().items() if series.split("{")[0] == name)

    def state(self) -> dict[str, typing.Any]:
        """`/seawall/state`: engines, replicas and budgets as the gateway sees them."""
        return httpx.get(self.url + "/seawall/state", timeout=5).raise_for_status().json()

    def queued(self) -> int:
        """Calls that wait."""
        return sum(sum(engine["queued"].values()) for engine in self.state()["engines"])

    def connect(self, seconds: float = 10.0) -> socket.socket:
        """A raw connection."""
        return socket.create_connection(self.address, timeout=seconds)


def seawall(*arguments: typing.Any, seconds: float = 20.0, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a short command of the binary."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SEAWALL_", "OPENAI_", "ANTHROPIC_"))}
    return subprocess.run(
        [str(BINARY), *map(str, arguments)],
        env={**clean, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


def add_key(data: pathlib.Path, tenant: str, *arguments: typing.Any) -> str:
    """A new key of the store in that directory."""
    ran = seawall("key", "add", "--data", data, "--tenant", tenant, "--json", *arguments)
    found = KEY.search(ran.stdout)
    assert ran.returncode == 0 and found, f"key add: {ran.returncode} {ran.stdout} {ran.stderr}"
    return found[0]


def engine(name: str, url: str, kind: str = "openai", **settings: typing.Any) -> str:
    """An `[[engine]]` of a config file."""
    values = {"name": name, "kind": kind, "url": url, "discover": False, **settings}
    return "[[engine]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in values.items())


def model(name: str, *targets: str, **settings: typing.Any) -> str:
    """A `[[model]]` of a config file."""
    return "[[model]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in {"name": name, "targets": list(targets), **settings}.items())


def tenant(prefix: str, **settings: typing.Any) -> str:
    """A `[[tenant]]` of a config file."""
    return "[[tenant]]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in {"prefix": prefix, **settings}.items())


def toml(value: typing.Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)
