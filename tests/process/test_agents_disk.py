"""Agents on a disk that fills up: nothing new begins before it is full, what is under way waits and is lost nowhere, and all
goes on by itself once there is room."""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
import typing

import httpx
import pytest

import disks
import harness
from agents_rig import Town

KINDS = {"worker": 'instructions = "x"\nmodel = "sim-small"\ntools = ["kit.*"]\n'}
# Its last answer is too large for a record, so that a file of its own has to be written.
WORK = 'script: call kit.slow {"ms":1500}; call kit.put {"name":"%s","value":"v"}; call kit.big {"bytes":100000}; say all done'


PUT = 'script: call kit.slow {"ms":1500}; call kit.put {"name":"%s","value":"v"}; say all done'


class SmallTown(Town):
    """Agents whose data is on a disk that can be filled."""

    def __init__(self, folder: pathlib.Path, disk: disks.Mounted | disks.Limited) -> None:
        self.disk = disk
        super().__init__(folder, KINDS)

    def begin(self) -> None:
        """Starts on what is on the disk."""
        self.gateway = harness.Gateway(self.folder, self.config, "--data", self.disk.data, **self.disk.popen())
        self.client = httpx.Client(base_url=self.gateway.url, timeout=30)
        harness.until("all tools are known", lambda: not any(kind["unmet"] for kind in self.get("/seawall/agents")["types"]))

    def refusal(self) -> httpx.Response | None:
        """The answer to a run that is not begun; one that is waits for the disk, or ends at once."""
        try:
            answer = self.client.post("/seawall/agents/worker/late/runs", json={"task": "script: say late"}, timeout=2)
        except httpx.TimeoutException:
            return None
        return None if answer.is_success else answer


@pytest.fixture
def town(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> typing.Iterator[SmallTown]:
    """With room at first; a twentieth of it is enough for some turns."""
    monkeypatch.setattr(disks, "DISK_BYTES", 32 << 20)
    with contextlib.closing(disks.small(tmp_path)) as disk, contextlib.closing(SmallTown(tmp_path / "town", disk)) as town:
        yield town


def under_way(town: SmallTown, count: int, script: str = WORK) -> list[str]:
    """So many runs whose first tool is at work."""
    before = len(town.done("calls"))
    runs = [town.start(f"worker/{n}", script % n) for n in range(count)]
    harness.until("their tools are at work", lambda: len(town.done("calls")) >= before + count, 20)
    return runs


def all_done_once(town: SmallTown, runs: list[str]) -> None:
    """Each ended well, and did once what it had to do."""
    for run in runs:
        assert town.over(run, 30)["state"] == "done"
    put = [line["name"] for line in town.done("put")]
    assert sorted(put) == sorted(map(str, range(len(runs))))
    town.verified()


def test_nothing_new_begins_before_it_is_full(town: SmallTown) -> None:
    """The last of the room is for what is under way."""
    if not isinstance(town.disk, disks.Mounted):
        pytest.skip("needs a file system of its own")
    runs = under_way(town, 1, PUT)
    disk = os.statvfs(town.disk.folder)
    left = disk.f_blocks * disk.f_frsize // 20 - (8 << 10)
    with town.disk.ballast.open("wb") as file:
        # Files grow as it is filled, and what they hold of it is theirs.
        while (more := os.statvfs(town.disk.folder).f_bavail * disk.f_frsize - left) > 0:
            file.write(b"\0" * min(more, 64 << 10))
            file.flush()
    refused = harness.until("new runs are refused", town.refusal, 10, every=0.5)
    assert refused.status_code == 503, refused.text
    assert "disk" in refused.text, refused.text
    assert town.over(runs[0], 20)["state"] == "done", "it has what is left"
    town.disk.free(None)
    harness.until("new runs begin", lambda: town.refusal() is None, 10, every=0.2)
    all_done_once(town, runs)


def test_full_and_free_again(town: SmallTown) -> None:
    """Whoever is at work waits, however long that takes; nobody is blamed, and nothing is done twice."""
    runs = under_way(town, 3)
    town.disk.fill(town.gateway)
    gateway = typing.cast(harness.Gateway, town.gateway)
    refused = harness.until("new runs are refused", town.refusal, 20, every=0.5)
    assert "disk" in refused.text, refused.text
    # sleeps because they are to wait for longer than their tools take
    time.sleep(4)
    for run in runs:
        assert town.run(run)["state"] not in ("failed", "cancelled"), "it waits"
    assert gateway.is_alive() and gateway.is_ready(), "calls that keep nothing are served"
    told = [line for line in gateway.output().splitlines() if "disk" in line.lower()]
    assert 0 < len(told) < 20, "told, and not with every try"
    town.disk.free(town.gateway)
    all_done_once(town, runs)
    assert town.over(town.start("worker/after", "script: say back"), 10)["state"] == "done"
    standing = town.get("/seawall/agents")
    assert "quarantined" not in str(standing) or not any(kind.get("agents", {}).get("quarantined") for kind in standing["types"])
