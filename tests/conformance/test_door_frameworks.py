"""The zero-SDK door with real agent frameworks: LangGraph and OpenAI's Agents SDK, as they come
from PyPI, with nothing but an address and headers.

Each script is killed half-way, at the same model call each time, and started again; and so is
Seawall itself in between. The engine's own counter says what was paid for.
"""

from __future__ import annotations

import pathlib
import signal
import sys

import httpx
import pytest

import harness

# What both scripts share: headers, and a tool that stops the world when it is told to.
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

# A graph with a tool loop, as in LangGraph's own tutorial.
GRAPH = '''
AGENT, RUN = "surveyor/1", "survey"
''' + HEAD + '''
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

tools = [tool(look_up)]
model = ChatOpenAI(model="real", base_url=os.environ["BASE_URL"], api_key="unused", max_retries=0, default_headers=HEADERS).bind_tools(tools)

def think(state: MessagesState) -> dict:
    return {"messages": [model.invoke([SystemMessage("You survey a harbour."), *state["messages"]])]}

graph = StateGraph(MessagesState)
graph.add_node("think", think)
graph.add_node("tools", ToolNode(tools))
graph.add_edge(START, "think")
graph.add_conditional_edges("think", tools_condition)
graph.add_edge("tools", "think")
result = graph.compile().invoke({"messages": [HumanMessage("survey the harbour")]})
print("done", len(result["messages"]), repr(result["messages"][-1].content), flush=True)
'''

# A function tool and a handoff to a second agent, over the SDK's default protocol.
HANDOFF = '''
AGENT, RUN = "harbour-master", "tides"
''' + HEAD + '''
import agents, openai
agents.set_tracing_disabled(True)
agents.set_default_openai_client(openai.AsyncOpenAI(base_url=os.environ["BASE_URL"], api_key="unused", max_retries=0, default_headers=HEADERS), use_for_tracing=False)
tools = [agents.function_tool(look_up)]
writer = agents.Agent(name="writer", instructions="You write the report.", model="real", tools=tools)
master = agents.Agent(name="master", instructions="You look, then hand over.", model="real", tools=tools, handoffs=[writer])
result = agents.Runner.run_sync(master, "report the tides")
print("done", result.last_agent.name, repr(result.final_output), flush=True)
'''

# What the simulated model says, turn by turn.
WORDS = '''
[survey the harbour]
call look_up {"place":"north quay"}
call look_up {"place":"south quay"}
call look_up {"place":"lighthouse"}
call look_up {"place":"dry dock"}
call look_up {"place":"breakwater"}
text The harbour is surveyed.

[report the tides]
call look_up {"place":"pier"}
call look_up {"place":"slipway"}
call transfer_to_writer {}
call look_up {"place":"jetty"}
call look_up {"place":"boom"}
text High water at noon.
'''

SCRIPTS = {
    "langgraph": (GRAPH, 6, 3, "surveyor/1", "survey", "The harbour is surveyed."),
    "openai-agents": (HANDOFF, 6, 3, "harbour-master", "tides", "High water at noon."),
}


def paid(sim: harness.Sim) -> int:
    """Calls that the engine has taken."""
    return sim.state()["started"]


def runs(gateway: harness.Gateway) -> list[dict]:
    """The runs that the gateway knows."""
    return httpx.get(f"{gateway.url}/seawall/runs", timeout=5).raise_for_status().json()["runs"]


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("seawall_dies_too", [False, True], ids=["script-dies", "both-die"])
def test_a_real_framework_killed_half_way_pays_for_nothing_twice(tmp_path: pathlib.Path, name: str, seawall_dies_too: bool) -> None:
    source, steps, pause_at, agent, run, says = SCRIPTS[name]
    words, script = tmp_path / "words.txt", tmp_path / "script.py"
    words.write_text(WORDS)
    script.write_text(source)
    sim = harness.Sim("--seed", 7, "--first-ms", 5, "--token-ms", 1, "--script", words)
    config = harness.engine("sim", sim.url, kind="sim") + harness.model("real", "sim/sim-small")
    gateway = harness.Gateway(tmp_path / "gateway", config)

    def start(pause: int) -> harness.Process:
        quiet = {"LANGSMITH_TRACING": "false", "LANGCHAIN_TRACING_V2": "false", "OPENAI_AGENTS_DISABLE_TRACING": "1"}
        return harness.Process([sys.executable, script], {"BASE_URL": gateway.v1, "PAUSE_AT": str(pause), **quiet})

    try:
        before = paid(sim)
        first = start(pause_at)
        first.line("^paused", seconds=60)
        began = paid(sim) - before
        assert pause_at <= began < steps, "it is half-way"
        first.signal(signal.SIGKILL)
        first.wait()
        if seawall_dies_too:
            # Answers and records are written within moments; a kill -9 within them would cost
            # the last answer again, and its line in the books. So they are waited out.
            harness.until("all answers are kept", lambda: gateway.metrics().get('seawall_memo_total{result="kept"}') == began)
            harness.until("all calls are booked", lambda: [known["calls"] for known in runs(gateway)] == [began])
            gateway.kill()
            gateway = harness.Gateway(tmp_path / "gateway", config)
        second = start(0)
        done = second.line("^done ", seconds=60)
        assert second.wait() == 0 and says in done
        assert paid(sim) - before == steps, "each step was paid for once"
        # Once more: all of it is replayed.
        assert start(0).line("^done ", seconds=60) == done
        assert paid(sim) - before == steps
        harness.until("the run is booked whole", lambda: [known["calls"] for known in runs(gateway)] == [steps])
        assert [(known["name"], known["agent"], known["state"]) for known in runs(gateway)] == [(run, agent, "idle")]
    finally:
        gateway.stop()
        sim.stop()
