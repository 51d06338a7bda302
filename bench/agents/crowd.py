"""A crowd of runs among what fails and falls, and one light tenant beside it: with everything, and without the ledger, the
scheduler, or the shared memory. Every variant ends in time, finished or not: what is not done by then counts as lost."""

from __future__ import annotations

import collections
import contextlib
import http.client
import pathlib
import random
import shutil
import sys
import threading
import time
import typing

import house
from house import House, Shape, kind

CROWD_FACTS = 3
# Failures that come by chance; 429 comes where there really is no room. Another 429 by chance would tell everybody to stay
# away from an engine that is idle, and measure that.
ENGINE_500 = 0.15
ENGINE_FAULTS = f"500:{ENGINE_500},cut@3:0.10,garbage:0.05"
# Engines are what there is too little of: so many, each with so many calls at once of so long each, and so many that wait
# there before it says 429.
ENGINES, SLOTS, CALL_MS, ENGINE_QUEUE = 4, 12, 120, 12
# The whole crowd has so long, falls included; a tenth of the full size in less.
VARIANT_S, VARIANT_S_QUICK = 220.0, 90.0
# Runs are begun by so few, so that the light tenant's are not held up by the clients' own queue.
CALLERS = 8
LIGHT = 'script: 3 x call store.get {"key":"light-$n"}; say done'


def crowd_script(team: int, member: int, shared: bool) -> str:
    """A run of the crowd: finds out what its team must know, does its own work, and says so. With shared memory the first of
    each team finds out and the others read it there; without, everybody finds out."""
    me = f"{team}-{member}"
    finds = [f'call find {{"name":"{team}-{fact}","ms":20}}' for fact in range(CROWD_FACTS)]
    puts = [f'call store.put {{"key":"facts/{team}-{fact}","value":"known"}}' for fact in range(CROWD_FACTS)]
    reads = [f'call store.get {{"key":"facts/{team}-{fact}"}}' for fact in range(CROWD_FACTS)]
    know = finds + puts if shared and member == 0 else reads if shared else finds
    work = [f'call flaky {{"name":"{me}-$n"}}' for _ in range(2)] + [f'call put {{"name":"{me}-$n"}}' for _ in range(2)]
    return "script: " + "; ".join(know + work) + "; say done"


class Crowd:
    """Runs by name, begun anew where they are lost; what a client does who keeps no ledger."""

    def __init__(self, the: House, teams: int, members: int, shared: bool, end: float) -> None:
        self.the, self.shared, self.end = the, shared, end
        self.wanted = {f"w{team}-{member}": crowd_script(team, member, shared) for team in range(teams) for member in range(members)}
        self.runs: dict[str, str] = {}
        self.begun: collections.Counter[str] = collections.Counter()
        self.unstarted: set[str] = set()

    def begin(self, names: typing.Iterable[str]) -> None:
        """Starts these. A start that was not answered may have been made: the agent's name tells."""

        def one(name: str) -> None:
            while time.monotonic() < self.end and not house.OVER.is_set():
                with contextlib.suppress(OSError, http.client.HTTPException):
                    status, answer = self.the.api.call("GET", f"/seawall/agents/worker/{name}", seconds=15)
                    if status == 404:
                        status, answer = self.the.api.call("POST", f"/seawall/agents/worker/{name}/runs", {"task": self.wanted[name], "tenant": "crowd"}, 15)
                    if status < 300 and answer.get("run"):
                        self.runs[name] = answer["run"]
                        self.begun[name] += 1
                        self.unstarted.discard(name)
                        return
                time.sleep(0.05)
            self.unstarted.add(name)

        house.side_by_side(one, list(names), CALLERS)

    def states(self) -> dict[str, str]:
        """Each name's state."""
        by_run = {run["run"]: run["state"] for run in self.the.api.runs(type="worker")}
        return {name: by_run.get(self.runs.get(name, ""), "lost") for name in self.wanted}


class Light:
    """A tenant with one short run after the other, beside the crowd: what the crowd costs somebody else. Runs through which
    Seawall fell are not counted: what a fall costs is told by itself."""

    def __init__(self, the: House, end: float) -> None:
        self.the, self.end = the, end
        self.over, self.fallen = threading.Event(), threading.Event()
        self.took: list[float] = []
        self.failed = 0
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while time.monotonic() < self.end and not self.over.is_set() and not house.OVER.is_set():
            self.fallen.clear()
            began = time.monotonic()
            state = ""
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, answer = self.the.api.call("POST", "/seawall/agents/light/runs", {"task": LIGHT, "tenant": "light", "wait_ms": 60_000}, 70)
                state = answer.get("state", "") if status == 200 else ""
            if self.fallen.is_set():
                time.sleep(0.05)
            elif state == "done":
                self.took.append(1e3 * (time.monotonic() - began))
            else:
                self.failed += 1
                time.sleep(0.05)

    def told(self) -> dict[str, typing.Any]:
        """How long its runs took."""
        self.over.set()
        self.thread.join(75)
        p50, p99 = (house.share(list(self.took), part) for part in (0.5, 0.99))
        return {"runs": len(self.took), "failed": self.failed, "p50_ms": p50, "p99_ms": p99, "most_ms": max(self.took, default=float("nan"))}


