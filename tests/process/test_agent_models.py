"""Agents as models: the official clients ask for `agent/TYPE`, streamed and not; leave; and outlive a crash."""

from __future__ import annotations

import concurrent.futures
import json
import pathlib
import sys
import typing

import anthropic
import httpx
import openai
import pytest

import harness
from witness import Seen, Witness

SERVER = pathlib.Path(__file__).with_name("mcp_server.py")
PROTOCOLS = ["chat", "responses", "messages"]

TALKER = 'model = "real"\ninstructions = "You talk."\ndescription = "Talks."\n'
SHAPED = 'model = "shaped"\ninstructions = "You answer JSON."\n[output]\nschema = { type = "object", required = ["city"], properties = { city = { type = "string" } } }\n'
TOOLED = 'model = "scripted"\ninstructions = "You look things up."\ntools = ["desk.slow"]\n'
SCRIPT = '[look it up]\ncall desk__slow {"ms":300}\ntext It is blue today.\n\n[*]\ntext {"city":"Rome"}\n'


class World(typing.NamedTuple):
    """The gateway with three types of agents, the witness behind one of them, and a key of another tenant's."""

    gateway: harness.Gateway
    witness: Witness
    sim: harness.Sim


def config(folder: pathlib.Path, witness: Witness, sim: harness.Sim) -> str:
    """Writes the definitions, and gives the config."""
    agents = folder / "agents"
    agents.mkdir(parents=True, exist_ok=True)
    for name, text in {"talker": TALKER, "shaped": SHAPED, "tooled": TOOLED}.items():
        (agents / f"{name}.toml").write_text(text)
    server = {"name": "desk", "command": [sys.executable, str(SERVER), "--dir", str(folder)]}
    return "\n".join(
        [
            f"[agents]\nfolder = {json.dumps(str(agents))}\n",
            harness.engine("witness", witness.url, speaks=["chat"], pass_through=False),
            harness.engine("sim", sim.url, speaks=["chat"], pass_through=False),
            harness.model("real", "witness/real"),
            harness.model("scripted", "sim/sim-small"),
            harness.model("shaped", "sim/sim-small"),
            "[[tool_server]]\n" + "".join(f"{key} = {harness.toml(value)}\n" for key, value in server.items()),
        ]
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[World]:
    """One for all tests that break nothing."""
    folder = tmp_path_factory.mktemp("agent-models")
    script = folder / "script.txt"
    script.write_text(SCRIPT)
    witness, sim = Witness(), harness.Sim("--seed", 7, "--first-ms", 5, "--token-ms", 1, "--script", script)
    gateway = harness.Gateway(folder, config(folder, witness, sim))
    yield World(gateway, witness, sim)
    gateway.stop()
    sim.stop()
    witness.close()


@pytest.fixture(scope="module")
def client(world: World) -> typing.Iterator[openai.OpenAI]:
    """The official client, as it comes: with its retries."""
    with openai.OpenAI(base_url=world.gateway.v1, api_key="unused", timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def claude(world: World) -> typing.Iterator[anthropic.Anthropic]:
    """The official Anthropic client, likewise."""
    with anthropic.Anthropic(base_url=world.gateway.url, api_key="unused", timeout=30) as client:
        yield client


def said(prompt: str) -> list[dict[str, str]]:
    """A conversation of one message."""
    return [{"role": "user", "content": prompt}]


def body(protocol: str, prompt: str, stream: bool = False, model: str = "agent/talker") -> tuple[str, dict[str, typing.Any]]:
    """Path and body of a raw request."""
    whole: dict[str, typing.Any] = {"model": model, "stream": stream}
    match protocol:
        case "chat":
            return "/v1/chat/completions", {**whole, "messages": said(prompt)}
        case "responses":
            return "/v1/responses", {**whole, "input": prompt}
        case _:
            return "/v1/messages", {**whole, "messages": said(prompt), "max_tokens": 50}


def run(gateway: harness.Gateway, key: str) -> dict[str, typing.Any]:
    """A run as the API shows it."""
    return httpx.get(f"{gateway.url}/seawall/runs/{key}", timeout=10).raise_for_status().json()


def ends(gateway: harness.Gateway, key: str, state: str, seconds: float = 15.0) -> dict[str, typing.Any]:
    """The run once it is in that state."""
    harness.until(f"{key} is {state}", lambda: run(gateway, key)["state"] == state, seconds, every=0.05)
    return run(gateway, key)


def arrives(witness: Witness, name: str) -> Seen:
    """The call, once the engine has it."""
    return harness.until(f"{name} arrives", lambda: witness.call(name), 10)


def test_agents_are_listed_and_found(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    listed = [model.id for model in client.models.list()]
    assert {"agent/talker", "agent/shaped", "agent/tooled", "real"} <= set(listed)
    assert client.models.retrieve("agent/talker").owned_by == "seawall"
    assert "agent/talker" in [model.id for model in claude.models.list()]
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("agent/talkre")
    assert caught.value.code == "model_unknown"
    assert "agent/talker" in caught.value.message


def test_an_answer_as_a_whole(client: openai.OpenAI, claude: anthropic.Anthropic, world: World) -> None:
    raw = client.chat.completions.with_raw_response.create(model="agent/talker", messages=said("[[id=whole-chat tokens=4]]"))
    chat, key = raw.parse(), raw.headers["x-seawall-run"]
    assert chat.choices[0].message.content == "word " * 4
    assert chat.choices[0].finish_reason == "stop"
    assert key in chat.id and chat.model == "agent/talker"
    # What the witness reports of its one call.
    assert chat.usage and chat.usage.total_tokens == 11 and chat.usage.completion_tokens > 0
    assert run(world.gateway, key)["state"] == "done"
    assert "stream" not in world.witness.call("whole-chat").json(), "nobody listens"

    response = client.responses.create(model="agent/talker", input="[[id=whole-responses tokens=4]]")
    assert response.output_text == "word " * 4 and response.status == "completed" and "run-" in response.id
    message = claude.messages.create(model="agent/talker", messages=said("[[id=whole-messages tokens=4]]"), max_tokens=50)
    assert message.content[0].text == "word " * 4 and message.stop_reason == "end_turn" and "run-" in message.id  # type: ignore[union-attr]
    assert message.usage.input_tokens + message.usage.output_tokens == 11


def test_the_task_is_what_was_said(client: openai.OpenAI, world: World) -> None:
    client.chat.completions.create(model="agent/talker", messages=said("Where is Rome? [[id=alone]]"))
    sent = world.witness.call("alone").json()["messages"]
    assert [message["content"] for message in sent] == ["You talk.", "Where is Rome? [[id=alone]]"]
    talk = [{"role": "system", "content": "Be brief."}, *said("Hi"), {"role": "assistant", "content": "Hello."}, *said("Where is Rome? [[id=told]]")]
    client.chat.completions.create(model="agent/talker", messages=talk)  # type: ignore[arg-type]
    sent = world.witness.call("told").json()["messages"]
    assert sent[1]["content"] == "system: Be brief.\n\nuser: Hi\n\nassistant: Hello.\n\nuser: Where is Rome? [[id=told]]"


def test_an_agent_with_a_key_outlives_its_run(client: openai.OpenAI, world: World) -> None:
    raw = client.chat.completions.with_raw_response.create(model="agent/talker/anna", messages=said("[[id=keyed]]"))
    assert run(world.gateway, raw.headers["x-seawall-run"])["agent"] == "talker/anna"
    assert httpx.get(world.gateway.url + "/seawall/agents/talker/anna", timeout=10).json()["state"] == "idle"


def test_a_stream_comes_as_the_model_speaks(client: openai.OpenAI, claude: anthropic.Anthropic, world: World) -> None:
    orders = "tokens=12 token_ms=60"

    def still(name: str) -> bool:
        return arrives(world.witness, name).ended is None

    stream = client.chat.completions.create(
        model="agent/talker", messages=said(f"[[id=s-chat {orders}]]"), stream=True, stream_options={"include_usage": True}
    )
    text, early, usage, ends_with = "", False, None, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            early = early or (bool(choice.delta.content) and still("s-chat"))
            text, ends_with = text + (choice.delta.content or ""), choice.finish_reason or ends_with
    assert (text, early, ends_with) == ("word " * 12, True, "stop")
    assert usage and usage.total_tokens == 19
    assert world.witness.call("s-chat").json()["stream"] is True

    text, early = "", False
    for event in client.responses.create(model="agent/talker", input=f"[[id=s-responses {orders}]]", stream=True):
        if event.type == "response.output_text.delta":
            text, early = text + event.delta, early or still("s-responses")
        done = event
    assert (text, early) == ("word " * 12, True)
    assert done.type == "response.completed" and done.response.output_text == text

    text, early = "", False
    with claude.messages.stream(model="agent/talker", messages=said(f"[[id=s-messages {orders}]]"), max_tokens=50) as messages:
        for piece in messages.text_stream:
            text, early = text + piece, early or still("s-messages")
        assert messages.get_final_message().stop_reason == "end_turn"
    assert (text, early) == ("word " * 12, True)


def test_a_client_that_does_not_read_holds_nobody_up_and_misses_nothing(world: World) -> None:
    path, request = body("chat", "[[id=slow tokens=1000 token_bytes=8000]]", stream=True)
    with httpx.stream("POST", world.gateway.url + path, json=request, timeout=30) as response:
        ends(world.gateway, response.headers["x-seawall-run"], "done")
        chunks = [json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: {")]
    said = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert said == "word ".ljust(8000, "x") * 1000


def test_a_stream_says_which_tool_works(world: World) -> None:
    harness.until("the tools are there", lambda: not any(kind["unmet"] for kind in httpx.get(world.gateway.url + "/seawall/agents", timeout=10).json()["types"]), 20)
    path, request = body("chat", "Please look it up.", stream=True, model="agent/tooled")
    lines = httpx.post(world.gateway.url + path, json=request, timeout=30).raise_for_status().text.splitlines()
    note = lines.index(": tool desk.slow")
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]) == "It is blue today."
    words = [at for at, line in enumerate(lines) if '"content":"It' in line]
    assert note < words[0] and lines[-2] == "data: [DONE]"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
def test_an_output_of_a_shape_is_json_and_nothing_else(client: openai.OpenAI, stream: bool) -> None:
    if stream:
        chunks = client.chat.completions.create(model="agent/shaped", messages=said("A city."), stream=True)
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    else:
        text = client.chat.completions.create(model="agent/shaped", messages=said("A city.")).choices[0].message.content or ""
    assert json.loads(text) == {"city": "Rome"}


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_leaves_ends_the_run(world: World, protocol: str, stream: bool) -> None:
    name = f"left-{protocol}-{stream}"
    path, request = body(protocol, f"[[id={name} tokens=1000 token_ms=20 first_ms={0 if stream else 20000}]]", stream)
    before = {one["run"] for one in httpx.get(world.gateway.url + "/seawall/runs?limit=100", timeout=10).json()["runs"]}
    with httpx.Client(timeout=30) as leaver:
        if stream:
            with leaver.stream("POST", world.gateway.url + path, json=request) as response:
                key = response.headers["x-seawall-run"]
                # Kept: dropped, it would close the connection.
                pieces = response.iter_bytes()
                next(pieces)
                arrives(world.witness, name)
        else:
            with pytest.raises(httpx.ReadTimeout):
                leaver.post(world.gateway.url + path, json=request, timeout=1)
            [key] = [one["run"] for one in httpx.get(world.gateway.url + "/seawall/runs?limit=100", timeout=10).json()["runs"] if one["run"] not in before]
    assert "client" in ends(world.gateway, key, "cancelled")["error"]["message"]
    seen = harness.until("the engine notices", lambda: (call := world.witness.call(name)) and (call.left or call.ended) and call)
    assert seen.left and not seen.ended, "the model's call ran to its end for nobody"


def test_who_leaves_detached_leaves_the_run_alone(world: World) -> None:
    path, request = body("chat", "[[id=detached tokens=20 token_ms=20]]", stream=True)
    with httpx.stream("POST", world.gateway.url + path, json=request, headers={"x-seawall-detach": "1"}, timeout=30) as response:
        key = response.headers["x-seawall-run"]
        arrives(world.witness, "detached")
    done = ends(world.gateway, key, "done")
    assert done["output"] == "word " * 20
    assert len(world.witness.calls("detached")) == 1


@pytest.mark.parametrize("detached", [False, True], ids=["attended", "detached"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
def test_a_run_works_for_the_run_that_asked_and_stops_with_it(world: World, stream: bool, detached: bool) -> None:
    name = f"asked-{stream}-{detached}"
    path, request = body("chat", f"[[id={name} tokens=500 token_ms=20 first_ms={0 if stream else 10000}]]", stream)
    lineage = {"x-seawall-run": f"nightly {name}", "x-seawall-parent": f"job {name}"}
    more = {"x-seawall-detach": "1"} if detached else {}
    with httpx.Client(timeout=30) as client:
        if stream:
            with client.stream("POST", world.gateway.url + path, json=request, headers={**lineage, **more}) as response:
                key = response.headers["x-seawall-run"]
                arrives(world.witness, name)
                if detached:
                    response.close()
                assert harness.seawall("run", "stop", f"job {name}", "--url", world.gateway.url).returncode == 0
                if not detached:
                    assert "run_stopped" in response.read().decode()
        else:
            with concurrent.futures.ThreadPoolExecutor() as pool:
                patience = 1 if detached else 30
                asked = pool.submit(client.post, world.gateway.url + path, json=request, headers={**lineage, **more}, timeout=patience)
                arrives(world.witness, name)
                if detached:
                    assert isinstance(asked.exception(10), httpx.ReadTimeout)
                assert harness.seawall("run", "stop", f"job {name}", "--url", world.gateway.url).returncode == 0
                if not detached:
                    refused = asked.result(10)
                    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "run_stopped")
            listed = httpx.get(world.gateway.url + "/seawall/runs?limit=100", timeout=10).json()["runs"]
            [key] = [one["run"] for one in listed if one.get("caller") == lineage["x-seawall-run"]]
    ended = ends(world.gateway, key, "cancelled")
    assert ended["caller"] == lineage["x-seawall-run"] and "stopped the run that asked" in ended["error"]["message"]
    seen = harness.until("the engine notices", lambda: (call := world.witness.call(name)) and (call.left or call.ended) and call)
    assert seen.left and not seen.ended, "the model's call ran on"
    # While it is stopped nothing begins for it; others of the tenant are not meant.
    again = httpx.post(world.gateway.url + path, json=body("chat", "[[id=no-run-for-it]]")[1], headers=lineage, timeout=10)
    assert (again.status_code, again.json()["error"]["code"]) == (403, "run_stopped")
    assert not world.witness.calls("no-run-for-it")
    assert harness.seawall("run", "resume", f"job {name}", "--url", world.gateway.url).returncode == 0
    assert httpx.post(world.gateway.url + path, json=body("chat", "Go on.")[1], headers=lineage, timeout=10).status_code == 200


def test_a_parent_without_a_run_is_refused(world: World) -> None:
    path, request = body("chat", "[[id=no-run-of-a-parent]]")
    refused = httpx.post(world.gateway.url + path, json=request, headers={"x-seawall-parent": "job"}, timeout=10)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_header")
    assert not world.witness.calls("no-run-of-a-parent")


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "unary"])
def test_who_waits_no_longer_is_told_and_ends_the_run(world: World, stream: bool) -> None:
    path, request = body("chat", f"[[id=late-{stream} first_ms=20000]]", stream)
    response = httpx.post(world.gateway.url + path, json=request, headers={"x-seawall-deadline-ms": "600"}, timeout=30)
    assert response.status_code == (200 if stream else 504)
    assert "deadline_passed" in response.text
    ends(world.gateway, response.headers["x-seawall-run"], "cancelled")


def test_what_goes_wrong_is_told_once_and_names_the_run(client: openai.OpenAI, claude: anthropic.Anthropic, world: World) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="agent/talker", messages=said("[[id=wrong-chat status=400]]"))
    assert caught.value.code == "engine_refused"
    key = caught.value.response.headers["x-seawall-run"]
    assert key in caught.value.message and run(world.gateway, key)["state"] == "failed"
    with pytest.raises(anthropic.APIStatusError) as refused:
        claude.messages.create(model="agent/talker", messages=said("[[id=wrong-messages status=400]]"), max_tokens=5)
    assert refused.value.response.json()["error"]["code"] == "engine_refused"
    assert "run-" in refused.value.response.json()["error"]["message"]
    with pytest.raises(openai.APIError) as streamed:
        list(client.chat.completions.create(model="agent/talker", messages=said("[[id=wrong-stream status=400]]"), stream=True))
    assert "run-" in streamed.value.message
    assert len(world.witness.calls("wrong-")) == 3, "no client started a run anew by itself"


def test_what_no_agent_can_do_is_refused_before_a_run(client: openai.OpenAI, world: World) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="agent/talker", messages=said("[[id=no-run]]"), tools=[tool])  # type: ignore[list-item]
    assert (caught.value.code, caught.value.param) == ("not_translatable", "tools")
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="agent/talkre", messages=said("[[id=no-run]]"))
    assert unknown.value.code == "model_unknown" and "agent/talker" in unknown.value.message
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model="agent/talker", prompt="[[id=no-run]]")
    odd = httpx.post(world.gateway.v1 + "/chat/completions", json=body("chat", "[[id=no-run]]")[1], headers={"x-seawall-detach": "perhaps"}, timeout=10)
    assert (odd.status_code, odd.json()["error"]["code"]) == (400, "bad_header")
    assert not world.witness.calls("no-run")


