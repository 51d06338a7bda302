"""One gateway for the whole suite, with every kind of engine behind it."""

from __future__ import annotations

import dataclasses
import pathlib
import typing

import anthropic
import openai
import pytest

import harness
from witness import Witness

# How the simulated engine is spoken to: the same engine under each engine kind.
SIM_KINDS = {
    "openai": {"kind": "openai", "speaks": ["chat", "completions", "embeddings"], "pass_through": False},
    "anthropic": {"kind": "anthropic"},
    "sim": {"kind": "sim", "pass_through": False},
}


@dataclasses.dataclass
class World:
    """What runs: the gateway and what stands behind it."""

    gateway: harness.Gateway
    sim: harness.Sim
    witness: Witness


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[World]:
    """The gateway with a simulated engine under three kinds and a witness under two."""
    sim, witness = harness.Sim("--seed", 7, "--first-ms", 5, "--token-ms", 1), Witness()
    config = ["[limits]\nbody_bytes_max = 4194304\nupload_bytes_max = 67108864\n"]
    for name, settings in SIM_KINDS.items():
        config.append(harness.engine(f"sim-{name}", sim.url, **settings))
        config.append(harness.model(f"{name}-model", f"sim-{name}/sim-small"))
        config.append(harness.model(f"{name}-long", f"sim-{name}/sim-small?output=40"))
    config.append(harness.engine("witness", witness.url, speaks=["chat", "completions", "embeddings"], pass_through=True))
    config.append(harness.engine("witness-a", witness.url, kind="anthropic"))
    config.append(harness.model("witness-openai", "witness/real"))
    config.append(harness.model("witness-anthropic", "witness-a/real"))
    gateway = harness.Gateway(tmp_path_factory.mktemp("gateway"), "\n".join(config))
    yield World(gateway, sim, witness)
    gateway.stop()
    sim.stop()


@pytest.fixture(params=list(SIM_KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Each engine kind in turn."""
    return request.param


@pytest.fixture(scope="session")
def client(world: World) -> typing.Iterator[openai.OpenAI]:
    """The official client, told not to hide a failure behind a retry."""
    with openai.OpenAI(base_url=world.gateway.v1, api_key="unused", max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def claude(world: World) -> typing.Iterator[anthropic.Anthropic]:
    """The official Anthropic client, likewise."""
    with anthropic.Anthropic(base_url=world.gateway.url, api_key="unused", max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture(scope="session")
def picture() -> str:
    """A one-pixel PNG as base64."""
    return "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture(scope="session")
def cache() -> pathlib.Path:
    """A folder that outlives the run."""
    harness.CACHE.mkdir(parents=True, exist_ok=True)
    return harness.CACHE
