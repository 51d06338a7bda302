"""What changes under agents at work, on the real binary: another history, another definition, less money, no disk, and a
follower who lost the connection."""

from __future__ import annotations

import json
import os
import pathlib
import typing

import httpx
import pytest

import harness
from agents_rig import Town, kind

Towns = typing.Callable[..., Town]
ASK = 'call human.ask {"question":"And now?"}'
# What failed begins again otherwise, once there is money.
FINAL = '[supervision]\nrestart = "temporary"'


@pytest.fixture
def towns(tmp_path: pathlib.Path) -> typing.Iterator[Towns]:
    """Starts towns, and ends them however the test went."""
    begun: list[Town] = []

    def begin(kinds: dict[str, str], config: str = "") -> Town:
        begun.append(Town(tmp_path / f"town-{len(begun)}", kinds, config, kit=False))
        return begun[-1]

    yield begin
    for town in begun:
        town.close()


def question(town: Town, run: str) -> dict[str, typing.Any]:
    """The question that a run asks, once it does."""
    return harness.until(f"{run} asks", lambda: next((one for one in town.inbox("questions") if one["run"] == run), None))


def answer(town: Town, run: str) -> None:
    """Answers it."""
    town.post(f"/seawall/effects/{question(town, run)['effect']}/answer", {"output": "go on"})


def told(town: Town, run: str) -> list[tuple[str, typing.Any]]:
    """The conversation of a run's last turn: who said what."""
    turns = town.get(f"/seawall/runs/{run}/turns")
    return [(line["role"], line["content"]) for line in town.get(f"/seawall/runs/{run}/turns/{len(turns)}")["conversation"]]


def test_a_fork_at_a_turn_with_another_result_prompt_or_model(towns: Towns) -> None:
    """A run is gone on from in the middle: with another result of a tool, another task, another model. What was done is not
    done again, and the run itself is as it was."""
    model = '[[model]]\nname = "%s"\ntargets = ["sim/sim-small"]'
    config = "\n".join(['[[engine]]\nname = "sim"\nkind = "sim"', model % "first", model % "second"])
    worker = kind("store.get store.put human.ask")
    town = towns({"w": worker.replace("sim-small", "first")}, config)
    town.client.put("/seawall/values/price", json={"value": "old"}).raise_for_status()
    script = f'script: call store.get {{"key":"price"}}; call store.put {{"key":"done","value":1}}; {ASK}; say finished'
    run = town.start("w/1", script)
    question(town, run)
    turns = town.get(f"/seawall/runs/{run}/turns")
    # The first turn at whose end the value that was read is part of the state.
    states = [town.get(f"/seawall/runs/{run}/turns/{turn['turn']}")["state"] for turn in turns]
    at, key = next((number, key) for number, state in enumerate(states, 1) for key, value in state.items() if isinstance(value, dict) and value.get("value") == "old")

    result = town.post(f"/seawall/runs/{run}/fork", {"turn": at, "set": {key: json.dumps({"value": "new", "version": 9})}})["run"]
    question(town, result)
    shown = [json.loads(content) for role, content in told(town, result) if role == "tool" and "value" in (content or "")]
    assert shown == [{"value": "new", "version": 9}]
    assert town.get("/seawall/values/done")["version"] == 2, "what came after that turn is done anew"

    retold = town.post(f"/seawall/runs/{run}/fork", {"turn": 1, "task": "script: say otherwise"})["run"]
    assert town.over(retold)["output"] == "otherwise"

    first = town.run(run)["version"]
    town.define("w", worker.replace("sim-small", "second"))
    town.reload(town.config)
    second = harness.until("the new definition is in force", lambda: (now := town.get("/seawall/definitions/w")["version"]) != first and now)
    other = town.post(f"/seawall/runs/{run}/fork", {"turn": at, "version": second})["run"]
    question(town, other)
    objects = lambda of: {one["object"] for turn in town.get(f"/seawall/runs/{of}/turns") for one in turn["asked"] if one["kind"] == "model"}  # noqa: E731
    assert objects(other) == {"second"} and objects(run) == {"first"}
    terse = town.post(f"/seawall/runs/{run}/fork", {"turn": at, "instructions": "Be terse.", "model": "second"})["run"]
    question(town, terse)
    assert objects(terse) == {"second"} and told(town, terse)[0] == ("system", "Be terse.")
    made = town.run(terse)["version"]
    assert made not in (first, second) and 'instructions = "Be terse."' in town.get("/seawall/definitions/w", version=made)["toml"]
    assert town.get("/seawall/definitions/w")["version"] == second, "what is in force is as it was"
    assert town.client.post(f"/seawall/runs/{run}/fork", json={"turn": at, "model": "third"}).status_code == 404
    assert town.client.post(f"/seawall/runs/{run}/fork", json={"turn": at, "instructions": "{{nonsense}}"}).status_code == 400
    assert town.get(f"/seawall/runs/{run}/turns") == turns, "the run itself is as it was"
    for one in (run, result, other, terse):
        answer(town, one)
        assert town.over(one)["output"] == "finished"
    town.verified()


def pieces(client: httpx.Client, run: str, after: str | None, enough: int) -> list[str]:
    """Ids of what is told of a run, until there are so many or it is over; a broken connection ends it too."""
    ids: list[str] = []
    headers = {"last-event-id": after} if after else {}
    try:
        with client.stream("GET", f"/seawall/runs/{run}/events?follow=1", headers=headers, timeout=20) as answer:
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    ids.append(line[4:])
                if line == "event: over" or len(ids) >= enough:
                    break
    except httpx.HTTPError:
        pass
    return ids


