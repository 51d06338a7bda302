"""The official `anthropic` client over every kind of engine."""

from __future__ import annotations

import anthropic
import pytest

from conftest import World

TOOLS = [{"name": "weather", "description": "The weather in a city.", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]
HELLO = [{"role": "user", "content": "Say hello."}]


def test_messages(claude: anthropic.Anthropic, kind: str) -> None:
    answer = claude.messages.create(model=f"{kind}-model", system="Be brief.", messages=HELLO, max_tokens=12)
    assert answer.type == "message"
    assert answer.role == "assistant"
    assert answer.model in (f"{kind}-model", "sim-small"), "the name it asked for, or the engine's own where bodies pass unchanged"
    assert answer.content[0].type == "text"
    assert answer.content[0].text
    assert answer.stop_reason in ("end_turn", "max_tokens")
    assert answer.usage.input_tokens > 0
    assert 0 < answer.usage.output_tokens <= 12


def test_messages_stop_at_max_tokens(claude: anthropic.Anthropic, kind: str) -> None:
    answer = claude.messages.create(model=f"{kind}-long", messages=HELLO, max_tokens=5)
    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 5


def test_messages_stream(claude: anthropic.Anthropic, kind: str) -> None:
    with claude.messages.stream(model=f"{kind}-long", messages=HELLO, max_tokens=30) as stream:
        parts = list(stream.text_stream)
        whole = stream.get_final_message()
    assert len(parts) >= 10
    assert "".join(parts) == whole.content[0].text
    assert whole.stop_reason in ("end_turn", "max_tokens")
    assert whole.usage.output_tokens > 0


def test_events_come_in_order(claude: anthropic.Anthropic, kind: str) -> None:
    events = [event.type for event in claude.messages.create(model=f"{kind}-model", messages=HELLO, max_tokens=8, stream=True)]
    events = [event for event in events if event != "ping"]
    assert events[0] == "message_start"
    assert events[1] == "content_block_start"
    assert events[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(events[2:-3]) == {"content_block_delta"}


def test_tool_use_and_its_result(claude: anthropic.Anthropic, kind: str) -> None:
    asked: list = [{"role": "user", "content": "What is the weather in Oslo?"}]
    answer = claude.messages.create(model=f"{kind}-model", messages=asked, tools=TOOLS, tool_choice={"type": "tool", "name": "weather"}, max_tokens=64)
    uses = [block for block in answer.content if block.type == "tool_use"]
    assert uses
    assert uses[0].name == "weather"
    assert isinstance(uses[0].input, dict)
    assert answer.stop_reason == "tool_use"
    asked.append({"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in answer.content]})
    asked.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "Rain."} for use in uses]})
    final = claude.messages.create(model=f"{kind}-model", messages=asked, tools=TOOLS, max_tokens=12)
    assert final.content[0].type == "text"
    with claude.messages.stream(model=f"{kind}-model", messages=asked[:1], tools=TOOLS, tool_choice={"type": "any"}, max_tokens=64) as stream:
        streamed = [block for block in stream.get_final_message().content if block.type == "tool_use"]
    assert streamed
    assert isinstance(streamed[0].input, dict)


@pytest.mark.parametrize("model", ["witness-openai", "witness-anthropic"])
def test_parallel_tool_use(claude: anthropic.Anthropic, world: World, model: str) -> None:
    asked: list = [{"role": "user", "content": "Both cities. [[tools=2]]"}]
    answer = claude.messages.create(model=model, messages=asked, tools=TOOLS, max_tokens=64)
    uses = [block for block in answer.content if block.type == "tool_use"]
    assert [use.input for use in uses] == [{"city": "city0"}, {"city": "city1"}]
    assert answer.stop_reason == "tool_use"
    with claude.messages.stream(model=model, messages=asked, tools=TOOLS, max_tokens=64) as stream:
        streamed = [block for block in stream.get_final_message().content if block.type == "tool_use"]
    assert [(use.id, use.input) for use in streamed] == [(use.id, use.input) for use in uses]
    results = [{"type": "tool_result", "tool_use_id": use.id, "content": f"Rain {use.id}."} for use in uses]
    asked = [{"role": "user", "content": f"[[id=uses-{model}]]"}, {"role": "assistant", "content": [use.model_dump(exclude_none=True) for use in uses]}, {"role": "user", "content": results}]
    claude.messages.create(model=model, messages=asked, tools=TOOLS, max_tokens=64)
    body = world.witness.call(f"uses-{model}").json()
    if model == "witness-openai":
        assert [(message["role"], message["tool_call_id"]) for message in body["messages"][-2:]] == [("tool", use.id) for use in uses]


def test_picture_in_a_prompt(claude: anthropic.Anthropic, world: World, kind: str, picture: str) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": picture}
    asked = [{"role": "user", "content": [{"type": "image", "source": source}, {"type": "text", "text": "What is it? [[id=a-picture]]"}]}]
    assert claude.messages.create(model=f"{kind}-model", messages=asked, max_tokens=8).content
    claude.messages.create(model="witness-openai", messages=asked, max_tokens=8)
    parts = world.witness.call("a-picture").json()["messages"][0]["content"]
    assert {"url": f"data:image/png;base64,{picture}"} in [{"url": part["image_url"]["url"]} for part in parts if part["type"] == "image_url"]


def test_count_tokens(claude: anthropic.Anthropic, kind: str) -> None:
    short = claude.messages.count_tokens(model=f"{kind}-model", messages=HELLO)
    long = claude.messages.count_tokens(model=f"{kind}-model", messages=[{"role": "user", "content": "word " * 1000}])
    assert 0 < short.input_tokens < long.input_tokens


def test_models(claude: anthropic.Anthropic) -> None:
    names = [model.id for model in claude.models.list(limit=1000)]
    assert "anthropic-model" in names


def test_usage_is_converted_from_an_openai_engine(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(model="witness-openai", messages=HELLO, max_tokens=8)
    assert answer.usage.input_tokens == 5, "input tokens exclude the cached ones"
    assert answer.usage.cache_read_input_tokens == 2
    assert answer.usage.output_tokens == 3


def test_unknown_fields_reach_an_engine_of_the_same_protocol(claude: anthropic.Anthropic, world: World) -> None:
    asked = [{"role": "user", "content": "[[id=a-unknown]]"}]
    claude.messages.create(model="witness-anthropic", messages=asked, max_tokens=8, extra_body={"x_new": {"deep": 1}}, extra_headers={"anthropic-beta": "new-thing-2030"})
    seen = world.witness.call("a-unknown")
    assert seen.json() == {"model": "real", "messages": asked, "max_tokens": 8, "x_new": {"deep": 1}}
    assert seen.headers["anthropic-beta"] == "new-thing-2030"
