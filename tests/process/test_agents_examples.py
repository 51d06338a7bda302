"""Every agent of `examples/agents`, as it stands there, against the simulated engine: it ends well, does in the world what
it is for, and the progress guard has nothing to say."""

from __future__ import annotations

import json
import pathlib
import shutil
import sys
import typing

import pytest

import harness
from agents_rig import HERE, Town

EXAMPLES = harness.REPOSITORY / "examples" / "agents"
# The tree that is indexed: as many parts in each folder, and levels below the topmost; the last are documents.
PARTS, LEVELS = 10, 3


class Village(Town):
    """A town of all the examples, with the customer files that one of them asks for."""

    def __init__(self, folder: pathlib.Path) -> None:
        command = [sys.executable, str(HERE / "crm_server.py"), "--dir", str(folder / "truth")]
        (folder).mkdir(parents=True)
        (folder / "script").write_text(script_of_tree())
        config = f'script = {json.dumps(str(folder / "script"))}\n[[tool_server]]\nname = "crm"\ncommand = {json.dumps(command)}\n'
        kinds = {path.stem: path.read_text() for path in sorted(EXAMPLES.glob("*.toml"))}
        super().__init__(folder, kinds, config, kit=False)

    def well(self, run: str, seconds: float = 30.0) -> typing.Any:
        """The output of a run that must end well, without a word of the guard about any of its tree."""
        found = self.over(run, seconds)
        assert found["state"] == "done", (found, self.get(f"/seawall/why/{run}"))
        for part in [found, *found["tree"]]:
            assert part["state"] == "done", part
            assert [event["note"] for event in self.events(part["run"]) if event.get("note")] == []
        return found["output"]

    def told(self) -> list[str]:
        """What the guard said of anybody, by the log."""
        return [line for line in typing.cast(harness.Gateway, self.gateway).lines if "makes no progress" in line or "out of service" in line]


def script_of_tree() -> str:
    """What the model says to each folder and document of the tree: the tasks are objects, and bring no script."""
    lines = []

    def section(path: str, turns: list[str]) -> None:
        lines.extend([f'["path":"{path}"]', f'call store.get {json.dumps({"key": f"docs/{path}"})}', *turns])

    def children(paths: list[str]) -> list[str]:
        calls = ["call agent:topic-indexer " + json.dumps({"task": json.dumps({"path": path}, separators=(",", ":"))}) for path in paths]
        return [calls[0], *(f"& {call}" for call in calls[1:])]

    def index(path: str, level: int) -> None:
        if level == LEVELS:
            return section(path, [f'call notes.add {{"text":"{path} is about the sea","tags":["sea"]}}', 'text {"topics":["sea"]}'])
        parts = [f"{path}-{number}" for number in range(PARTS)]
        section(path, [*children(parts), 'text {"topics":["sea","wall"]}'])
        for part in parts:
            index(part, level + 1)

    index("root", 0)
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Village]:
    """All examples in one place."""
    folder = tmp_path_factory.mktemp("examples")
    shutil.rmtree(folder)
    village = Village(folder)
    yield village
    told = village.told()
    village.verified()
    village.close()
    assert not told, told


def test_a_research_team(village: Village) -> None:
    find = 'script: call notes.search {\\"query\\":\\"tide\\"}; call notes.add {\\"text\\":\\"The tide at %s is 3 m\\",\\"tags\\":[\\"tide\\"]}; say 3 m at %s, by the table.'
    calls = " & ".join('call agent:research-finder {"task":"How high at %s? ' .replace("%s", place) + find.replace("%s", place) + '"}' for place in ("Dover", "Brest", "Cork"))
    run = village.start("research-lead", f'How high is the tide? script: {calls}; say {{"answer":"3 m everywhere","open":[]}}')
    assert village.well(run) == {"answer": "3 m everywhere", "open": []}
    assert len(village.run(run)["tree"]) == 3
    notes = village.get("/seawall/values", prefix="notes/research/", limit=100)["values"]
    assert len(notes) == 3


