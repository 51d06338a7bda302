"""The world that agents act on, and the truth about what was done in it.

    world.py [--port 0] [--rate 0.3] [--seed 1]

Tools over HTTP: `/put` (idempotent by `idempotency-key`), `/flaky` (the same, and fails at the rate: half of the
times before it did it and half after), `/pay` (irreversible: done when it arrives, answered later), `/slow` (a read),
`/find` (a costly read). It outlives the crashes of whoever calls it. `GET /truth` says what was really done: by
idempotency key, and by the name that the caller gave the work, which is the same however often it is begun anew.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import random
import typing

ANSWERS = {200: b"OK", 404: b"Not Found", 503: b"Service Unavailable"}


class World:
    """What was done."""

    def __init__(self, rate: float, seed: int) -> None:
        self.rate, self.random = rate, random.Random(seed)
        self.arrived: collections.Counter[str] = collections.Counter()
        self.keys: set[str] = set()
        self.done: dict[str, collections.Counter[str]] = {tool: collections.Counter() for tool in ("put", "flaky", "pay", "find")}
        self.pays: list[dict[str, str]] = []
        self.in_flight: collections.Counter[str] = collections.Counter()

    def truth(self) -> dict[str, typing.Any]:
        """Counts, and what was done more than once."""
        return {
            "arrived": self.arrived,
            "done": {tool: sum(names.values()) for tool, names in self.done.items()},
            "names": {tool: len(names) for tool, names in self.done.items()},
            "twice": {tool: {name: count for name, count in names.items() if count > 1} for tool, names in self.done.items()},
            "in_flight": self.in_flight,
            "pays": self.pays,
        }

    async def act(self, tool: str, said: dict[str, typing.Any], key: str) -> tuple[int, str]:
        """Does one call: status and answer."""
        self.arrived[tool] += 1
        self.in_flight[tool] += 1
        try:
            fails = tool == "flaky" and self.random.random() < self.rate
            if fails and self.random.random() < 0.5:
                return 503, '{"error":"out of order"}'
            if tool in ("put", "flaky"):
                fresh = key not in self.keys
                self.keys.add(key)
                self.done[tool][str(said["name"])] += fresh
            if tool == "pay":
                self.done[tool][str(said["name"])] += 1
                self.pays.append({"key": key, "name": str(said["name"])})
            if tool == "find":
                self.done[tool][str(said["name"])] += 1
            if said.get("ms"):
                await asyncio.sleep(said["ms"] / 1000)
            return (503, '{"error":"answered too late"}') if fails else (200, json.dumps({"done": said.get("name", "")}))
        finally:
            self.in_flight[tool] -= 1


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as far as a tool needs it."""

    def __init__(self, world: World) -> None:
        self.world, self.buffer, self.tasks = world, b"", set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = typing.cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, rest = self.buffer.split(b"\r\n\r\n", 1)
            lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
            length = int(headers.get("content-length", 0))
            if len(rest) < length:
                return
            body, self.buffer = rest[:length], rest[length:]
            self.serve(lines[0].split(" ")[1].lstrip("/"), body, headers.get("idempotency-key", ""))

    def serve(self, tool: str, body: bytes, key: str) -> None:
        if tool == "truth":
            return self.reply(200, json.dumps(self.world.truth()))
        if tool not in ("put", "flaky", "pay", "find", "slow"):
            return self.reply(404, "{}")
        task = asyncio.ensure_future(self.work(tool, json.loads(body or b"{}"), key))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def work(self, tool: str, said: dict[str, typing.Any], key: str) -> None:
        self.reply(*await self.world.act(tool, said, key))

    def reply(self, status: int, body: str) -> None:
        text = body.encode()
        self.transport.write(b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (status, ANSWERS[status], len(text), text))


async def serve(options: argparse.Namespace) -> None:
    """Serves until it is ended."""
    world = World(options.rate, options.seed)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(world), "127.0.0.1", options.port, backlog=4096)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(serve(parser.parse_args()))
