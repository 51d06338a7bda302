"""Agents from the command line: what a person types, against the real binary."""

from __future__ import annotations

import json
import os
import pathlib
import re
import sqlite3
import subprocess
import typing

import pytest

import harness
from agents_rig import Town
from certificates import Authority

CLERK = """
description = "Answers questions."
model = "sim-small"
instructions = "Help."
tools = ["store.put", "human.ask", "agent:helper"]

[limits]
steps = 30

[[permissions]]
id = "money"
ask = ["store.put"]
when = ["args.key starts_with money/"]
"""
HELPER = 'model = "sim-small"\ninstructions = "You help."\ntools = ["store.get"]\n[limits]\nsteps = 9\n'
ASK = 'script: call human__ask {"question":"Which one?"} & call store__put {"key":"money/a","value":"1"}; say Done.'


@pytest.fixture
def town(tmp_path: pathlib.Path) -> typing.Iterator[Town]:
    """Seawall with two types of agents."""
    town = Town(tmp_path, {"clerk": CLERK, "helper": HELPER}, kit=False)
    yield town
    town.kill()


class Shell:
    """Commands that ask one server."""

    def __init__(self, url: str) -> None:
        self.environment = {"SEAWALL_URL": url}

    def run(self, *arguments: typing.Any, code: int = 0, typed: str | None = None) -> str:
        """What a command prints; it ends with this exit code."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("SEAWALL_")}
        command = [str(harness.BINARY), *map(str, arguments)]
        ran = subprocess.run(
            command, env={**clean, **self.environment}, input=typed or "", capture_output=True, text=True, timeout=30
        )
        assert ran.returncode == code, f"{arguments}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        assert code == 0 or "error:" in ran.stderr, f"{arguments}: says nothing of its failure: {ran.stderr}"
        return ran.stdout + ran.stderr

    def json(self, *arguments: typing.Any, code: int = 0) -> typing.Any:
        """What a command prints for a script."""
        text = self.run(*arguments, "--json", code=code)
        return json.JSONDecoder().raw_decode(text[text.index("{" if "{" in text else "[") :])[0]


@pytest.fixture
def shell(town: Town) -> Shell:
    """Commands that ask the town."""
    return Shell(town.gateway.url)


def test_what_cannot_be_printed_and_what_is_not_understood_is_told(shell: Shell) -> None:
    for arguments in (["runs"], ["agents", "--json"], ["--help"], ["version"]):
        with open("/dev/full", "w") as full:
            command = [str(harness.BINARY), *arguments]
            ran = subprocess.run(
                command, env={**os.environ, **shell.environment}, stdout=full, stderr=subprocess.PIPE, text=True, timeout=30
            )
        assert (ran.returncode, "standard output cannot be written" in ran.stderr) == (74, True), arguments
    for arguments in (["start", "clerk"], ["runs", "--nonsense"]):
        told = shell.json(*arguments, code=64)
        assert told["error"]["code"] == "usage" and told["error"]["message"] and told["exit"] == 64
    assert "is new and idle" in shell.run("send", "clerk/typoo", "hello")
    assert "is new and idle" not in shell.run("send", "clerk/typoo", "hello")


def waiting(shell: Shell) -> str:
    """A run that waits for people: for an answer, and for a yes."""
    run = shell.json("start", "clerk", ASK, "--allow", "tokens=900000,wall=10m")["run"]
    harness.until("it asks", lambda: len(shell.json("run", run)["waits"]) == 2)
    return run


def test_a_run_is_started_watched_and_decided_on(shell: Shell) -> None:
    run = waiting(shell)
    assert "promise" in shell.run("run", run) and "steps 2 of 30" in shell.run("run", run)
    why = shell.run("why", run)
    assert f"seawall answer {run}.2 TEXT" in why and f"seawall approve {run}.3" in why
    inbox = shell.run("inbox")
    assert "Which one?" in inbox and "by rule money" in inbox and f"{run}.3  store.put money/a" in inbox
    assert "said yes" in shell.run("approve", f"{run}.3")
    assert "goes on" in shell.run("answer", f"{run}.2", "the blue one")
    harness.until("it is done", lambda: shell.json("run", run)["state"] == "done")
    assert shell.run("run", run).rstrip().endswith("Done.")
    assert "Nothing waits" in shell.run("inbox")
    events = shell.run("events", run, "--follow")
    assert "voted" in events and f"{run} is done" in events
    assert run in shell.run("runs", "--type", "clerk", "--state", "done")
    assert "clerk" in shell.run("agents") and "done" in shell.run("agents", "--list", "clerk")


def test_waiting_for_a_run_tells_how_it_ended(shell: Shell) -> None:
    assert shell.run("start", "clerk/1", 'script: call agent__helper {"task":"hi"}; say Well done.', "--wait").startswith(
        "Well done."
    )
    failed = shell.run("start", "clerk/1", ASK, "--wait", "--allow", "tokens=1", code=1)
    assert "allowance_spent" in failed and "seawall debug run-" in failed


def test_a_denied_effect_is_told_and_a_cancelled_run_is_over(shell: Shell) -> None:
    run = waiting(shell)
    assert "said no" in shell.run("deny", f"{run}.3", "--why", "too dear")
    assert "cancelled" in shell.run("run", "cancel", run)
    assert "was cancelled" in shell.run("run", run)
    assert "cancelled" in shell.run("run", "cancel", run), "again is no failure"
    again = shell.json("run", "again", run)["run"]
    assert again != run, "a run that is over begins anew as another"


def test_stepping_through_a_run_and_forking_it(shell: Shell) -> None:
    run = waiting(shell)
    typed = "l\ng 1\ns\nm\ne\nc\ng 0\nn\ns meta\nf task=\"say something else\"\nq\n"
    said = shell.run("debug", run, typed=typed)
    assert "turn 1 of 2" in said and "before the first turn" in said and "m/00000001" in said
    assert "has begun: clerk/" in said
    assert shell.json("debug", run, "--turn", "2")["turn"] == 2
    fork = shell.json("debug", run, "--fork", "1", "--set", 'm/00000001={"role":"user","content":"Hello."}')["run"]
    harness.until("the fork is over", lambda: shell.json("run", fork)["state"] == "done")
    assert "Hello." in shell.run("debug", fork, typed="c\n")
    shell.run("debug", run, typed="g 99\n", code=1)
    shell.run("debug", run, "--turn", "99", code=1)


def test_the_kill_switch(shell: Shell) -> None:
    assert "Nothing is stopped" in shell.run("halts")
    run = waiting(shell)
    agent = shell.json("run", run)["agent"]
    shell.run("halt", "type:clerk")
    assert shell.json("why", run)["waits"][0]["cause"] == "halted"
    assert "type:clerk" in shell.run("halts") and "seawall unhalt" in shell.run("why", agent)
    refused = shell.run("start", "clerk", "hello", code=1)
    assert "stopped type:clerk" in refused and "--key" not in refused
    shell.run("unhalt", "type:clerk")
    assert "halted" not in shell.run("why", run)
    assert "stopped" in shell.run("run", "stop", run) and "goes on" in shell.run("run", "resume", run)


def test_what_is_not_there_is_told_with_a_hint(shell: Shell) -> None:
    for arguments in (
        ("run", "run-ff0e"),
        ("why", "run-ff0e"),
        ("agents", "clerk/nobody"),
        ("agents", "nonsense"),
        ("debug", "run-ff0e"),
        ("events", "run-ff0e"),
        ("approve", "run-ff0e.1"),
        ("letters", "discard", "3.17"),
        ("start", "nonsense", "hello"),
    ):
        assert "hint:" in shell.run(*arguments, code=1), arguments
        told = shell.json(*arguments, code=1)
        assert told["error"]["hint"] and told["error"]["message"] and told["exit"] == 1, "a script is told as well"
    assert "start it with" in Shell("http://127.0.0.1:9").run("agents", code=69)


def test_what_was_mistyped_is_told(shell: Shell) -> None:
    assert "was" not in shell.run("halt", "type:clerk") and "goes on" in shell.run("unhalt", "type:clerk")
    assert "Nothing matches it now" in shell.run("halt", "type:clrk")
    assert "type:clrk goes on" in shell.run("unhalt", "type:clrk")
    assert "was not stopped" in shell.run("unhalt", "type:clrk")
    assert "`Clerk`" in shell.run("send", "Clerk/1", "x", code=1), "names keep their case"
    assert "no call of a run" in shell.run("run", "../../etc", code=1)


def test_values_are_kept_from_the_shell(shell: Shell) -> None:
    assert "There are no such values" in shell.run("values")
    shell.run("values", "put", "a/b", '{"x": 1}')
    assert shell.json("values", "get", "a/b")["value"] == {"x": 1}
    assert "version_conflict" in shell.run("values", "put", "a/b", "2", "--expect", "0", code=1)
    assert "a/b" in shell.run("values", "--prefix", "a/") and "removed" in shell.run("values", "remove", "a/b")
    assert shell.json("values", "remove", "a/b", code=1)["error"]["code"] == "value_unknown"


def test_a_mailbox_is_written_to_from_the_shell(shell: Shell) -> None:
    shell.run("send", "clerk/3", '{"note": 1}', "--id", "a")
    shell.run("send", "clerk/3", '{"note": 1}', "--id", "a")
    agent = shell.json("agents", "clerk/3")
    assert [item["body"] for item in agent["inbox"]] == [{"note": 1}], "the same message is taken once"
    assert "message" in shell.run("agents", "clerk/3")


def broken_json(shell: Shell, data: pathlib.Path) -> str:
    """What `audit verify` tells a script of a broken journal; only its exit code says more."""
    command = [str(harness.BINARY), "audit", "verify", "--json", "--data", str(data)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    assert ran.returncode == 1
    return ran.stdout


def test_the_journal_is_evidence(town: Town, shell: Shell) -> None:
    run = waiting(shell)
    data = town.gateway.data
    whole = shell.run("audit", "verify", "--data", data)
    assert "whole:" in whole and "16 shards" in whole
    lines = [json.loads(line) for line in shell.run("audit", "export", "--data", data).splitlines() if line[0] == "{"]
    assert run in json.dumps(lines) and "Which one?" not in json.dumps(lines)
    assert "Which one?" in shell.run("audit", "export", "--content", "--data", data)
    assert town.gateway.stop() == 0
    with sqlite3.connect(data / "journal.db") as journal:
        shard, seq = journal.execute("SELECT shard, seq FROM journal WHERE kind = 'started'").fetchone()
        journal.execute("DELETE FROM journal WHERE shard = ? AND seq = ?", (shard, seq))
    journal.close()
    broken = shell.run("audit", "verify", "--data", data, code=1)
    assert f"shard {shard} at sequence {seq}" in broken
    assert json.loads(broken_json(shell, data))["first_bad"]["seq"] == seq


def test_a_server_is_reached_by_key_and_by_a_certificate_of_its_own(tmp_path: pathlib.Path) -> None:
    authority = Authority(tmp_path / "pki", "harbour")
    pair = authority.issue("127.0.0.1", "localhost")
    config = f'[agents]\nfolder = {json.dumps(str(tmp_path / "agents"))}\n[tls]\ncert = "{pair.cert}"\nkey = "{pair.key}"\n'
    gateway = harness.Gateway(tmp_path / "town", config, ready=False)
    try:
        shell = Shell(typing.cast(re.Match[str], harness.ADDRESS.search(gateway.line("^listening on https")))[0])
        assert "hint: trust it with --ca" in shell.run("models", code=69)
        trusting = ("--ca", authority.file)
        assert "no types of agents" in shell.run("agents", *trusting)
        key = harness.add_key(gateway.data, "acme", "--admin")
        harness.until("the key counts", lambda: "--key" in keyless(shell, trusting))
        assert "no types of agents" in shell.run("agents", *trusting, "--key", key)
    finally:
        gateway.kill()


def keyless(shell: Shell, trusting: tuple[typing.Any, ...]) -> str:
    """What a command says that has no key, whether or not one is wanted yet."""
    environment = {**os.environ, **shell.environment}
    command = [str(harness.BINARY), "agents", *map(str, trusting)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    return ran.stderr


def test_check_reads_the_definitions(tmp_path: pathlib.Path) -> None:
    shell = Shell("http://127.0.0.1:9")
    folder = tmp_path / "agents"
    folder.mkdir()
    (folder / "clerk.toml").write_text(CLERK.replace("agent:helper", "crm.lookup"))
    config = tmp_path / "seawall.toml"
    config.write_text(f"[agents]\nfolder = {json.dumps(str(folder))}\n")
    said = shell.run("check", "--config", config)
    assert "agent clerk" in said and "steps 30" in said and "if args.key starts_with money/" in said
    assert "nothing that is configured offers crm.lookup" in said
    assert "asks before      store.put if" in said, "rules are told by tools"
    config.write_text(config.read_text() + '[[engine]]\nname = "sim"\nkind = "sim"\n')
    (folder / "lost.toml").write_text('model = "gpt-nine"\ninstructions = "y"\ntools = ["agent:nobody"]\n')
    said = shell.run("check", "--config", config)
    assert "there is no model gpt-nine" in said and "agent:nobody, which is not defined" in said
    (folder / "bad.toml").write_text('model = "x"\ninstructions = "y"\nsand = 1\n')
    said = shell.run("check", "--config", config, code=64)
    assert "bad.toml:3" in said and "sand" in said
