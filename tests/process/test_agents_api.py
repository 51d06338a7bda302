"""The HTTP API of agents on the real binary: every path, who may use it, and what it says of mistakes."""

from __future__ import annotations

import contextlib
import json
import pathlib
import threading
import typing
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import harness
from agents_rig import Town

CLERK = """
description = "Answers questions."
model = "sim-small"
instructions = "You are {{agent.key}}. Help."
tools = ["store.*", "human.ask", "timer.sleep", "message.send", "callback.wait", "agent:helper"]

[[permissions]]
ask = ["store.put"]
when = ["args.key starts_with money/"]

[[permissions]]
deny = ["store.put"]
when = ["args.key starts_with forbidden/"]
"""
# Without tools the simulated model knows no scripts.
HELPER = 'model = "sim-small"\ninstructions = "You help."\ntools = ["store.get"]\n'
PAIR = """
model = "sim-small"
instructions = "You pay."
tools = ["store.put"]

[[permissions]]
ask = ["store.put"]
approvers = ["acme/leads"]
"""
KINDS = {"clerk": CLERK, "helper": HELPER, "pair": PAIR}


@pytest.fixture
def town(tmp_path: pathlib.Path) -> typing.Iterator[Town]:
    """Seawall with three types of agents."""
    town = Town(tmp_path, KINDS, kit=False)
    yield town
    town.kill()


@pytest.fixture
def dozing(tmp_path: pathlib.Path) -> typing.Iterator[Town]:
    """Likewise, and whoever only waits is soon a row on disk and nothing in memory."""
    town = Town(tmp_path, KINDS, kit=False, agents='suspend_after = "100ms"')
    yield town
    town.kill()


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """The message of an error that was expected."""
    assert answer.status_code == status, f"{answer.status_code} {answer.text}"
    error = answer.json()["error"]
    assert error["code"] == code and answer.headers["x-seawall-code"] == code, error
    return error["message"]


# What the simulated model does when it is to ask a human.
ASK = 'call human__ask {"question": "Why?"}'


def script(turns: str) -> str:
    """A task that brings the model's answers."""
    return f"script: {turns}"


def outcomes(town: Town, run: str) -> list[str]:
    """What tools answered to a run that is over."""
    turns = town.get(f"/seawall/runs/{run}/turns")
    talk = town.get(f"/seawall/runs/{run}/turns/{len(turns)}")["conversation"]
    return [message["content"] for message in talk if message["role"] == "tool"]


def asked(town: Town, box: str, count: int = 1) -> list[dict[str, typing.Any]]:
    """What people are wanted for, once there are so many."""
    return harness.until(f"{count} in {box}", lambda: (found := town.inbox(box)) and len(found) >= count and found)


def test_a_run_is_started_waited_for_and_looked_at(dozing: Town) -> None:
    town = dozing
    answer = town.client.post("/seawall/agents/clerk/7/runs", json={"task": script('say {"sum": 3}')})
    assert answer.status_code == 201
    started = answer.json()
    assert started["agent"] == "clerk/7" and started["tenant"] == "local" and started["durability"] == "sync"
    run = town.over(started["run"])
    assert (run["state"], run["output"], run["kind"]) == ("done", {"sum": 3}, "durable")
    assert run["used"]["calls"] == 1 and run["used"]["tokens"] > 0 and run["reserved"]["calls"] == 0
    assert run["task"].startswith("script: ") and run["waits"] == [] and run["tree"] == []

    waited = town.client.post("/seawall/agents/clerk/runs", json={"task": script("say Done."), "wait_ms": 20_000})
    assert waited.status_code == 200 and waited.json()["output"] == "Done."
    assert waited.json()["agent"] == f"clerk/{waited.json()['run']}"
    later = town.client.post("/seawall/agents/clerk/runs", json={"task": script(ASK), "wait_ms": 50})
    assert later.status_code == 202 and later.json()["state"] in ("active", "queued")

    agent = town.get("/seawall/agents/clerk/7")
    assert (agent["state"], agent["run"], agent["lasting"]) == ("idle", None, True)
    types = town.get("/seawall/agents")
    assert [kind["type"] for kind in types["types"]] == ["clerk", "helper", "pair"]
    assert "human.ask" in types["types"][0]["tools"] and types["types"][0]["agents"]["idle"] == 1
    assert types["waits"] == {"promise": 1} and types["states"]["waiting"] == 1
    listed = town.get("/seawall/agents", list=1, limit=2)
    assert [one["agent"] for one in listed["agents"]][0] == "clerk/7" and listed["next"]
    rest = town.get("/seawall/agents", list=1, after=listed["next"])
    assert len(rest["agents"]) == 1 and rest["next"] is None
    page = town.get("/seawall/runs", limit=2)["runs"]
    older = town.get("/seawall/runs", before=page[-1]["run"])["runs"]
    assert [one["run"] for one in page + older] == [one["run"] for one in town.get("/seawall/runs")["runs"]]
    assert town.get("/seawall/runs", state="active", type="clerk")["runs"][0]["waits"][0]["cause"] == "promise"


def test_who_is_suspended_is_counted_by_what_it_waits_for(dozing: Town) -> None:
    town = dozing
    run = town.start("clerk/7", script(ASK))
    asked(town, "questions")
    doze(town)
    types = town.get("/seawall/agents")
    assert types["waits"] == {"promise": 1} and types["states"]["waiting"] == 1
    wait = town.run(run)["waits"][0]
    assert wait["cause"] == "promise" and wait["since_ms"], wait
    books = town.get("/seawall/audit/verify", books=1)["books"]
    assert (books["right"], books["agents"], books["runs"], books["wrong"]) == (True, 1, 1, []), books


