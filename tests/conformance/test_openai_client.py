"""The official `openai` client over every kind of engine."""

from __future__ import annotations

import json

import openai

from conftest import World

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
FLAT_TOOLS = [{"type": "function", "strict": False, **TOOLS[0]["function"]}]
# What an answer may call its model, by engine kind.
NAMES = {"openai": {"openai-model", "sim-small"}, "anthropic": {"anthropic-model"}, "sim": {"sim-model", "sim-small"}}
HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}]


def test_chat(client: openai.OpenAI, kind: str) -> None:
    answer = client.chat.completions.create(model=f"{kind}-model", messages=HELLO, max_tokens=12)
    assert answer.object == "chat.completion"
    assert answer.model in NAMES[kind], "the name it asked for, or the engine's own where bodies pass unchanged"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 0
    assert 0 < answer.usage.completion_tokens <= 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_chat_stops_at_max_tokens(client: openai.OpenAI, kind: str) -> None:
    answer = client.chat.completions.create(model=f"{kind}-long", messages=HELLO, max_tokens=5)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5


def test_chat_streams(client: openai.OpenAI, kind: str) -> None:
    chunks = list(client.chat.completions.create(model=f"{kind}-long", messages=HELLO, max_tokens=30, stream=True))
    text = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(text) >= 10, "one chunk a token, not one for all"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices and chunk.choices[0].finish_reason] in (["stop"], ["length"])
    assert all(chunk.usage is None for chunk in chunks), "usage was not asked for"
    assert len({chunk.id for chunk in chunks}) == 1
    assert len({chunk.model for chunk in chunks}) == 1


def test_chat_streams_with_usage(client: openai.OpenAI, kind: str) -> None:
    options = {"include_usage": True}
    chunks = list(client.chat.completions.create(model=f"{kind}-long", messages=HELLO, max_tokens=9, stream=True, stream_options=options))
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 9
    assert sum(1 for chunk in chunks if chunk.usage is not None) == 1


def test_streaming_helper_accumulates(client: openai.OpenAI, kind: str) -> None:
    with client.chat.completions.stream(model=f"{kind}-long", messages=HELLO) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        whole = stream.get_final_completion()
    assert whole.choices[0].message.content == "".join(deltas)


def test_tool_call_and_its_result(client: openai.OpenAI, kind: str) -> None:
    asked = [{"role": "user", "content": "What is the weather in Oslo?"}]
    choice = {"type": "function", "function": {"name": "weather"}}
    answer = client.chat.completions.create(model=f"{kind}-model", messages=asked, tools=TOOLS, tool_choice=choice)
    calls = answer.choices[0].message.tool_calls
    assert calls, "a named tool is called"
    assert calls[0].function.name == "weather"
    assert isinstance(json.loads(calls[0].function.arguments), dict)
    assert answer.choices[0].finish_reason in ("tool_calls", "stop")
    asked.append(answer.choices[0].message.model_dump(exclude_none=True))
    asked += [{"role": "tool", "tool_call_id": call.id, "content": "Rain."} for call in calls]
    final = client.chat.completions.create(model=f"{kind}-model", messages=asked, tools=TOOLS, max_tokens=10)
    assert final.choices[0].message.content


def test_tool_call_streams(client: openai.OpenAI, kind: str) -> None:
    asked = [{"role": "user", "content": "What is the weather in Oslo?"}]
    with client.chat.completions.stream(model=f"{kind}-model", messages=asked, tools=TOOLS, tool_choice="required") as stream:
        whole = stream.get_final_completion()
    calls = whole.choices[0].message.tool_calls
    assert calls
    assert calls[0].id
    assert calls[0].function.name == "weather"
    assert isinstance(json.loads(calls[0].function.arguments), dict)


