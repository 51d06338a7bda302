"""Agents whose definition has a schedule: a run begins by itself when its time comes."""

from __future__ import annotations

import pathlib
import time
import typing

import pytest

import harness
from agents_rig import Town, kind

# The shortest that five fields allow.
EVERY_MINUTE = '[schedule]\ncron = "* * * * *"\ntask = "script: say It is time."\n'


@pytest.mark.timeout(150)
def test_a_schedule_fires_on_the_minute_and_once(tmp_path: pathlib.Path) -> None:
    """Also where the process was killed before its time came."""
    town = Town(tmp_path, {"beat": kind("store.get", EVERY_MINUTE), "rest": kind("store.get")}, kit=False)
    try:
        town.crash()

        def fired() -> list[dict[str, typing.Any]]:
            return town.get("/seawall/runs", type="beat")["runs"]

        runs = harness.until("it fires", fired, 75 - time.time() % 60, every=0.2)
        run = town.over(runs[0]["run"])
        assert run["output"] == "It is time."
        assert run["began_ms"] % 60_000 < 5_000, "on the minute"
        minutes = [run["began_ms"] // 60_000 for run in fired()]
        assert len(minutes) == len(set(minutes)), "once a minute"
        assert town.get("/seawall/runs", type="rest")["runs"] == []
        town.verified()
    finally:
        town.kill()