def test_a_key_may_use_the_agents_that_its_lists_name(tmp_path: pathlib.Path, gateways: list[harness.Gateway], world: World) -> None:
    rules = harness.tenant("narrow", models=["agent/talker", "real"])
    gateway = harness.Gateway(tmp_path, config(tmp_path, world.witness, world.sim) + "\n" + rules)
    gateways.append(gateway)
    keys = {
        "any": harness.add_key(gateway.data, "acme"),
        "agents": harness.add_key(gateway.data, "acme", "--model", "agent/*"),
        "narrow": harness.add_key(gateway.data, "narrow"),
    }

    def may(key: str, model: str) -> bool:
        with openai.OpenAI(base_url=gateway.v1, api_key=keys[key], max_retries=0, timeout=30) as client:
            try:
                client.chat.completions.create(model=model, messages=said("Say a word."))
            except openai.PermissionDeniedError as error:
                assert error.code == "model_forbidden"
                return False
            return True

    def lists(key: str) -> set[str]:
        with openai.OpenAI(base_url=gateway.v1, api_key=keys[key], max_retries=0, timeout=30) as client:
            return {model.id for model in client.models.list() if model.id.startswith("agent/")}

    harness.until("the keys are known", lambda: httpx.get(gateway.v1 + "/models", timeout=5).status_code == 401 and httpx.get(gateway.v1 + "/models", headers={"x-api-key": keys["narrow"]}, timeout=5).status_code == 200)
    assert may("any", "agent/talker") and may("agents", "agent/talker/x") and may("narrow", "agent/talker/x")
    assert not may("agents", "real") and not may("narrow", "agent/shaped")
    assert lists("agents") == {"agent/talker", "agent/shaped", "agent/tooled"} and lists("narrow") == {"agent/talker"}