def test_parallel_tool_calls(client: openai.OpenAI, world: World) -> None:
    for model in ("witness-openai", "witness-anthropic"):
        asked = [{"role": "user", "content": "Both cities. [[tools=2]]"}]
        answer = client.chat.completions.create(model=model, messages=asked, tools=TOOLS, parallel_tool_calls=True)
        calls = answer.choices[0].message.tool_calls
        assert calls is not None
        assert [json.loads(call.function.arguments) for call in calls] == [{"city": "city0"}, {"city": "city1"}], model
        assert answer.choices[0].finish_reason == "tool_calls"
        with client.chat.completions.stream(model=model, messages=asked, tools=TOOLS) as stream:
            streamed = stream.get_final_completion().choices[0].message.tool_calls
        assert streamed is not None
        assert [(call.id, json.loads(call.function.arguments)) for call in streamed] == [(call.id, json.loads(call.function.arguments)) for call in calls], model
        asked = [{"role": "user", "content": f"[[id=parallel-{model}]]"}, answer.choices[0].message.model_dump(exclude_none=True)]
        asked += [{"role": "tool", "tool_call_id": call.id, "content": f"Rain {call.id}."} for call in calls]
        client.chat.completions.create(model=model, messages=asked, tools=TOOLS)
        seen = world.witness.call(f"parallel-{model}")
        assert seen is not None
        if model == "witness-anthropic":
            results = seen.json()["messages"][-1]["content"]
            assert [block["tool_use_id"] for block in results] == [call.id for call in calls], "one user turn with both results"
        else:
            assert [message["content"] for message in seen.json()["messages"][-2:]] == [f"Rain {call.id}." for call in calls]


