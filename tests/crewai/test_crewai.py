"""The zero-SDK door with CrewAI as it comes from PyPI: a crew of two, killed half-way.

`cargo x test crewai` runs it. It is no part of `cargo x test`: CrewAI brings a gigabyte along
(vector stores, telemetry, document readers) and wants another major version of the openai client
than the suite of that client.
"""

from __future__ import annotations

import pathlib

import pytest

import halfway

# Two agents, two tasks, the second of which goes by the first one's answer.
CREW = '''
AGENT, RUN = "crew/1", "harbour"
''' + halfway.HEAD + '''
from crewai import LLM, Agent, Crew, Process, Task
from crewai.tools import tool

model = LLM(model="openai/real", base_url=os.environ["BASE_URL"], api_key="unused", max_retries=0, default_headers=HEADERS)
tools = [tool("look_up")(look_up)]
surveyor = Agent(role="surveyor", goal="know the water", backstory="You measure.", llm=model, tools=tools, cache=False)
writer = Agent(role="writer", goal="warn the ships", backstory="You write.", llm=model, tools=tools, cache=False)
survey = Task(description="survey the harbour", expected_output="a table", agent=surveyor)
warn = Task(description="warn of the tides", expected_output="one sentence", agent=writer, context=[survey])
crew = Crew(agents=[surveyor, writer], tasks=[survey, warn], process=Process.sequential, cache=False, verbose=False)
print("done", repr(crew.kickoff().raw), flush=True)
'''

WORDS = '''
[survey the harbour]
call look_up {"place":"north quay"}
call look_up {"place":"lighthouse"}
text The harbour is surveyed.

[warn of the tides]
call look_up {"place":"pier"}
call look_up {"place":"slipway"}
text High water at noon.
'''

SCRIPT = halfway.Script(CREW, WORDS, 6, 3, "crew/1", "harbour", "High water at noon.")


@pytest.mark.parametrize("seawall_dies_too", [False, True], ids=["script-dies", "both-die"])
def test_a_crew_killed_half_way_pays_for_nothing_twice(tmp_path: pathlib.Path, seawall_dies_too: bool) -> None:
    halfway.pays_for_nothing_twice(tmp_path, SCRIPT, seawall_dies_too, seconds=120)
