"""What the figures of agents are taken from: a Seawall that can be killed, the simulated engine, the world with its
tools, and the HTTP API."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import http.client
import json
import pathlib
import re
import signal
import sys
import threading
import time
import typing
import urllib.parse

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import rig  # noqa: E402

# The bench is told to end: threads that wait for what will not come any more look at it.
OVER = threading.Event()
# Requests at once when agents are started by the thousand.
CALLERS = 24
TOOLS = {
    "put": ("idempotent", {"name": "string", "ms": "number"}),
    "flaky": ("idempotent", {"name": "string"}),
    "pay": ("irreversible", {"name": "string", "ms": "number"}),
    "slow": ("read", {"ms": "number"}),
    "find": ("read", {"name": "string", "ms": "number"}),
}


@dataclasses.dataclass
class Shape:
    """What a row wants to be different from the defaults."""

    models: dict[str, str] = dataclasses.field(default_factory=lambda: {"quick": "unary_ms=0&output=8"})
    kinds: dict[str, str] = dataclasses.field(default_factory=dict)
    agents: dict[str, typing.Any] = dataclasses.field(default_factory=dict)
    # Places of the engine, as Seawall is told them.
    places: int = 4_096
    engine: list[str] = dataclasses.field(default_factory=list)
    # Engines behind the one name.
    replicas: int = 1
    tools: bool = False
    rate: float = 0.0
    head: str = ""


class Api:
    """The HTTP API, by connections that are kept."""

    def __init__(self, port: int) -> None:
        self.port, self.local = port, threading.local()

    def call(self, method: str, path: str, body: typing.Any = None, seconds: float = 60.0) -> tuple[int, typing.Any]:
        """One request: status and JSON, or text where it is none."""
        data = None if body is None else json.dumps(body)
        link = getattr(self.local, "link", None)
        fresh = link is None
        if fresh:
            link = self.local.link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            link.request(method, path, data, {"content-type": "application/json"} if data else {})
            answer = link.getresponse()
            text = answer.read()
        except BaseException as error:
            self.local.link = None
            link.close()
            # A kept connection may have been closed at any time; a GET may be asked again.
            if not fresh and method == "GET" and isinstance(error, (OSError, http.client.HTTPException)):
                return self.call(method, path, body, seconds)
            raise
        try:
            return answer.status, json.loads(text)
        except json.JSONDecodeError:
            return answer.status, text.decode(errors="replace")

    def ok(self, method: str, path: str, body: typing.Any = None, seconds: float = 60.0) -> typing.Any:
        """The answer of a request that must succeed."""
        status, answer = self.call(method, path, body, seconds)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {answer}")
        return answer

    def start(self, agent: str, task: str, **more: typing.Any) -> str:
        """Starts a run of `type` or `type/key`; its id."""
        return self.ok("POST", f"/seawall/agents/{agent}/runs", {"task": task, **more})["run"]

    def start_many(self, wanted: list[tuple[str, str, dict[str, typing.Any]]], callers: int = CALLERS) -> list[str]:
        """Starts many, several at once; their ids in order."""
        return side_by_side(lambda one: self.start(one[0], one[1], **one[2]), wanted, callers)

    def run(self, run: str, **query: str) -> dict[str, typing.Any]:
        """One run."""
        return self.ok("GET", f"/seawall/runs/{run}" + (f"?{urllib.parse.urlencode(query)}" if query else ""))

    def runs(self, **query: typing.Any) -> typing.Iterator[dict[str, typing.Any]]:
        """All durable runs that fit, page by page."""
        before: dict[str, typing.Any] = {}
        while True:
            words = urllib.parse.urlencode({"kind": "durable", "limit": 500, **query, **before})
            page = self.ok("GET", f"/seawall/runs?{words}")["runs"]
            yield from page
            if len(page) < 500:
                return
            before = {"before": page[-1]["run"]}

    def journal(self) -> list[dict[str, typing.Any]]:
        """Every record, without content."""
        status, text = self.call("GET", "/seawall/audit/export?content=0", seconds=120)
        if status != 200:
            raise RuntimeError(f"export: {status} {text}")
        if isinstance(text, dict):
            return [text]
        return [json.loads(line) for line in str(text).splitlines()]


class House:
    """Seawall with an engine and a world, in a folder of its own."""

    def __init__(self, folder: pathlib.Path, shape: Shape) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.shape, self.port = folder, shape, rig.free_port()
        self.api = Api(self.port)
        self.world: rig.Server | None = None
        self.seawall: rig.Server | None = None
        self.engines: list[rig.Server] = []
        try:
            self.furnish()
        except BaseException:
            self.close()
            raise

    def furnish(self) -> None:
        """Starts everything."""
        folder, shape = self.folder, self.shape
        for number in range(shape.replicas):
            # Each fails at times of its own.
            command = [rig.BINARY, "sim", "--port", "0", *shape.engine, "--seed", str(number + 1)]
            self.engines.append(rig.Server(f"engine-{number}", command, rig.LOAD_CORE, folder, announces=True))
        if shape.tools:
            command = [sys.executable, HERE / "world.py", "--rate", shape.rate]
            self.world = rig.Server("world", command, rig.LOAD_CORE, folder, announces=True)
        (folder / "agents").mkdir(exist_ok=True)
        for kind, text in shape.kinds.items():
            (folder / "agents" / f"{kind}.toml").write_text(text)
        (folder / "seawall.toml").write_text(self.config())
        self.begin()
        self.until("tools are known", lambda: not any(kind["unmet"] for kind in self.api.ok("GET", "/seawall/agents")["types"]))

    def config(self) -> str:
        """The config file."""
        words = {"turns_max": 16, "models_max": 100_000, "tool_calls_max": 10_000, **self.shape.agents}
        parts = [self.shape.head, "[agents]", *(f"{key} = {json.dumps(value)}" for key, value in words.items())]
        urls = [f"http://{engine.to}" for engine in self.engines]
        parts += ["[[engine]]", 'name = "sim"', 'kind = "openai"', f"urls = {json.dumps(urls)}", "discover = false", "adaptive = false"]
        parts += ["calls_min = 1", f"calls_start = {self.shape.places}", f"calls_max = {self.shape.places}"]
        for model, orders in self.shape.models.items():
            parts += ["[[model]]", f'name = "{model}"', f'targets = ["sim/sim-small?{orders}"]', "price = { input = 0.15, output = 0.6 }"]
        for tool, (effect_class, fields) in TOOLS.items() if self.world else ():
            schema = {"type": "object", "properties": {name: {"type": kind} for name, kind in fields.items()}, "additionalProperties": False}
            parts += ["[[tool]]", f'name = "{tool}"', f'about = "{tool}"', f'url = "http://{typing.cast(rig.Server, self.world).to}/{tool}"']
            parts += [f"class = {json.dumps(effect_class)}", f"schema = '{json.dumps(schema)}'"]
        return "\n".join(parts) + "\n"

    def begin(self) -> float:
        """Starts Seawall on what is on the disk; seconds until it serves."""
        began = time.monotonic()
        command = [rig.BINARY, "serve", "--config", self.folder / "seawall.toml", "--data", self.folder / "data", "--listen", f"127.0.0.1:{self.port}"]
        self.seawall = rig.Server("seawall", command, rig.GATEWAY_CORE, self.folder, port=self.port)
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.api.call("GET", "/readyz", seconds=5)[0] == 200:
                    return time.monotonic() - began
            if OVER.is_set():
                raise RuntimeError("the bench is over")
            if self.seawall.child.poll() is not None:
                raise RuntimeError(f"it ended: {self.seawall.log.read_text()[-2000:]}")
            time.sleep(0.005)

    def crash(self) -> None:
        """kill -9."""
        child = typing.cast(rig.Server, self.seawall).child
        child.send_signal(signal.SIGKILL)
        child.wait(10)

    @property
    def engine(self) -> rig.Server:
        """The engine, or the first of them."""
        return self.engines[0]

    def engine_sum(self, figure: str) -> int:
        """A figure of all engines together."""
        return sum(engine.get("/sim/state")[figure] for engine in self.engines)

    def truth(self) -> dict[str, typing.Any]:
        """What the world has seen."""
        return typing.cast(rig.Server, self.world).get("/truth")

    def rss(self) -> int:
        """Resident memory of Seawall now."""
        return typing.cast(rig.Server, self.seawall).rss_bytes()

    def cpu_s(self) -> float:
        """CPU time of Seawall so far."""
        return typing.cast(rig.Server, self.seawall).cpu_s()

    def until(self, what: str, done: typing.Callable[[], typing.Any], seconds: float = 60.0, every: float = 0.05) -> float:
        """Polls until it is so; the seconds it took."""
        began = time.monotonic()
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if done():
                    return time.monotonic() - began
            if time.monotonic() - began > seconds:
                raise RuntimeError(f"not within {seconds} s: {what}; log: {typing.cast(rig.Server, self.seawall).log.read_text()[-1500:]}")
            time.sleep(every)

    def idle_of(self, tenant: str, seconds: float) -> float:
        """Waits until no run of a tenant is under way; the seconds it took."""
        path = f"/seawall/agents?tenant={tenant}"

        def none() -> bool:
            states = self.api.ok("GET", path)["states"]
            return not any(states.get(state, 0) for state in ("running", "runnable", "waiting"))

        return self.until(f"all runs of {tenant} are over", none, seconds, 0.2)

    def allocated(self) -> int:
        """Bytes that Seawall's allocator gave out, by its own account; resident pages hold more than that."""
        status, text = self.api.call("GET", "/metrics")
        found = re.search(r'^seawall_process\{[^}]*"allocated_bytes"[^}]*\} ([\d.e+]+)$', str(text), re.M) if status == 200 else None
        return int(float(found[1])) if found else 0

    def idle(self, seconds: float = 300.0) -> float:
        """Waits until no run is under way; the seconds it took."""
        return self.until("all runs are over", lambda: self.live() == 0, seconds)

    def standing(self) -> dict[str, typing.Any]:
        """Counts of agents: by state, and by what they wait for."""
        return self.api.ok("GET", "/seawall/agents")

    def live(self) -> int:
        """Agents that have work."""
        states = self.standing()["states"]
        return sum(states.get(state, 0) for state in ("running", "runnable", "waiting"))

    def waits(self) -> dict[str, int]:
        """What agents wait for, suspended ones by their rows."""
        return self.standing()["waits"]

    def busy(self) -> int:
        """Agents that run or could."""
        states = self.standing()["states"]
        return states.get("running", 0) + states.get("runnable", 0)

    def verify(self) -> bool:
        """Is the chain whole, and are the books right?"""
        found = self.api.ok("GET", "/seawall/audit/verify?books=1", seconds=120)
        return bool((found.get("ok") or found.get("whole")) and found["books"]["right"])

    def close(self) -> None:
        """Ends everything."""
        for server in (self.seawall, self.world, *self.engines):
            if server is not None:
                server.stop()

    def __enter__(self) -> "House":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def kind(model: str = "quick", tools: str = "", more: str = "", about: str = "Does as its task says.") -> str:
    """A definition. The task of a run is the script that the simulated model follows."""
    listed = json.dumps([tool for tool in tools.split() if tool])
    return f'description = "{about}"\nmodel = "{model}"\ninstructions = "Do as the task says."\noutput_tokens = 64\ntools = {listed}\n{more}\n'


