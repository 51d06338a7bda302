"""Who gets how much: fairness between tenants, budgets of trees, the progress guard."""

from __future__ import annotations

import collections
import pathlib
import time
import typing

import house
from house import House, Shape, kind

FLOOD_TENANTS, FLOOD_TIMES, FLOOD_PLACES, FLOOD_CALL_MS = 50, 100, 40, 80
FOREVER = 1_000_000


def tokens_by_tenant(journal: list[dict[str, typing.Any]], since: float, until: float) -> collections.Counter[str]:
    """Tokens of model calls that were answered in that time."""
    used: collections.Counter[str] = collections.Counter()
    for line in journal:
        record = line["record"]
        if record["event"]["kind"] == "answered" and since <= record["at"] / 1e6 < until:
            address = record["agent"]
            tenant = address["tenant"] if isinstance(address, dict) else str(address).rsplit("/", 2)[0]
            used[tenant] += int(record["event"]["used"]["tokens"])
    return used


def flood(folder: pathlib.Path, quick: bool) -> dict[str, typing.Any]:
    """Fifty tenants on forty places; one of them with a hundred times as many agents."""
    seconds = 8.0 if quick else 20.0
    orders = f"unary_ms={FLOOD_CALL_MS}&output=40"
    worker = kind(tools="store.get", more="[context]\nwindow_tokens = 4000\nkeep_last = 2\n[guard]\nrepeats = 0\npolls = 0\nstill = 0")
    # A window that forgets would make the script begin anew: it says the same for ever.
    endless = f'script: {FOREVER} x call store.get {{"key":"k$n"}}'
    short = 'script: 4 x call store.get {"key":"k$n"}; say done'
    tenants = [f"t{number}" for number in range(FLOOD_TENANTS)]
    shape = Shape(models={"quick": orders}, kinds={"worker": worker}, places=FLOOD_PLACES)
    found: dict[str, typing.Any] = {"tenants": FLOOD_TENANTS, "places": FLOOD_PLACES}
    with House(folder / "backlogged", shape) as the:
        crowd = [(f"worker/b{n}", endless, {"tenant": tenant}) for tenant in tenants for n in range(4 * FLOOD_TIMES if tenant == "t0" else 4)]
        the.api.start_many(crowd)
        time.sleep(2)  # until every tenant has calls waiting
        since = time.time()
        time.sleep(seconds)
        until = time.time()
        used = tokens_by_tenant(the.api.journal(), since, until)
        found["tokens"] = {"flood": used["t0"], "others_min": min(used[t] for t in tenants[1:]), "others_max": max(used[t] for t in tenants[1:])}
        found["jain"] = house.jain([used[tenant] for tenant in tenants])
    for name, with_flood in (("alone", False), ("beside", True)):
        with House(folder / name, shape) as the:
            if with_flood:
                the.api.start_many([(f"worker/f{n}", endless, {"tenant": "t0"}) for n in range(FLOOD_PLACES // 2 * 20)])
                time.sleep(2)  # until its queue is long
            found[name] = quiet_tenants(the, tenants[1 : FLOOD_PLACES // 2], short, seconds)
    return found


def quiet_tenants(the: House, tenants: list[str], script: str, seconds: float) -> dict[str, float]:
    """One run after the other for each of these tenants; how long they took."""
    end = time.monotonic() + seconds

    def one(tenant: str) -> list[float]:
        took = []
        while time.monotonic() < end:
            began = time.monotonic()
            the.api.ok("POST", "/seawall/agents/worker/runs", {"task": script, "tenant": tenant, "wait_ms": 60_000}, 90)
            took.append(1e3 * (time.monotonic() - began))
        return took

    times = house.side_by_side(one, tenants)
    worst = max(house.share(took, 0.99) for took in times)
    every = [ms for took in times for ms in took]
    return {"runs": len(every), "p50_ms": house.share(every, 0.5), "p99_ms": house.share(every, 0.99), "worst_p99_ms": worst}


def budget_trip(folder: pathlib.Path, quick: bool) -> dict[str, typing.Any]:
    """A tree with a hundred children spends until the budget at its top is gone: tokens, which are set aside by estimate,
    and calls, which are exact."""
    call = 'call agent:spender {"task":"script: 10000 x call store.put {\\"key\\":\\"%m-%d-$$n\\",\\"value\\":\\"v\\"}"}'
    kinds = {"lead": kind(tools="agent:spender"), "spender": kind(tools="store.put", more='[supervision]\nrestart = "temporary"')}
    found: dict[str, typing.Any] = {}
    for meter, allowed in (("tokens", 1_000_000 if quick else 4_000_000), ("calls", 2_000 if quick else 10_000)):
        with House(folder / f"budget-{meter}", Shape(models={"quick": "unary_ms=20&output=16"}, kinds=kinds)) as the:
            script = "script: " + " & ".join(call.replace("%m", meter).replace("%d", str(n)) for n in range(100)) + "; say done"
            root = the.api.start("lead/l", script, allowance={meter: allowed})
            found[meter] = watch_budget(the, root, meter, allowed)
    with House(folder / "budget-stop", Shape(models={"quick": "unary_ms=20&output=16"}, kinds=kinds)) as the:
        script = "script: " + " & ".join(call.replace("%m", "stop").replace("%d", str(n)) for n in range(100)) + "; say done"
        root = the.api.start("lead/l", script)
        the.until("all children spend", lambda: the.api.run(root)["used"]["calls"] > 500)
        the.api.ok("POST", f"/seawall/runs/{root}/stop", {})
        time.sleep(1)  # ten times what is allowed
        _, asked, answered = trip_times(the.api.journal())
        found["stop"] = {"children": len(the.api.run(root)["tree"]), "last_priced_effect_ms": asked, "last_answer_ms": answered, "engine_in_flight": the.engine.get("/sim/state")["in_flight"]}
    return found


def watch_budget(the: House, root: str, meter: str, allowed: int) -> dict[str, typing.Any]:
    """Looks at a tree until it is over: was there ever more used and set aside than allowed?"""
    over, looks = 0, 0

    def spent() -> bool:
        nonlocal over, looks
        run = the.api.run(root)
        looks += 1
        over = max(over, run["used"][meter] + run["reserved"][meter] - allowed)
        return run["state"] not in ("active", "queued")

    the.until("the tree is over", spent, 180, 0.02)
    journal, run = the.api.journal(), the.api.run(root)
    trip, asked, answered = trip_times(journal)
    spent_at_trip = sum(int(line["record"]["event"]["used"][meter]) for line in journal if line["record"]["event"]["kind"] == "answered" and trip and line["record"]["at"] / 1e3 <= trip)
    return {
        "used_at_trip": spent_at_trip,
        "children": len(run["tree"]),
        "allowed": allowed,
        "used": run["used"][meter],
        "over": over,
        "looks": looks,
        "tripped": trip is not None,
        "last_priced_effect_ms": asked,
        "last_answer_ms": answered,
        "state": run["state"],
        "left_reserved": sum(part["reserved"][meter] for part in [run, *run["tree"]]),
        "verified": the.verify(),
    }


def trip_times(journal: list[dict[str, typing.Any]]) -> tuple[float | None, float, float]:
    """When an effect was first refused, or the tree stopped; how much later the last priced one was asked for, and answered."""
    trip, asked, answered = None, 0.0, 0.0
    for line in sorted(journal, key=lambda line: line["record"]["at"]):
        event, at = line["record"]["event"], line["record"]["at"] / 1e3
        if event["kind"] == "halted":
            trip = at
        elif event["kind"] == "turned":
            for planned in event["of"]["effects"]:
                refused = planned.get("refused")
                if refused is not None:
                    trip = at if trip is None else trip
                elif trip is not None and planned["ask"]["work"]["kind"] == "model":
                    asked = max(asked, at - trip)
        elif event["kind"] == "answered" and trip is not None and int(event["used"]["tokens"]) > 0:
            answered = max(answered, at - trip)
    return trip, asked, answered


def ping_pong(folder: pathlib.Path, quick: bool) -> dict[str, typing.Any]:
    """Two agents that answer each other for ever: with the same words, and with new ones each time."""
    found = {}
    for name, body in (("same", "your turn"), ("new", "{{run}} says that it is your turn")):
        kinds = {
            me: kind(tools="message.send", more=f'task = """script: call message.send {{"to":"{you}/1","body":"{body}"}}; say sent"""\non_message = "start"')
            for me, you in (("ping", "pong"), ("pong", "ping"))
        }
        with House(folder / f"pingpong-{name}", Shape(kinds=kinds)) as the:
            the.api.start("ping/1", "begin")
            last, still = -1, time.monotonic()
            while time.monotonic() - still < 3:
                letters = sum(line["record"]["event"]["kind"] == "mailed" for line in the.api.journal())
                if letters != last:
                    last, still = letters, time.monotonic()
                if last > 200:
                    break
                time.sleep(0.2)
            agents = {agent: the.api.ok("GET", f"/seawall/agents/{agent}") for agent in ("ping/1", "pong/1")}
            found[name] = {"messages": last, "cycles": last / 2, "rungs": {agent: about["rung"] for agent, about in agents.items()}, "states": {agent: about["state"] for agent, about in agents.items()}}
    return found
