"""A disk that is full: calls are served, budgets are kept, and all is well once there is room."""

from __future__ import annotations

import contextlib
import json
import pathlib
import signal
import time
import typing

import httpx
import pytest

import disks
import harness
from witness import Witness

Gateways = list[harness.Gateway]
DAY_LIMIT_USD = 200.0


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> typing.Iterator[disks.Mounted | disks.Limited]:
    """A small one."""
    with contextlib.closing(disks.small(tmp_path)) as disk:
        yield disk


class World(typing.NamedTuple):
    """A gateway on the small disk, with a key of a tenant without a budget and one of a tenant with."""

    gateway: harness.Gateway
    free: str
    paying: str


def config_of(witness: Witness) -> str:
    """A dollar a call, and a short patience with the disk."""
    return "\n".join(
        [
            "[queue]\nwait_ms_max = 1000\n",
            harness.engine("e", witness.url),
            harness.model("real", "e/real", price={"input": 0.0, "output": 100_000.0}),
            harness.tenant("acme", budget=[{"meter": "usd", "period": "day", "limit": DAY_LIMIT_USD}]),
        ]
    )


def serve(folder: pathlib.Path, disk: disks.Mounted | disks.Limited, witness: Witness, gateways: Gateways) -> harness.Gateway:
    """A gateway whose data is on that disk."""
    gateway = harness.Gateway(folder, config_of(witness), "--data", disk.data, **disk.popen())
    gateways.append(gateway)
    return gateway


@pytest.fixture
def world(tmp_path: pathlib.Path, disk: disks.Mounted | disks.Limited, witness: Witness, gateways: Gateways) -> World:
    """With room at first."""
    free, paying = harness.add_key(disk.data, "guest"), harness.add_key(disk.data, "acme")
    return World(serve(tmp_path, disk, witness, gateways), free, paying)


def ask(gateway: harness.Gateway, key: str, name: str) -> httpx.Response:
    """One call of a dollar."""
    body = {"model": "real", "max_tokens": 10, "messages": [{"role": "user", "content": f"[[id={name} tokens=10]]"}]}
    return httpx.post(gateway.v1 + "/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}, timeout=20)


def admin_metrics(gateway: harness.Gateway, name: str) -> float:
    """The sum of a metric's series that are about records."""
    return sum(value for series, value in gateway.metrics().items() if series.startswith(name) and "record" in series)


def spend_until_refused(world: World, tag: str) -> httpx.Response:
    """Uses what was drawn before; the first answer that is no longer a yes."""
    for turn in range(int(DAY_LIMIT_USD) + 1):
        answer = ask(world.gateway, world.paying, f"{tag}-{turn}")
        if answer.status_code != 200:
            return answer
    raise AssertionError("more was spent than there is, on a disk that takes nothing")


def test_full_and_free_again(world: World, disk: disks.Mounted | disks.Limited, witness: Witness) -> None:
    """Who has no budget notices nothing; who has one waits and is told why; records lost are counted."""
    gateway = world.gateway
    assert ask(gateway, world.free, "before").status_code == 200
    assert ask(gateway, world.paying, "pay-before").status_code == 200
    disk.fill(gateway)

    def lost() -> float:
        answer = ask(gateway, world.free, "meanwhile")
        assert answer.status_code == 200, answer.text
        return admin_metrics(gateway, "seawall_dropped")

    harness.until("lost records are counted", lost, 15)
    refused = spend_until_refused(world, "pay-full")
    assert refused.status_code in (429, 503), refused.text
    error = refused.json()["error"]
    assert error["code"] == "queue_timeout", error
    assert "retry-after" in refused.headers
    assert "budget" in refused.text or "budget" in str(refused.headers), "the cause of its waiting is named"
    assert gateway.is_alive() and gateway.is_ready(), "others are served, so it takes calls"
    assert "disk is full" in gateway.output() or "disk" in gateway.output().lower(), "the operator is told"
    lines = sum("disk" in line.lower() for line in gateway.output().splitlines())
    assert lines < 50, "once, not with every write that fails"
    disk.free(gateway)
    harness.until("budgets can be drawn again", lambda: ask(gateway, world.paying, "pay-after").status_code == 200, 15, every=0.1)
    before = admin_metrics(gateway, "seawall_dropped")
    assert ask(gateway, world.free, "after").status_code == 200
    key = harness.add_key(disk.data, "late")
    harness.until("a new key works", lambda: ask(gateway, key, "late").status_code == 200, 10, every=0.1)
    assert admin_metrics(gateway, "seawall_dropped") == before, "nothing is lost any more"
    gateway.signal(signal.SIGTERM)
    assert gateway.wait(10) == 0


def test_a_stop_while_it_is_full(tmp_path: pathlib.Path, world: World, disk: disks.Mounted | disks.Limited, witness: Witness, gateways: Gateways) -> None:
    """Ends in time with 0; what was spent is never forgotten to the operator's cost."""
    for turn in range(5):
        assert ask(world.gateway, world.paying, f"pay-{turn}").status_code == 200
    disk.fill(world.gateway)
    spend_until_refused(world, "pay-full")
    began = time.monotonic()
    world.gateway.signal(signal.SIGTERM)
    assert world.gateway.wait(15) == 0
    assert time.monotonic() - began < 10
    assert "panic" not in world.gateway.output()
    if isinstance(disk, disks.Mounted):
        disk.free(None)
    again = serve(tmp_path, disk, witness, gateways)
    for turn in range(int(DAY_LIMIT_USD) + 1):
        if ask(again, world.paying, f"pay-again-{turn}").status_code == 429:
            break
    else:
        raise AssertionError("the budget never ends")
    assert len(witness.calls("pay-")) <= DAY_LIMIT_USD, "a dollar a call, over both lives"


def test_a_start_on_a_full_disk(tmp_path: pathlib.Path, disk: disks.Mounted | disks.Limited, witness: Witness, gateways: Gateways) -> None:
    """Where not even a new store fits it is said, with a code for files that cannot be made; no panic."""
    if isinstance(disk, disks.Limited):
        pytest.skip("a limit on file sizes holds for a running process only: this needs the right to mount")
    disk.fill(None)
    gateway = harness.Gateway(tmp_path, config_of(witness), "--data", disk.data, ready=False)
    gateways.append(gateway)
    assert gateway.wait() in (73, 74), gateway.output()
    assert "panic" not in gateway.output()
    assert any(word in gateway.output().lower() for word in ("full", "no space")), gateway.output()
    added = harness.seawall("key", "add", "--data", disk.data, "--tenant", "acme", "--json")
    assert added.returncode in (73, 74), added
    assert "sk-sw-" not in added.stdout, "a key that was not stored is not shown"
    disk.free(None)
    key = harness.add_key(disk.data, "acme")
    assert ask(serve(tmp_path, disk, witness, gateways), key, "fresh").status_code == 200
    assert json.loads(harness.seawall("key", "list", "--data", disk.data, "--json").stdout)
