"""Durable agents through kill -9: nothing that was acknowledged is lost, nothing idempotent is done twice, nothing
irreversible is sent twice, and what nobody can know is asked of people."""

from __future__ import annotations

import json
import pathlib
import random
import time
import typing

import pytest

import harness
from agents_rig import OVER, Bank, Town, kind

PAYS = '[[permissions]]\nid = "pays"\nallow = ["kit.pay", "transfer"]'
Towns = typing.Callable[..., Town]


@pytest.fixture
def towns(tmp_path: pathlib.Path) -> typing.Iterator[Towns]:
    """Starts towns, and ends them however the test went."""
    begun: list[Town] = []

    def begin(kinds: dict[str, str], config: str = "", kit: bool = True) -> Town:
        begun.append(Town(tmp_path / f"town-{len(begun)}", kinds, config, kit))
        return begun[-1]

    yield begin
    for town in begun:
        town.close()


@pytest.fixture
def bank() -> typing.Iterator[Bank]:
    """A bank that answers when it is told to."""
    bank = Bank()
    yield bank
    bank.close()


def test_ten_crashes_at_random_points(towns: Towns) -> None:
    """Runs of puts, reads and pays, killed ten times: each is done, and each put and pay was done once."""
    town = towns({"worker": kind("kit.* store.put", PAYS)})
    steps = 'call kit.put {"name":"%d-$n","value":"v"} & call kit.slow {"ms":20}; call kit.pay {"to":"%d-$n","amount":1}; call store.put {"key":"k%d-$n","value":"$n"}'
    script = "script: " + "; ".join([steps] * 4) + "; say done"
    runs = [town.start(f"worker/w{number}", script.replace("%d", str(number))) for number in range(12)]
    dice = random.Random(20)
    doubted: dict[str, str] = {}
    for _ in range(10):
        # sleeps because the point of the crash is to be any
        time.sleep(dice.uniform(0.01, 0.25))
        town.crash()
        town.verified()
        for doubt in town.inbox("doubts"):
            assert doubt["effect"] not in doubted, "what a person has answered is not asked again"
            doubted[doubt["effect"]] = doubt["args"]["to"]
            town.post(f"/seawall/effects/{doubt['effect']}/answer", {"output": "somebody looked: it was paid"})
    for run in runs:
        assert town.over(run)["state"] == "done", town.get(f"/seawall/why/{run}")
    names = [put["name"] for put in town.done("put")]
    assert sorted(names) == sorted({f"{number}-{step}" for number in range(12) for step in (1, 4, 7, 10)}), "each once, none missing"
    paid = [pay["to"] for pay in town.done("pay")]
    assert len(paid) == len(set(paid)), "nothing irreversible is sent twice"
    missing = {f"{number}-{step}" for number in range(12) for step in (2, 5, 8, 11)} - set(paid)
    assert missing <= set(doubted.values()), "what was not paid had been in doubt"
    assert len(set(doubted.values())) == len(doubted), "one payment, one doubt"
    values = town.get("/seawall/values", prefix="k", limit=1000)["values"]
    assert len(values) == 12 * 4
    assert all(value["version"] == 1 for value in values), "a value is written once, however often its effect is sent"
    town.verified()


def test_what_is_in_doubt_is_exact(towns: Towns, bank: Bank) -> None:
    """Of three payments one was answered, one is under way and one not yet asked for: only the second is in doubt."""
    town = towns({"payer": kind("transfer", PAYS)}, bank.config(), kit=False)
    script = 'script: call transfer {"to":"%s-1"}; call transfer {"to":"%s-2"}; say paid'
    bank.open.set()
    first = town.start("payer/a", script.replace("%s", "a"))
    assert town.over(first)["state"] == "done"
    bank.open.clear()
    second = town.start("payer/b", script.replace("%s", "b"))
    harness.until("the bank has it", lambda: bank.paid["b-1"])
    town.crash()
    (doubt,) = town.inbox("doubts")
    assert (doubt["run"], doubt["object"]) == (second, "transfer")
    assert town.run(second)["state"] not in OVER
    assert town.get(f"/seawall/why/{second}")["waits"][0]["cause"] == "in_doubt"
    bank.open.set()
    town.post(f"/seawall/effects/{doubt['effect']}/answer", {"output": "it was paid"})
    assert town.over(second)["state"] == "done"
    assert bank.paid == {"a-1": 1, "a-2": 1, "b-1": 1, "b-2": 1}
    assert town.inbox("doubts") == []
    town.verified()


