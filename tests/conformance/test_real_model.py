"""A real model server behind the gateway: real weights (random ones, written here), real tokens."""

from __future__ import annotations

import socket
import sys
import typing

import anthropic
import httpx
import openai
import pytest

import harness
import tiny_model

ASKED = [{"role": "user", "content": "the tide turns"}]
# Loading is quick; importing the server's Python packages takes seconds.
SERVER_START_S_MAX = 60.0


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[harness.Gateway]:
    """llama-cpp-python's server on a tiny model, and a gateway that discovers it."""
    folder = tmp_path_factory.mktemp("real")
    tiny_model.write(folder / "tiny.gguf")
    port = free_port()
    server = harness.Process(
        [sys.executable, "-m", "llama_cpp.server", "--model", folder / "tiny.gguf", "--model_alias", "tiny", "--n_ctx", 1024]
        + ["--n_threads", 1, "--chat_format", "chatml", "--host", "127.0.0.1", "--port", port]
    )
    url = f"http://127.0.0.1:{port}"

    def up() -> bool:
        assert server.child.poll() is None, server.output()
        try:
            return httpx.get(url + "/v1/models", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    harness.until("the model server answers", up, SERVER_START_S_MAX, every=0.1)
    gateway = harness.Gateway(folder / "gateway", "", "--engine", url)
    yield gateway
    gateway.stop()
    server.kill()


def free_port() -> int:
    """A port that is free now: the server cannot choose one itself and say which."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return holder.getsockname()[1]


def words(text: str | None) -> list[str]:
    """The words of an answer, all of the model's vocabulary."""
    found = (text or "").split()
    assert found, "the model said something"
    assert set(found) <= set(tiny_model.WORDS), found
    return found


def test_it_is_discovered(real: harness.Gateway) -> None:
    assert "tiny" in [model.id for model in openai.OpenAI(base_url=real.v1, api_key="x").models.list()]


def test_chat(real: harness.Gateway) -> None:
    client = openai.OpenAI(base_url=real.v1, api_key="x", max_retries=0)
    answer = client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=16)
    assert len(words(answer.choices[0].message.content)) == 16
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_chat_streams(real: harness.Gateway) -> None:
    client = openai.OpenAI(base_url=real.v1, api_key="x", max_retries=0)
    chunks = list(client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=16, stream=True))
    assert len(words("".join(chunk.choices[0].delta.content or "" for chunk in chunks))) == 16
    assert chunks[-1].choices[0].finish_reason == "length"


def test_completions(real: harness.Gateway) -> None:
    client = openai.OpenAI(base_url=real.v1, api_key="x", max_retries=0)
    assert len(words(client.completions.create(model="tiny", prompt="the tide", max_tokens=8).choices[0].text)) == 8


def test_responses_and_messages_are_translated(real: harness.Gateway) -> None:
    client = openai.OpenAI(base_url=real.v1, api_key="x", max_retries=0)
    words(client.responses.create(model="tiny", input="the tide", max_output_tokens=16).output_text)
    claude = anthropic.Anthropic(base_url=real.url, api_key="x", max_retries=0)
    with claude.messages.stream(model="tiny", messages=ASKED, max_tokens=16) as stream:
        words("".join(stream.text_stream))
        assert stream.get_final_message().stop_reason == "max_tokens"


def test_what_it_costs_is_recorded(real: harness.Gateway) -> None:
    client = openai.OpenAI(base_url=real.v1, api_key="x", max_retries=0)
    before = sum(value for name, value in real.metrics().items() if "token" in name)
    list(client.chat.completions.create(model="tiny", messages=ASKED, max_tokens=16, stream=True))
    harness.until("tokens are counted", lambda: sum(value for name, value in real.metrics().items() if "token" in name) > before)
