"""What is left after a fall: kill -9 with thousands in flight, and a crowd of runs among workers and tools that fail; with
the ledger, the scheduler and the shared memory, and without each of them."""

from __future__ import annotations

import collections
import contextlib
import http.client
import pathlib
import random
import shutil
import threading
import time
import typing

import house
from house import House, Shape, kind

ALLOW_PAY = '[[permissions]]\nid = "pays"\nallow = ["pay"]'


def fall_kinds() -> dict[str, str]:
    """Agents that wait for all there is to wait for."""
    return {
        "thinker": kind(model="slow", tools="store.put"),
        "looker": kind(tools="slow put store.put"),
        "sleeper": kind(tools="timer.sleep put"),
        "payer": kind(tools="pay", more=ALLOW_PAY),
        "putter": kind(tools="put"),
        "asker": kind(tools="human.ask"),
        "writer": kind(tools="store.put timer.sleep"),
        "leader": kind(tools="agent:sleeper"),
    }


def in_flight(count: int, wait_s: int) -> list[tuple[str, str, dict[str, typing.Any]]]:
    """So many runs, each of which will be waiting for something when the process is killed."""
    ms = wait_s * 1000
    scripts = {
        "thinker": "script: say thought",
        "looker": f'script: call slow {{"ms":{ms}}}; call put {{"name":"looker-%d"}}; say done',
        "sleeper": f'script: call timer.sleep {{"seconds":{wait_s}}}; call put {{"name":"sleeper-%d"}}; say done',
        "payer": f'script: call pay {{"name":"payer-%d","ms":{ms}}}; say paid',
        "putter": f'script: call put {{"name":"putter-%d","ms":{ms}}}; say done',
        "asker": 'script: call human.ask {"question":"May I, %d?"}; say thanks',
        "writer": f'script: call store.put {{"key":"w%d","value":"%d"}}; call timer.sleep {{"seconds":{wait_s}}}; say done',
        "leader": f'script: call agent:sleeper {{"task":"script: call timer.sleep {{\\"seconds\\":{wait_s}}}; say slept"}}; say led',
    }
    # In hundredths: mostly what is really under way somewhere.
    parts = {"thinker": 20, "looker": 20, "sleeper": 20, "payer": 2, "putter": 10, "asker": 8, "writer": 15, "leader": 5}
    names = [name for name, part in parts.items() for _ in range(part)]
    random.Random(1).shuffle(names)
    return [(f"{names[n % 100]}/k{n}", scripts[names[n % 100]].replace("%d", str(n)), {}) for n in range(count)]


def fall(folder: pathlib.Path, quick: bool) -> dict[str, typing.Any]:
    """kill -9 with so many agents in flight."""
    count, wait_s = (2_000, 15) if quick else (10_000, 40)
    wanted = in_flight(count, wait_s)
    shape = Shape(models={"quick": "unary_ms=0&output=8", "slow": f"unary_ms={wait_s * 1000}&output=8"}, kinds=fall_kinds(), tools=True, places=8_000)
    with House(folder / "fall", shape) as the:
        began = time.monotonic()
        acked = the.api.start_many(wanted)
        found: dict[str, typing.Any] = {"agents": count, "started_s": time.monotonic() - began}
        lookers = sum(agent.startswith("looker/") for agent, _, _ in wanted)
        the.until("all wait", lambda: the.busy() == 0 and the.truth()["in_flight"].get("slow", 0) >= lookers, 60)
        before, engine, live = the.truth(), the.engine.get("/sim/state")["in_flight"], the.live()
        found["in_flight"] = {"tools": before["in_flight"], "model": engine, "runs": live}
        the.crash()
        found["serving_s"] = the.begin()
        again = before["arrived"]["slow"] + before["in_flight"]["slow"]
        resumed = lambda: the.truth()["arrived"]["slow"] >= again and the.engine.get("/sim/state")["in_flight"] >= engine and the.busy() == 0  # noqa: E731
        found["resumed_s"] = found["serving_s"] + the.until("all resumed", resumed, 60, 0.02)
        found |= settle_inbox(the, before["pays"], sum(agent.startswith("asker/") for agent, _, _ in wanted))
        known = {run["run"] for run in the.api.runs()}
        the.idle(4 * wait_s + 120)
        truth = the.truth()
        found["lost_commits"] = len(set(acked) - known) + found.pop("questions_lost") + values_lost(the, wanted)
        found["twice"] = {tool: names for tool, names in truth["twice"].items() if names and tool in ("put", "pay")}
        found["states"] = dict(collections.Counter(run["state"] for run in the.api.runs()))
        found["verified"] = the.verify()
        return found


def settle_inbox(the: House, pays: list[dict[str, str]], asked: int) -> dict[str, typing.Any]:
    """Looks at what is in doubt, and answers that and every question."""
    inbox = the.api.ok("GET", "/seawall/inbox")
    doubts = {doubt["agent"].rsplit("/", 1)[-1] for doubt in inbox["doubts"]}
    paying = {f"k{pay['name'].split('-')[1]}" for pay in pays}
    answers = [(doubt["effect"], {"output": "it was paid"}) for doubt in inbox["doubts"]]
    answers += [(question["effect"], {"output": "yes"}) for question in inbox["questions"]]
    house.side_by_side(lambda one: the.api.ok("POST", f"/seawall/effects/{one[0]}/answer", one[1]), answers, house.CALLERS)
    return {"in_doubt": len(doubts), "in_doubt_exact": doubts == paying, "questions_lost": max(0, asked - len(inbox["questions"]))}