def test_what_is_in_doubt_is_sent_again_only_if_somebody_says_so(towns: Towns, bank: Bank) -> None:
    """The same key goes with it, so that the receiver can tell."""
    town = towns({"payer": kind("transfer", PAYS)}, bank.config(), kit=False)
    run = town.start("payer/a", 'script: call transfer {"to":"a"}; say paid')
    harness.until("the bank has it", lambda: bank.paid["a"])
    town.crash()
    town.crash()
    (doubt,) = town.inbox("doubts")
    assert bank.paid["a"] == 1, "two crashes, and it was sent once"
    bank.open.set()
    town.post(f"/seawall/effects/{doubt['effect']}/again")
    assert town.over(run)["state"] == "done"
    assert bank.paid["a"] == 2
    assert bank.keys[0] == bank.keys[1]


def test_a_tool_that_dies_in_the_middle_leaves_doubt(towns: Towns) -> None:
    """Not our crash but the tool's: it may have done it or not."""
    town = towns({"worker": kind("kit.crash", '[[permissions]]\nallow = ["kit.crash"]')})
    run = town.start("worker/a", "script: call kit.crash {}; say over")
    (doubt,) = harness.until("it is in doubt", lambda: town.inbox("doubts"))
    town.crash()
    (same,) = town.inbox("doubts")
    assert same["effect"] == doubt["effect"]
    town.post(f"/seawall/effects/{doubt['effect']}/answer", {"error": "it was not done"})
    assert town.over(run)["state"] == "done"
    assert len([call for call in town.done("calls") if call["tool"] == "crash"]) == 1


def test_approvals_survive(towns: Towns) -> None:
    """A payment that waits for a person still does after a crash; what the person changed is what is paid, once."""
    never = '[[permissions]]\nid = "never"\ndeny = ["kit.pay"]\nwhen = ["args.amount > 1000"]\n'
    asks = '[[permissions]]\nid = "ask-first"\nask = ["kit.pay"]'
    town = towns({"payer": kind("kit.pay", never + asks)})
    run = town.start("payer/a", 'script: call kit.pay {"to":"shop","amount":100}; say paid')
    refused = town.start("payer/b", 'script: call kit.pay {"to":"thief","amount":100}; say gave up')
    harness.until("both ask", lambda: len(town.inbox("approvals")) == 2)
    town.crash()
    approvals = {approval["run"]: approval for approval in town.inbox("approvals")}
    assert set(approvals) == {run, refused}
    assert approvals[run]["rule"] == "ask-first"
    approve = f"/seawall/effects/{approvals[run]['effect']}/approve"
    # What a person changes goes through the tool's schema and the rules like the agent's own.
    unfit = town.client.post(approve, json={"args": {"to": "shop", "amount": "much"}})
    assert unfit.status_code == 400 and unfit.json()["error"]["code"] == "bad_field", unfit.text
    denied = town.client.post(approve, json={"args": {"to": "shop", "amount": 5000}})
    assert denied.json()["error"]["code"] == "gate_denied" and "`never`" in denied.text, denied.text
    town.post(approve, {"args": {"to": "shop", "amount": 7}})
    town.post(f"/seawall/effects/{approvals[refused]['effect']}/deny", {"why": "unknown payee"})
    assert town.over(run)["state"] == town.over(refused)["state"] == "done"
    town.crash()
    assert [(pay["to"], pay["amount"]) for pay in town.done("pay")] == [("shop", 7)]
    assert town.inbox("approvals") == []
    town.verified()


