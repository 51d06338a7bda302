"""What people do about agents, on the real binary: let go on what was stopped, send again what was not taken, decide
together, and decide on something else than what was asked."""

from __future__ import annotations

import json
import pathlib
import typing

import httpx
import pytest

import harness
from agents_rig import Town, kind

Towns = typing.Callable[..., Town]


@pytest.fixture
def towns(tmp_path: pathlib.Path) -> typing.Iterator[Towns]:
    """Starts towns, and ends them however the test went."""
    begun: list[Town] = []

    def begin(kinds: dict[str, str], config: str = "", kit: bool = False) -> Town:
        begun.append(Town(tmp_path / f"town-{len(begun)}", kinds, config, kit))
        return begun[-1]

    yield begin
    for town in begun:
        town.close()


def people(town: Town, wanted: dict[str, tuple[str, ...]]) -> dict[str, httpx.Client]:
    """Clients with keys of these tenants; from the first key on, every request needs one."""
    assert town.gateway is not None
    url = town.gateway.url
    keys = {name: harness.add_key(town.folder / "data", *words) for name, words in wanted.items()}
    clients = {name: httpx.Client(base_url=url, timeout=20, headers={"authorization": f"Bearer {key}"}) for name, key in keys.items()}
    harness.until("keys are known", lambda: town.client.get("/seawall/inbox").status_code == 401 and all(client.get("/seawall/inbox").status_code == 200 for client in clients.values()))
    return clients


def approvals(client: httpx.Client) -> list[dict[str, typing.Any]]:
    """What this key sees that waits for a yes."""
    return client.get("/seawall/inbox").raise_for_status().json()["approvals"]


def refused(answer: httpx.Response, code: str) -> str:
    """The message of an error that was expected."""
    assert answer.status_code >= 400, answer.text
    error = answer.json()["error"]
    assert error["code"] == code, error
    return error["message"]


def test_who_was_taken_out_of_service_is_put_back_and_gets_its_dead_letter(towns: Towns) -> None:
    """An agent that repeats itself is quarantined. What is written to it meanwhile is a dead letter, through a crash too; once
    somebody has released it, it goes on, and the letter that is sent again is in its mailbox, once."""
    town = towns({"loop": kind("store.get")})
    run = town.start("loop/a", 'script: 12 x call store.get {"key":"same"}; say done')
    standing = lambda: town.get("/seawall/agents/loop/a")  # noqa: E731
    harness.until("it rests", lambda: standing()["rung"] == "cooled")
    # Somebody has no patience with it, and it does the same again.
    town.post("/seawall/agents/loop/a/release")
    harness.until("it is out of service", lambda: standing()["state"] == "quarantined")
    assert "release" in town.get(f"/seawall/why/{run}")["sentence"] and town.run(run)["state"] == "active"
    refused(town.client.post("/seawall/agents/loop/a/runs", json={"task": "script: say hi"}), "agent_quarantined")
    refused(town.client.post("/seawall/agents/loop/a/messages", json={"body": "please stop", "id": "m-1"}), "agent_quarantined")
    (letter,) = harness.until("it is a dead letter", lambda: town.get("/seawall/letters")["letters"])
    assert (letter["agent"], letter["message"]["body"]) == ("loop/a", "please stop") and letter["why"] == "agent_quarantined"
    redrive = f"/seawall/letters/{letter['letter']}/redrive"

    town.crash()
    assert standing()["state"] == "quarantined" and town.get("/seawall/letters")["all"] == 1
    assert town.get("/seawall/letters", limit=1)["next"] == letter["letter"]
    assert town.get("/seawall/letters", after=letter["letter"]) == {"letters": [], "all": 1, "next": None}
    town.post("/seawall/agents/loop/a/release")
    town.post(redrive)
    assert town.get("/seawall/letters") == {"letters": [], "all": 0, "next": None}
    assert town.client.post(redrive).status_code == 404

    def over() -> bool:
        # Each release buys it a few more turns.
        if standing()["state"] == "quarantined":
            town.post("/seawall/agents/loop/a/release")
        return town.run(run)["state"] == "done"

    harness.until("its run is done", over, 20, 0.1)
    mailed = [record for record in exported(town) if record["event"]["kind"] == "mailed"]
    released = [record for record in exported(town) if record["event"]["kind"] == "released"]
    assert len(mailed) == 1 and len(released) >= 2, "the letter was delivered once, and each release is on record"
    town.verified()