def test_a_parent_shows_its_tree_and_why_says_what_it_waits_for(town: Town) -> None:
    ask = script(ASK)
    run = town.start("clerk", script("call agent__helper " + json.dumps({"task": "hello"}) + "; " + ASK + "; say Done."))
    question = asked(town, "questions")[0]
    assert question["question"] and question["agent"] == f"clerk/{run}" and question["run"] == run
    shown = town.run(run)
    assert [child["parent"] for child in shown["tree"]] == [run] and shown["tree"][0]["state"] == "done"
    assert [wait["cause"] for wait in shown["waits"]] == ["promise"]
    why = town.get(f"/seawall/why/{run}")
    assert "waits for an answer to its question" in why["sentence"] and question["effect"] in why["sentence"]
    assert town.get(f"/seawall/why/clerk/{run}")["sentence"] == why["sentence"]
    refused(town.client.post(f"/seawall/effects/{question['effect']}/approve"), 404, "effect_unknown")
    town.post(f"/seawall/effects/{question['effect']}/answer", {"output": {"because": 1}})
    assert town.over(run)["output"] == "Done."
    assert town.get(f"/seawall/why/{run}")["sentence"] == f"{run} is done."
    refused(town.client.post(f"/seawall/effects/{question['effect']}/answer", json={"output": 1}), 404, "effect_unknown")
    failed = town.start("clerk", ask)
    question = asked(town, "questions")[0]
    town.post(f"/seawall/effects/{question['effect']}/answer", {"error": "nobody knows"})
    town.over(failed)
    last = [one for one in town.events(failed) if one["kind"] == "answered" and one["effect"] == question["effect"]]
    assert last[0]["error"]["message"] == "nobody knows" and last[0]["by"] == "operator"


def test_approvals_are_given_with_other_arguments_or_refused_with_a_reason(town: Town) -> None:
    put = json.dumps({"key": "money/1", "value": 5})
    run = town.start("clerk", script(f"call store__put {put}; say Paid."))
    approval = asked(town, "approvals")[0]
    assert (approval["kind"], approval["object"], approval["args"]["value"]) == ("put", "money/1", 5)
    assert approval["rule"].startswith("clerk/1") and approval["yes"] == [] and approval["yours"]
    assert town.run(run)["waits"][0]["cause"] == "approval"
    town.post(f"/seawall/effects/{approval['effect']}/approve")
    assert town.over(run)["output"] == "Paid." and town.get("/seawall/values/money/1")["value"] == 5

    run = town.start("clerk", script(f"call store__put {put}; say Refused."))
    approval = asked(town, "approvals")[0]
    town.post(f"/seawall/effects/{approval['effect']}/deny", {"why": "too much"})
    town.over(run)
    answered = next(one for one in town.events(run) if one["kind"] == "answered" and one["effect"] == approval["effect"])
    assert answered["error"] == {"code": "approval_denied", "message": "operator said no: too much"}
    assert town.get("/seawall/values/money/1")["version"] == 1
    forbidden = town.start("clerk", script("call store__put " + json.dumps({"key": "forbidden/1", "value": 5}) + "; say No."))
    town.over(forbidden)
    turns = town.get(f"/seawall/runs/{forbidden}/turns")
    denied = [one for turn in turns for one in turn["asked"] if one["verdict"] == "deny"]
    assert denied[0]["refused"]["code"] == "gate_denied" and denied[0]["rule"].startswith("clerk/2")


def test_a_run_is_cancelled_and_begun_again(town: Town) -> None:
    run = town.start("clerk/9", script(ASK + "; say Done."))
    asked(town, "questions")
    assert town.post(f"/seawall/runs/{run}/again") == {"run": run, "restarted": True}
    question = asked(town, "questions")[0]
    assert town.run(run)["restarts"] == 1
    assert town.post(f"/seawall/runs/{run}/cancel") == {"run": run, "state": "cancelled"}
    assert town.post(f"/seawall/runs/{run}/cancel") == {"run": run, "state": "cancelled"}
    assert town.run(run)["error"]["code"] == "run_cancelled" and town.inbox("questions") == []
    refused(town.client.post(f"/seawall/effects/{question['effect']}/answer", json={"output": 1}), 404, "effect_unknown")
    fresh = town.post(f"/seawall/runs/{run}/again")
    assert fresh["run"] != run and fresh["agent"] == "clerk/9"
    asked(town, "questions")


def test_a_stop_holds_a_tree_until_it_is_lifted(town: Town) -> None:
    run = town.start("clerk", script(ASK + "; say Done."))
    question = asked(town, "questions")[0]
    town.post(f"/seawall/runs/{run}/stop")
    assert [stop["scope"] for stop in town.get("/seawall/halts")["halts"]] == [f"run:{run}"]
    town.post(f"/seawall/effects/{question['effect']}/answer", {"output": "go"})
    assert f"run:{run}" in town.get(f"/seawall/why/{run}")["sentence"] and town.run(run)["state"] == "active"
    town.post(f"/seawall/runs/{run}/resume")
    assert town.over(run)["output"] == "Done."
    town.post("/seawall/halts", {"scope": "type:clerk", "on": True})
    refused(town.client.post("/seawall/agents/clerk/runs", json={"task": "x"}), 403, "run_stopped")
    town.post("/seawall/halts", {"scope": "type:clerk", "on": False})
    assert town.get("/seawall/halts")["halts"] == []
    refused(town.client.post("/seawall/halts", json={"scope": "planet:earth"}), 400, "bad_field")


