"""Is `mcp_server.py`, the fake that other tests rely on, a true MCP server? The official client (PyPI `mcp`) says."""

from __future__ import annotations

import asyncio
import json
import pathlib
import subprocess
import sys
import typing

import mcp
import pytest

SERVER = str(pathlib.Path(__file__).with_name("mcp_server.py"))
LIFECYCLES = [("auto", "stateless", "2026-07-28"), ("legacy", "session", "2025-11-25"), ("auto", "both", "2026-07-28")]


def logged(folder: pathlib.Path, log: str) -> list[dict[str, typing.Any]]:
    path = folder / f"{log}.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def use(target: typing.Any, mode: typing.Any, version: str, folder: pathlib.Path) -> None:
    async with mcp.Client(target, mode=mode, read_timeout_seconds=20) as client:
        assert client.protocol_version == version
        names, cursor = [], None
        while True:
            page = await client.list_tools(cursor=cursor)
            names += [tool.name for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert names[:3] == ["add", "put", "pay"] and len(names) == 10
        added = await client.call_tool("add", {"a": 2, "b": 3})
        assert added.content[0].text == "5" and not added.is_error
        refused = await client.call_tool("ask", {"code": 7})
        assert refused.is_error
        with pytest.raises(mcp.MCPError):
            await client.call_tool("none", {})
        paid = await client.call_tool("pay", {"to": "a", "amount": 1}, meta={"seawall/idempotency-key": "k1"})
        assert paid.content[0].text == "paid"
    assert logged(folder, "pay") == [{"key": "k1", "to": "a", "amount": 1}]


@pytest.mark.parametrize(("mode", "lifecycle", "version"), LIFECYCLES)
def test_the_official_client_agrees_over_stdio(mode: str, lifecycle: str, version: str, tmp_path: pathlib.Path) -> None:
    args = [SERVER, "--lifecycle", lifecycle, "--dir", str(tmp_path), "--page", "4"]
    target = mcp.StdioServerParameters(command=sys.executable, args=args)
    asyncio.run(use(target, mode, version, tmp_path))


@pytest.mark.parametrize("extra", [[], ["--sse"]])
@pytest.mark.parametrize(("mode", "lifecycle", "version"), LIFECYCLES)
def test_the_official_client_agrees_over_http(
    mode: str, lifecycle: str, version: str, extra: list[str], tmp_path: pathlib.Path
) -> None:
    args = [sys.executable, SERVER, "--http", "0", "--lifecycle", lifecycle, "--dir", str(tmp_path), "--page", "4", *extra]
    with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = process.stdout.readline().removeprefix("port ").strip()
            asyncio.run(use(f"http://127.0.0.1:{port}/mcp", mode, version, tmp_path))
        finally:
            process.kill()