def exported(town: Town) -> list[dict[str, typing.Any]]:
    """The journal's records."""
    text = town.client.get("/seawall/audit/export").raise_for_status().text
    return [json.loads(line)["record"] for line in text.splitlines()]


PUT = 'call store.put {"key":"%s","value":%s}'
PAIR = kind(
    "store.put",
    """
[[permissions]]
id = "never"
deny = ["store.put"]
when = ["args.key starts_with forbidden/"]

[[permissions]]
id = "small"
allow = ["store.put"]
when = ["args.value <= 10"]

[[permissions]]
id = "two-of-them"
ask = ["store.put"]
quorum = 2
approvers = ["acme/leads"]
""",
)
TEAM = {"admin": ("ops", "--admin"), "acme": ("acme",), "one": ("acme/leads",), "two": ("acme/leads",), "other": ("other",)}


def test_two_of_those_who_are_named_must_say_yes(towns: Towns) -> None:
    """A quorum of two: one key counts once however often it says yes, nobody else counts, a crash forgets no vote, and one no
    is a no."""
    town = towns({"pair": PAIR})
    who = people(town, TEAM)
    start = lambda key: town.answer(who["acme"].post("/seawall/agents/pair/runs", json={"task": f"script: {PUT % (key, 100)}; say over"}))["run"]  # noqa: E731
    run = start("a")
    (approval,) = harness.until("it asks", lambda: approvals(who["one"]))
    assert approval["rule"] == "two-of-them" and approval["quorum"] == 2 and approval["yours"]
    yes = f"/seawall/effects/{approval['effect']}/approve"
    for stranger in ("acme", "admin"):
        assert who[stranger].post(yes).status_code == 403
    refused(who["other"].post(yes), "effect_unknown")
    for _ in range(2):
        who["one"].post(yes)
    assert who["acme"].get(f"/seawall/runs/{run}").json()["waits"][0]["cause"] == "approval", "one key is one vote"
    (approval,) = approvals(who["two"])
    assert len(approval["yes"]) == 1
    town.client.close()
    # The keys are on the disk, so that the client without one is only good for waiting.
    gateway = typing.cast(harness.Gateway, town.gateway)
    gateway.kill()
    town.gateway = harness.Gateway(town.folder, town.config)
    town.client = httpx.Client(base_url=town.gateway.url, timeout=20)
    who = {name: httpx.Client(base_url=town.gateway.url, timeout=20, headers=client.headers) for name, client in who.items()}
    assert len(harness.until("it still asks", lambda: approvals(who["two"]))[0]["yes"]) == 1
    town.answer(who["two"].post(yes))
    assert town.answer(who["acme"].get(f"/seawall/runs/{run}?wait_ms=15000"))["output"] == "over"
    assert who["acme"].get("/seawall/values/a").json()["value"] == 100

    denied = start("b")
    (approval,) = harness.until("it asks", lambda: approvals(who["one"]))
    town.answer(who["one"].post(f"/seawall/effects/{approval['effect']}/approve"))
    town.answer(who["two"].post(f"/seawall/effects/{approval['effect']}/deny", json={"why": "not today"}))
    town.answer(who["acme"].get(f"/seawall/runs/{denied}?wait_ms=15000"))
    assert who["acme"].get("/seawall/values/b").status_code == 404, "one no is a no"


