"""Prints the table of what durable agents must show.

    python3 bench/agents/run.py [--only steps,fall] [--quick] [--no-build]

Seawall has core 0 for itself; the simulated engine, the tools and the clients share core 1. bench/README.md says how
to read it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import platform
import signal
import sys
import tempfile
import time
import traceback
import typing

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import crowd  # noqa: E402
import fall  # noqa: E402
import govern  # noqa: E402
import house  # noqa: E402
import mass  # noqa: E402
import rig  # noqa: E402

RESULTS = pathlib.Path(__file__).parents[1] / "results"
HEAD = "| figure | bar | measured | floor in the same run | verdict | command |\n|---|---|---|---|---|---|"


@dataclasses.dataclass
class Row:
    """One line of the table."""

    name: str
    figure: str
    bar: str
    measured: str
    met: bool
    floor: str = "-"

    def markdown(self) -> str:
        """As a line of a table."""
        command = f"`cargo x bench agents --only {self.name}`"
        return f"| {self.figure} | {self.bar} | {self.measured} | {self.floor} | {'met' if self.met else '**missed**'} | {command} |"


Raw = dict[str, typing.Any]
Measured = tuple[Raw, list[Row]]


def residents(folder: pathlib.Path, quick: bool) -> Measured:
    """Memory of agents at rest."""
    raw = mass.residents(folder, 2_000 if quick else 10_000)
    mb, each, given = raw["resident_bytes"] / 1e6, raw["suspended_bytes_each"], raw["suspended_allocated_each"]
    measured = f"{mb:.0f} MB resident ({(raw['resident_bytes'] - raw['empty_bytes']) / raw['agents'] / 1e3:.1f} KB each); suspended {each:.0f} B each, {given:.0f} B of it allocated (last {mass.LAST_WAVES} of {mass.WAVES} waves)"
    return raw, [Row("residents", f"{raw['agents']} agents of {raw['kinds']} kinds at rest", "<= 350 MB; suspended <= 200 B each", measured, mb <= 350 and each <= 200, f"empty {raw['empty_bytes'] / 1e6:.0f} MB")]


def steps(folder: pathlib.Path, quick: bool) -> Measured:
    """Durable steps."""
    raw: Raw = {"floor": mass.floor(folder), "loops": mass.durable_steps(folder, quick)}
    best = max(raw["loops"].values(), key=lambda one: one["steps_per_s"])
    # What is added is told at a load that asks for the bar's rate and no more, since at the end of its strength anything is slow.
    paced = [one for one in raw["loops"].values() if one["think_ms"]]
    enough = [one for one in paced if one["steps_per_s"] >= 2_000] or [max(paced, key=lambda one: one["steps_per_s"])]
    at = min(enough, key=lambda one: one["added_ms"]["p99"])
    measured = f"{best['steps_per_s']:.0f}/s at most, with {best['agents']} agents ({best['cpu_us_per_step']:.0f} us CPU each); at {at['steps_per_s']:.0f}/s ({at['agents']} agents, a model that takes {at['think_ms']} ms, {100 * at['busy']:.0f} % of a core) a step takes {at['added_ms']['p50']:.1f} ms longer, p99 {at['added_ms']['p99']:.1f}"
    floors = ", ".join(f"{size} {rate:.0f}/s" for size, rate in raw["floor"].items() if size.startswith("sync"))
    met = best["steps_per_s"] >= 2_000 and at["steps_per_s"] >= 2_000 and at["added_ms"]["p99"] < 50
    return raw, [Row("steps", "durable steps, sync", ">= 2,000/s, added p99 < 50 ms", measured, met, f"the store alone, records: {floors}; here {best['records_per_s']:.0f}/s")]


def falls(folder: pathlib.Path, quick: bool) -> Measured:
    """kill -9."""
    raw = fall.fall(folder, quick)
    measured = f"serving after {raw['serving_s']:.2f} s, all resumed after {raw['resumed_s']:.2f} s; {raw['lost_commits']} lost, {sum(map(len, raw['twice'].values()))} repeated, {raw['in_doubt']} in doubt ({'exact' if raw['in_doubt_exact'] else 'NOT exact'}); ends {raw['states']}"
    met = raw["serving_s"] <= 3 and raw["resumed_s"] <= 10 and raw["lost_commits"] == 0 and not raw["twice"] and raw["in_doubt_exact"] and raw["verified"] and set(raw["states"]) == {"done"}
    return raw, [Row("fall", f"kill -9 with {raw['agents']} agents in flight", "serving <= 3 s, resumed <= 10 s, 0 lost, 0 repeated, in doubt exact", measured, met)]


def floods(folder: pathlib.Path, quick: bool) -> Measured:
    """Fairness."""
    raw = govern.flood(folder, quick)
    alone, beside = raw["alone"]["worst_p99_ms"], raw["beside"]["worst_p99_ms"]
    measured = f"Jain {raw['jain']:.3f}; the others' worst p99 {beside:.0f} ms, alone {alone:.0f} ({beside / alone:.2f}x)"
    return raw, [Row("flood", "one of 50 tenants floods at 100x", "Jain >= 0.95 on tokens, others' p99 <= 1.5 x alone", measured, raw["jain"] >= 0.95 and beside <= 1.5 * alone)]


def budgets(folder: pathlib.Path, quick: bool) -> Measured:
    """Budgets."""
    raw, rows = govern.budget_trip(folder, quick), []
    for meter in ("calls", "tokens"):
        one = raw[meter]
        measured = f"{one['used']} of {one['allowed']} {meter} used, {one['over']} over at worst ({one['looks']} looks); first refusal at {one['used_at_trip']}; after it the last call is asked for at {one['last_priced_effect_ms']:.0f} ms and answered at {one['last_answer_ms']:.0f} ms"
        met = one["tripped"] and one["over"] <= 0 and one["children"] >= 100 and one["left_reserved"] == 0
        # Tokens are set aside by estimate: what is given back after the first refusal is spent by others, and rightly.
        met = met and (meter == "tokens" or one["last_priced_effect_ms"] < 100)
        rows.append(Row("budget", f"budget of {meter} trips while {one['children']} children spend", "0 overspend, stopped < 100 ms" if meter == "calls" else "0 overspend", measured, met))
    stop = raw["stop"]
    measured = f"last call asked for after {stop['last_priced_effect_ms']:.0f} ms, last answer {stop['last_answer_ms']:.0f} ms, {stop['engine_in_flight']} left on the engine"
    rows.append(Row("budget", f"kill switch on a tree while {stop['children']} children spend", "stopped < 100 ms", measured, stop["last_priced_effect_ms"] < 100 and stop["engine_in_flight"] == 0))
    return raw, rows


def pingpong(folder: pathlib.Path, quick: bool) -> Measured:
    """The progress guard."""
    raw = govern.ping_pong(folder, quick)
    measured = "; ".join(f"{name} words: {one['messages']} messages, {one['cycles']:.1f} cycles" for name, one in raw.items())
    return raw, [Row("pingpong", "two agents ping-pong", "stopped within 3 cycles", measured, raw["same"]["cycles"] <= 3.5)]


def crowds(folder: pathlib.Path, quick: bool) -> Measured:
    """The full system and its ablations."""
    raw = crowd.ablations(folder, quick)
    rows = []
    for name, one in raw.items():
        measured = f"success {100 * one['success']:.2f} %, {one['duplicated']} effects repeated, {one['finds']} look-ups for {one['finds_needed']} facts, {one['wall_s']:.0f} s, {one['kills']} kills; a light tenant beside it p50 {one['light']['p50_ms']:.0f} ms, p99 {one['light']['p99_ms']:.0f} ms; about {one['engine_full']} of {one['engine_calls']} calls met a full engine, {one['postponed']} effects tried again"
        title = f"{one['runs']} runs, engine and tools failing at 30 %" + ("" if name == "full" else f": no {name}")
        met = name != "full" or (one["success"] >= 0.999 and one["duplicated"] == 0 and one["in_time"])
        rows.append(Row("crowd", title, ">= 99.9 %, 0 repeated" if name == "full" else "for comparison", measured, met))
    return raw, rows


def long(folder: pathlib.Path, quick: bool) -> Measured:
    """Memory by steps."""
    raw = mass.long_runs(folder, quick)
    measured = f"{raw['bytes_per_step']:.0f} B by step over {raw['waves']} waves; floor {raw['floors'][0][1] / 1e6:.0f} MB first, {raw['floors'][-1][1] / 1e6:.0f} MB last"
    return raw, [Row("long", f"{raw['waves'] * raw['agents']} runs of {raw['steps']} steps, {raw['floors'][-1][0]:.0f} in all", "<= 100 B by step at rest", measured, raw["bytes_per_step"] <= 100)]


ROWS: dict[str, typing.Callable[[pathlib.Path, bool], Measured]] = {
    "residents": residents, "steps": steps, "fall": falls, "flood": floods, "budget": budgets, "pingpong": pingpong, "crowd": crowds, "long": long,
}


# No row takes longer, on any machine that it is worth measuring on: what does hangs.
ROW_S_MAX = {"crowd": 1_200}
ROW_S_USUAL_MAX = 600


class Late(Exception):
    """A row took longer than any should."""


def bounded(name: str, folder: pathlib.Path, quick: bool) -> Measured:
    """A row, for as long as one may take."""
    seconds = ROW_S_MAX.get(name, ROW_S_USUAL_MAX)

    def ring(*_: object) -> typing.NoReturn:
        raise Late(f"not done after {seconds} s")

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        return ROWS[name](folder, quick)
    finally:
        signal.alarm(0)


def main() -> int:
    """Measures; Ctrl-C and a TERM end everything that was started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return measure()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    finally:
        house.OVER.set()


