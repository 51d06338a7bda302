"""The zero-SDK door: an unchanged script on the official client, with nothing but headers."""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import signal
import sys
import typing

import httpx
import openai
import pytest

import harness
from witness import Witness

# A user's script: five steps, each with the answers before it in its prompt, and the same
# question twice. It knows nothing of Seawall but the address and the headers.
SCRIPT = '''
import os, signal, uuid
import openai

headers = {"x-seawall-run": "report", "x-seawall-memo": "on", "x-seawall-attempt": str(uuid.uuid4())}
client = openai.OpenAI(base_url=os.environ["BASE_URL"], api_key="unused", max_retries=0, default_headers=headers)

def ask(messages, stream):
    if not stream:
        return client.chat.completions.create(model="real", messages=messages).choices[0].message.content
    chunks = client.chat.completions.create(model="real", messages=messages, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)

said = []
for step, question in enumerate(["plan", "search", "search", "write", "check"], start=1):
    history = [] if question == "search" else [{"role": "assistant", "content": text} for text in said]
    order = f"[[id=step-{question}-{len(history)} tokens=4 reply=word{step}]]" if question != "search" else "[[id=step-search tokens=4]]"
    said.append(ask([*history, {"role": "user", "content": f"{question} {order}"}], stream=step % 2 == 0))
    print("step", step, repr(said[-1]), flush=True)
    if str(step) == os.environ.get("PAUSE_AFTER"):
        signal.pause()
print("done", repr(said), flush=True)
'''


@pytest.fixture
def door(tmp_path: pathlib.Path) -> typing.Iterator[tuple[harness.Gateway, Witness]]:
    """A gateway with a witness behind it and a guard that loses patience early."""
    witness = Witness()
    config = "[guard]\nrepeats = 3\n" + harness.engine("witness", witness.url) + harness.model("real", "witness/real")
    gateway = harness.Gateway(tmp_path / "gateway", config)
    yield gateway, witness
    gateway.stop()
    witness.close()


def start(folder: pathlib.Path, gateway: harness.Gateway, pause_after: int = 0) -> harness.Process:
    """Starts the script."""
    path = folder / "script.py"
    path.write_text(SCRIPT)
    environment = {"BASE_URL": gateway.v1, "PAUSE_AFTER": str(pause_after)}
    return harness.Process([sys.executable, path], environment)


def chat(gateway: harness.Gateway, text: str, **headers: str) -> httpx.Response:
    """One chat call with these headers, whose names begin with `x-seawall-`."""
    named = {f"x-seawall-{name}": value for name, value in headers.items()}
    body = {"model": "real", "messages": [{"role": "user", "content": text}]}
    return httpx.post(gateway.v1 + "/chat/completions", json=body, headers=named, timeout=20)


def test_a_script_killed_half_way_pays_for_nothing_twice(door: tuple[harness.Gateway, Witness], tmp_path: pathlib.Path) -> None:
    gateway, witness = door
    # The first start waits for ever after step 3, and is killed there.
    first = start(tmp_path, gateway, pause_after=3)
    third = first.line("^step 3 ")
    before = [first.line(f"^step {step} ") for step in (1, 2)] + [third]
    first.signal(signal.SIGKILL)
    first.wait()
    assert len(witness.calls("step-")) == 3
    second = start(tmp_path, gateway)
    done = second.line("^done ")
    assert second.wait() == 0
    assert [second.line(f"^step {step} ") for step in (1, 2, 3)] == before, "what was said stays said"
    assert len(witness.calls("step-")) == 5, "the engine saw each step once"
    # A third start replays all of it, streams as streams.
    third_start = start(tmp_path, gateway)
    assert third_start.line("^done ") == done
    assert len(witness.calls("step-")) == 5
    assert gateway.metrics()['seawall_memo_total{result="hit"}'] == 3 + 5
    # Also after Seawall itself was killed.
    gateway.kill()
    again = harness.Gateway(gateway.folder, gateway.config.read_text())
    try:
        fourth = start(tmp_path, again)
        assert fourth.line("^done ") == done
        assert len(witness.calls("step-")) == 5
        # What is forgotten is paid for again.
        assert "5 answers" in harness.seawall("run", "forget", "report", "--data", again.data).stdout
        fifth = start(tmp_path, again)
        fifth.line("^done ")
        assert len(witness.calls("step-")) == 10
    finally:
        again.stop()


def test_a_memo_belongs_to_its_run_and_keeps_no_failures(door: tuple[harness.Gateway, Witness]) -> None:
    gateway, witness = door
    says = lambda answer: answer.headers.get("x-seawall-memo")  # noqa: E731
    assert says(chat(gateway, "[[id=plain-1]]", run="r")) is None
    assert says(chat(gateway, "[[id=a]]", run="r", memo="on")) == "miss"
    replayed = chat(gateway, "[[id=a]]", run="r", memo="on")
    assert (says(replayed), replayed.headers["content-type"], replayed.json()["object"]) == ("hit", "application/json", "chat.completion")
    assert says(chat(gateway, "[[id=a]]", run="other", memo="on")) == "miss"
    assert says(chat(gateway, "[[id=a]]", run="r", memo="on", user="bob")) == "miss", "another tenant"
    assert len(witness.calls("a")) == 3
    for _ in range(2):
        assert chat(gateway, "[[id=broken status=400]]", run="r", memo="on").status_code == 400
    assert len(witness.calls("broken")) == 2
    for bad in ({"memo": "on"}, {"parent": "p"}, {"agent": "a/b/c"}, {"agent": "a b"}):
        assert chat(gateway, "x", **bad).json()["error"]["code"] == "bad_header", bad