def side_by_side(work: typing.Callable[[typing.Any], typing.Any], items: typing.Sequence[typing.Any], callers: int = 0) -> list[typing.Any]:
    """Does the work for each item, several at once (all, if not said otherwise); the results in order."""
    pool = concurrent.futures.ThreadPoolExecutor(callers or max(1, len(items)))
    try:
        return list(pool.map(work, items))
    finally:
        # Where it ends by an error, or by Ctrl-C, what was not begun is not done.
        pool.shutdown(wait=False, cancel_futures=True)


def share(values: list[float], part: float) -> float:
    """A percentile, by the nearest rank."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, round(part * len(ranked)) - 1))] if ranked else float("nan")


def jain(values: typing.Sequence[float]) -> float:
    """Jain's index of fairness."""
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values)) if any(values) else 0.0


def slope(points: typing.Sequence[tuple[float, float]]) -> float:
    """Of the straight line through points, by least squares."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    below = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / below if below else 0.0


@dataclasses.dataclass
class Effects:
    """The effects of a journal: when they were asked for and answered."""

    kinds: collections.Counter[str]
    asked: dict[str, tuple[float, str]]
    answered: dict[str, float]
    turned: dict[str, list[float]]

    @classmethod
    def of(cls, journal: list[dict[str, typing.Any]]) -> "Effects":
        found = cls(collections.Counter(), {}, {}, {})
        counts: collections.Counter[str] = collections.Counter()
        for line in journal:
            record = line["record"]
            event, at = record["event"], record["at"] / 1e6
            found.kinds[event["kind"]] += 1
            if event["kind"] == "turned":
                turn = event["of"]
                run = str(turn["run"])
                found.turned.setdefault(run, []).append(at)
                for planned in turn["effects"]:
                    counts[run] += 1
                    if planned.get("refused") is None:
                        found.asked[f"{run}.{counts[run]}"] = (at, planned["ask"]["work"]["kind"])
            elif event["kind"] == "answered":
                found.answered[effect_id(event["effect"])] = at
        return found


def effect_id(effect: typing.Any) -> str:
    """An effect's name in an export: `run.number`."""
    return effect if isinstance(effect, str) else f"{effect['run']}.{effect['number']}"