def test_a_follower_goes_on_by_offset_after_a_kill(towns: Towns) -> None:
    """The stream breaks with the process, time and again. Who comes back with the last id that they have is told every record
    once, in order, to the end."""
    town = towns({"w": kind("store.put human.ask")})
    run = town.start("w/1", f'script: 3 x call store.put {{"key":"a$n","value":1}}; {ASK}; 3 x call store.put {{"key":"b$n","value":1}}; {ASK}; say done')
    question(town, run)
    seen = pieces(town.client, run, None, 7)
    town.crash()
    seen += pieces(town.client, run, seen[-1], 5)
    answer(town, run)
    harness.until("it asks again", lambda: [one for one in town.inbox("questions") if one["run"] == run])
    town.crash()
    answer(town, run)
    seen += pieces(town.client, run, seen[-1], 10_000)
    records = [str(record["seq"]) for record in town.events(run)]
    assert seen == records and town.over(run)["state"] == "done"


def test_pinned_runs_stay_and_moving_ones_move_at_a_reload(towns: Towns) -> None:
    """Definitions change while runs wait: one type keeps its version, the other moves with its next turn; both finish, also
    through a crash, and whatever begins after has the new one."""
    worker = kind("human.ask store.get")
    town = towns({"stays": worker, "moves": 'version_policy = "move"\n' + worker})
    runs = {name: town.start(f"{name}/1", f"script: {ASK}; {ASK}; say done") for name in ("stays", "moves")}
    for run in runs.values():
        question(town, run)
    old = {name: town.run(run)["version"] for name, run in runs.items()}
    for name, more in (("stays", ""), ("moves", 'version_policy = "move"\n')):
        town.define(name, more + worker.replace("Do as the task says.", "Do as the task says, kindly."))
    town.reload(town.config)
    new = {name: harness.until(f"{name} has a new version", lambda name=name: (now := town.get(f"/seawall/definitions/{name}")["version"]) != old[name] and now) for name in runs}
    assert {name: town.run(run)["version"] for name, run in runs.items()} == old, "nothing moves while it waits"
    for run in runs.values():
        answer(town, run)
        question(town, run)
    assert town.run(runs["stays"])["version"] == old["stays"] and town.run(runs["moves"])["version"] == new["moves"]
    systems = {name: [content for role, content in told(town, run) if role == "system"] for name, run in runs.items()}
    assert systems == {"stays": ["Do as the task says."], "moves": ["Do as the task says, kindly."]}
    town.crash()
    fresh = town.start("stays/2", "script: say hi")
    assert town.over(fresh)["version"] == new["stays"]
    for name, run in runs.items():
        answer(town, run)
        over = town.over(run)
        assert (over["output"], over["version"]) == ("done", {"stays": old, "moves": new}[name][name])
    town.verified()


def test_a_disk_budget_is_reached_told_and_left_again(towns: Towns) -> None:
    """Where the journal's budget is used up nothing new begins, and is told how to go on; what is under way goes on to its end;
    more of it by a reload is enough."""
    town = towns({"w": kind("human.ask store.put")})
    run = town.start("w/1", f'script: {ASK}; call store.put {{"key":"after","value":1}}; say done')
    question(town, run)
    plenty = town.config
    town.reload(plenty.replace("[agents]", '[agents]\ndisk_bytes_max = "1 MiB"'))
    for number in range(16):
        town.client.put(f"/seawall/values/v{number}", content=json.dumps({"value": os.urandom(40_000).hex()})).raise_for_status()
    begin = lambda: town.client.post("/seawall/agents/w/runs", json={"task": "script: say hi"})  # noqa: E731
    full = harness.until("nothing new begins", lambda: (told := begin()).status_code == 503 and told)
    error = full.json()["error"]
    assert error["code"] == "disk_full" and "agents.disk_bytes_max" in error["hint"], error
    answer(town, run)
    assert town.over(run)["output"] == "done" and town.get("/seawall/values/after")["value"] == 1
    town.crash()
    assert harness.until("it is still full", lambda: (told := begin()).status_code == 503 and told)
    town.reload(plenty)
    harness.until("runs begin again", lambda: begin().status_code == 201)
    town.verified()


def test_a_budget_that_is_cut_in_mid_run_holds_at_once(towns: Towns) -> None:
    """A tenant's budget is cut below what is spent while a run waits: its next call of the model is refused with the budget's
    name, and nothing more is spent. It waits, and goes on once another reload makes the budget larger."""
    limit = lambda tokens: harness.tenant("local", budget=[{"meter": "tokens", "period": "day", "limit": tokens}])  # noqa: E731
    town = towns({"w": kind("human.ask store.get", FINAL)})
    plain = town.config
    town.reload(plain + limit(100_000))
    run = town.start("w/1", f'script: 3 x call store.get {{"key":"a$n"}}; {ASK}; 3 x call store.get {{"key":"b$n"}}; say done')
    question(town, run)
    spent = town.run(run)["used"]["tokens"]
    assert spent > 10
    town.reload(plain + limit(10))
    answer(town, run)
    why = harness.until("it waits for the budget", lambda: [wait for wait in town.get(f"/seawall/why/{run}")["waits"] if wait.get("setback")])[0]
    assert why["setback"]["code"] == "budget_exhausted" and "local#tokens/day" in why["setback"]["message"]
    assert town.run(run)["used"]["tokens"] == spent, "not a token more"
    town.reload(plain + limit(100_000))
    assert town.over(run, 45)["output"] == "done"
    town.verified()