def test_picture_in_a_prompt(client: openai.OpenAI, world: World, kind: str, picture: str) -> None:
    parts = [{"type": "text", "text": "What is this? [[id=picture]]"}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}]
    answer = client.chat.completions.create(model=f"{kind}-model", messages=[{"role": "user", "content": parts}], max_tokens=8)
    assert answer.choices[0].message.content
    client.chat.completions.create(model="witness-anthropic", messages=[{"role": "user", "content": parts}])
    block = world.witness.call("picture").json()["messages"][0]["content"][1]
    assert block == {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": picture}}


def test_legacy_completions(client: openai.OpenAI, kind: str) -> None:
    answer = client.completions.create(model=f"{kind}-long", prompt="Once upon a time", max_tokens=6)
    assert answer.object == "text_completion"
    assert answer.choices[0].text
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6
    chunks = list(client.completions.create(model=f"{kind}-long", prompt="Once upon a time", max_tokens=6, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_embeddings(client: openai.OpenAI) -> None:
    for model in ("openai-model", "sim-model"):
        answer = client.embeddings.create(model=model, input=["one", "two", "one"])
        assert [item.index for item in answer.data] == [0, 1, 2]
        assert answer.data[0].embedding == answer.data[2].embedding != answer.data[1].embedding
        assert answer.usage.prompt_tokens > 0
        floats = client.embeddings.create(model=model, input="one", encoding_format="float")
        assert all(abs(a - b) < 1e-6 for a, b in zip(floats.data[0].embedding, answer.data[0].embedding, strict=True))


def test_embeddings_need_an_engine_that_has_them(client: openai.OpenAI) -> None:
    try:
        client.embeddings.create(model="anthropic-model", input="one")
    except openai.BadRequestError as error:
        assert error.code == "not_translatable"
    else:
        raise AssertionError("an Anthropic engine has no embeddings")


def test_responses(client: openai.OpenAI, kind: str) -> None:
    answer = client.responses.create(model=f"{kind}-model", instructions="Be brief.", input="Say hello.", max_output_tokens=16)
    assert answer.object == "response"
    assert answer.status in ("completed", "incomplete")
    assert answer.output_text
    assert answer.usage is not None
    assert 0 < answer.usage.output_tokens <= 16
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


def test_responses_stream(client: openai.OpenAI, kind: str) -> None:
    events = list(client.responses.create(model=f"{kind}-long", input="Say hello.", max_output_tokens=30, stream=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert kinds.count("response.output_text.delta") >= 10
    assert kinds.index("response.output_item.added") < kinds.index("response.content_part.added") < kinds.index("response.output_text.delta")
    assert [event.sequence_number for event in events] == sorted(event.sequence_number for event in events)
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert events[-1].response.output_text == text
    assert events[-1].response.usage is not None


def test_responses_streaming_helper(client: openai.OpenAI, kind: str) -> None:
    with client.responses.stream(model=f"{kind}-long", input="Say hello.") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    assert stream.get_final_response().output_text == text


def test_responses_tools(client: openai.OpenAI, kind: str) -> None:
    asked = [{"role": "user", "content": "What is the weather in Oslo?"}]
    answer = client.responses.create(model=f"{kind}-model", input=asked, tools=FLAT_TOOLS, tool_choice="required")
    calls = [item for item in answer.output if item.type == "function_call"]
    assert calls
    assert calls[0].name == "weather"
    assert isinstance(json.loads(calls[0].arguments), dict)
    results = [{"type": "function_call_output", "call_id": call.call_id, "output": "Rain."} for call in calls]
    back = [{"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments} for call in calls]
    final = client.responses.create(model=f"{kind}-model", input=[*asked, *back, *results], tools=FLAT_TOOLS, max_output_tokens=16)
    assert final.output_text
    events = list(client.responses.create(model=f"{kind}-model", input=asked, tools=FLAT_TOOLS, tool_choice="required", stream=True))
    done = [event for event in events if event.type == "response.function_call_arguments.done"]
    deltas = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    assert done
    assert json.loads(done[0].arguments) == json.loads(deltas if len(done) == 1 else done[0].arguments)


def test_models(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"openai-model", "anthropic-model", "sim-model", "witness-openai"} <= set(names)
    assert client.models.retrieve("openai-model").id == "openai-model"
    try:
        client.models.retrieve("no-such-model")
    except openai.NotFoundError as error:
        assert error.code == "model_unknown"
    else:
        raise AssertionError("there is no such model")


def test_unknown_fields_reach_an_engine_of_the_same_protocol(client: openai.OpenAI, world: World) -> None:
    asked = [{"role": "user", "content": "[[id=unknown-fields]]"}]
    client.chat.completions.create(model="witness-openai", messages=asked, extra_body={"x_new": {"deep": [1, 2.50, "é"]}, "top_k": 3}, seed=5)
    body = world.witness.call("unknown-fields").json()
    assert body == {"messages": asked, "model": "real", "x_new": {"deep": [1, 2.50, "é"]}, "top_k": 3, "seed": 5}


def test_requests_are_translated_for_an_anthropic_engine(client: openai.OpenAI, world: World) -> None:
    asked = [
        {"role": "system", "content": "First."},
        {"role": "user", "content": "[[id=translated]] hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "more"},
    ]
    answer = client.chat.completions.create(model="witness-anthropic", messages=asked, stop=["END"], temperature=0.5, tools=TOOLS, tool_choice="auto")
    seen = world.witness.call("translated")
    body = seen.json()
    assert seen.path == "/v1/messages"
    assert "anthropic-version" in seen.headers
    assert json.dumps(body["system"]).count("First.") == 1
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert body["stop_sequences"] == ["END"]
    assert body["max_tokens"] > 0
    assert body["tools"][0]["name"] == "weather"
    assert body["tools"][0]["input_schema"]["required"] == ["city"]
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 7, "cached tokens are part of the prompt"
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 2


async def _many(world: World) -> list[str | None]:
    import asyncio

    async with openai.AsyncOpenAI(base_url=world.gateway.v1, api_key="unused", max_retries=0, timeout=30) as client:
        calls = [client.chat.completions.create(model="sim-model", messages=HELLO, max_tokens=4) for _ in range(100)]
        return [answer.choices[0].message.content for answer in await asyncio.gather(*calls)]


def test_a_hundred_at_once(world: World) -> None:
    import asyncio

    assert all(asyncio.run(_many(world)))
