"""Paths that Seawall does not know are carried unchanged, both ways, to an OpenAI-compatible engine."""

from __future__ import annotations

import hashlib
import json
import typing

import httpx
import openai

from conftest import World


def test_the_whole_request_arrives(world: World) -> None:
    answer = httpx.post(world.gateway.v1 + "/anything/at/all?x=1&y=%20z", content=b"\x00\xff raw", headers={"content-type": "x/y", "x-mine": "kept"}, timeout=20)
    said = answer.json()
    assert said["path"] == "/v1/anything/at/all?x=1&y=%20z"
    assert said["sha256"] == hashlib.sha256(b"\x00\xff raw").hexdigest()
    seen = world.witness.calls()[-1]
    assert seen.headers["content-type"] == "x/y"
    assert "authorization" not in seen.headers, "the client's key stays here"
    assert answer.headers["x-seawall-trace"]


def test_every_method_is_carried(world: World) -> None:
    for method in ("GET", "POST", "DELETE", "PATCH", "PUT"):
        answer = httpx.request(method, world.gateway.v1 + f"/things?[[id={method}]]", timeout=20)
        assert answer.json()["method"] == method


def test_uploads_stream(world: World, client: openai.OpenAI) -> None:
    piece, pieces = b"0123456789abcdef" * 4096, 512

    def parts() -> typing.Iterator[bytes]:
        for _ in range(pieces):
            yield piece

    before = world.gateway.rss_bytes()
    answer = httpx.post(world.gateway.v1 + "/uploads/big", content=parts(), timeout=60).json()
    assert answer["bytes"] == len(piece) * pieces
    assert answer["sha256"] == hashlib.sha256(piece * pieces).hexdigest()
    assert world.gateway.rss_bytes() - before < len(piece) * pieces / 2, "a 32 MiB upload is not held in memory"


def test_uploads_over_the_limit_are_refused(world: World) -> None:
    with world.gateway.connect() as raw:
        raw.sendall(b"POST /v1/uploads/big HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 1073741824\r\n\r\nabc")
        head = raw.recv(4096)
    assert head.startswith(b"HTTP/1.1 413"), head


def test_files_and_images(client: openai.OpenAI, world: World) -> None:
    file = client.files.with_raw_response.create(file=("a.jsonl", b'{"a": 1}\n' * 100), purpose="batch")
    assert file.status_code == 200
    assert world.witness.calls()[-1].headers["content-type"].startswith("multipart/form-data")
    assert b'{"a": 1}' in world.witness.calls()[-1].body
    image = client.images.with_raw_response.generate(prompt="a wall by the sea", model="gpt-image-1")
    assert image.status_code == 200
    assert world.witness.calls()[-1].path == "/v1/images/generations"
    assert world.witness.calls()[-1].json()["model"] == "gpt-image-1", "a model that is not ours is left alone"


def test_answers_stream(world: World) -> None:
    path = world.gateway.v1 + "/events"
    with httpx.stream("POST", path, content=b"[[sse=1 tokens=5 token_ms=30]]", timeout=20) as answer:
        pieces = [piece for piece in answer.iter_raw() if piece]
    assert len(pieces) >= 3, "pieces arrive as they are sent"
    assert b"".join(pieces).endswith(b"data: [DONE]\n\n")


def test_paths_that_hide_a_served_one_reach_no_engine(world: World) -> None:
    seen = len(world.witness.calls())
    for path in ("/v1/%63hat/completions", "/v1/%2e%2e/admin", "/v1/chat%2Fcompletions", "/v1/x/%5c..%5cadmin"):
        with world.gateway.connect() as raw:
            raw.sendall(f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}".encode())
            assert raw.recv(4096).startswith(b"HTTP/1.1 404"), path
    assert len(world.witness.calls()) == seen


def test_an_answer_of_known_length_is_recorded_as_done(world: World) -> None:
    for _ in range(3):
        answer = httpx.get(world.gateway.v1 + "/files/one", timeout=20)
        assert answer.status_code == 200 and int(answer.headers["content-length"]) == len(answer.content)
        line = world.gateway.line('^{.*"trace":"' + answer.headers["x-seawall-trace"])
        assert json.loads(line)["outcome"] == "done", line
