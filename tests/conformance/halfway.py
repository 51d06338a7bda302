"""A script of a real agent framework that is killed half-way, always at the same model call, and
started again; with or without Seawall being killed in between. The engine's own counter says what
was paid for.
"""

from __future__ import annotations

import dataclasses
import pathlib
import signal
import sys

import httpx

import harness

# What all scripts share: headers, and a tool that stops the world when it is told to.
HEAD = '''
import os, signal, uuid
HEADERS = {"x-seawall-agent": AGENT, "x-seawall-run": RUN, "x-seawall-memo": "on", "x-seawall-attempt": str(uuid.uuid4())}
CALLS = 0

def look_up(place: str) -> str:
    """Looks up how high the water stands at a place."""
    global CALLS
    CALLS += 1
    print("tool", CALLS, place, flush=True)
    if str(CALLS) == os.environ.get("PAUSE_AT"):
        print("paused", flush=True)
        signal.pause()
    return f"{place}: {len(place)} feet"
'''

# Frameworks tell their makers about each run unless they are asked not to.
QUIET = {
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "CREWAI_TESTING": "true",
    "OTEL_SDK_DISABLED": "true",
}


@dataclasses.dataclass(frozen=True)
class Script:
    """A script, what the simulated model says to it, and what must come of it."""

    # Python: names AGENT and RUN, then HEAD, then the framework's own words.
    source: str
    # The model's turns, in the simulated engine's words.
    words: str
    # Model calls from beginning to end.
    steps: int
    # The tool call in which it is killed.
    pause_at: int
    agent: str
    run: str
    # A piece of its last line.
    says: str


def paid(sim: harness.Sim) -> int:
    """Calls that the engine has taken."""
    return sim.state()["started"]


def runs(gateway: harness.Gateway) -> list[dict]:
    """The runs that the gateway knows."""
    return httpx.get(f"{gateway.url}/seawall/runs", timeout=5).raise_for_status().json()["runs"]


def pays_for_nothing_twice(folder: pathlib.Path, script: Script, seawall_dies_too: bool, seconds: float = 60) -> None:
    """Runs it half-way, kills it, runs it again and once more; each start takes at most `seconds`."""
    words, file = folder / "words.txt", folder / "script.py"
    words.write_text(script.words)
    file.write_text(script.source)
    sim = harness.Sim("--seed", 7, "--first-ms", 5, "--token-ms", 1, "--script", words)
    config = harness.engine("sim", sim.url, kind="sim") + harness.model("real", "sim/sim-small")
    gateway = harness.Gateway(folder / "gateway", config)

    def start(pause: int) -> harness.Process:
        places = {"HOME": str(folder), "BASE_URL": gateway.v1, "PAUSE_AT": str(pause)}
        return harness.Process([sys.executable, file], {**QUIET, **places})

    try:
        before = paid(sim)
        first = start(script.pause_at)
        first.line("^paused", seconds)
        began = paid(sim) - before
        assert script.pause_at <= began < script.steps, "it is half-way"
        first.signal(signal.SIGKILL)
        first.wait()
        if seawall_dies_too:
            # Answers and records are written within moments; a kill -9 within them would cost
            # the last answer again, and its line in the books. So they are waited out.
            harness.until("all answers are kept", lambda: gateway.metrics().get('seawall_memo_total{result="kept"}') == began)
            harness.until("all calls are booked", lambda: [known["calls"] for known in runs(gateway)] == [began])
            gateway.kill()
            gateway = harness.Gateway(folder / "gateway", config)
        second = start(0)
        done = second.line("^done ", seconds)
        assert second.wait() == 0 and script.says in done
        assert paid(sim) - before == script.steps, "each step was paid for once"
        # Once more: all of it is replayed.
        third = start(0)
        assert third.line("^done ", seconds) == done and third.wait() == 0
        assert paid(sim) - before == script.steps
        harness.until("the run is booked whole", lambda: [known["calls"] for known in runs(gateway)] == [script.steps])
        assert [(known["name"], known["agent"], known["state"]) for known in runs(gateway)] == [(script.run, script.agent, "idle")]
    finally:
        gateway.stop()
        sim.stop()