def follow(client: httpx.Client, run: str, headers: dict[str, str] | None = None) -> list[tuple[str, str, dict[str, typing.Any]]]:
    """Id, event and data of everything that is told of a run until its end."""
    told, one = [], {"id": "", "event": "message"}
    with client.stream("GET", f"/seawall/runs/{run}/events?follow=1", headers=headers, timeout=20) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        for line in answer.iter_lines():
            if line.startswith(":"):
                continue
            if not line:
                told.append((one["id"], one["event"], json.loads(one["data"])))
                one = {"id": "", "event": "message"}
                continue
            name, _, value = line.partition(": ")
            one[name] = value
    return told


def test_events_are_followed_to_the_end_and_taken_up_again_by_offset(town: Town) -> None:
    run = town.start("clerk", script(ASK + "; say Done."))
    question = asked(town, "questions")[0]
    told: list[typing.Any] = []
    thread = threading.Thread(target=lambda: told.extend(follow(town.client, run)))
    thread.start()
    town.post(f"/seawall/effects/{question['effect']}/answer", {"output": "yes"})
    thread.join(20)
    assert not thread.is_alive() and told[-1][1:] == ("over", {"run": run, "state": "done"})
    records = [(key, data) for key, event, data in told if event == "message"]
    assert [int(key) for key, _ in records] == [data["seq"] for _, data in records] == sorted(data["seq"] for _, data in records)
    kinds = [data["kind"] for _, data in records]
    assert kinds[0] == "started" and kinds[-1] == "turned" and records[-1][1]["next"]["output"] == "Done."
    assert [data for _, data in records] == town.events(run)
    middle = records[len(records) // 2][0]
    again = follow(town.client, run, {"last-event-id": middle})
    assert [key for key, event, _ in again if event == "message"] == [key for key, _ in records if int(key) > int(middle)]
    page = town.get(f"/seawall/runs/{run}/events", limit=2)
    assert len(page["events"]) == 2 and town.get(f"/seawall/runs/{run}/events", **{"from": page["next"]})["events"][0]["seq"] >= page["next"]


def test_a_follower_that_leaves_costs_nothing_and_deltas_come_between_records(town: Town) -> None:
    assert town.gateway is not None
    gateway = town.gateway
    run = town.start("clerk", script(ASK + "; say Some words at the end."))
    question = asked(town, "questions")[0]
    feeds = 'seawall_tasks{kind="follower"}'
    with town.client.stream("GET", f"/seawall/runs/{run}/events?follow=1") as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("id: ")
        assert gateway.metrics()[feeds] == 1
    harness.until("the follower is gone", lambda: gateway.metrics()[feeds] == 0)
    told: list[typing.Any] = []
    thread = threading.Thread(target=lambda: told.extend(follow(town.client, run)))
    thread.start()
    harness.until("it follows", lambda: gateway.metrics()[feeds] == 1)
    town.post(f"/seawall/effects/{question['effect']}/answer", {"output": "yes"})
    thread.join(20)
    deltas = [data for _, event, data in told if event == "delta"]
    assert "".join(data.get("text", "") for data in deltas) == "Some words at the end."
    harness.until("the stream ended by itself", lambda: gateway.metrics()[feeds] == 0)


def test_turns_are_told_with_state_and_a_fork_goes_on_from_one(town: Town) -> None:
    put = json.dumps({"key": "a", "value": 1})
    run = town.start("clerk", script(f"call store__put {put}; say First."))
    assert town.over(run)["output"] == "First."
    turns = town.get(f"/seawall/runs/{run}/turns")
    assert [turn["turn"] for turn in turns] == list(range(1, len(turns) + 1)) and turns[-1]["next"]["kind"] == "end"
    assert turns[0]["seen"][0]["kind"] == "task" and turns[0]["asked"][0]["kind"] == "model"
    assert turns[1]["seen"][0]["kind"] == "answer" and turns[1]["asked"][0]["object"] == "a"
    assert turns[2]["seen"][0]["effect"] == turns[1]["asked"][0]["effect"]
    second = town.get(f"/seawall/runs/{run}/turns/2")
    roles = [message["role"] for message in second["conversation"]]
    assert roles[:3] == ["system", "user", "assistant"] and "meta" in second["state"]
    refused(town.client.get(f"/seawall/runs/{run}/turns/99"), 404, "run_unknown")

    fork = town.client.post(f"/seawall/runs/{run}/fork", json={"turn": 2})
    assert fork.status_code == 201 and fork.json()["run"] != run
    forked = town.over(fork.json()["run"])
    assert forked["output"] == "First." and town.get("/seawall/values/a")["version"] == 1, "what was done is not done again"
    talk = town.get(f"/seawall/runs/{forked['run']}/turns/{forked['turns']}")["conversation"]
    assert [message["role"] for message in talk][:3] == ["system", "user", "assistant"]
    retold = town.post(f"/seawall/runs/{run}/fork", {"turn": 1, "task": script("say Other.")})
    assert town.over(retold["run"])["output"] == "Other."
    scratch = town.post(f"/seawall/runs/{run}/fork", {"turn": 0, "task": script("say Anew.")})
    assert town.over(scratch["run"])["output"] == "Anew."
    changed = json.dumps({"role": "user", "content": script("say Changed.")})
    set_one = town.post(f"/seawall/runs/{run}/fork", {"turn": 1, "set": {"m/00000001": changed}})
    assert town.over(set_one["run"])["output"] == "Changed."
    refused(town.client.post(f"/seawall/runs/{run}/fork", json={"turn": 99}), 400, "bad_field")
    assert town.run(set_one["run"])["fork"] == {"run": run, "turn": 1} and town.run(run)["fork"] is None
    for key, value in [("meta", "{}"), ("fork", "kept"), ("m/1", "x"), ("m/00000001", "no message")]:
        refused(town.client.post(f"/seawall/runs/{run}/fork", json={"turn": 1, "set": {key: value}}), 400, "bad_field")


def test_messages_are_taken_once_and_dead_letters_are_sent_again(town: Town) -> None:
    run = town.start("clerk/4", script(ASK + "; say Done."))
    question = asked(town, "questions")[0]
    path, message = "/seawall/agents/clerk/4/messages", {"body": "hurry", "name": "note", "id": "m1"}
    for before in (False, True):
        answer = town.client.post(path, json=message)
        assert answer.status_code == 202
        assert (answer.json()["taken"], answer.json()["duplicate"]) == (not before, before)
    for other in ({"body": "wait"}, {"name": "other"}):
        refused(town.client.post(path, json=message | other), 409, "version_conflict")
    inbox = town.get("/seawall/agents/clerk/4")["inbox"]
    assert [(item["kind"], item["body"], item["name"]) for item in inbox] == [("message", "hurry", "note")]
    town.post(f"/seawall/effects/{question['effect']}/answer", {"output": 1})
    town.over(run)
    refused(town.client.post("/seawall/agents/nobody/1/messages", json={"body": 1}), 404, "agent_unknown")
    refused(town.client.post("/seawall/agents/clerk/4/messages", json={"text": 1}), 400, "bad_field")
    assert town.get("/seawall/letters") == {"letters": [], "all": 0, "next": None}
    refused(town.client.get("/seawall/letters?after=x"), 400, "bad_field")
    refused(town.client.post("/seawall/letters/3.17/redrive"), 404, "letter_unknown")


# What one agent may write to another at once; from outside it may be any size.
WRITTEN_MAX = 256 << 10


@pytest.mark.parametrize("size", [100_000, (1 << 20) + 1])
def test_large_messages_arrive_whole_or_are_told(town: Town, size: int) -> None:
    """They are blobs, and none is shown in part."""
    body = "m" * size
    run = town.start("clerk/reader", script(ASK + "; say Done."))
    question = asked(town, "questions")[0]
    answer = town.client.post("/seawall/agents/clerk/reader/messages", json={"body": body})
    assert answer.status_code == 202, answer.text
    send = json.dumps({"to": "clerk/reader", "body": body})
    sent = town.over(town.start("clerk/sender", script(f"call message__send {send}; say Sent.")))
    talk = town.get(f"/seawall/runs/{sent['run']}/turns/{sent['turns']}")["conversation"]
    (told,) = [message["content"] for message in talk if message["role"] == "tool"]
    expected = [(size, None)]
    if size <= WRITTEN_MAX:
        expected.append((size, "local/clerk/sender"))
    else:
        assert json.loads(told)["error"]["code"] == "bad_field" and f"longer than {WRITTEN_MAX} bytes" in told
    for _ in range(2):
        inbox = town.get("/seawall/agents/clerk/reader")["inbox"]
        assert [(item["bytes"], item["from"]) for item in inbox] == expected
        for item in inbox:
            assert item["body"] == body or (size > 1 << 20 and set(item["body"]) == {"blob", "bytes"}), item["bytes"]
        town.crash()
    town.post(f"/seawall/effects/{question['effect']}/answer", {"output": 1})
    assert town.over(run)["output"] == "Done."
    town.verified()


def test_values_are_written_by_version_and_found_by_words(town: Town) -> None:
    url = "/seawall/values/notes/a%20b"
    assert town.answer(town.client.put(url, json={"value": {"text": "the cat sat"}, "expect": 0})) == {"key": "notes/a b", "version": 1}
    refused(town.client.put(url, json={"value": 2, "expect": 0}), 409, "version_conflict")
    refused(town.client.put(url, json={"value": 2}, headers={"if-match": '"7"'}), 409, "version_conflict")
    assert town.answer(town.client.put(url, json={"value": "a dog"}, headers={"if-match": '"1"'}))["version"] == 2
    found = town.client.get(url)
    assert found.json()["value"] == "a dog" and found.headers["etag"] == '"2"'
    town.client.put("/seawall/values/other", json={"value": [1, 2]})
    assert [value["key"] for value in town.get("/seawall/values", q="dog")["values"]] == ["notes/a b"]
    assert [value["key"] for value in town.get("/seawall/values", prefix="o")["values"]] == ["other"]
    page = town.get("/seawall/values", limit=1)
    assert page["next"] == "notes/a b" and town.get("/seawall/values", after=page["next"])["values"][0]["value"] == [1, 2]
    assert town.answer(town.client.delete(url))["version"] == 3
    refused(town.client.get(url), 404, "value_unknown")
    refused(town.client.delete(url), 404, "value_unknown")
    refused(town.client.put(url, json={"values": 1}), 400, "bad_field")
    large = "x" * 300_000
    town.answer(town.client.put("/seawall/values/large", json={"value": large}))
    assert town.get("/seawall/values/large")["value"] == large


def test_whoever_waits_for_a_value_has_it_once_it_is_newer(town: Town) -> None:
    url = "/seawall/values/plan"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(town.client.get, url, params={"wait_ms": 10_000})
        run = town.start("clerk/w", script('call store.watch {"key":"plan","newer_than":1}; say Seen.'))
        harness.until("the agent waits", lambda: "watch" in [wait["cause"] for wait in town.get(f"/seawall/why/{run}")["waits"]])
        town.answer(town.client.put(url, json={"value": "walls"}))
        assert (first.result().status_code, first.result().json()["value"]) == (200, "walls")
        second = pool.submit(town.client.get, url, params={"newer_than": 1, "wait_ms": 10_000})
        town.answer(town.client.put("/seawall/values/other", json={"value": 1}))
        town.answer(town.client.put(url, json={"value": "gates"}))
        assert (second.result().status_code, second.result().json()["version"]) == (200, 2)
    town.over(run)
    assert outcomes(town, run) == ["gates"]
    late = town.client.get(url, params={"newer_than": 2, "wait_ms": 10})
    assert (late.status_code, late.json()["version"]) == (202, 2)
    town.answer(town.client.delete(url))
    gone = town.client.get(url, params={"newer_than": 2})
    assert (gone.status_code, gone.json()["value"], gone.json()["version"]) == (200, None, 3)
    refused(town.client.get(url, params={"wait_ms": 10**9}), 400, "bad_field")


def test_a_system_outside_calls_back_once_whether_it_is_waited_for_yet_or_not(town: Town) -> None:
    town.answer(town.client.post("/seawall/callbacks/early", json={"paid": True}))
    run = town.start("clerk/c", script('call callback.wait {"name":"early"}; call callback.wait {"name":"late"}; say Both.'))
    harness.until("the agent waits", lambda: "callbacks/late" in str(town.get(f"/seawall/why/{run}")))
    town.answer(town.client.post("/seawall/callbacks/late", content=b"shipped"))
    town.over(run)
    early, late = outcomes(town, run)
    assert json.loads(early) == {"paid": True} and late == "shipped"
    refused(town.client.post("/seawall/callbacks/late", content=b"again"), 409, "version_conflict")


def test_agents_list_their_store_page_by_page_and_find_the_newest_note(town: Town) -> None:
    for number in range(60):
        town.answer(town.client.put(f"/seawall/values/list/{number:03}", json={"value": f"item {number}"}))
    town.answer(town.client.put("/seawall/values/list/blob", json={"value": "x" * 100_000}))
    pages = 'call store.list {"prefix":"list/","limit":50}; call store.list {"prefix":"list/","limit":50,"after":"list/049"}'
    run = town.start("clerk/p", script(pages + '; call store.search {"query":"zzz 57"}; say Done.'))
    town.over(run)
    outputs = [json.loads(output) for output in outcomes(town, run)]
    assert (len(outputs[0]["values"]), outputs[0]["next"]) == (50, "list/049")
    assert len(outputs[1]["values"]) == 11 and outputs[1]["next"] is None
    assert outputs[1]["values"][-1] == {"key": "list/blob", "version": 1, "bytes": 100_000}
    assert [value["key"] for value in outputs[2]["values"]] == ["list/057"]


def test_large_tasks_go_through_the_blob_store_and_are_shown_within_a_bound(town: Town) -> None:
    run = town.start("helper", script("say Done.") + "\n" + "y" * 100_000)
    shown = town.over(run)
    assert shown["output"] == "Done." and len(shown["task"]) > 100_000
    run = town.start("helper", "z" * (2 << 20), allowance={"calls": 0})
    assert set(town.run(run)["task"]) == {"blob", "bytes"}


def test_definitions_are_put_into_force_at_once_and_mistakes_leave_the_old(town: Town) -> None:
    made = town.answer(town.client.put("/seawall/definitions/poet", json={"model": "sim-small", "instructions": "Rhyme.", "tools": ["store.get"]}))
    assert town.over(town.start("poet", script("say Rhymed.")))["output"] == "Rhymed."
    assert (town.folder / "agents" / "poet.toml").exists()
    assert "Rhyme." in town.get("/seawall/definitions/poet")["toml"]
    toml = 'model = "sim-small"\ninstructions = "Rhyme better."\ntools = ["store.get"]\n'
    better = town.answer(town.client.put("/seawall/definitions/poet", content=toml, headers={"content-type": "application/toml"}))
    assert better["version"] != made["version"]
    assert "Rhyme." in town.get("/seawall/definitions/poet", version=made["version"])["toml"]
    old = town.start("poet", script("say Old."), version=made["version"])
    assert town.run(old)["version"] == made["version"]
    message = refused(town.client.put("/seawall/definitions/poet", content='model = 3\nverse = "x"\n'), 400, "bad_field")
    assert "line 1" in message and "verse" in message
    refused(town.client.put("/seawall/definitions/poet", json={"name": "bard", "model": "sim-small", "instructions": "x"}), 400, "bad_field")
    assert town.get("/seawall/definitions/poet")["version"] == better["version"]
    town.answer(town.client.delete("/seawall/definitions/poet"))
    refused(town.client.post("/seawall/agents/poet/runs", json={"task": "x"}), 404, "agent_unknown")
    refused(town.client.get("/seawall/definitions/poet"), 404, "agent_unknown")
    town.answer(town.client.put("/seawall/values/verse", json={"value": 1}))
    records = [json.loads(line) for line in town.client.get("/seawall/audit/export").text.splitlines()]
    assert "operator" in json.dumps(next(record for record in records if "verse" in json.dumps(record))), "the evidence says who wrote it"


def test_evidence_is_verified_and_exported_without_content_unless_asked_for(town: Town) -> None:
    town.over(town.start("clerk", script("say Secret-word.")))
    found = town.get("/seawall/audit/verify", books=1)
    assert found["ok"] and found["records"] > 0 and len(found["shards"]) == 16 and found["books"]["right"], found
    lines = town.client.get("/seawall/audit/export").text.splitlines()
    assert len(lines) == found["records"] and all(json.loads(line) for line in lines)
    assert "Secret-word" not in "".join(lines)
    assert "Secret-word" in town.client.get("/seawall/audit/export?content=1").text
    assert town.get("/seawall/tools") == {"servers": [], "tools": []}
    assert town.gateway is not None and "Secret-word" not in town.gateway.output()


def doze(town: Town) -> None:
    """Comes back when whoever waited before is suspended: a run slept for longer than that takes."""
    town.over(town.start("clerk", script('call timer__sleep {"seconds": 1}; say Done.')))


def test_metrics_tell_of_agents(dozing: Town) -> None:
    town = dozing
    gateway = town.gateway
    assert gateway is not None
    town.start("clerk", script(ASK))
    asked(town, "questions")
    doze(town)

    def counted() -> dict[str, float] | None:
        found = gateway.metrics()
        return found if found.get('seawall_agent_waits{cause="promise"}') == 1 else None

    metrics = harness.until("it is counted", counted)
    assert metrics['seawall_agents{state="waiting"}'] == 1 and gateway.metric("seawall_runs_live") == 1
    assert metrics['seawall_agent_pool{pool="turns",what="held"}'] == 0
    assert metrics['seawall_agent_inbox{kind="letters"}'] == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/seawall/agents/nobody/runs", {"task": "x"}, 404, "agent_unknown"),
        ("POST", "/seawall/agents/clerk/runs", {"tusk": "x"}, 400, "bad_field"),
        ("POST", "/seawall/agents/clerk/runs", {}, 400, "bad_field"),
        ("POST", "/seawall/agents/clerk/runs", None, 400, "bad_field"),
        ("POST", "/seawall/agents/clerk/runs", {"task": "x", "allowance": {"tokens": -1}}, 400, "bad_field"),
        ("POST", "/seawall/agents/clerk/runs", {"task": "x", "version": "../../etc"}, 400, "bad_field"),
        ("POST", "/seawall/agents/clerk/runs", {"task": "x", "wait_ms": 10**9}, 400, "bad_field"),
        ("POST", "/seawall/agents/clerk/runs", {"task": "x", "tenant": "a b"}, 400, "bad_field"),
        ("GET", "/seawall/agents/clerk/none", None, 404, "agent_unknown"),
        ("GET", "/seawall/runs/run-ffffff", None, 404, "run_unknown"),
        ("GET", "/seawall/runs/7", None, 404, "run_unknown"),
        ("GET", "/seawall/runs?nonsense=1", None, 400, "bad_field"),
        ("GET", "/seawall/runs?state=dancing", None, 400, "bad_field"),
        ("GET", "/seawall/agents?list=1&after=x", None, 400, "bad_field"),
        ("PUT", "/seawall/runs", None, 405, "method_not_allowed"),
        ("GET", "/seawall/nothing", None, 404, "path_unknown"),
        ("POST", "/seawall/effects/run-ffffff.1/approve", {}, 404, "effect_unknown"),
        ("GET", "/seawall/why/clerk/none", None, 404, "agent_unknown"),
        ("PUT", "/seawall/definitions/.hidden", {}, 400, "bad_field"),
        ("DELETE", "/seawall/values/never/there", None, 404, "value_unknown"),
        ("POST", "/seawall/letters/0.99/discard", {}, 404, "letter_unknown"),
        ("POST", "/seawall/agents/Clerk/1/messages", {"body": 1}, 404, "agent_unknown"),
        ("GET", "/seawall/runs?parent=x", None, 400, "bad_field"),
        ("POST", "/seawall/halts", {"scope": "nonsense"}, 400, "bad_field"),
        ("POST", "/seawall/halts", {"scope": "tool:notes.add"}, 400, "bad_field"),
        ("POST", "/seawall/agents/clerk/runs", {"task": "x", "allowance": {"wall": 3}}, 400, "bad_field"),
    ],
)
def test_mistakes_are_told_by_code(town: Town, method: str, path: str, body: typing.Any, status: int, code: str) -> None:
    refused(town.client.request(method, path, json=body), status, code)