def values_lost(the: House, started: list[tuple[str, str, dict[str, typing.Any]]]) -> int:
    """Values that agents wrote before the fall, and that are not there."""
    wanted = {f"w{agent.split('/k')[1]}" for agent, _, _ in started if agent.startswith("writer/")}
    found: set[str] = set()
    after = ""
    while True:
        page = the.api.ok("GET", f"/seawall/values?prefix=w&limit=1000&after={after}")
        found |= {value["key"] for value in page["values"]}
        if not page.get("next"):
            return len(wanted - found)
        after = page["next"]


# --- a crowd of runs among what fails ------------------------------------------------

CROWD_FACTS = 3
ENGINE_FAULTS = "500:0.12,429:0.08,cut@3:0.05,garbage:0.05"


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

    def __init__(self, the: House, teams: int, members: int, shared: bool) -> None:
        self.the, self.shared = the, shared
        self.wanted = {f"w{team}-{member}": crowd_script(team, member, shared) for team in range(teams) for member in range(members)}
        self.runs: dict[str, str] = {}
        self.begun: collections.Counter[str] = collections.Counter()

    def begin(self, names: typing.Iterable[str]) -> None:
        """Starts these. A start that was not answered may have been made: the agent's name tells."""

        def one(name: str) -> None:
            end = time.monotonic() + 120
            while time.monotonic() < end:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    status, answer = self.the.api.call("GET", f"/seawall/agents/worker/{name}")
                    if status == 404:
                        status, answer = self.the.api.call("POST", f"/seawall/agents/worker/{name}/runs", {"task": self.wanted[name]}, 15)
                    if status < 300 and answer.get("run"):
                        self.runs[name] = answer["run"]
                        self.begun[name] += 1
                        return
                time.sleep(0.05)
            raise RuntimeError(f"{name} could not be started")

        house.side_by_side(one, list(names), house.CALLERS)

    def states(self) -> dict[str, str]:
        """Each name's state."""
        by_run = {run["run"]: run["state"] for run in self.the.api.runs(type="worker")}
        return {name: by_run.get(self.runs.get(name, ""), "lost") for name in self.wanted}


def crowd(folder: pathlib.Path, quick: bool, without: str = "") -> dict[str, typing.Any]:
    """1,200 runs while Seawall is killed again and again and 30 % of what it calls fails."""
    teams, members, kills = (30, 10, 3) if quick else (120, 10, 5)
    worker = kind(tools="put flaky find store.get store.put", more='[supervision]\nintensity = 10\nwithin = "10s"')
    shape = Shape(models={"quick": "output=8"}, kinds={"worker": worker}, tools=True, rate=0.3, places=256)
    shape.engine = ["--faults", ENGINE_FAULTS, "--slots", "64", "--queue-len-max", "256"]
    shape.agents = {"models_max": 256, "tool_calls_max": 64, "turns_max": 8}
    if without == "scheduler":
        # Everybody at once, whatever the engine and the tools say to it.
        shape.agents, shape.places = {"models_max": 100_000, "tool_calls_max": 10_000, "turns_max": 1_024}, 100_000
    with House(folder / f"crowd-{without or 'full'}", shape) as the:
        team = Crowd(the, teams, members, shared=without != "memory")
        began, downtime = time.monotonic(), 0.0
        finished: set[str] = set()
        starting = threading.Thread(target=team.begin, args=(list(team.wanted),))
        starting.start()
        dice = random.Random(7)
        for _ in range(kills):
            time.sleep(dice.uniform(3.0, 6.0))
            if without == "ledger":
                starting.join()
                finished |= {name for name, state in team.states().items() if state == "done"}
            the.crash()
            if without == "ledger":
                # Nothing is remembered: whatever is not known to be done is begun anew.
                shutil.rmtree(the.folder / "data", ignore_errors=True)
            downtime += the.begin()
            if without == "ledger":
                starting = threading.Thread(target=team.begin, args=(sorted(set(team.wanted) - finished),))
                starting.start()
        starting.join()
        the.idle(600)
        wall, states, truth = time.monotonic() - began, team.states(), the.truth()
        well = sum(state == "done" or name in finished for name, state in states.items())
        return {
            "runs": len(team.wanted),
            "success": well / len(team.wanted),
            "duplicated": sum(count - 1 for tool in ("put", "flaky") for count in truth["twice"][tool].values()),
            "kills": kills,
            "wall_s": wall,
            "downtime_s": downtime,
            "finds": truth["done"]["find"],
            "finds_needed": teams * CROWD_FACTS,
            "states": dict(collections.Counter(states.values())),
            "begun": sum(team.begun.values()),
            "tool_calls": truth["arrived"],
            "verified": None if without == "ledger" else the.verify(),
        }


def ablations(folder: pathlib.Path, quick: bool) -> dict[str, typing.Any]:
    """The full system, and without each of its three parts."""
    return {without or "full": crowd(folder, quick, without) for without in ("", "ledger", "scheduler", "memory")}
