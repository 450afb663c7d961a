"""Ray actors do the work of this process: same results, whoever dies. Needs Ray: `make test-scale`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from commands import Command, cold
from conftest import Tacit, save_tiny_qwen2
from tacit.cluster import connection
from tacit.cluster.connection import Cluster
from tacit.cluster.crew import PATIENCE, Crew
from tacit.cluster.remote import RayEngine
from tacit.config import Settings
from tacit.engines.base import Request
from tacit.engines.local import LocalEngine
from tacit.errors import ConfigError, EngineError, FingerprintError, ModelError, install_hint
from tacit.model.backbone import Backbone
from test_runs import contents, refused, results, tacit

pytestmark = pytest.mark.scale
pytest.importorskip("ray", reason=install_hint("ray"))

RUN = ["run", "--data", "testbed", "--limit", 24, "--window", 8, "--samples", 4, "--steps", 4, "--max-tokens", 40]
RUN += ["--baselines", "none", "--no-strict"]  # whole windows: more to share out
TOKEN = "what-guards-the-cluster-of-this-test-alone"
ON_RAY = ["--ray", "local", "--learners", 2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in one process that all others have to equal."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    tacit(*RUN, "--out", out)
    return out


def same(out: Path, whole: Path) -> None:
    assert results(out) == results(whole)
    assert contents(out) == contents(whole)
    assert (out / "summary.json").exists()


def actors(driver: psutil.Process, title: str) -> list[psutil.Process]:
    """Processes under this one that Ray has named so."""
    found = []
    for process in driver.children(recursive=True):
        try:
            if " ".join(process.cmdline()).startswith(f"ray::{title}"):
                found.append(process)
        except psutil.Error:
            continue
    return found


def caught(process: Command, title: str) -> psutil.Process:
    """The first actor that is at that work."""
    driver = psutil.Process(process.pid)
    until = time.monotonic() + 120
    while time.monotonic() < until:
        assert process.poll() is None, process.written()
        for actor in actors(driver, title):
            return actor
        time.sleep(0.01)
    raise AssertionError(f"no {title} within two minutes")


def ended(process: Command, code: int) -> str:
    _, errors = process.communicate()
    assert process.returncode == code, errors
    return errors


def left_behind(folders: set[Path]) -> list[str]:
    """Processes of Ray that name one of these folders, once they have had ten seconds to end."""
    until = time.monotonic() + 10
    while True:
        left = [
            line
            for line in (" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"]))
            if any(str(folder) in line for folder in folders)
        ]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.2)


def folders(process: psutil.Process) -> set[Path]:
    """The temporary folders of the Ray that a process has started."""
    words = [word for child in process.children(recursive=True) for word in child.cmdline()]
    return {
        Path("/", *path.parts[1:3])
        for path in (Path(word.split("=", 1)[-1]) for word in words)
        if len(path.parts) > 2 and path.parts[2].startswith("tacit-ray-")
    }


def test_two_learners_make_what_one_process_makes(whole: Path, tmp_path: Path) -> None:
    tacit(*RUN, *ON_RAY, "--out", tmp_path / "out")
    same(tmp_path / "out", whole)


@pytest.mark.parametrize(
    ("options", "title"),
    [(ON_RAY, "LearnerActor.learn"), (["--ray", "local", "--learners", 1, "--engines", 1], "EngineActor.generate")],
    ids=["learner", "engine"],
)
def test_a_killed_actor_changes_nothing(options: list[Any], title: str, whole: Path, tmp_path: Path) -> None:
    process = Command(*RUN, *options, "--out", tmp_path / "out")
    actor = caught(process, title)
    actor.kill()
    actor.wait(10)
    ended(process, 0)
    same(tmp_path / "out", whole)


def test_a_killed_driver_leaves_nothing_behind_and_its_run_goes_on(whole: Path, tmp_path: Path) -> None:
    """Begun in one process, continued on Ray, killed there, and ended on Ray."""
    out = tmp_path / "out"
    tacit(*RUN, "--limit", 8, "--out", out)
    process = Command(*RUN, *ON_RAY, "--out", out)
    caught(process, "LearnerActor.learn")
    used = folders(psutil.Process(process.pid))
    assert used
    process.kill()
    process.communicate()
    assert not left_behind(used)
    tacit(*RUN, *ON_RAY, "--out", out)
    same(out, whole)


def test_ctrl_c_ends_ray_as_well(tmp_path: Path) -> None:
    process = Command(*RUN, *ON_RAY, "--out", tmp_path / "out")
    caught(process, "LearnerActor.learn")
    used = folders(psutil.Process(process.pid))
    os.killpg(process.pid, signal.SIGINT)
    errors = ended(process, 130)
    assert "Traceback" not in errors
    assert used and not left_behind(used)
    assert not any(folder.exists() for folder in used)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """A Ray cluster of one machine that is not ours: its address, by either way in."""
    import socket

    sockets = [socket.socket() for _ in range(2)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    port, client = (each.getsockname()[1] for each in sockets)
    for each in sockets:
        each.close()
    monkey = pytest.MonkeyPatch()
    monkey.setenv("RAY_AUTH_MODE", "token")
    monkey.setenv("RAY_AUTH_TOKEN", TOKEN)
    folder = Path("/tmp") / f"tacit-head-{port}"  # a socket's path may have 107 bytes
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", "from ray.scripts.scripts import main; main()"),
            *("start", "--head", "--block", f"--port={port}", f"--ray-client-server-port={client}"),
            *("--num-cpus=4", "--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"),
            f"--object-store-memory={100 * 2**20}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 300
    for number in (port, client):
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", number), 1).close()
                break
            except OSError:
                time.sleep(0.2)
    monkey.undo()
    yield lambda way: {"direct": f"127.0.0.1:{port}", "client": f"ray://127.0.0.1:{client}"}[way]
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    process.wait(30)
    for child in children:
        if child.is_running():
            child.kill()
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("way", ["direct", "client"])
def test_a_cluster_at_an_address(way: str, head: Callable[[str], str], whole: Path, tmp_path: Path) -> None:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    tacit(*RUN, "--ray", head(way), "--learners", 2, "--out", tmp_path / "out", env={**os.environ, **token})
    same(tmp_path / "out", whole)


def test_a_cluster_without_its_token_is_one_clear_sentence(head: Callable[[str], str], tmp_path: Path) -> None:
    wrong = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" + TOKEN}
    line = refused(*RUN, "--ray", head("direct"), "--out", tmp_path / "out", env=wrong)
    assert "RAY_AUTH_TOKEN" in line


# -- one actor pool in this process ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster("local", learners=1, engines=1) as opened:
        yield opened


def test_an_engine_gives_and_refuses_what_the_local_one_does(cluster: Cluster, testbed: Backbone) -> None:
    local = LocalEngine(testbed)
    _, engines = cluster.crews(Settings(device="cpu", threads=1), testbed)
    engine = RayEngine(engines, testbed)
    texts = [f"compute {number} + {number + 7}" for number in range(20)]
    requests = [Request(testbed.encode(text), n=3, seeds=(n, n + 1, n + 2)) for n, text in enumerate(texts)]
    assert engine.generate(requests) == local.generate(requests)
    assert engine.generate([]) == []
    said = []
    for each in (engine, local):
        with pytest.raises(EngineError) as refusal:
            each.generate([*requests, Request(testbed.encode("compute 1 + 1"), n=2, seeds=(1,))])
        said.append(str(refusal.value))
    assert said[0] == said[1]


def test_another_model_or_none_is_refused(cluster: Cluster, testbed: Backbone, tmp_path: Path) -> None:
    model = save_tiny_qwen2(tmp_path / "model")
    request = [Request(testbed.encode("compute 1 + 1"), temperature=0.0)]
    for name, error, says in (
        (str(model), FingerprintError, "same files"),
        (str(tmp_path / "missing"), ModelError, "no model at"),
    ):
        _, engines = cluster.crews(Settings(model=name, device="cpu", threads=1), testbed)
        with pytest.raises(error, match=says):
            RayEngine(engines, testbed).generate(request)


# -- a crew ----------------------------------------------------------------------------------------------------


class Odd:
    """An actor that doubles numbers, and dies, errs or dawdles at some of them.

    It is started often, so it imports nothing large. No crew here looks at what it says of itself.
    """

    def prepare(self) -> int:
        return os.getpid()

    def double(self, items: list[int]) -> list[int]:
        if any(item < 0 for item in items):
            os.kill(os.getpid(), signal.SIGKILL)
        if 13 in items:
            raise EngineError("thirteen is too much")
        if 99 in items and len(items) > 1:
            raise MemoryError("too many at once")
        if 50 in items:
            time.sleep(2)
        return [2 * item for item in items]

    def who(self, items: list[float]) -> list[int]:
        time.sleep(sum(items))
        return [os.getpid()] * len(items)


class Stillborn(Odd):
    """An actor that never comes up."""

    def prepare(self) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.fixture
def crew(cluster: Cluster) -> Callable[..., Crew]:
    import ray
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def make(kind: type = Odd, count: int = 2, patience: float = PATIENCE, cpus: int = 0) -> Crew:
        actor = ray.remote(kind).options(num_cpus=cpus)
        return Crew(ray, "learner", count, actor.remote, lambda facts: None, patience=patience)

    return make


def doubled(crew: Crew, items: list[int], good: int = 4, most: int = 8) -> list[int]:
    return crew.run("double", items, [1] * len(items), good=good, most=most)


def test_a_crew_keeps_order_and_halves_what_is_too_much(crew: Callable[..., Crew]) -> None:
    two = crew()
    assert doubled(two, [*range(13), *range(14, 40)]) == [*range(0, 26, 2), *range(28, 80, 2)]
    assert two.deaths == 0
    # 99 succeeds alone; one more may be beside it in a piece of two before that.
    assert doubled(two, [1, 99, 2, 3]) == [2, 198, 4, 6]
    assert two.deaths == 1
    assert doubled(two, []) == []


def test_a_crew_gives_up_with_the_reason(crew: Callable[..., Crew]) -> None:
    two = crew()
    with pytest.raises(EngineError, match=r"^3 learners in a row ended .*\S") as ended:
        doubled(two, [1, 2, -1, 4])
    assert "\n" not in str(ended.value) and "exit" in str(ended.value)
    assert two.deaths >= 2
    assert doubled(two, [1, 2, 3, 4]) == [2, 4, 6, 8]
    one = crew(count=1)
    for _ in range(2):
        with pytest.raises(EngineError, match="3 learners in a row ended"):
            doubled(one, [-1])
    with pytest.raises(EngineError, match="no learner can be started"):
        doubled(crew(Stillborn), [1])
    with pytest.raises(EngineError, match="no learner was ready on Ray within 1 s"):
        doubled(crew(cpus=1000, patience=1), [1])


def test_what_an_actor_raises_is_raised_and_an_abandoned_call_forgotten(crew: Callable[..., Crew]) -> None:
    two = crew()
    doubled(two, [1, 2, 3, 4])
    with pytest.raises(EngineError, match=r"^thirteen is too much$"):
        doubled(two, [13, 50])  # 50 goes on for two seconds
    assert doubled(two, [5, 6, 7, 8]) == [10, 12, 14, 16]
    assert two.deaths == 0


def test_the_idle_take_from_the_slow(crew: Callable[..., Crew]) -> None:
    two = crew()
    two.run("who", [0.0, 0.0], [1, 1], good=1, most=1)  # both are up
    made = two.run("who", [2.0, *[0.01] * 7], [1] * 8, good=1, most=1)
    assert sorted(made.count(pid) for pid in set(made)) == [1, 7]


# -- what a user can mend --------------------------------------------------------------------------------------


def test_wrong_addresses_are_one_clear_sentence(cli: Tacit, tmp_path: Path) -> None:
    def error(*options: object) -> str:
        code, _, errors = cli(*RUN, *options, "--out", tmp_path / "out")
        (line,) = errors.splitlines()
        assert code == 2 and line.startswith("error: ")
        return line

    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        assert "nothing answers at 127.0.0.1:1" in error("--ray", address)
    for address in ("somewhere", "http://127.0.0.1:80", "host:port"):
        assert "no address of Ray" in error("--ray", address)
    assert "learners" in error("--ray", "local", "--learners", 0)
    assert not (tmp_path / "out").exists()


def test_what_is_not_ray_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(connection, "ANSWER", 4.0)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        began = time.monotonic()
        with pytest.raises(ConfigError, match="not answered within 4 s"):
            Cluster(f"127.0.0.1:{deaf.getsockname()[1]}")
        assert time.monotonic() - began < 15


def test_without_ray_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError(\"No module named 'ray'\")\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    line = refused(*RUN, "--ray", "local", "--out", tmp_path / "out", env=environment, start=cold)
    assert install_hint("ray") in line