def test_what_was_mistyped_is_told(town: Town) -> None:
    allowed = town.client.request("PATCH", "/seawall/values/a")
    assert refused(allowed, 405, "method_not_allowed") and allowed.headers["allow"] == "GET, HEAD, PUT, DELETE"
    near = town.client.post("/seawall/agents/Clerk/1/messages", json={"body": 1}).json()["error"]
    assert near["message"] == "No agent of type `Clerk` is defined." and "`clerk`" in near["hint"]
    none = town.post("/seawall/halts", {"scope": "type:clrk"})
    assert none == {"scope": "type:clrk", "on": True, "was": False, "matches": False}
    assert town.post("/seawall/halts", {"scope": "type:clrk", "on": False})["was"]
    assert town.post("/seawall/halts", {"scope": "type:clerk"})["matches"]
    assert town.post("/seawall/halts", {"scope": "type:clerk", "on": False})["was"]
    assert town.get("/seawall/state")["agents"]["durability"] == "sync"


def test_what_is_left_counts_what_those_above_have_left(town: Town) -> None:
    asks = script('call human__ask {"question":"Which?"}; say Done.')
    run = town.start("clerk", asks, allowance={"tokens": 50_000, "wall_ms": 600_000})
    asked(town, "questions")
    shown = town.run(run)
    assert shown["left"]["tokens"] == 50_000 - shown["used"]["tokens"] - shown["reserved"]["tokens"]
    assert 0 < shown["left"]["wall_ms"] <= 600_000 and shown["deadline_ms"] == shown["began_ms"] + 600_000
    wait = shown["waits"][0]
    assert wait["cause"] == "promise" and wait["tool"] == "human.ask"