def test_support_with_approval(village: Village) -> None:
    lookup = 'call crm.lookup {"customer":"c-7","card_number":"4111111111111111"}'
    task = f'My jug broke. script: {lookup}; call crm.refund {{"order":"o-1","amount":40}}; say {{"kind":"refund","reply":"We have refunded your jug."}}'
    run = village.start("support-triage/c-7", task)
    (approval,) = harness.until("a person is asked", lambda: [one for one in village.inbox("approvals") if one["run"] == run])
    assert approval["rule"] == "small-refunds"
    assert village.done("refund") == [], "nothing moves before a yes"
    village.post(f"/seawall/effects/{approval['effect']}/approve")
    assert village.well(run)["kind"] == "refund"
    assert [(refund["order"], refund["amount"]) for refund in village.done("refund")] == [("o-1", 40)]
    assert village.done("lookup") == [{"customer": "c-7"}], "the card number went nowhere"


def test_support_takes_no_for_an_answer(village: Village) -> None:
    run = village.start("support-triage/c-8", 'Money! script: call crm.refund {"order":"o-2","amount":400}; say {"kind":"refund","reply":"I am sorry."}')
    (approval,) = harness.until("people are asked", lambda: [one for one in village.inbox("approvals") if one["run"] == run])
    assert approval["rule"] == "large-refunds"
    village.post(f"/seawall/effects/{approval['effect']}/deny", {"why": "too much"})
    assert village.well(run)["reply"] == "I am sorry."
    assert "o-2" not in [refund["order"] for refund in village.done("refund")]


def test_a_watcher_of_pipelines(village: Village) -> None:
    state = village.client.put("/seawall/values/pipeline/state", json={"value": {"rows": 12}})
    assert state.is_success, state.text
    read = 'call store.get {"key":"pipeline/state"} & call store.get {"key":"pipeline/report"}'
    write = 'call store.put {"key":"pipeline/report","value":"12 rows","version":0} & call store.put {"key":"pipeline/state","value":"forged"}'
    run = village.start("pipeline-watcher/main", f'script: {read}; {write}; call topic.publish {{"topic":"pipeline-alerts","body":"Rows fell."}}; say Rows fell.')
    assert village.well(run) == "Rows fell."
    assert village.get("/seawall/values/pipeline/report")["value"] == "12 rows"
    assert village.get("/seawall/values/pipeline/state")["value"] == {"rows": 12}, "it may write its own report alone"


def test_a_pair_for_code(village: Village) -> None:
    def review(diff: str, verdict: str) -> str:
        return "call agent:code-reviewer " + json.dumps({"task": f"{diff} script: say {verdict}"})

    no, yes = '{"accept":false,"findings":[{"line":3,"what":"an error is lost"}]}', '{"accept":true,"findings":[]}'
    run = village.start("code-author", f"Mend it. script: {review('diff 1', no)}; {review('diff 2', yes)}; say --- a +++ b")
    assert village.well(run) == "--- a +++ b"
    reviews = [part["output"] for part in village.run(run)["tree"] if part["agent"].startswith("code-reviewer")]
    assert [review["accept"] for review in reviews] == [False, True]


def test_an_index_of_a_tree_of_a_thousand(village: Village) -> None:
    """As its file says, within its own limits."""
    run = village.start("topic-indexer", {"path": "root"})  # type: ignore[arg-type]
    found = village.over(run, 50)
    assert found["state"] == "done", village.get(f"/seawall/why/{run}")
    assert found["output"]["topics"] == ["sea", "wall"]
    assert len(found["tree"]) == 1_000 and found["tree_cut"], "as many are shown, and there are more"
    assert {part["state"] for part in found["tree"]} == {"done"}
    notes = village.get("/seawall/values", prefix="notes/topics/", limit=1000)["values"]
    assert len({note["value"]["text"] for note in notes}) == PARTS**LEVELS
    # A document: reads, notes, answers; a folder: reads, hands out, answers.
    assert found["used"]["calls"] == 3 * sum(PARTS**level for level in range(LEVELS + 1))


def test_no_example_is_left_out() -> None:
    tried = {"research-lead", "research-finder", "support-triage", "pipeline-watcher", "code-author", "code-reviewer", "topic-indexer"}
    assert {path.stem for path in EXAMPLES.glob("*.toml")} == tried, "write a test for the new one"