def test_timers_questions_and_mail_survive(towns: Towns) -> None:
    """Who waits for time, for a person or for mail is found waiting, and goes on when it comes."""
    town = towns({"waiter": kind("timer.sleep human.ask"), "reader": kind("store.get")}, kit=False)
    began = time.monotonic()
    sleeper = town.start("waiter/sleeper", 'script: call timer.sleep {"seconds":2}; say awake')
    overdue = town.start("waiter/overdue", 'script: call timer.sleep {"seconds":0.5}; say awake')
    asker = town.start("waiter/asker", 'script: call human.ask {"question":"Which?"}; say thanks')
    harness.until("it asks", lambda: town.inbox("questions"))
    town.kill()
    # sleeps because one of the timers is to ring while nobody is there
    time.sleep(0.6)
    town.begin()
    assert town.over(overdue)["state"] == "done", "a timer that rang meanwhile rings at once"
    assert town.over(sleeper)["state"] == "done"
    assert time.monotonic() - began >= 2, "and no timer rings early"
    (question,) = town.inbox("questions")
    town.post(f"/seawall/effects/{question['effect']}/answer", {"output": "the blue one"})
    assert town.over(asker)["state"] == "done"
    town.start("reader/r", "script: say ready")
    town.post("/seawall/agents/reader/r/messages", {"body": "remember me", "id": "m-1"})
    town.crash()
    town.post("/seawall/agents/reader/r/messages", {"body": "remember me", "id": "m-1"})
    mailed = [line for line in exported(town) if line["record"]["event"]["kind"] == "mailed"]
    assert len(mailed) == 1, "a message that was acknowledged is there, and the same one again is not a second"
    town.verified()


def exported(town: Town) -> list[dict[str, typing.Any]]:
    """The journal, record by record."""
    text = town.client.get("/seawall/audit/export", params={"content": 0}).raise_for_status().text
    return [json.loads(line) for line in text.splitlines()]


def test_a_tree_survives(towns: Towns) -> None:
    """A parent with children at work in the middle of a crash: all end, and the budget is the sum of what was used."""
    kinds = {"lead": kind("agent:helper"), "helper": kind("kit.put kit.slow")}
    town = towns(kinds)
    child = 'script: call kit.slow {\\"ms\\":150}; call kit.put {\\"name\\":\\"c%d\\",\\"value\\":\\"v\\"}; say part %d'
    calls = " & ".join('call agent:helper {"task":"' + child.replace("%d", str(number)) + '"}' for number in range(4))
    run = town.start("lead/l", f"script: {calls}; say whole")
    harness.until("the children are at work", lambda: len(town.run(run)["tree"]) == 4)
    town.crash()
    whole = town.over(run)
    assert whole["state"] == "done"
    tree = whole["tree"]
    assert {part["state"] for part in tree} == {"done"}
    assert sorted(put["name"] for put in town.done("put")) == ["c0", "c1", "c2", "c3"]
    assert whole["used"]["tokens"] > sum(part["used"]["tokens"] for part in tree) > 0
    assert all(not any(part["reserved"].values()) for part in [whole, *tree]), "nothing is left reserved"
    town.verified()


def test_a_halt_survives(towns: Towns) -> None:
    """What an operator stopped stays stopped, until somebody lets it go on."""
    town = towns({"worker": kind("timer.sleep")}, kit=False)
    run = town.start("worker/w", 'script: call timer.sleep {"seconds":0.3}; say done')
    town.post("/seawall/halts", {"scope": "type:worker", "on": True})
    town.crash()
    refused = town.client.post("/seawall/agents/worker/x/runs", json={"task": "script: say done"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "run_stopped")
    harness.until("it is told", lambda: town.get(f"/seawall/why/{run}")["waits"][0]["cause"] == "halted")
    assert town.run(run)["state"] not in OVER
    town.post("/seawall/halts", {"scope": "type:worker", "on": False})
    assert town.over(run)["state"] == "done"
    town.verified()