class Keyed(typing.NamedTuple):
    """A town in which every request needs a key, with a client of each."""

    town: Town
    data: pathlib.Path
    admin: httpx.Client
    acme: httpx.Client
    below: httpx.Client
    lead: httpx.Client
    other: httpx.Client


@pytest.fixture
def keyed(town: Town, tmp_path: pathlib.Path) -> typing.Iterator[Keyed]:
    """From the first key on, every request needs one."""
    data = tmp_path / "data"
    keys = {name: harness.add_key(data, tenant, *more) for name, tenant, more in [
        ("admin", "ops", ["--admin"]), ("acme", "acme", []), ("below", "acme/x", []), ("lead", "acme/leads", []), ("other", "other", []),
    ]}
    with contextlib.ExitStack() as clients:

        def client(key: str) -> httpx.Client:
            return clients.enter_context(httpx.Client(base_url=town.client.base_url, timeout=20, headers={"authorization": f"Bearer {key}"}))

        by_name = {name: client(key) for name, key in keys.items()}
        harness.until("keys are known", lambda: town.client.get("/seawall/inbox").status_code == 401 and all(client.get("/seawall/inbox").status_code == 200 for client in by_name.values()))
        yield Keyed(town, data, **by_name)


def of_others(run: str, effect: str) -> list[tuple[str, str, typing.Any, str]]:
    """Requests about what is not there for another tenant's key, and what they are told."""
    return [
        ("GET", f"/seawall/runs/{run}", None, "run_unknown"),
        ("GET", f"/seawall/runs/{run}/events", None, "run_unknown"),
        ("GET", f"/seawall/runs/{run}/events?follow=1", None, "run_unknown"),
        ("GET", f"/seawall/runs/{run}/turns", None, "run_unknown"),
        ("GET", f"/seawall/runs/{run}/turns/1", None, "run_unknown"),
        ("GET", f"/seawall/why/{run}", None, "run_unknown"),
        ("POST", f"/seawall/runs/{run}/cancel", {}, "run_unknown"),
        ("POST", f"/seawall/runs/{run}/again", {}, "run_unknown"),
        ("POST", f"/seawall/runs/{run}/fork", {}, "run_unknown"),
        ("POST", f"/seawall/effects/{effect}/answer", {"output": 1}, "effect_unknown"),
        ("GET", "/seawall/agents/clerk/1", None, "agent_unknown"),
        ("GET", "/seawall/why/clerk/1", None, "agent_unknown"),
    ]