def measure() -> int:
    """Measures, prints and keeps the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(ROWS), help=f"rows, of {','.join(ROWS)}")
    parser.add_argument("--quick", action="store_true", help="less of everything: for trying, not for quoting")
    parser.add_argument("--no-build", action="store_true", help="measure the binary as it is")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(ROWS):
        parser.error(f"unknown rows: {', '.join(sorted(unknown))}")
    if not options.no_build:
        rig.build()
    began, failed = time.strftime("%Y-%m-%dT%H-%M-%S"), []
    rows: list[Row] = []
    raw: Raw = {}
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory(prefix="seawall-bench-", ignore_cleanup_errors=True) as folder:
        for name in wanted:
            try:
                raw[name], found = bounded(name, pathlib.Path(folder) / name, options.quick)
            except (RuntimeError, OSError, KeyError, Late) as error:
                # One row that cannot be measured must not take the others with it.
                traceback.print_exc()
                failed.append(name)
                found = [Row(name, name, "-", f"not measured: {str(error)[:200]}", False)]
            for row in found:
                print(row.markdown(), flush=True)
            rows += found
    machine = {"processor": platform.processor() or platform.machine(), "kernel": platform.release(), "quick": options.quick}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"agents-{began}.json").write_text(json.dumps({"machine": machine, "rows": [dataclasses.asdict(row) for row in rows], "raw": raw}, indent=1))
    (RESULTS / f"agents-{began}.md").write_text("\n".join([HEAD, *(row.markdown() for row in rows)]) + "\n")
    print(f"\nraw figures in {RESULTS / f'agents-{began}'}.json")
    return 0 if all(row.met for row in rows) and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
