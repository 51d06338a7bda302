#!/usr/bin/env python3
"""An MCP server made with the official SDK (PyPI `mcp`), so that agreement with our own `mcp_server.py` is not all.

    mcp_official.py [--http PORT] [--dir DIR]

Without `--http` it speaks over standard input and output. Tools: `add` (read), `put` (idempotent), `pay` (irreversible;
appends to `pay.log`), `slow`, `fail`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pathlib

from mcp.server.mcpserver import Context, MCPServer
from mcp_types import ToolAnnotations

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--http", type=int, metavar="PORT")
parser.add_argument("--dir", help="where the logs go")
options = parser.parse_args()

server = MCPServer("mcp_official.py", log_level="ERROR")
stored: dict[str, str] = {}


@server.tool(annotations=ToolAnnotations(readOnlyHint=True))
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool(annotations=ToolAnnotations(idempotentHint=True))
def put(name: str, value: str) -> str:
    """Stores a value."""
    stored[name] = value
    return "stored"


@server.tool(annotations=ToolAnnotations(destructiveHint=True))
def pay(to: str, amount: int, context: Context) -> str:
    """Pays somebody."""
    meta = context.request_context.meta or {}
    if options.dir:
        with pathlib.Path(options.dir, "pay.log").open("a") as out:
            line = {"key": meta.get("seawall/idempotency-key", ""), "to": to, "amount": amount}
            out.write(json.dumps(line, sort_keys=True) + "\n")
    return "paid"


@server.tool(annotations=ToolAnnotations(readOnlyHint=True))
async def slow(ms: int) -> str:
    """Waits."""
    # sleeps because being slow is what this tool is for
    await asyncio.sleep(ms / 1000)
    return "slept"


@server.tool()
def fail(why: str) -> str:
    """Fails."""
    raise ValueError(why)


if __name__ == "__main__":
    if options.http is None:
        server.run()
    else:
        server.run("streamable-http", port=options.http)