def of_admins(run: str) -> list[tuple[str, str, typing.Any]]:
    """Requests that are not a tenant's to make, or not for another tenant."""
    return [
        ("GET", "/seawall/runs?tenant=acme", None),
        ("GET", "/seawall/agents?tenant=acme", None),
        ("GET", "/seawall/agents/clerk/1?tenant=acme", None),
        ("POST", "/seawall/agents/clerk/1/runs", {"task": "x", "tenant": "acme"}),
        ("POST", "/seawall/agents/clerk/1/messages", {"body": "x", "tenant": "acme"}),
        ("GET", "/seawall/values?tenant=acme", None),
        ("PUT", "/seawall/values/k?tenant=acme", {"value": 1}),
        ("POST", f"/seawall/runs/{run}/stop", {}),
        ("GET", "/seawall/halts", None),
        ("POST", "/seawall/halts", {"scope": "all", "on": True}),
        ("GET", "/seawall/audit/verify", None),
        ("GET", "/seawall/audit/export", None),
        ("GET", "/seawall/definitions/clerk", None),
        ("PUT", "/seawall/definitions/clerk", {"model": "sim-small", "instructions": "x"}),
        ("DELETE", "/seawall/definitions/clerk", None),
        ("POST", "/seawall/agents/clerk/1/release", {}),
    ]