def test_a_run_that_goes_round_in_circles_is_stopped(door: tuple[harness.Gateway, Witness]) -> None:
    gateway, witness = door
    with openai.OpenAI(base_url=gateway.v1, api_key="unused", max_retries=2, default_headers={"x-seawall-run": "circle"}) as client:
        def ask(text: str) -> openai.types.chat.ChatCompletion:
            return client.chat.completions.create(model="real", messages=[{"role": "user", "content": text}])

        for _ in range(3):
            ask("[[id=same]]")
        with pytest.raises(openai.UnprocessableEntityError) as stopped:
            ask("[[id=same]]")
        assert stopped.value.code == "loop_stopped"
        assert len(witness.calls("same")) == 3, "it costs nothing, and the client does not try again"
        ask("[[id=different]]")
        ask("[[id=same]]")
    assert gateway.metrics()['seawall_loops_total{action="refused"}'] == 1
    # Without a run nobody is stopped; where the rule is to warn, it only says so.
    for _ in range(5):
        assert chat(gateway, "[[id=free]]").status_code == 200
    gateway.configure(gateway.config.read_text().replace("repeats = 3", 'repeats = 3\naction = "warn"'))
    mark = gateway.mark()
    gateway.signal(signal.SIGHUP)
    gateway.line("reload|configuration", since=mark)
    answers = [chat(gateway, "[[id=warned]]", run="again") for _ in range(4)]
    assert [answer.headers.get("x-seawall-warning") for answer in answers] == [None, None, None, "loop_stopped"]


def test_a_stopped_run_is_cut_with_all_below_it_until_it_is_resumed(door: tuple[harness.Gateway, Witness]) -> None:
    gateway, witness = door
    door_of = {"base_url": gateway.v1, "api_key": "unused", "max_retries": 2, "timeout": 30}
    headers = {"x-seawall-agent": "searcher/1", "x-seawall-run": "child", "x-seawall-parent": "top"}

    def call(client: openai.OpenAI, order: str, stream: bool) -> str:
        """How the call ends."""
        messages = [{"role": "user", "content": f"[[{order}]]"}]
        try:
            answer = client.chat.completions.create(model="real", messages=messages, stream=stream)
            return "done" if not stream else "done " + str(len(list(answer)))
        except openai.APIError as error:
            return str(error.code)

    with concurrent.futures.ThreadPoolExecutor() as pool, openai.OpenAI(**door_of, default_headers=headers) as child, openai.OpenAI(**door_of) as other:
        slow = [pool.submit(call, child, "id=unary first_ms=20000", False), pool.submit(call, child, "id=stream tokens=5 token_ms=8000", True)]
        beside = pool.submit(call, other, "id=beside first_ms=1500", False)
        for name in ("unary", "stream", "beside"):
            harness.until(f"{name} arrives", lambda name=name: witness.call(name))
        harness.until("the stream has begun", lambda: witness.call("stream").pieces > 0)
        ran = harness.seawall("run", "stop", "top", "--url", gateway.url, "--json")
        assert ran.returncode == 0 and json.loads(ran.stdout)["stopped"] is True, ran.stderr
        assert [future.result(10) for future in slow] == ["run_stopped", "run_stopped"]
        for name in ("unary", "stream"):
            harness.until(f"the engine is left by {name}", lambda name=name: witness.call(name).left)
        assert call(child, "id=later", False) == "run_stopped"
        assert witness.call("later") is None, "it never reached the engine"
        assert beside.result(10) == "done", "others do not notice"
        # The access log has the id by which the operations API knows the run.
        line = json.loads(gateway.line('^{.*"outcome":"run_stopped"'))
        run = line["call"]["run"]
        assert line["call"]["agent"] == "searcher/1"
        assert gateway.metrics()['seawall_agent_calls_total{agent_type="searcher",outcome="run_stopped"}'] == 3
        assert httpx.post(f"{gateway.url}/seawall/runs/{run}/resume", timeout=5).json() == {"run": run, "stopped": False}
        assert call(child, "id=later", False) == "run_stopped", "its parent is what was stopped"
        assert harness.seawall("run", "resume", "top", "--url", gateway.url).returncode == 0
        assert call(child, "id=later", False) == "done"
    assert httpx.post(f"{gateway.url}/seawall/runs/nonsense/stop", timeout=5).status_code == 404
    assert httpx.get(f"{gateway.url}/seawall/runs/{run}/stop", timeout=5).status_code == 405
    harness.add_key(gateway.data, "acme")
    harness.until("keys are asked for", lambda: httpx.post(f"{gateway.url}/seawall/runs/{run}/stop", timeout=5).status_code == 401)