def test_a_run_goes_on_after_a_crash(tmp_path: pathlib.Path, gateways: list[harness.Gateway], world: World) -> None:
    told = config(tmp_path, world.witness, world.sim)
    gateways.append(harness.Gateway(tmp_path, told))
    path, request = body("chat", "[[id=crash tokens=40 token_ms=50]]", stream=True)
    with httpx.stream("POST", gateways[0].url + path, json=request, timeout=30) as response:
        key = response.headers["x-seawall-run"]
        arrives(world.witness, "crash")
        gateways[0].kill()
    gateways.append(harness.Gateway(tmp_path, told))
    done = ends(gateways[1], key, "done", 30)
    assert done["output"] == "word " * 40
    assert len(world.witness.calls("crash")) == 2, "the call that was cut is made once more"


def test_a_client_is_told_when_the_process_leaves(tmp_path: pathlib.Path, gateways: list[harness.Gateway], world: World) -> None:
    told = config(tmp_path, world.witness, world.sim)
    gateways.append(harness.Gateway(tmp_path, told))
    path, request = body("chat", "[[id=leaving tokens=100 token_ms=50]]", stream=True)
    with httpx.stream("POST", gateways[0].url + path, json=request, timeout=30) as response:
        key = response.headers["x-seawall-run"]
        arrives(world.witness, "leaving")
        gateways[0].stop()
        rest = "".join(response.iter_text())
    assert '"code":"draining"' in rest and key in rest
    gateways.append(harness.Gateway(tmp_path, told))
    assert run(gateways[1], key)["state"] != "cancelled"
    ends(gateways[1], key, "done", 30)