def test_a_key_sees_and_touches_its_own_tenants_agents_only(keyed: Keyed) -> None:
    town, acme = keyed.town, keyed.acme
    assert town.client.get("/seawall/runs").status_code == 401
    started = town.answer(acme.post("/seawall/agents/clerk/1/runs", json={"task": script(ASK + "; say Done.")}))
    run = started["run"]
    assert started["tenant"] == "acme"
    effect = harness.until("a question", lambda: acme.get("/seawall/inbox").json()["questions"])[0]["effect"]
    for stranger in (keyed.other, keyed.below):
        assert stranger.get("/seawall/runs").json()["runs"] == []
        assert stranger.get("/seawall/inbox").json() == {"approvals": [], "questions": [], "doubts": [], "next": None}
        assert stranger.get("/seawall/agents?list=1").json()["agents"] == []
        assert stranger.get("/seawall/agents").json()["states"] == {}
        for method, path, body, code in of_others(run, effect):
            refused(stranger.request(method, path, json=body), 404, code)
        for method, path, body in of_admins(run):
            refused(stranger.request(method, path, json=body), 403, "admin_only")
    town.answer(acme.post(f"/seawall/effects/{effect}/answer", json={"output": "yes"}))
    assert town.answer(acme.get(f"/seawall/runs/{run}?wait_ms=20000"))["output"] == "Done."


