"""The real binary under bad luck: crashes, signals, bad clients, bad engines.

The harness and the witness engine are those of `tests/conformance`.
"""

from __future__ import annotations

import pathlib
import sys
import typing

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "conformance"))

import harness  # noqa: E402
from witness import Witness  # noqa: E402


@pytest.fixture
def witness() -> typing.Iterator[Witness]:
    """An engine that does as the prompt says."""
    witness = Witness()
    yield witness
    witness.close()


@pytest.fixture
def gateways() -> typing.Iterator[list[harness.Gateway]]:
    """Gateways that the test started; ended after it, however it went."""
    started: list[harness.Gateway] = []
    yield started
    for gateway in started:
        gateway.kill()
