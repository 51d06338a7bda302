"""Many agents and many steps: memory at rest, durable steps a second, memory by steps."""

from __future__ import annotations

import pathlib
import re
import subprocess
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
        points = [(0.0, float(settle(the)))]
        for wave in range(4):
            the.api.start_many(people(wave * count, count))
            the.until("all are suspended", lambda: the.busy() == 0 and not any(the.waits().values()), 120)
            points.append((float((wave + 1) * count), float(settle(the))))
        found["suspended"] = points
        # The first wave also pays for buffers and threads, whoever needs them.
        found["suspended_bytes_each"] = house.slope(points[1:])
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


def durable_steps(folder: pathlib.Path, quick: bool) -> dict[str, typing.Any]:
    """Intent and result of every step on the disk, and how much later each step is for it."""
    found: dict[str, typing.Any] = {}
    worker = kind(tools="store.put", more="[context]\nwindow_tokens = 1000000")
    for agents in (1, 16, 64) if quick else (1, 16, 64, 256):
        steps = max(20, (1_000 if quick else 4_000) // agents) if agents > 1 else 100
        with House(folder / f"steps-{agents}", Shape(kinds={"worker": worker})) as the:
            loops(the, min(agents, 16), 5, "warm")
            before = len(the.api.journal())
            report = loops(the, agents, steps, "m")
            journal = the.api.journal()
            effects = house.Effects.of(journal)
            mine = {run.removeprefix("run-") for run in report.pop("runs")} | set()
            times = {run: at for run, at in effects.turned.items() if run.removeprefix("run-") in mine}
            first, last = min(min(at) for at in times.values()), max(max(at) for at in times.values())
            done = [at for effect, at in effects.answered.items() if effect.rsplit(".", 1)[0].removeprefix("run-") in mine]
            gaps = [1e3 * (b - a) for at in times.values() for a, b in zip(at, at[1:])]
            by_kind: dict[str, list[float]] = {}
            for effect, (at, what) in effects.asked.items():
                if effect in effects.answered and effect.rsplit(".", 1)[0].removeprefix("run-") in mine:
                    by_kind.setdefault(what, []).append(1e3 * (effects.answered[effect] - at))
            report |= {
                "effects": len(done),
                "records": len(journal) - before,
                "steps_per_s": len(done) / (last - first),
                "records_per_s": (len(journal) - before) / report["wall_s"],
                "step_ms": {"p50": house.share(gaps, 0.5), "p99": house.share(gaps, 0.99)},
                "effect_ms": {what: {"p50": house.share(ms, 0.5), "p99": house.share(ms, 0.99)} for what, ms in by_kind.items()},
                "cpu_us_per_step": 1e6 * report["cpu_s"] / max(1, len(done)),
                "verified": the.verify(),
            }
            found[str(agents)] = report
    return found


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