def test_other_arguments_are_another_call(towns: Towns) -> None:
    """Edited arguments go through schema and rules as the agent's own would have: what a rule denies is refused and changes
    nothing, what a rule allows begins, and what still asks needs its whole quorum again."""
    asks = """
[[permissions]]
id = "no-thieves"
deny = ["kit.pay"]
when = ["args.to == thief"]

[[permissions]]
id = "small-change"
allow = ["kit.pay"]
when = ["args.amount <= 10"]

[[permissions]]
id = "ask-first"
ask = ["kit.pay"]
quorum = 2
approvers = ["acme/leads"]
"""
    town = towns({"payer": kind("kit.pay", asks)}, kit=True)
    who = people(town, TEAM)

    def pay(amount: int) -> tuple[str, dict[str, typing.Any]]:
        task = f'script: call kit.pay {{"to":"shop","amount":{amount}}}; say over'
        run = town.answer(who["acme"].post("/seawall/agents/payer/runs", json={"task": task}))["run"]
        return run, harness.until("it asks", lambda: approvals(who["one"]))[0]

    run, approval = pay(100)
    vote = lambda name, **args: who[name].post(f"/seawall/effects/{approval['effect']}/approve", json={"args": args} if args else {})  # noqa: E731
    town.answer(vote("one"))
    assert "no-thieves" in refused(vote("two", to="thief", amount=50), "gate_denied")
    assert vote("two", to="shop", amount="much").status_code == 400, "what does not fit the tool's schema is no call"
    (same,) = approvals(who["two"])
    assert len(same["yes"]) == 1 and same["args"] == {"to": "shop", "amount": 100}, "and nothing has changed"
    town.answer(vote("two", to="shop", amount=50))
    (edited,) = approvals(who["one"])
    assert edited["args"]["amount"] == 50 and len(edited["yes"]) == 1, "what the other said yes to was something else"
    assert town.done("pay") == []
    town.answer(vote("one"))
    assert town.answer(who["acme"].get(f"/seawall/runs/{run}?wait_ms=15000"))["state"] == "done"
    assert [(pay["to"], pay["amount"]) for pay in town.done("pay")] == [("shop", 50)]

    run, approval = pay(200)
    town.answer(vote("one", to="shop", amount=7))
    assert town.answer(who["acme"].get(f"/seawall/runs/{run}?wait_ms=15000"))["state"] == "done", "a rule allows that, so nobody else is asked"
    assert [pay["amount"] for pay in town.done("pay")] == [50, 7]


def test_a_vote_is_handed_on_and_counts_once(towns: Towns) -> None:
    """Who has a vote may give it to another key that it may know of; then the one has it and the other has not."""
    town = towns({"pair": PAIR})
    who = people(town, TEAM)
    run = town.answer(who["acme"].post("/seawall/agents/pair/runs", json={"task": f"script: {PUT % ('a', 100)}; say over"}))["run"]
    (approval,) = harness.until("it asks", lambda: approvals(who["one"]))
    path = f"/seawall/effects/{approval['effect']}"
    keys = json.loads(harness.seawall("key", "list", "--data", town.folder / "data", "--json").stdout)
    (other,) = (key["id"] for key in keys if key["tenant"] == "other")
    (acme,) = (key["id"] for key in keys if key["tenant"] == "acme")
    leads = [key["id"] for key in keys if key["tenant"] == "acme/leads"]
    for lead in leads:
        why = refused(who["one"].post(f"{path}/delegate", json={"to": lead}), "bad_field")
        assert "has a vote on it already" in why, "its tenant is an approver, so that two votes would be one"
    assert who["acme"].post(f"{path}/delegate", json={"to": acme}).status_code == 403, "nobody gives away what is not theirs"
    foreign, unknown = (refused(who["one"].post(f"{path}/delegate", json={"to": to}), "bad_field").replace(to, "it") for to in (other, "k-00000000"))
    assert foreign == unknown, "whether another tenant has such a key is not told"
    town.answer(who["one"].post(f"{path}/delegate", json={"to": acme}))
    assert who["one"].post(f"{path}/approve").status_code >= 400, "it has no vote any more"
    town.answer(who["acme"].post(f"{path}/approve"))
    assert who["acme"].get(f"/seawall/runs/{run}").json()["waits"][0]["cause"] == "approval", "that is one of two"
    town.answer(who["two"].post(f"{path}/approve"))
    assert town.answer(who["acme"].get(f"/seawall/runs/{run}?wait_ms=15000"))["output"] == "over"