def test_a_tenants_key_acts_for_what_is_below_it_and_an_admins_for_anybody(keyed: Keyed) -> None:
    town, admin, acme, below, other = keyed.town, keyed.admin, keyed.acme, keyed.below, keyed.other
    own = town.answer(acme.post("/seawall/agents/helper/2/runs", json={"task": script("say Hi."), "wait_ms": 20_000}))
    assert own["tenant"] == "acme"
    child = town.answer(acme.post("/seawall/agents/helper/1/runs", json={"task": script("say Hi."), "tenant": "acme/x", "wait_ms": 20_000}))
    assert child["tenant"] == "acme/x" and below.get(f"/seawall/runs/{child['run']}").status_code == 200
    assert {one["tenant"] for one in acme.get("/seawall/runs").json()["runs"]} == {"acme", "acme/x"}
    assert {one["tenant"] for one in admin.get("/seawall/runs?tenant=acme/x").json()["runs"]} == {"acme/x"}
    # Values of one tenant are not another's.
    town.answer(acme.put("/seawall/values/k", json={"value": "acme's"}))
    town.answer(other.put("/seawall/values/k", json={"value": "other's"}))
    assert acme.get("/seawall/values/k").json()["value"] == "acme's"
    assert other.get("/seawall/values?q=acme").json()["values"] == []


def test_who_may_approve_is_whoever_the_rule_names(keyed: Keyed) -> None:
    """An admin by itself is not among them; a vote is handed on by who has it."""
    town, data, admin, acme, lead, other = keyed.town, keyed.data, keyed.admin, keyed.acme, keyed.lead, keyed.other
    put = json.dumps({"key": "a", "value": 1})
    pair = town.answer(acme.post("/seawall/agents/pair/runs", json={"task": script(f"call store__put {put}; say Paid.")}))["run"]
    approval = harness.until("an approval", lambda: lead.get("/seawall/inbox").json()["approvals"])[0]
    assert approval["approvers"] == ["acme/leads"] and approval["yours"]
    refused(acme.post(f"/seawall/effects/{approval['effect']}/approve"), 403, "approver_only")
    refused(admin.post(f"/seawall/effects/{approval['effect']}/approve"), 403, "approver_only")
    refused(other.post(f"/seawall/effects/{approval['effect']}/approve"), 404, "effect_unknown")
    # A vote is handed on by who has it, to a key of the tenant: another's is not even known.
    listed = json.loads(harness.seawall("key", "list", "--data", data, "--json").stdout)
    ids = {key["tenant"]: key["id"] for key in listed}
    hand = f"/seawall/effects/{approval['effect']}/delegate"
    refused(lead.post(hand, json={"to": "nobody"}), 400, "bad_field")
    refused(lead.post(hand, json={"to": ids["other"]}), 400, "bad_field")
    refused(other.post(hand, json={"to": ids["other"]}), 404, "effect_unknown")
    town.answer(lead.post(hand, json={"to": ids["acme"]}))
    refused(lead.post(f"/seawall/effects/{approval['effect']}/approve"), 403, "approver_only")
    (theirs,) = acme.get("/seawall/inbox").json()["approvals"]
    assert theirs["effect"] == approval["effect"] and theirs["yours"]
    assert [(one["by"], one["to"]) for one in theirs["handed"]] == [(ids["acme/leads"], ids["acme"])]
    town.answer(acme.post(f"/seawall/effects/{approval['effect']}/approve"))
    assert town.answer(acme.get(f"/seawall/runs/{pair}?wait_ms=20000"))["output"] == "Paid."


def test_a_key_sets_only_the_agents_on_its_list_of_models_to_work(tmp_path: pathlib.Path) -> None:
    town = Town(tmp_path, KINDS, kit=False)
    try:
        keys = {name: harness.add_key(tmp_path / "data", "acme", *more) for name, more in [
            ("any", []), ("listed", ["--model", "agent/helper", "--model", "sim-small"]),
        ]}
        free, listed = (httpx.Client(base_url=town.gateway.url, timeout=20, headers={"authorization": f"Bearer {key}"}) for key in keys.values())  # type: ignore[union-attr]
        harness.until("keys are known", lambda: httpx.get(f"{town.gateway.url}/seawall/inbox").status_code == 401 and all(client.get("/seawall/inbox").status_code == 200 for client in (free, listed)))
        run = town.answer(free.post("/seawall/agents/clerk/1/runs", json={"task": script("say Hi."), "wait_ms": 20_000}))["run"]
        for path, body in [
            ("agents/clerk/runs", {"task": "x"}),
            ("agents/clerk/1/runs", {"task": "x"}),
            ("agents/clerk/1/messages", {"body": "x"}),
            (f"runs/{run}/again", {}),
            (f"runs/{run}/fork", {}),
        ]:
            told = refused(listed.post(f"/seawall/{path}", json=body), 403, "model_forbidden")
            assert "agent/clerk" in told
        town.answer(listed.post("/seawall/agents/helper/1/runs", json={"task": "Say a word.", "wait_ms": 20_000}))
        # It may still look.
        assert listed.get(f"/seawall/runs/{run}").status_code == 200
    finally:
        town.kill()


def test_everything_is_there_after_a_crash(town: Town) -> None:
    run = town.start("clerk", script(ASK + "; say Done."))
    effect = asked(town, "questions")[0]["effect"]
    town.client.put("/seawall/values/k", json={"value": 1})
    before = town.get(f"/seawall/runs/{run}/turns")
    town.crash()
    assert town.get(f"/seawall/runs/{run}/turns") == before and town.get("/seawall/values/k")["version"] == 1
    assert asked(town, "questions")[0]["effect"] == effect
    town.post(f"/seawall/effects/{effect}/answer", {"output": 1})
    assert town.over(run)["output"] == "Done."
    assert town.get("/seawall/audit/verify")["ok"]
