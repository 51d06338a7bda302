"""Runs of agents as an operator sees them: listed with what they used, as trees, with the agents
that their keys name; and two agents that answer each other for ever."""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import typing

import httpx
import pytest

import harness
from witness import Witness


@pytest.fixture
def door(tmp_path: pathlib.Path) -> typing.Iterator[tuple[harness.Gateway, Witness]]:
    """A gateway with a witness behind it."""
    witness = Witness()
    config = harness.engine("witness", witness.url) + harness.model("real", "witness/real")
    gateway = harness.Gateway(tmp_path / "gateway", config)
    yield gateway, witness
    gateway.stop()
    witness.close()


def chat(gateway: harness.Gateway, text: str, key: str = "", **headers: str) -> httpx.Response:
    """One chat call with these headers, whose names begin with `x-seawall-`."""
    named = {f"x-seawall-{name}": value for name, value in headers.items()}
    if key:
        named["authorization"] = f"Bearer {key}"
    body = {"model": "real", "messages": [{"role": "user", "content": text}]}
    return httpx.post(gateway.v1 + "/chat/completions", json=body, headers=named, timeout=20)


def runs(gateway: harness.Gateway, query: str = "", key: str = "") -> dict[str, dict[str, typing.Any]]:
    """The runs by name."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    listed = httpx.get(f"{gateway.url}/seawall/runs{query}", headers=headers, timeout=5).raise_for_status().json()["runs"]
    return {run["name"]: run for run in listed}


def test_two_agents_that_answer_each_other_are_stopped_after_three_rounds(door: tuple[harness.Gateway, Witness]) -> None:
    gateway, witness = door
    planner = {"agent": "planner/1", "run": "plan", "parent": "job"}
    critic = {"agent": "critic/1", "run": "review", "parent": "job"}
    answers = []
    for turn in range(20):
        text, who = ("[[id=plan]] Improve this.", planner) if turn % 2 == 0 else ("[[id=review]] Still not good.", critic)
        answers.append(chat(gateway, text, **who))
        if answers[-1].status_code != 200:
            break
    assert len(answers) == 7
    fault = answers[-1].json()["error"]
    assert (answers[-1].status_code, fault["code"]) == (422, "loop_stopped")
    assert "3 rounds of the same 2 requests between planner/1 and critic/1" in fault["message"]
    warned = [answer.headers.get("x-seawall-warning") for answer in answers]
    assert warned == [None] * 4 + ["loop_stopped"] * 2 + [None]
    assert len(witness.calls("plan")) + len(witness.calls("review")) == 6
    # Others of the tree go on, and something new lets the two go on as well.
    assert chat(gateway, "something new", agent="writer/1", run="write", parent="job").status_code == 200
    assert chat(gateway, "[[id=plan]] Improve this.", **planner).status_code == 200


def test_guard_and_memo_are_as_configured_and_reloaded(tmp_path: pathlib.Path) -> None:
    witness = Witness()
    engines = harness.engine("witness", witness.url) + harness.model("real", "witness/real")
    gateway = harness.Gateway(tmp_path, "[guard]\nrounds = 2\ndepth = 2\n[memo]\nrun_answers_max = 1\n" + engines)
    try:

        def talk(turn: int) -> int:
            who = {"run": "plan", "parent": "job"} if turn % 2 == 0 else {"run": "review", "parent": "job"}
            return chat(gateway, f"The same {turn % 2}.", **who).status_code

        assert [talk(turn) for turn in range(5)] == [200] * 4 + [422]
        assert chat(gateway, "Dig.", run="deep", parent="plan").status_code == 422, "three generations"
        for _ in range(2):
            assert chat(gateway, "[[id=first]]", run="kept", memo="on").status_code == 200
            assert chat(gateway, "[[id=second]]", run="kept", memo="on").status_code == 200
        assert (len(witness.calls("first")), len(witness.calls("second"))) == (1, 2)
        gateway.configure("[memo]\nrun_answers_max = 2\n" + engines)
        harness.until("three generations may be", lambda: chat(gateway, "Dig.", run="deep", parent="plan").status_code == 200, 15, every=0.2)
        # What was said meanwhile broke the row; it begins anew, with three rounds.
        assert [talk(turn) for turn in range(7)] == [200] * 6 + [422]
        for _ in range(2):
            assert chat(gateway, "[[id=second]]", run="kept", memo="on").status_code == 200
        assert len(witness.calls("second")) == 3
    finally:
        gateway.stop()
        witness.close()


def test_a_tree_of_runs_has_the_budget_that_its_first_call_names(door: tuple[harness.Gateway, Witness]) -> None:
    gateway, witness = door
    assert chat(gateway, "[[id=b0]]", run="capped", budget="calls=3, usd=2").status_code == 200
    assert chat(gateway, "[[id=b1]]", run="below", parent="capped").status_code == 200
    assert chat(gateway, "[[id=b2]]", run="deeper", parent="below", budget="calls=100").status_code == 200
    refused = chat(gateway, "[[id=b3]]", run="third", parent="capped", budget="calls=1000000")
    fault = refused.json()["error"]
    assert (refused.status_code, fault["code"]) == (422, "allowance_spent")
    assert "run capped#calls/tree" in fault["message"] and not witness.calls("b3")
    assert chat(gateway, "[[id=b4]]", run="capped", budget="calls=1000").status_code == 422, "never raised"
    assert chat(gateway, "[[id=b5]]", run="beside").status_code == 200
    listed = runs(gateway)
    capped = listed["capped"]
    assert (capped["allowance"], capped["used"]["calls"]) == ({"calls": 3, "money_usd": 2.0}, 3)
    assert (capped["left"]["calls"], capped["reserved"]["calls"]) == (0, 0)
    assert listed["deeper"]["left"]["calls"] == 0, "what those above have left counts"
    assert "allowance" not in listed["beside"]
    shown = harness.seawall("runs", "--url", gateway.url).stdout
    assert "budget of capped: " in shown and "calls 3 of 3, 0 left" in shown
    for wrong in ("calls=0", "much", "calls=1, calls=2"):
        answer = chat(gateway, "hello", run="capped", budget=wrong)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_header")
    assert chat(gateway, "hello", budget="calls=1").status_code == 400, "a budget belongs to a run"


def test_loops_that_get_somewhere_are_left_alone(door: tuple[harness.Gateway, Witness]) -> None:
    gateway, _ = door
    poller, worker = {"run": "poll", "parent": "top"}, {"run": "work", "parent": "top"}
    for turn in range(24):
        # A poller whose question never changes, between calls that do.
        poller = {"run": "work", "parent": "top"} if turn >= 7 else poller
        assert chat(gateway, "Is it done?", **poller).status_code == 200
        assert chat(gateway, f"Item {turn} came in.", **worker).status_code == 200
    for turn in range(30):
        text = "What was the aim?" if turn % 5 == 0 else f"Step {turn}"
        answer = chat(gateway, text, run="again")
        assert (answer.status_code, answer.headers.get("x-seawall-warning")) == (200, None)


def test_runs_are_listed_with_what_they_do_and_used(door: tuple[harness.Gateway, Witness]) -> None:
    gateway, witness = door
    for name, headers in {
        "a": {"run": "find it", "parent": "report", "agent": "searcher/1"},
        "b": {"run": "read/1", "parent": "find it", "agent": "reader/1"},
        "c": {"run": "alone"},
    }.items():
        assert chat(gateway, f"[[id={name} tokens=4]]", **headers).status_code == 200
    assert chat(gateway, "[[id=broken status=400]]", run="alone").status_code == 400
    listed = runs(gateway)
    assert list(listed) == ["alone", "read/1", "find it"], "those seen last come first"
    alone, found = listed["alone"], listed["find it"]
    assert (alone["kind"], alone["tenant"], alone["calls"], alone["failed"], alone["state"]) == ("door", "local", 2, 1, "idle")
    assert (found["parent"], found["agent"], found["calls"], found["failed"]) == ("report", "searcher/1", 1, 0)
    assert found["output_tokens"] > 0 and found["input_tokens"] > 0 and found["last_ms"] >= found["since_ms"] > 1_600_000_000_000
    tree = runs(gateway, "?tenant=local&tree=report")
    assert [(name, run["depth"]) for name, run in tree.items()] == [("find it", 1), ("read/1", 2)]
    assert list(runs(gateway, "?tenant=local&tree=find%20it")) == ["find it", "read/1"]
    assert list(runs(gateway, "?tenant=nobody")) == []
    assert list(runs(gateway, "?limit=1")) == ["alone"]
    assert httpx.get(f"{gateway.url}/seawall/runs?limit=0", timeout=5).status_code == 400
    assert httpx.post(f"{gateway.url}/seawall/runs", timeout=5).status_code == 405
    # What it does now is the kernel's to say.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        slow = pool.submit(chat, gateway, "[[id=slow first_ms=20000]]", run="alone")
        harness.until("it arrives", lambda: witness.call("slow"))
        alone = runs(gateway)["alone"]
        assert (alone["state"], alone["live_calls"], alone["calls"]) == ("running", 1, 2)
        assert harness.seawall("run", "stop", "alone", "--url", gateway.url).returncode == 0
        assert slow.result(10).status_code == 403
    assert harness.until("it is over", lambda: runs(gateway)["alone"]["live_calls"] == 0)
    assert runs(gateway)["alone"]["state"] == "stopped"
    # As people see it, also after a restart.
    gateway.stop()
    again = harness.Gateway(gateway.folder, gateway.config.read_text())
    try:
        table = harness.seawall("runs", "--url", again.url).stdout.splitlines()
        assert [line.split("  ")[0] for line in table[1:]] == ["alone", "read/1", "find it"]
        shown = harness.seawall("run", "find it", "--url", again.url).stdout.splitlines()
        assert [line[:8].rstrip() for line in shown[1:]] == ["find it", "  read/1"]
        asked = harness.seawall("run", "report", "--url", again.url, "--json")
        assert [run["name"] for run in json.loads(asked.stdout)["runs"]] == ["find it", "read/1"]
        nobody = harness.seawall("run", "nobody", "--url", again.url)
        assert nobody.returncode == 1 and "x-seawall-run" in nobody.stderr
        assert harness.seawall("run").returncode == 64
    finally:
        again.stop()


def test_a_key_names_agent_and_run_of_calls_that_name_none(door: tuple[harness.Gateway, Witness]) -> None:
    gateway, witness = door
    admin = harness.add_key(gateway.data, "ops", "--admin")
    key = harness.add_key(gateway.data, "acme", "--agent", "indexer/1", "--run", "nightly")
    harness.until("keys are asked for", lambda: chat(gateway, "[[id=nobody]]").status_code == 401)
    assert chat(gateway, "[[id=first]]", key).status_code == 200
    assert chat(gateway, "[[id=named]]", key, agent="other/2", run="daily", parent="week").status_code == 200
    # The key's run can have a memo like any other, and a parent.
    for _ in range(2):
        assert chat(gateway, "[[id=memo]]", key, memo="on", parent="week").status_code == 200
    assert len(witness.calls("memo")) == 1
    assert httpx.get(f"{gateway.url}/seawall/runs", timeout=5).status_code == 401
    assert {run["tenant"] for run in httpx.get(f"{gateway.url}/seawall/runs", headers={"authorization": f"Bearer {key}"}, timeout=5).json()["runs"]} == {"acme"}
    assert httpx.get(f"{gateway.url}/seawall/runs?tenant=ops", headers={"authorization": f"Bearer {key}"}, timeout=5).status_code == 403
    listed = runs(gateway, "?tenant=acme", admin)
    assert {name: (run["agent"], run["parent"]) for name, run in listed.items()} == {
        "nightly": ("indexer/1", "week"),
        "daily": ("other/2", "week"),
    }
    refused = harness.seawall("key", "add", "--data", gateway.data, "--tenant", "acme", "--agent", "a/b/c")
    assert refused.returncode == 64 and "--agent" in refused.stderr
