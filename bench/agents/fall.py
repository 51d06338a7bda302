"""What is left after a fall: kill -9 with thousands in flight."""

from __future__ import annotations

import collections
import pathlib
import random
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
