"""Many agents and many steps: memory at rest, durable steps a second, memory by steps."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import time
import typing

import house
import rig
from house import House, Shape, kind

KINDS = {
    "reader": kind(tools="store.get store.list"),
    "writer": kind(tools="store.put", more="[limits]\nsteps = 50"),
    "noter": kind(more="[memory]\nnotes = true"),
    "sleeper": kind(tools="timer.sleep"),
    "talker": kind(tools="message.send topic.publish topic.subscribe", more='on_message = "start"'),
    "asker": kind(tools="human.ask"),
    "lender": kind(tools="lease.acquire lease.release"),
    "leader": kind(tools="agent:sleeper", more="[supervision]\nintensity = 5"),
    "writer-2": kind(tools="store.*", more='[output]\nschema = { type = "object" }'),
    "all": kind(tools="* store.* timer.sleep message.send human.ask"),
}
# Whoever waits for an hour is at rest, and its memory is what an agent at rest has.
REST = 'script: call timer.sleep {"seconds":86400}; say rested'


def settle(the: House, seconds: float = 3.0) -> int:
    """The lowest resident size within some time: what is at rest, not what was in use."""
    lowest, end = the.rss(), time.monotonic() + seconds
    while time.monotonic() < end:
        lowest = min(lowest, the.rss())
        time.sleep(0.1)
    return lowest


def people(first: int, count: int) -> list[tuple[str, str, dict[str, typing.Any]]]:
    """Agents of every kind, all of whom rest after one answer of the model."""
    names = list(KINDS)
    return [(f"{names[n % len(names)]}/a{n}", REST, {}) for n in range(first, first + count)]


def resting(the: House, count: int) -> typing.Callable[[], bool]:
    """Do so many wait for time to pass, and nobody for anything else?"""
    return lambda: the.waits().get("timer", 0) >= count and the.busy() == 0


def residents(folder: pathlib.Path, count: int) -> dict[str, typing.Any]:
    """Memory with so many agents of ten kinds: in memory, and suspended."""
    kinds = {name: text.replace("tools = [", 'tools = ["timer.sleep", ', 1) for name, text in KINDS.items()}
    found: dict[str, typing.Any] = {"agents": count, "kinds": len(kinds)}
    with House(folder / "resident", Shape(kinds=kinds, agents={"suspend_after": "24h"})) as the:
        found["empty_bytes"] = settle(the)
        began = time.monotonic()
        the.api.start_many(people(0, count))
        found["started_s"] = time.monotonic() - began
        the.until("all rest", resting(the, count), 120)
        found["resident_bytes"] = settle(the)
    with House(folder / "suspended", Shape(kinds=kinds, agents={"suspend_after": "100ms"})) as the:
        points, allocated = [(0.0, float(settle(the)))], [(0.0, float(the.allocated()))]
        for wave in range(WAVES):
            the.api.start_many(people(wave * count, count))
            # Whoever waits so leaves memory a tenth of a second later; the lowest of some seconds is taken.
            the.until("all rest", resting(the, (wave + 1) * count), 120)
            at = float((wave + 1) * count)
            points.append((at, float(settle(the))))
            allocated.append((at, float(the.allocated())))
            print(f"  residents: wave {wave + 1} of {WAVES}: {points[-1][1] / 1e6:.1f} MB resident, {allocated[-1][1] / 1e6:.1f} MB allocated", file=sys.stderr, flush=True)
        found |= {"suspended": points, "suspended_allocated": allocated}
        # The first waves also fill tables of runs lately seen, which are bounded (20,000 each): only the last ones tell what
        # another agent costs.
        found["suspended_bytes_each"] = house.slope(points[-LAST_WAVES:])
        found["suspended_allocated_each"] = house.slope(allocated[-LAST_WAVES:])
    return found


def floor(folder: pathlib.Path) -> dict[str, float]:
    """What the disk and the store alone do, records a second by the size of a group commit."""
    command = ["cargo", "run", "--quiet", "--release", "-p", "seawall-store", "--example", "journal", str(folder / "floor")]
    (folder / "floor").mkdir(parents=True, exist_ok=True)
    ran = subprocess.run(command, cwd=rig.REPOSITORY, capture_output=True, text=True, timeout=600, check=True)
    rows = re.findall(r"^(Sync|Relaxed)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+([\d.]+)", ran.stdout, re.M)
    return {f"{how.lower()} {size}": float(rate) for how, size, rate, _, _ in rows}


def loops(the: House, agents: int, steps: int, mark: str) -> dict[str, typing.Any]:
    """So many agents, each asking the model and writing a value, so many times over."""
    script = f'script: {steps} x call store.put {{"key":"b/{mark}-%d-$n","value":"$n"}}; say done'
    cpu, began = the.cpu_s(), time.monotonic()
    runs = the.api.start_many([(f"worker/{mark}{n}", script % n, {}) for n in range(agents)])
    the.idle(600)
    wall = time.monotonic() - began
    return {"agents": agents, "steps": steps, "runs": runs, "wall_s": wall, "cpu_s": the.cpu_s() - cpu}


# Waves of suspended agents, and how many of the last tell what another one costs.
WAVES, LAST_WAVES = 7, 4
# Agents, and how long the model thinks. With no time at all: what there is at most. With some (two steps in each such time
# and what a step takes longer): a load that asks for little more than the rate of the bar, and leaves Seawall room.
BURSTS = [(1, 0), (16, 0), (64, 0), (256, 0)]
PACED = [(108, 100), (120, 100), (220, 200)]
PACED_S = 10


def durable_steps(folder: pathlib.Path, quick: bool) -> dict[str, typing.Any]:
    """Intent and result of every step on the disk, and how much later each step is for it."""
    worker = kind(tools="store.put", more="[context]\nwindow_tokens = 1000000")
    found: dict[str, typing.Any] = {}
    for agents, think_ms in BURSTS + PACED:
        steps = 100 if agents == 1 else max(30, (1_500 if quick else 6_000) // agents)
        if think_ms:
            steps = (3 if quick else PACED_S) * 1_000 // think_ms
        shape = Shape(models={"quick": f"unary_ms={think_ms}&output=8"}, kinds={"worker": worker})
        with House(folder / f"steps-{agents}-{think_ms}", shape) as the:
            loops(the, min(agents, 16), 5, "warm")
            report = loops(the, agents, steps, "m")
            found[f"{agents} x {think_ms} ms"] = {"think_ms": think_ms, **step_times(report, the.api.journal(), think_ms), "verified": the.verify()}
            one = found[f"{agents} x {think_ms} ms"]
            print(f"  steps: {agents} agents, {think_ms} ms: {one['steps_per_s']:.0f}/s, p99 {one['added_ms']['p99']:.1f} ms, {100 * one['busy']:.0f} % of a core", file=sys.stderr, flush=True)
    return found


def step_times(report: dict[str, typing.Any], journal: list[dict[str, typing.Any]], think_ms: int) -> dict[str, typing.Any]:
    """Rate and times of the steps of these runs. A step's time is that from one turn of its run to the next; what is added is
    that without the time that the model thought."""
    effects, mine = house.Effects.of(journal), set(report.pop("runs"))
    turned = {run: at for run, at in effects.turned.items() if run in mine}
    done = sorted(at for effect, at in effects.answered.items() if effect.rsplit(".", 1)[0] in mine)
    # The beginning and the end, when not all run, are left out.
    early, late = done[len(done) // 10], done[-len(done) // 10]
    added = []
    for run, at in turned.items():
        for number, (before, after) in enumerate(zip(at, at[1:]), 1):
            thought = think_ms if effects.asked.get(f"{run}.{number}", (0, ""))[1] == "model" else 0
            if early <= before <= late:
                added.append(1e3 * (after - before) - thought)
    steady = [at for at in done if early <= at <= late]
    return report | {
        "effects": len(done),
        "steps_per_s": len(steady) / (late - early),
        "records_per_s": len(journal) / report["wall_s"],
        "added_ms": {"p50": house.share(added, 0.5), "p99": house.share(added, 0.99)},
        "busy": report["cpu_s"] / report["wall_s"],
        "cpu_us_per_step": 1e6 * report["cpu_s"] / max(1, len(done)),
    }


def long_runs(folder: pathlib.Path, quick: bool) -> dict[str, typing.Any]:
    """Runs of three hundred steps, wave after wave: does rest cost more each time?"""
    waves, agents, steps = (8, 8, 100) if quick else (10, 24, 300)
    worker = kind(tools="store.put", more="[context]\nwindow_tokens = 1000000")
    points: list[tuple[float, float]] = []
    with House(folder / "long", Shape(kinds={"worker": worker}, agents={"suspend_after": "100ms"})) as the:
        began = time.monotonic()
        for wave in range(waves):
            loops(the, agents, steps, f"w{wave}-")
            points.append((float((wave + 1) * agents * steps), float(settle(the, 4.0))))
        # Whatever is allocated once, whoever runs first, is not by step.
        each = house.slope(points[2:])
        return {"waves": waves, "steps": steps, "agents": agents, "floors": points, "bytes_per_step": each, "wall_s": time.monotonic() - began, "verified": the.verify()}

