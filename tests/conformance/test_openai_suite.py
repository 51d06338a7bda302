"""The openai client's own API test suite, straight at a mock and through the gateway.

The suite comes with the client's source distribution, of the version that is installed. It
asserts that every method of the SDK sends what the API takes and parses what it answers.
The bar: whatever passes straight at the mock passes through the gateway too.
"""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import typing
import xml.etree.ElementTree

import pytest

import harness

# Everything of the suite that is HTTP under /v1 of an inference API. Left out: organisation
# administration (another key, not an engine's), and the websocket APIs.
PARTS = """audio chat completions containers conversations embeddings evals files fine_tuning images models
moderations responses skills test_batches.py test_completions.py test_containers.py test_conversations.py
test_embeddings.py test_evals.py test_files.py test_images.py test_models.py test_moderations.py test_responses.py
test_skills.py test_uploads.py test_vector_stores.py test_videos.py uploads vector_stores beta/threads
beta/test_assistants.py beta/test_threads.py""".split()
# Names of models that the suite asks for.
MODELS = ["gpt-6-astra", "gpt-5.4", "gpt-4o", "gpt-4o-mini", "gpt-3.5-turbo-instruct", "text-embedding-3-small", "model", "string"]
RUN_S_MAX = 240


@pytest.fixture(scope="module")
def suite(cache: pathlib.Path) -> pathlib.Path:
    """The unpacked source of the installed client, kept between runs."""
    version = importlib.metadata.version("openai")
    folder = cache / f"openai-{version}"
    if not (folder / "tests" / "conftest.py").exists():
        fresh = cache / f"openai-{version}.{os.getpid()}"
        fresh.mkdir(parents=True)
        fetch = ["pip", "download", "--quiet", "--no-deps", "--no-binary", "openai", "--dest", str(fresh), f"openai=={version}"]
        subprocess.run([sys.executable, "-m", *fetch], check=True, timeout=RUN_S_MAX)
        (archive,) = fresh.glob("openai-*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(fresh, filter="data")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(fresh / f"openai-{version}", folder)
        shutil.rmtree(fresh)
    return folder


class Run:
    """One run of the suite against an address."""

    def __init__(self, suite: pathlib.Path, base_url: str, report: pathlib.Path) -> None:
        self.report = report
        parts = [str(path) for part in PARTS if (path := suite / "tests" / "api_resources" / part).exists()]
        assert len(parts) > 20, "the suite's layout has changed"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "1", "--tb", "line", "--maxfail", "100", f"--junit-xml={report}", *parts]
        environment = {**os.environ, "TEST_API_BASE_URL": base_url, "PYTHONDONTWRITEBYTECODE": "1"}
        with report.with_suffix(".log").open("w") as log:
            self.child = subprocess.Popen(command, cwd=suite, env=environment, stdout=log, stderr=log, start_new_session=True)

    def results(self) -> dict[str, str]:
        """Each test with `passed`, `skipped` or the message of its failure."""
        try:
            self.child.wait(RUN_S_MAX)
        except subprocess.TimeoutExpired:
            os.killpg(self.child.pid, signal.SIGKILL)
            raise AssertionError(f"the suite took more than {RUN_S_MAX} s: {self.report.with_suffix('.log')}") from None
        found = {}
        for case in xml.etree.ElementTree.parse(self.report).iter("testcase"):
            name = f"{case.get('classname')}::{case.get('name')}"
            broken = [child for child in case if child.tag in ("failure", "error")]
            found[name] = str(broken[0].get("message")) if broken else "skipped" if case.find("skipped") is not None else "passed"
        return found


@pytest.fixture
def mock() -> typing.Iterator[str]:
    """The mock API."""
    here = pathlib.Path(__file__).parent
    process = harness.Process([sys.executable, here / "mock_openai.py", *[word for name in MODELS for word in ("--model", name)]])
    yield harness.ADDRESS.search(process.line(harness.ADDRESS))[0]  # type: ignore[index]
    process.kill()


@pytest.mark.timeout(2 * RUN_S_MAX)
def test_the_suite_passes_through_the_gateway_as_it_does_without_it(suite: pathlib.Path, mock: str, tmp_path: pathlib.Path) -> None:
    speaks = ["chat", "completions", "embeddings", "responses"]
    gateway = harness.Gateway(tmp_path / "gateway", harness.engine("mock", mock, speaks=speaks, pass_through=True, discover=True))
    try:
        straight, through = Run(suite, mock + "/v1", tmp_path / "straight.xml"), Run(suite, gateway.v1, tmp_path / "through.xml")
        expected, found = straight.results(), through.results()
    finally:
        gateway.stop()
    passed = {name for name, result in expected.items() if result == "passed"}
    assert len(passed) > 2_000, "the mock answers the suite"
    lost = {name: found.get(name, "not run") for name in sorted(passed) if found.get(name) != "passed"}
    print(f"{len(passed)} of {len(expected)} pass straight, {len(passed) - len(lost)} of these through the gateway")
    assert not lost, "\n".join(f"{name}: {message[:300]}" for name, message in sorted(lost.items(), key=lambda item: item[1] == "not run")[:40])
