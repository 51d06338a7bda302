#!/usr/bin/env python3
"""The tool server that the support example asks for: `lookup` and `refund`, each noted on disk with its arguments.

    crm_server.py --dir DIR
"""

from __future__ import annotations

import argparse
import json
import sys
import typing

import mcp_server

mcp_server.TOOLS[:] = [
    mcp_server.tool("lookup", "Looks up a customer and their orders.", {"customer": "string"}, readOnlyHint=True),
    mcp_server.tool("refund", "Refunds an order.", {"order": "string", "amount": "number"}, destructiveHint=True),
]


class Crm(mcp_server.Server):
    """Customers, and money that goes back to them."""

    def tool_lookup(self, arguments: dict[str, typing.Any], key: str, **_: typing.Any) -> str:
        self.note("lookup", arguments)
        return json.dumps({"customer": arguments["customer"], "orders": [{"order": "o-1", "days": 3}]})

    def tool_refund(self, arguments: dict[str, typing.Any], key: str, **_: typing.Any) -> str:
        self.note("refund", {"key": key, **arguments})
        return "refunded"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", required=True)
    options = parser.parse_args(sys.argv[1:], argparse.Namespace(lifecycle="both", page=0, rate=0.0, seed=1, bearer="", sse=False))
    mcp_server.serve_stdio(Crm(options))
