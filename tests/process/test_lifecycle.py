"""Starting, reloading, draining, crashing."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import resource
import signal
import socket
import threading
import time
import typing

import httpx
import pytest

import harness
from raw import Caller
from witness import Witness

Gateways = list[harness.Gateway]


def config_of(witness: Witness, *more: str, head: str = "") -> str:
    """A config with one engine and one model."""
    return "\n".join([head, harness.engine("e", witness.url), harness.model("real", "e/real"), *more])


def test_it_serves_with_no_config_no_key_and_no_network(tmp_path: pathlib.Path, gateways: Gateways) -> None:
    gateway = harness.Gateway(tmp_path, "")
    gateways.append(gateway)
    (first, *_) = httpx.get(gateway.v1 + "/models", timeout=10).json()["data"]
    asked = {"model": first["id"], "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
    assert httpx.post(gateway.v1 + "/chat/completions", json=asked, timeout=30).json()["choices"][0]["message"]["content"]


def test_an_open_door_to_the_world_is_refused(tmp_path: pathlib.Path, witness: Witness, gateways: Gateways) -> None:
    gateway = harness.Gateway(tmp_path, config_of(witness), "--listen", "0.0.0.0:0", ready=False)
    gateways.append(gateway)
    assert gateway.wait() == 64
    assert "key" in gateway.output(), "it says what to do"
    key = harness.add_key(tmp_path / "data", "acme")
    gateway = harness.Gateway(tmp_path, config_of(witness), "--listen", "0.0.0.0:0", ready=False)
    gateways.append(gateway)
    gateway.line(r"(?i)listening|serving|0\.0\.0\.0:[1-9]")
    assert gateway.child.poll() is None
    assert key


@pytest.mark.parametrize(
    "text",
    ["[log]\nlevel = 7", "nonsense", "[[engine]]\nname = \"a\"\nurl = \"ftp://x\"\nkind = \"openai\"", "[limits]\nbody_bites_max = 1", "[[model]]\nname = \"m\"\ntargets = [\"ghost/x\"]"],
)
def test_a_bad_config_is_refused_with_line_and_hint(tmp_path: pathlib.Path, gateways: Gateways, text: str) -> None:
    gateway = harness.Gateway(tmp_path, text, ready=False)
    gateways.append(gateway)
    assert gateway.wait() == 64
    assert "line " in gateway.output().lower() or ":1" in gateway.output() or ":2" in gateway.output() or ":3" in gateway.output(), gateway.output()
    assert harness.seawall("check", "--config", gateway.config).returncode == 64


def test_two_on_one_port_is_said_clearly(tmp_path: pathlib.Path, gateways: Gateways, witness: Witness) -> None:
    first = harness.Gateway(tmp_path / "1", config_of(witness))
    second = harness.Gateway(tmp_path / "2", config_of(witness), "--listen", first.url.split("://")[1], ready=False)
    gateways += [first, second]
    assert second.wait() != 0
    assert first.url.rsplit(":", 1)[1] in second.output()
    assert "panic" not in second.output()


def test_a_drain_is_orderly(tmp_path: pathlib.Path, witness: Witness, gateways: Gateways) -> None:
    """Readiness fails first, calls are still taken for the grace time, streams finish, then exit 0."""
    gateway = harness.Gateway(tmp_path, config_of(witness, head="[limits]\ndrain_grace_ms = 1000\ndrain_ms_max = 20000\n"))
    gateways.append(gateway)
    stream = Caller(gateway, "chat", "[[id=long tokens=100 token_ms=25]]", stream=True)
    unary = Caller(gateway, "chat", "[[id=slow first_ms=1500]]")
    stream.until(b"word", 2)
    harness.until("both run", lambda: witness.in_flight() == 2)
    ready = httpx.Client(base_url=gateway.url, timeout=5)
    assert ready.get("/readyz").status_code == 200
    gateway.signal(signal.SIGTERM)
    harness.until("readiness fails", lambda: httpx.get(gateway.url + "/readyz", timeout=5).status_code == 503, 1)
    late = httpx.post(gateway.v1 + "/chat/completions", json={"model": "real", "messages": [{"role": "user", "content": "[[id=late]]"}]}, timeout=10)
    assert late.status_code == 200, "the listener stays open for the grace time"

    def refused() -> bool:
        with contextlib.suppress(OSError):
            gateway.connect(1).close()
            return False
        return True

    harness.until("the listener closes", refused, 5)
    assert gateway.child.poll() is None, "streams are still running"
    assert stream.until(b"data: [DONE]").count(b"word") == 100
    assert unary.status() == 200
    assert gateway.wait(10) == 0


def test_a_drain_ends_at_its_deadline(tmp_path: pathlib.Path, witness: Witness, gateways: Gateways) -> None:
    gateway = harness.Gateway(tmp_path, config_of(witness, head="[limits]\ndrain_grace_ms = 100\ndrain_ms_max = 1000\n"))
    gateways.append(gateway)
    stream = Caller(gateway, "chat", "[[id=endless tokens=100000 token_ms=20]]", stream=True)
    stream.until(b"word", 2)
    began = time.monotonic()
    gateway.signal(signal.SIGTERM)
    assert gateway.wait(8) == 0
    assert time.monotonic() - began < 5
    assert b"error" in stream.rest(), "the client is told, in its stream"
    harness.until("the engine's call is ended too", lambda: witness.call("endless").left is not None)


def reload(gateway: harness.Gateway, text: str, pattern: str) -> str:
    """Changes the config, asks for a reload and waits for the line that answers."""
    since = gateway.mark()
    gateway.configure(text)
    gateway.signal(signal.SIGHUP)
    return gateway.line(pattern, 10, since)


def test_reload(tmp_path: pathlib.Path, witness: Witness, gateways: Gateways) -> None:
    """A good file replaces the config at once and whole; calls in flight keep theirs; a bad one changes nothing."""
    gateway = harness.Gateway(tmp_path, config_of(witness))
    gateways.append(gateway)
    running = Caller(gateway, "chat", "[[id=running tokens=60 token_ms=25]]", stream=True)
    running.until(b"word", 2)
    reload(gateway, "\n".join([harness.engine("other", witness.url), harness.model("fresh", "other/real")]), "(?i)reload|config")
    names = harness.until("the new model is listed", lambda: [m["id"] for m in httpx.get(gateway.v1 + "/models", timeout=5).json()["data"] if m["id"] == "fresh"])
    assert names == ["fresh"]
    assert Caller(gateway, "chat", "[[id=new]]", model="fresh").status() == 200
    assert Caller(gateway, "chat", "x", model="real").status() == 404
    assert running.until(b"data: [DONE]").count(b"word") == 60

    line = reload(gateway, "[[engine]]\nname = \"broken\"\nkind = \"opnai\"\n", "(?i)(reload|config).*")
    assert line
    gateway.line(r"(?i)opnai|kind", 5)
    assert Caller(gateway, "chat", "[[id=still]]", model="fresh").status() == 200
    assert gateway.is_ready()


def test_a_changed_file_is_noticed_without_a_signal(tmp_path: pathlib.Path, witness: Witness, gateways: Gateways) -> None:
    gateway = harness.Gateway(tmp_path, config_of(witness))
    gateways.append(gateway)
    gateway.configure(config_of(witness, harness.model("fresh", "e/real")))
    harness.until("the new model works", lambda: Caller(gateway, "chat", "x", model="fresh").status() == 200, 15, every=0.2)


# A few hundred records fit.
FILE_BYTES_MAX = 512 << 10
DAY_LIMIT_USD = 150.0
CALL_USD = 1.0
# Times that it is killed.
LIVES = 10


@pytest.mark.timeout(90)
def test_crashes_never_overspend_a_budget(tmp_path: pathlib.Path, witness: Witness, gateways: Gateways) -> None:
    """kill -9 at random moments under load: keys stay, and what was served is never over the limit."""
    config = "\n".join(
        [
            harness.engine("e", witness.url),
            # ten output tokens of the witness at 0.1 dollars
            harness.model("real", "e/real", price={"input": 0.0, "output": 100_000.0}),
            harness.tenant("acme", budget=[{"meter": "usd", "period": "day", "limit": DAY_LIMIT_USD}]),
        ]
    )
    seed = int(os.environ.get("SEAWALL_TEST_SEED", "0")) or random.randrange(1 << 32)
    print(f"seed of the crashes: SEAWALL_TEST_SEED={seed}")  # pytest shows it when the test fails
    chance, statuses = random.Random(seed), []
    key = harness.add_key(tmp_path / "data", "acme/one")
    made, revoked = [key], set[str]()
    for life in range(LIVES):
        gateway = harness.Gateway(tmp_path, config)
        gateways.append(gateway)
        over = threading.Event()

        def spend(number: int, gateway: harness.Gateway = gateway, life: int = life, over: threading.Event = over) -> None:
            turn = 0
            while not over.is_set():
                turn += 1
                with contextlib.suppress(OSError, AssertionError):
                    prompt = f"[[id=spend-{life}-{number}-{turn} tokens=10 token_ms=1]]"
                    caller = Caller(gateway, "chat", prompt, stream=turn % 2 == 0, max_tokens=10, headers={"authorization": f"Bearer {key}"})
                    statuses.append(caller.status())
                    caller.whole()
                    caller.leave()
                    if statuses[-1] == 429:
                        return

        spenders = [threading.Thread(target=spend, args=(number,), daemon=True) for number in range(4)]
        for thread in spenders:
            thread.start()
        # Keys are made and revoked meanwhile; what was answered must outlive the crash.
        made.append(harness.add_key(tmp_path / "data", f"acme/life{life}", "--name", f"life {life}"))
        if life % 3 == 0:
            revoked.add(revoke(tmp_path / "data", f"life {life}"))
        # sleeps because the random moment of death is the test
        time.sleep(chance.uniform(0.0, 0.15))  # the random point at which it dies
        gateway.kill()
        over.set()
        for thread in spenders:
            thread.join(15)
        listed = keys(tmp_path / "data")
        assert len(listed) == len(made), f"life {life}: {listed}"
        assert {row["id"] for row in listed if row["revoked"]} == revoked, f"life {life}: {listed}"
    assert 401 not in statuses, "the key outlives every crash"
    assert 200 in statuses, "it was under load"
    served_usd = sum(seen.pieces or 10 for seen in witness.calls("spend-") if seen.ended or seen.pieces) * CALL_USD / 10
    assert served_usd <= DAY_LIMIT_USD, f"{served_usd} dollars served of {DAY_LIMIT_USD}"
    gateway = harness.Gateway(tmp_path, config)
    gateways.append(gateway)
    for turn in range(200):
        if Caller(gateway, "chat", f"[[id=spend-last-{turn} tokens=10]]", max_tokens=10, headers={"authorization": f"Bearer {key}"}).status() == 429:
            break
    else:
        raise AssertionError("the budget never ends")
    total_usd = sum(10 for seen in witness.calls("spend-")) * CALL_USD / 10
    assert total_usd <= DAY_LIMIT_USD, f"{total_usd} dollars dispatched of {DAY_LIMIT_USD}"
    for number, secret in enumerate(made[1:]):
        status = Caller(gateway, "chat", "x", headers={"authorization": f"Bearer {secret}"}).status()
        assert status == (401 if number % 3 == 0 else 429), "a revoked key stays revoked, the others are known"


def keys(data: pathlib.Path) -> list[dict[str, typing.Any]]:
    """All keys of a store, revoked ones too."""
    listed = harness.seawall("key", "list", "--all", "--data", data, "--json")
    assert listed.returncode == 0, listed
    return json.loads(listed.stdout)


def revoke(data: pathlib.Path, name: str) -> str:
    """Revokes the key of that name; its id."""
    (id,) = [row["id"] for row in keys(data) if row["name"] == name]
    ran = harness.seawall("key", "revoke", "--data", data, id)
    assert ran.returncode == 0, ran
    return id


def test_a_clean_restart_keeps_what_is_left_of_a_budget(tmp_path: pathlib.Path, witness: Witness, gateways: Gateways) -> None:
    config = "\n".join(
        [
            harness.engine("e", witness.url),
            harness.model("real", "e/real", price={"input": 0.0, "output": 100_000.0}),
            harness.tenant("acme", budget=[{"meter": "usd", "period": "month", "limit": 5.0}]),
        ]
    )
    key = harness.add_key(tmp_path / "data", "acme")
    served = 0
    for life in range(5):
        gateway = harness.Gateway(tmp_path, config)
        gateways.append(gateway)
        while served < 2 * (life + 1):
            status = Caller(gateway, "chat", "[[tokens=10]]", max_tokens=10, headers={"authorization": f"Bearer {key}"}).status()
            if status == 429:
                break
            assert status == 200
            served += 1
        assert gateway.stop() == 0
    assert 4 <= served <= 5, "five dollars are five calls, over any number of restarts"


@pytest.mark.parametrize("how", ["full", "missing"])
def test_a_full_disk_does_not_stop_serving(tmp_path: pathlib.Path, witness: Witness, gateways: Gateways, how: str) -> None:
    """Records are lost and counted; calls are served."""
    if how == "missing":
        (tmp_path / "file").write_text("not a directory")
        gateway = harness.Gateway(tmp_path, config_of(witness), "--data", tmp_path / "file" / "data", ready=False)
        gateways.append(gateway)
        assert gateway.wait() in (73, 74)
        assert "panic" not in gateway.output()
        return

    def small_files() -> None:
        # writes past this size fail with EFBIG, as on a full disk; the signal is ignored
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, FILE_BYTES_MAX))

    gateway = harness.Gateway(tmp_path, config_of(witness), preexec_fn=small_files)
    gateways.append(gateway)

    def dropped() -> float:
        return sum(value for name, value in gateway.metrics().items() if name.startswith("seawall_dropped") and "record" in name)

    with httpx.Client(base_url=gateway.v1, timeout=20) as client:
        for turn in range(3_000):
            answer = client.post("/chat/completions", json={"model": "real", "messages": [{"role": "user", "content": "x"}]})
            assert answer.status_code == 200, answer.text
            if turn % 250 == 249 and dropped() > 0:
                break
    harness.until("lost records are counted", lambda: dropped() > 0)
    assert gateway.is_alive()


def test_keys_are_listed_without_their_secrets(tmp_path: pathlib.Path) -> None:
    key = harness.add_key(tmp_path / "data", "acme/search", "--name", "night job")
    listed = harness.seawall("key", "list", "--data", tmp_path / "data", "--json")
    assert listed.returncode == 0
    assert key not in listed.stdout
    assert "acme/search" in listed.stdout
    assert "night job" in listed.stdout
    json.loads(listed.stdout)
    for file in (tmp_path / "data").rglob("*"):
        if file.is_file():
            assert not file.stat().st_mode & 0o077, f"{file} is for its owner only"
    assert not (tmp_path / "data").stat().st_mode & 0o077


def test_commands_for_scripts() -> None:
    version = json.loads(harness.seawall("version", "--json").stdout)
    assert version["version"]
    assert harness.seawall("serv").returncode == 64
    assert "seawall" in harness.seawall("completions", "bash").stdout
    gone = socket.socket()
    gone.bind(("127.0.0.1", 0))
    missing = harness.seawall("models", "--url", f"http://127.0.0.1:{gone.getsockname()[1]}")
    assert missing.returncode == 69
    assert "serve" in missing.stderr + missing.stdout
