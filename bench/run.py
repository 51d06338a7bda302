"""Prints the table of what Seawall must show, measured beside nginx and sglang-router.

    python3 bench/run.py [--only unary,tokens] [--quick] [--no-build] [--no-peers]

The gateway has core 0 for itself, the engine and the client share core 1. The gateway runs
with everything on: keys, rates, concurrency limits, budgets, metrics, recording, access log.
bench/README.md says how to read it.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import pathlib
import platform
import sys
import tempfile
import time
import typing

import rig

HERE = pathlib.Path(__file__).parent
ENGINE_MODEL = "sim-small"
# Orders to the simulated engine, as a suffix of its model's name.
UNARY = "unary_ms=0&output=16"
BURST = "unary_ms=50&output=16"
FAST = "first_ms=50&token_ms=20&output={tokens}"
SLOW = "first_ms=100&token_ms=100&output={tokens}"
CANCELS = {"stream": "first_ms=20&token_ms=20&output=3000", "first": "first_ms=60000&output=10", "unary": "unary_ms=60000&output=10"}
CANCELS_EACH = 100
# The narrow engine of the cancels under overload: as many places, and twice as many callers.
NARROW_PLACES = 50
FLOOD_TENANTS, FLOOD_PLACES, FLOOD_TOKENS = 20, 42, 50
# Lengths of the flood's calls: uneven, so that they do not end in step.
FLOOD_CALLS_MS = [150, 163, 171, 187, 192, 205, 211, 226, 239, 248]
OVERLOAD_PLACES, OVERLOAD_CALL_MS, OVERLOAD_WAIT_MS = 64, 250, 250


@dataclasses.dataclass
class Row:
    """One line of the table."""

    figure: str
    bar: str
    measured: str
    nginx: str
    sglang: str
    met: bool | None

    def markdown(self) -> str:
        """As a line of a table."""
        verdict = {True: "met", False: "**missed**", None: "-"}[self.met]
        return f"| {self.figure} | {self.bar} | {self.measured} | {self.nginx} | {self.sglang} | {verdict} |"


class Bench:
    """The servers, the settings and what has been measured."""

    def __init__(self, folder: pathlib.Path, quick: bool, peers: bool) -> None:
        self.folder, self.quick, self.peers = folder, quick, peers
        self.raw: dict[str, typing.Any] = {}
        self.rows: list[Row] = []
        self.engine = rig.start_engine(folder)
        self.gateway, self.keys = rig.start_gateway(folder / "main", self.main_config(), ["bench/main", "bench/crowd"])
        time.sleep(3)  # what it does at start is not idling
        self.idle_bytes = self.gateway.rss_bytes()
        self.missing: dict[str, str] = {}
        self.wanted: set[str] = set()

    def secs(self, seconds: int) -> int:
        """A measuring time, shorter when asked to be quick."""
        return max(2, seconds // 3) if self.quick else seconds

    def tokens(self, tokens: int) -> int:
        """A stream's length, likewise."""
        return max(50, tokens // 3) if self.quick else tokens

    def main_config(self) -> str:
        """One wide engine, a narrow one for the overload, and a name for every kind of answer."""
        models = {
            "unary": UNARY,
            "burst": BURST,
            "fast": FAST.format(tokens=self.tokens(400)),
            "slow": SLOW.format(tokens=self.tokens(150)),
        }
        parts = ["[limits]\nconnections_max = 16000\n", engine_config("sim", self.engine.to, 4000), engine_config("narrow", self.engine.to, NARROW_PLACES)]
        parts += [model_config(name, f"sim/{ENGINE_MODEL}?{orders}") for name, orders in models.items()]
        parts.append(model_config("crowd", f"narrow/{ENGINE_MODEL}?unary_ms=200&output=16"))
        for mode, orders in CANCELS.items():
            for number in range(CANCELS_EACH):
                parts.append(model_config(f"{mode}-{number}", f"sim/{ENGINE_MODEL}?{orders}&id={mode}-{number}"))
                parts.append(model_config(f"loaded-{mode}-{number}", f"narrow/{ENGINE_MODEL}?{orders}&id=loaded-{mode}-{number}"))
        return "\n".join([*parts, tenant_config("bench")])

    def close(self) -> None:
        """Ends everything."""
        self.gateway.stop()
        self.engine.stop()

    @contextlib.contextmanager
    def peer(self, name: str) -> typing.Iterator[rig.Server | None]:
        """A peer for one row; None if it cannot be had."""
        if not self.peers:
            self.missing[name] = "left out"
        start = {"nginx": rig.start_nginx, "sglang-router": rig.start_sglang_router}[name]
        server = None
        if name not in self.missing:
            try:
                server = start(self.folder / name, self.engine)
            except rig.Missing as error:
                self.missing[name] = str(error)
        try:
            yield server
        finally:
            if server is not None:
                server.stop()

    def each(self, row: str, measure: typing.Callable[[rig.Server, bool], dict[str, typing.Any]]) -> dict[str, dict[str, typing.Any]]:
        """The same measurement of the gateway and of each peer, one after the other."""
        found = {"seawall": measure(self.gateway, True)}
        for name in ("nginx", "sglang-router"):
            with self.peer(name) as server:
                if server is not None:
                    found[name] = measure(server, False)
        self.raw[row] = found
        return found

    def beside(self, found: dict[str, dict[str, typing.Any]], name: str, figure: str, unit: str) -> str:
        """A peer's figure and how many times it the gateway's is."""
        if name not in found:
            return f"not measured: {self.missing.get(name, '?')}"[:80]
        theirs, ours = found[name][figure], found["seawall"][figure]
        return f"{theirs:.1f} {unit} ({ours / theirs:.2f}x)" if theirs else f"{theirs:.1f} {unit}"

    def add(self, figure: str, bar: str, measured: str, met: bool | None, nginx: str = "", sglang: str = "") -> None:
        """A finished row."""
        row = Row(figure, bar, measured, nginx, sglang, met)
        self.rows.append(row)
        print(row.markdown(), flush=True)

    def model(self, ours: bool, name: str, orders: str) -> dict[str, str]:
        """The model to ask for: a configured name of the gateway's, or the engine's own behind a peer."""
        return {"model": name, "key": self.keys["bench/main"]} if ours else {"model": f"{ENGINE_MODEL}?{orders}"}

    def unary(self) -> None:
        """CPU per unary request."""

        def measure(server: rig.Server, ours: bool) -> dict[str, typing.Any]:
            rig.client("unary", server.to, conns=64, secs=2, **self.model(ours, "unary", UNARY))
            before = server.cpu_s()
            report = rig.client("unary", server.to, conns=64, secs=self.secs(10), **self.model(ours, "unary", UNARY))
            report["cpu_us"] = (server.cpu_s() - before) * 1e6 / max(report["served"] + report["outside"], 1)
            return report

        found = self.each("unary", measure)
        ours = found["seawall"]
        ratio = ours["cpu_us"] / found["sglang-router"]["cpu_us"] if "sglang-router" in found else None
        met = ours["cpu_us"] <= 40 and ours["broken"] == 0 and (ratio is None or ratio <= 0.6)
        measured = f"{ours['cpu_us']:.1f} us; {ours['per_s']:.0f}/s, p99 {ours['times']['p99_ms']:.1f} ms"
        self.add("CPU per unary request, 64 connections", "<= 40 us, <= 0.6 x sglang-router", measured, met, self.beside(found, "nginx", "cpu_us", "us"), self.beside(found, "sglang-router", "cpu_us", "us"))

    def token_cost(self) -> None:
        """CPU per streamed token."""
        orders = FAST.format(tokens=self.tokens(400))

        def measure(server: rig.Server, ours: bool) -> dict[str, typing.Any]:
            before = server.cpu_s()
            report = rig.client("streams", server.to, n=500, **self.model(ours, "fast", orders))
            report["cpu_us"] = (server.cpu_s() - before) * 1e6 / max(report["tokens"], 1)
            return report

        found = self.each("tokens", measure)
        ours = found["seawall"]
        measured = f"{ours['cpu_us']:.1f} us; {ours['complete']}/500 complete, transit p99 {ours['transit']['p99_ms']:.1f} ms"
        met = ours["cpu_us"] <= 30 and ours["complete"] == 500
        self.add("CPU per streamed token, 500 streams at 20 ms", "<= 30 us", measured, met, self.beside(found, "nginx", "cpu_us", "us"), self.beside(found, "sglang-router", "cpu_us", "us"))

    def burst(self) -> None:
        """Fifty at once on an engine that takes 50 ms."""

        def measure(server: rig.Server, ours: bool) -> dict[str, typing.Any]:
            report = rig.client("burst", server.to, n=50, rounds=self.secs(40), **self.model(ours, "burst", BURST))
            report["wall_ms"] = report["wall"]["p50_ms"]
            return report

        found = self.each("burst", measure)
        straight = rig.client("burst", self.engine.to, n=50, rounds=self.secs(40), model=f"{ENGINE_MODEL}?{BURST}")
        self.raw["burst"]["straight"] = straight
        ours = found["seawall"]
        measured = f"{ours['wall_ms']:.1f} ms median, {ours['wall']['p99_ms']:.1f} p99; straight at the engine {straight['wall']['p50_ms']:.1f}"
        self.add("50 concurrent calls on a 50 ms upstream", "<= 60 ms wall", measured, ours["wall_ms"] <= 60 and ours["failed"] == 0, self.beside(found, "nginx", "wall_ms", "ms"), self.beside(found, "sglang-router", "wall_ms", "ms"))

    def many_streams(self) -> None:
        """Two thousand slow streams: all complete, little delay, little memory."""
        orders = SLOW.format(tokens=self.tokens(150))

        def measure(server: rig.Server, ours: bool) -> dict[str, typing.Any]:
            before = server.rss_bytes()
            with rig.Peak(server) as peak:
                report = rig.client("streams", server.to, n=2000, ramp_ms=3000, **self.model(ours, "slow", orders))
            report["each_kb"] = (peak.bytes - before) / 2000 / 1024
            report["transit_p99_ms"] = report["transit"].get("p99_ms", float("nan"))
            return report

        found = self.each("streams", measure)
        straight = rig.client("streams", self.engine.to, n=2000, ramp_ms=3000, model=f"{ENGINE_MODEL}?{orders}")
        self.raw["streams"]["straight"] = straight
        ours, floor = found["seawall"], straight["transit"]["p99_ms"]
        measured = f"{ours['complete']}/2000, transit p99 {ours['transit_p99_ms']:.1f} ms (straight {floor:.1f}), {ours['each_kb']:.0f} KB each"
        met = ours["complete"] == 2000 and ours["transit_p99_ms"] - floor <= 10 and ours["each_kb"] <= 40
        sides = [f"{self.beside(found, name, 'transit_p99_ms', 'ms')}, {found[name]['each_kb']:.0f} KB" if name in found else self.beside(found, name, "each_kb", "") for name in ("nginx", "sglang-router")]
        self.add("2,000 concurrent streams, 100 ms per token", "2,000 complete, added p99 <= 10 ms, <= 40 KB each", measured, met, *sides)
        if "memory" in self.wanted:
            self.memory()

    def memory(self) -> None:
        """Memory at rest, before and after the crowd."""
        time.sleep(60)
        after, idle = self.gateway.rss_bytes(), self.idle_bytes
        self.raw["memory"] = {"idle_bytes": idle, "after_bytes": after}
        measured = f"{idle / 1e6:.1f} MB; {after / 1e6:.1f} MB ({(after / idle - 1) * 100:+.0f} %)"
        self.add("idle RSS; RSS 60 s after 2,000 streams", "<= 40 MB; <= idle + 20 %", measured, idle <= 40e6 and after <= idle * 1.2)

    def cancels(self) -> None:
        """Left calls: does the engine notice, how soon, also with twice the load that it takes."""
        found: dict[str, typing.Any] = {}
        for loaded in (False, True):
            crowd = None
            if loaded:
                crowd = rig.start_client("unary", self.gateway.to, conns=2 * NARROW_PLACES, secs=self.secs(20), model="crowd", key=self.keys["bench/crowd"])
                time.sleep(1)  # until the narrow engine is full
            for mode in CANCELS:
                name = f"loaded-{mode}" if loaded else mode
                found[name] = self.leave(name, mode, loaded)
            if crowd is not None:
                found["crowd"] = rig.finish(crowd)
        time.sleep(1)
        found["still_running"] = self.engine.get("/sim/state")["in_flight"]
        self.raw["cancels"] = found
        delays = [delay for mode in found.values() if isinstance(mode, dict) for delay in mode.get("delays_ms", [])]
        lost = sum(mode["lost"] for mode in found.values() if isinstance(mode, dict) and "lost" in mode)
        parts = [f"{mode} {found[mode]['p99_ms']:.1f}" for mode in found if isinstance(found[mode], dict) and "p99_ms" in found[mode]]
        measured = f"{len(delays)} seen, {lost} lost, {found['still_running']} still running; p99 ms: {', '.join(parts)}"
        met = lost == 0 and found["still_running"] == 0 and all(mode["p99_ms"] <= 15 for mode in found.values() if isinstance(mode, dict) and "p99_ms" in mode)
        self.add("cancels seen upstream, all cases, also at 2x overload", "100 %, p99 <= 15 ms", measured, met)

    def leave(self, name: str, mode: str, loaded: bool) -> dict[str, typing.Any]:
        """One mode of leaving; delays by the engine's own record. Under overload a call may be
        left while it still waits here: then the engine must never have run it."""
        report = rig.client("cancel", self.gateway.to, mode=mode, n=CANCELS_EACH, spread_ms=20, model=f"{name}-", key=self.keys["bench/main"])
        time.sleep(1)  # far more than any of them may take
        seen = {cancel["id"]: cancel for cancel in self.engine.get("/sim/state")["cancels"]}
        left = [call for call in report["calls"] if "left_us" in call]
        delays = sorted(max(0.0, (seen[f"{name}-{call['id']}"]["when_us"] - call["left_us"]) / 1e3) for call in left if f"{name}-{call['id']}" in seen)
        unseen = len(left) - len(delays)
        lost = 0 if loaded else unseen
        found = {"left": len(left), "errors": len(report["calls"]) - len(left), "delays_ms": delays, "never_started": unseen if loaded else 0, "lost": lost}
        if delays:
            found |= {"p50_ms": delays[len(delays) // 2], "p99_ms": delays[min(len(delays) - 1, round(len(delays) * 0.99))]}
        return found

    def overload(self) -> None:
        """Twice what the engine takes: who is admitted is served as ever, the rest is told when to come back."""
        folder = self.folder / "overload"
        parts = [f"[queue]\nwait_ms_max = {OVERLOAD_WAIT_MS}\n", engine_config("sim", self.engine.to, OVERLOAD_PLACES)]
        parts += [model_config("work", f"sim/{ENGINE_MODEL}?unary_ms={OVERLOAD_CALL_MS}&output=16"), tenant_config("bench")]
        gateway, keys = rig.start_gateway(folder, "\n".join(parts), ["bench/main"])
        capacity = OVERLOAD_PLACES * 1000 // OVERLOAD_CALL_MS
        try:
            flags = {"model": "work", "key": keys["bench/main"], "secs": self.secs(12)}
            rig.client("open", gateway.to, rate=capacity // 2, **{**flags, "secs": 2})
            normal = rig.client("open", gateway.to, rate=int(capacity * 0.9), **flags)
            double = rig.client("open", gateway.to, rate=capacity * 2, **flags)
        finally:
            gateway.stop()
        self.raw["overload"] = {"capacity_per_s": capacity, "normal": normal, "double": double}
        base, admitted, served = normal["times"]["p99_ms"], double["times"]["p99_ms"], double["served"] / double["wall_s"]
        measured = (
            f"{double['offered']} offered, {double['served']} served ({served / capacity:.2f} x capacity), {double['refused']} refused, "
            f"{double['refused_without_retry_after']} without retry-after, {double['broken']} hung or broken; "
            f"p99 {admitted:.0f} ms ({double['unqueued']['p99_ms']:.0f} without the queue), at 0.9 x capacity {base:.0f}"
        )
        met = double["broken"] == 0 and double["refused_without_retry_after"] == 0 and admitted <= base + OVERLOAD_WAIT_MS * 1.1 and double["unqueued"]["p99_ms"] <= 1.1 * base and served >= 0.9 * capacity
        self.add("offered 2x capacity", f"admitted keep their p99 (within the queue's {OVERLOAD_WAIT_MS} ms), the rest 429/503 with retry-after, none hangs", measured, met)

    def flood(self) -> None:
        """One tenant at a hundred times its share, twenty others not."""
        folder = self.folder / "flood"
        names = [*(f"t{number}" for number in range(FLOOD_TENANTS)), "flood"]
        parts = [engine_config("sim", self.engine.to, FLOOD_PLACES)]
        parts += [model_config(f"work-{n}", f"sim/{ENGINE_MODEL}?unary_ms={ms}&output={FLOOD_TOKENS}") for n, ms in enumerate(FLOOD_CALLS_MS)]
        parts += [tenant_config(name) for name in names]
        gateway, keys = rig.start_gateway(folder, "\n".join(parts), names)
        files = {"all": folder / "keys", "others": folder / "keys-others"}
        files["all"].write_text("\n".join(keys.values()) + "\n")
        files["others"].write_text("\n".join(list(keys.values())[:-1]) + "\n")
        share = FLOOD_PLACES // (FLOOD_TENANTS + 1)
        flags = {"model": "work-", "models": len(FLOOD_CALLS_MS), "secs": self.secs(12), "warm_ms": 2000}
        try:
            busy = rig.client("tenants", gateway.to, keys=files["all"], conns=",".join(["4"] * FLOOD_TENANTS + [str(share * 100)]), **flags)
            alone = rig.client("tenants", gateway.to, keys=files["others"], conns="1", **flags)
            beside = rig.client("tenants", gateway.to, keys=files["all"], conns=",".join(["1"] * FLOOD_TENANTS + [str(share * 100)]), **flags)
        finally:
            gateway.stop()
        served = [tenant["served"] * FLOOD_TOKENS for tenant in busy["tenants"]]
        jain = sum(served) ** 2 / (len(served) * sum(tokens**2 for tokens in served)) if any(served) else 0.0
        quiet = max(tenant["times"]["p99_ms"] for tenant in alone["tenants"])
        loud = max(tenant["times"]["p99_ms"] for tenant in beside["tenants"][:FLOOD_TENANTS])
        self.raw["flood"] = {"busy": busy, "alone": alone, "beside": beside, "jain": jain}
        measured = f"Jain {jain:.3f}; the others' worst p99 {loud:.0f} ms, alone {quiet:.0f} ({loud / quiet:.2f}x)"
        self.add("one tenant floods at 100x its share, 20 others do not", "Jain >= 0.95; others' p99 <= 1.5 x alone", measured, jain >= 0.95 and loud <= 1.5 * quiet)


def engine_config(name: str, to: str, places: int) -> str:
    """An engine with a fixed number of places."""
    return f'[[engine]]\nname = "{name}"\nkind = "openai"\nurl = "http://{to}"\ndiscover = false\nadaptive = false\ncalls_min = 1\ncalls_start = {places}\ncalls_max = {places}\n'


def model_config(name: str, target: str) -> str:
    """A model with a price, so that money is counted."""
    return f'[[model]]\nname = "{name}"\ntargets = ["{target}"]\nprice = {{ input = 0.15, output = 0.6 }}\n'


def tenant_config(prefix: str) -> str:
    """Every kind of limit, none that binds."""
    budgets = '[{ meter = "usd", period = "day", limit = 1000000.0 }, { meter = "tokens", period = "month", limit = 1000000000000 }]'
    return f'[[tenant]]\nprefix = "{prefix}"\ncalls_max = 10000\nrate = {{ calls_per_min = 100000000, tokens_per_min = 100000000000 }}\nbudget = {budgets}\n'


ROWS = ["unary", "tokens", "burst", "streams", "memory", "cancels", "overload", "flood"]


def main() -> int:
    """Measures, prints and keeps the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(ROWS), help=f"rows, of {','.join(ROWS)}")
    parser.add_argument("--quick", action="store_true", help="a third of the time: for trying, not for quoting")
    parser.add_argument("--no-build", action="store_true", help="measure the binaries as they are")
    parser.add_argument("--no-peers", action="store_true", help="the gateway alone")
    options = parser.parse_args()
    wanted = set(options.only.split(","))
    if unknown := wanted - set(ROWS):
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}")
    if not options.no_build:
        rig.build()
    began = time.strftime("%Y-%m-%dT%H-%M-%S")
    with tempfile.TemporaryDirectory(prefix="seawall-bench-", ignore_cleanup_errors=True) as folder:
        bench = Bench(pathlib.Path(folder), options.quick, not options.no_peers)
        bench.wanted = wanted
        steps = {"unary": bench.unary, "tokens": bench.token_cost, "burst": bench.burst, "streams": bench.many_streams, "cancels": bench.cancels, "overload": bench.overload, "flood": bench.flood}
        head = "| figure | bar | measured | nginx (ours is) | sglang-router (ours is) | verdict |\n|---|---|---|---|---|---|"
        print(head)
        try:
            for name, step in steps.items():
                if name in wanted or (name == "streams" and "memory" in wanted):
                    step()
        finally:
            bench.close()
    machine = {"processor": processor(), "kernel": platform.release(), "quick": options.quick, "missing": bench.missing}
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / f"{began}.json").write_text(json.dumps({"machine": machine, "rows": [dataclasses.asdict(row) for row in bench.rows], "raw": bench.raw}, indent=1))
    (results / f"{began}.md").write_text("\n".join([head, *(row.markdown() for row in bench.rows)]) + "\n")
    print(f"\n{machine['processor']}; raw figures in {results / began}.json")
    return 0 if all(row.met is not False for row in bench.rows) else 1


def processor() -> str:
    """The processor's name."""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
