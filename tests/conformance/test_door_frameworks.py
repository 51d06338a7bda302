"""The zero-SDK door with real agent frameworks: LangGraph and OpenAI's Agents SDK, as they come
from PyPI, with nothing but an address and headers.

CrewAI has a folder of its own, `tests/crewai`: it brings a gigabyte along.
"""

from __future__ import annotations

import pathlib

import pytest

import halfway

# A graph with a tool loop, as in LangGraph's own tutorial.
GRAPH = '''
AGENT, RUN = "surveyor/1", "survey"
''' + halfway.HEAD + '''
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

SURVEY = '''
[survey the harbour]
call look_up {"place":"north quay"}
call look_up {"place":"south quay"}
call look_up {"place":"lighthouse"}
call look_up {"place":"dry dock"}
call look_up {"place":"breakwater"}
text The harbour is surveyed.
'''

# A function tool and a handoff to a second agent, over the SDK's default protocol.
HANDOFF = '''
AGENT, RUN = "harbour-master", "tides"
''' + halfway.HEAD + '''
import agents, openai
agents.set_tracing_disabled(True)
agents.set_default_openai_client(openai.AsyncOpenAI(base_url=os.environ["BASE_URL"], api_key="unused", max_retries=0, default_headers=HEADERS), use_for_tracing=False)
tools = [agents.function_tool(look_up)]
writer = agents.Agent(name="writer", instructions="You write the report.", model="real", tools=tools)
master = agents.Agent(name="master", instructions="You look, then hand over.", model="real", tools=tools, handoffs=[writer])
result = agents.Runner.run_sync(master, "report the tides")
print("done", result.last_agent.name, repr(result.final_output), flush=True)
'''

TIDES = '''
[report the tides]
call look_up {"place":"pier"}
call look_up {"place":"slipway"}
call transfer_to_writer {}
call look_up {"place":"jetty"}
call look_up {"place":"boom"}
text High water at noon.
'''

SCRIPTS = {
    "langgraph": halfway.Script(GRAPH, SURVEY, 6, 3, "surveyor/1", "survey", "The harbour is surveyed."),
    "openai-agents": halfway.Script(HANDOFF, TIDES, 6, 3, "harbour-master", "tides", "High water at noon."),
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("seawall_dies_too", [False, True], ids=["script-dies", "both-die"])
def test_a_real_framework_killed_half_way_pays_for_nothing_twice(tmp_path: pathlib.Path, name: str, seawall_dies_too: bool) -> None:
    halfway.pays_for_nothing_twice(tmp_path, SCRIPTS[name], seawall_dies_too)