def watch(the: House, name: str, began: float, over: threading.Event) -> None:
    """A line every five seconds, so that nobody wonders whether it hangs."""
    while not over.wait(5) and not house.OVER.is_set():
        with contextlib.suppress(Exception):
            states = the.standing()["states"]
            told = ", ".join(f"{state} {count}" for state, count in sorted(states.items()) if count)
            print(f"  crowd {name}: {time.monotonic() - began:.0f} s: {told}; engines {the.engine_sum('in_flight')} in flight, {the.engine_sum('refused')} refused", file=sys.stderr, flush=True)


def shape_of(without: str) -> Shape:
    """Seawall, the engine and the tools of a variant."""
    limits = '[supervision]\nintensity = 10\nwithin = "10s"\nbackoff = "200ms"\nbackoff_max = "2s"'
    kinds = {"worker": kind(tools="put flaky find store.get store.put", more=limits), "light": kind(tools="store.get", more=limits)}
    shape = Shape(models={"quick": f"unary_ms={CALL_MS}&output=8"}, kinds=kinds, tools=True, rate=0.3, places=SLOTS)
    shape.replicas = ENGINES
    shape.engine = ["--faults", ENGINE_FAULTS, "--slots", str(SLOTS), "--queue-len-max", str(ENGINE_QUEUE)]
    shape.agents = {"models_max": 256, "tool_calls_max": 64, "turns_max": 8}
    if without == "scheduler":
        # Nobody waits in Seawall for anybody: all at once, whatever the engine and the tools say to it.
        shape.agents, shape.places = {"models_max": 100_000, "tool_calls_max": 10_000, "turns_max": 1_024}, 100_000
    return shape


def crowd(folder: pathlib.Path, quick: bool, without: str = "") -> dict[str, typing.Any]:
    """1,200 runs while Seawall is killed again and again and 30 % of what it calls fails."""
    teams, members, kills = (12, 10, 2) if quick else (120, 10, 5)
    name = f"without {without}" if without else "full"
    with House(folder / f"crowd-{without or 'full'}", shape_of(without)) as the:
        began, over = time.monotonic(), threading.Event()
        end = began + (VARIANT_S_QUICK if quick else VARIANT_S)
        team = Crowd(the, teams, members, without != "memory", end)
        light = Light(the, end)
        threading.Thread(target=watch, args=(the, name, began, over), daemon=True).start()
        try:
            downtime, finished = fall_often(the, team, light, kills, without == "ledger")
            with contextlib.suppress(RuntimeError):
                # Whoever is not done by then is counted as such.
                the.idle_of("crowd", max(1.0, end - time.monotonic()))
            wall, beside = time.monotonic() - began, light.told()
            return told(the, team, finished, without) | {"kills": kills, "wall_s": wall, "downtime_s": downtime, "in_time": wall < end - began, "light": beside}
        finally:
            over.set()
            light.over.set()


def fall_often(the: House, team: Crowd, light: Light, kills: int, forgets: bool) -> tuple[float, set[str]]:
    """Begins the crowd and kills Seawall so many times meanwhile: how long nobody served, and what a client who keeps no
    ledger knew to be done."""
    downtime, finished, dice = 0.0, set[str](), random.Random(7)

    def begin(names: typing.Iterable[str]) -> threading.Thread:
        thread = threading.Thread(target=team.begin, args=(list(names),), daemon=True)
        thread.start()
        return thread

    starting = begin(team.wanted)
    for _ in range(kills):
        time.sleep(dice.uniform(3.0, 6.0))
        if time.monotonic() > team.end:
            break
        if forgets:
            starting.join(max(0.0, team.end - time.monotonic()))
            finished |= {name for name, state in team.states().items() if state == "done"}
        light.fallen.set()
        the.crash()
        if forgets:
            # Nothing is remembered: whatever is not known to be done is begun anew.
            shutil.rmtree(the.folder / "data", ignore_errors=True)
        downtime += the.begin()
        light.fallen.set()
        if forgets:
            starting = begin(sorted(set(team.wanted) - finished))
    starting.join(max(0.0, team.end - time.monotonic()))
    return downtime, finished


def told(the: House, team: Crowd, finished: set[str], without: str) -> dict[str, typing.Any]:
    """What came of the crowd, by Seawall, by the world and by the engine."""
    states, truth = team.states(), the.truth()
    refused, served = the.engine_sum("refused"), the.engine_sum("started")
    well = sum(state == "done" or name in finished for name, state in states.items())
    records = collections.Counter(line["record"]["event"]["kind"] for line in the.api.journal())
    return {
        "runs": len(team.wanted),
        "success": well / len(team.wanted),
        "duplicated": sum(count - 1 for tool in ("put", "flaky") for count in truth["twice"][tool].values()),
        "finds": truth["done"]["find"],
        "finds_needed": len({name.split("-")[0] for name in team.wanted}) * CROWD_FACTS,
        "states": dict(collections.Counter(states.values())),
        "begun": sum(team.begun.values()),
        "unstarted": len(team.unstarted),
        "tool_calls": truth["arrived"],
        # Engines count a 500 as refused too: what is more than these was for want of room, about.
        "engine_full": max(0, round((refused - ENGINE_500 * (refused + served)) / (1 - ENGINE_500))),
        "engine_calls": refused + served,
        "postponed": records["postponed"],
        "verified": None if without == "ledger" else the.verify(),
    }


def ablations(folder: pathlib.Path, quick: bool) -> dict[str, typing.Any]:
    """The full system, and without each of its three parts."""
    return {without or "full": crowd(folder, quick, without) for without in ("", "ledger", "scheduler", "memory")}
