"""Everything is a plug-in: parts in files outside the package, used by every command, in every process, by name.

The parts are in ``tests/plugins``, a file each. There are three ways in: a flag, a variable, an installed package.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tacit
from commands import cold, ran
from conftest import Tacit
from server import serving
from tacit import registry
from tacit.bank import open_bank
from tacit.config import LearnConfig, RecallConfig
from tacit.errors import ConfigError
from tacit.experiments.compare_config import load
from tacit.memory import Memory
from tacit.server.keys import KeyStore
from tacit.server.learner.jobs import JobQueue
from tacit.server.learner.process import WorkerSettings

PLUGINS = sorted((Path(__file__).parent / "plugins").glob("*.py"))
SRC = Path(tacit.__file__).parent
DOCS = Path(__file__).parent.parent / "docs"
JUDGED = ["--reward", "small", "--key", "letters:e", "--verifier", "brief"]
QUICK = ["--limit", "3", "--steps", "2", "--samples", "2", "--rollouts", "4", "--floor", "-1", "--admit", "0.1"]
SMALL = ["--data", "sums:14", *JUDGED, *QUICK, "--tokens", "4", "--max-tokens", "24"]


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plug-ins stay in a process; here each test begins without."""
    monkeypatch.delenv(registry.ENVIRONMENT, raising=False)
    loaded = set(registry._LOADED)
    yield
    registry._LOADED.intersection_update(loaded)
    for kind, parts in registry._REGISTERED.items():
        for name in {*parts} - {*registry.BUILT_IN[kind]}:
            del parts[name]


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, files: list[Path]) -> None:
    """A package with those files and an entry point for each, as pip leaves one."""
    package, facts = folder / name, folder / f"{name}-1.0.dist-info"
    package.mkdir(parents=True)
    facts.mkdir()
    (package / "__init__.py").write_text("")
    for file in files:
        (package / file.name).write_text(file.read_text())
    entries = [f"{file.stem} = {name}.{file.stem}" for file in files]
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("\n".join([f"[{registry.GROUP}]", *entries, ""]))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")


@pytest.fixture(params=["flag", "variable", "package"])
def way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Words of a command that make it know the plug-ins, if it takes any."""
    if request.param == "flag":
        return [word for file in PLUGINS for word in ("--plugin", str(file))]
    if request.param == "variable":
        monkeypatch.setenv(registry.ENVIRONMENT, ":".join(map(str, PLUGINS)))
    else:
        installed(tmp_path / "site", monkeypatch, f"parts_{request.function.__name__}", PLUGINS)
    return []


def memories(bank: Path | str, namespace: str = "default") -> list[Memory]:
    with open_bank(str(bank), create=False) as opened:
        return [opened.get(info.id, namespace) for info in opened.find(namespace)]


def are_made_with_plugins(found: list[Memory]) -> None:
    """Reward, key and verifier of tests/plugins have left their traces in these memories."""
    assert found
    for memory in found:
        assert memory.key_kind == "letters:e" and len(memory.key) == 22  # e to z
        assert memory.provenance["why"].startswith("brevity: weight")
        assert all(0.125 <= step["reward"] <= 0.25 for step in memory.provenance["steps"])
        assert (memory.provenance["learning"]["reward"], memory.provenance["learning"]["key"]) == ("small", "letters:e")


# -- in every command -------------------------------------------------------------------------------------------------


def test_a_run_uses_them(cli: Tacit, way: list[str]) -> None:
    code, _, err = cli("run", *way, *SMALL, "--baselines", "none", "--out", "out")
    assert code == 0, err
    rows = [json.loads(line) for line in Path("out/results.jsonl").read_text().splitlines()]
    assert [(row["id"], row["gold"]) for row in rows] == [(f"sums-14-{n}", str(14 + n)) for n in (11, 12, 13)]
    are_made_with_plugins(memories("out/bank.sqlite"))


def test_a_run_uses_the_other_kinds_too(cli: Tacit) -> None:
    names = ["--task", "numbers", "--label", "eldest", "--init", "zeros", "--admission", "open-door"]
    parts = [word for file in PLUGINS for word in ("--plugin", str(file))]
    code, _, err = cli(
        "run", *parts, *SMALL, *names, "--engine", "noted", "--reward", "format", "--baselines", "none", "--out", "out"
    )
    assert code == 0, err
    assert Path("engine.txt").read_text() == "testbed"
    found = memories("out/bank.sqlite")
    assert found
    for memory in found:
        assert memory.provenance["why"] == "the first said so" and memory.reason.startswith("everybody is admitted")
        assert memory.provenance["learning"]["init"] == "zeros" and memory.provenance["label"].isdigit()
        # Adam moves no entry further than its rate in a step: it began at zero.
        assert abs(memory.prompt).max() <= (10 + 2) * 0.02 * 1.01
    # A bank knows its task, which whoever asks need not say again.
    with open_bank("out/bank.sqlite", create=False) as bank:
        assert json.loads(bank.marked("default", "binding") or "")["task"] == "numbers"


def test_a_comparison_uses_them_in_its_processes(cli: Tacit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some by a package, some by a variable, some by a file's list, some by a flag: each process knows all."""
    by_name = {file.stem: file for file in PLUGINS}
    installed(tmp_path / "site", monkeypatch, "parts_compared", [by_name["small_reward"]])
    monkeypatch.setenv(registry.ENVIRONMENT, f"{by_name['letters_key']}:{by_name['sums_source']}")
    plan = {"plugins": [str(by_name["brief_verifier"])], "data": ["sums:14"], "methods": ["guess", "elm"]}
    Path("plan.toml").write_text(
        "".join(f"{name} = {json.dumps(value)}\n" for name, value in plan.items())
        + 'seeds = [3]\njobs = 1\nstrict = false\nverifier = "brief"\n'
        + '[learn]\nreward = "small"\n[options.guess]\nsays = "28"\n'
    )
    code, out, err = cli(
        *("compare", "--config", "plan.toml", "--plugin", by_name["guess_method"], "--key", "letters", *QUICK),
        *("--no-probes", "--out", "out", "--json"),
    )
    assert code == 0, err
    rows = {row["method"]: row for row in json.loads(out)["rows"]}
    assert rows["guess"]["n"] == 3 and rows["guess"]["failed"] == 0 == rows["elm"]["failed"]
    assert rows["guess"]["accuracy"] == pytest.approx(1 / 3)  # 14 + 14
    [file] = Path("out").glob("cells/elm/*/*/rows.jsonl")
    lessons = [json.loads(line)["lesson"] for line in file.read_text().splitlines()]
    # The reward model would not trust half of two wrong answers.
    assert [(lesson["trusted"], lesson["label_correct"]) for lesson in lessons] == [(True, False)] * 3
    assert all(0.125 <= reward <= 0.25 for lesson in lessons for reward in lesson["rewards"])
    record = json.loads((file.parent / "cell.json").read_text())["settings"]
    assert (record["learn"]["reward"], record["recall"]["key"], record["verifier"]) == ("small", "letters", "brief")


def learned_by(bank: Path, *options: str) -> list[Memory]:
    """What the learner's process of ``tacit serve`` makes of one problem."""
    with open_bank(str(bank)) as opened:
        key, _ = KeyStore(opened).create("test", "home")
        queue = JobQueue(opened)
        job = queue.submit("home", "what is 3 * 4 ?", key).job
        assert job is not None
        with serving(bank, *options) as served:
            until = time.monotonic() + 90
            while queue.counts("home")["done"] == 0:
                assert time.monotonic() < until and queue.counts("home")["failed"] == 0, served.log.read_text()
                time.sleep(0.1)
        after = queue.get(job.id, "home")
        assert after is not None and after.memory_id, after
    return memories(bank, "home")


def test_a_servers_learner_uses_them(tmp_path: Path) -> None:
    parts = [word for file in PLUGINS for word in ("--plugin", str(file))]
    options = [word for word in QUICK if word not in ("--limit", "3")]
    are_made_with_plugins(learned_by(tmp_path / "bank.sqlite", *parts, *JUDGED, *options))


def test_a_server_learns_as_it_is_told_in_a_few_words(tmp_path: Path) -> None:
    words = ["--model", "testbed", "--lr", "0.003", "--init", "vocabulary", "--floor", "0.3", "--steps", "2"]
    [memory] = learned_by(tmp_path / "bank.sqlite", *words)
    told = memory.provenance["learning"]
    assert {"lr": 0.003, "init": "vocabulary", "floor": 0.3, "steps": 2, "reward": "majority"}.items() <= told.items()
    assert len(memory.provenance["steps"]) == 2 and told["key"] == memory.key_kind == "last"
    assert memory.provenance["config"] == LearnConfig(lr=0.003, init="vocabulary", steps=2).digest()


@pytest.mark.scale
def test_actors_use_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a flag with a path that counts from here, and by a variable: Ray's processes are told of both."""
    pytest.importorskip("ray")
    from test_runs import contents, results

    monkeypatch.chdir(tmp_path)
    by_name = {file.stem: file for file in PLUGINS}
    Path("small_reward.py").write_text(by_name["small_reward"].read_text())
    monkeypatch.setenv(registry.ENVIRONMENT, ":".join(str(file) for file in PLUGINS if file.stem != "small_reward"))
    words = ["run", "--plugin", "small_reward.py", *SMALL, "--limit", "6", "--window", "3", "--baselines", "none"]
    for out, more in (("one", []), ("actors", ["--ray", "local", "--learners", "2"])):
        done = ran(*words, "--out", out, *more)
        assert done.returncode == 0, done.stderr
    are_made_with_plugins(memories("actors/bank.sqlite"))
    assert (results(Path("actors")), contents(Path("actors"))) == (results(Path("one")), contents(Path("one")))


# -- before anything is checked ---------------------------------------------------------------------------------------


def test_they_are_loaded_before_settings_are_checked(cli: Tacit, tmp_path: Path) -> None:
    file = next(str(file) for file in PLUGINS if file.stem == "small_reward")
    with pytest.raises(ConfigError, match="no reward 'small'"):
        LearnConfig(reward="small")
    with pytest.raises(ConfigError, match="no reward 'small'"):
        WorkerSettings.from_json(json.dumps({"bank": "b", "learn": {"reward": "small"}}))
    told = WorkerSettings.from_json(json.dumps({"bank": "b", "learn": {"reward": "small"}, "plugins": [file]}))
    assert told.learn.reward == "small" and registry.files() == (file,)


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_file_of_settings_names_them(cli: Tacit, command: str) -> None:
    """[learn] comes before plugins here, and yet names what they register."""
    file = next(str(file) for file in PLUGINS if file.stem == "small_reward")
    Path("mine.toml").write_text(f'plugins = ["{file}"]\nsettled = 3\n[learn]\nreward = "small"\n')
    assert "no setting 'settled'" in cli(command, "--config", "mine.toml")[2]
    Path("mine.toml").write_text('plugins = "mine.py"\n')
    assert "plugins is 'mine.py'; it must be a list" in cli(command, "--config", "mine.toml")[2]
    Path("mine.toml").write_text(f'plugins = ["{file}"]\n[learn]\nreward = "small"\n')
    assert load("mine.toml").learn.reward == "small"


def test_a_run_is_continued_with_the_plugins_it_began_with(cli: Tacit) -> None:
    parts = [word for file in PLUGINS for word in ("--plugin", str(file))]
    code, _, err = cli("run", *parts, *SMALL, "--baselines", "none", "--out", "out", "--limit", "1")
    assert code == 0, err
    registry._LOADED.clear()
    for kind, kept in registry._REGISTERED.items():
        for name in {*kept} - {*registry.BUILT_IN[kind]}:
            del kept[name]
    code, _, err = cli("run", "--out", "out", "--limit", "2")
    assert code == 0, err
    are_made_with_plugins(memories("out/bank.sqlite"))
    assert len(Path("out/results.jsonl").read_text().splitlines()) == 2


# -- what goes wrong is one sentence ----------------------------------------------------------------------------------


def sentence(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1, err
    return err


def test_an_unknown_name_that_is_near_to_none_has_all(cli: Tacit) -> None:
    assert "there is no task 'nonsense'; there are: maths, number" in sentence(cli("tasks", "try", "nonsense"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--reward", "majorty"], "there is no reward 'majorty'; did you mean majority?"),
        (["--key", "hiden"], "there is no key 'hiden'; did you mean hidden?"),
        (["--verifier", "vot"], "there is no verifier 'vot'; did you mean vote?"),
        (["--init", "gausian"], "there is no init 'gausian'; did you mean gaussian?"),
        (["--label", "verfied"], "there is no label 'verfied'; did you mean verified?"),
        (["--task", "math"], "there is no task 'math'; did you mean maths?"),
        (["--admission", "rewards"], "there is no admission 'rewards'; did you mean reward?"),
        (["--engine", "locl"], "there is no engine 'locl'; did you mean local"),
    ],
)
def test_an_unknown_name_has_its_nearest(cli: Tacit, words: list[str], said: str) -> None:
    error = sentence(cli("run", "--limit", "1", *words))
    assert said in error and "There are: " in error


BROKEN = {
    "syntax.py": ("from tacit import register\ndef f(:\n", "line 2: SyntaxError"),
    "raises.py": ("x = 1\n\nx / 0\n", "line 3: ZeroDivisionError: division by zero"),
    "deep.py": ("import json\n\njson.loads('{')\n", "line 3: JSONDecodeError"),
    "needs.py": ("import nowhere_to_be_found\n", "line 1: ModuleNotFoundError"),
    "leaves.py": ("raise SystemExit('bye')\n", "line 1: SystemExit: bye"),
    "taken.py": ("import tacit\n@tacit.register('reward', 'majority')\ndef f(a): ...\n", "a reward named 'majority'"),
    "kind.py": ("import tacit\n@tacit.register('rewrad', 'x')\ndef f(a): ...\n", "there is no kind 'rewrad'"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("by", ["flag", "variable", "package"])
def test_what_cannot_be_loaded_says_where(
    cli: Tacit, name: str, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, said = BROKEN[name]
    file = tmp_path / name
    file.write_text(text)
    words: list[str] = []
    if by == "flag":
        words = ["--plugin", name]
    elif by == "variable":
        monkeypatch.setenv(registry.ENVIRONMENT, name)
    else:
        installed(tmp_path / "site", monkeypatch, f"broken_{file.stem}", [file])
    for _ in range(2):  # it is not taken for loaded afterwards
        error = sentence(cli("run", "--limit", "1", *words))
        assert said in error and (f"broken_{file.stem}" if by == "package" else str(file)) in error


@pytest.mark.parametrize("name", ["nowhere.py", "folder.py", "text.md"])
def test_what_is_no_python_file(cli: Tacit, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "text.md").write_text("# text")
    assert f"{tmp_path / name} is no Python file" in sentence(cli("run", "--limit", "1", "--plugin", name))


def test_one_that_fails_leaves_nothing_and_may_be_mended(tmp_path: Path) -> None:
    file = tmp_path / "half.py"
    good = "from tacit import register\n@register('reward', 'half')\ndef half(attempts): ...\n"
    file.write_text(good + "1 / 0\n")
    with pytest.raises(ConfigError, match="line 4: ZeroDivisionError"):
        registry.load([file])
    assert "half" not in registry.names("reward")
    file.write_text(good)
    registry.load([file])
    registry.load([file])  # once loaded is enough
    assert registry.get("reward", "half").__name__ == "half"


def test_a_name_is_given_once(cli: Tacit, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text("import tacit\n@tacit.register('key', 'mine')\ndef k(b, t, a): ...\n")
    error = sentence(cli("run", "--limit", "1", "--plugin", "one.py", "--plugin", "two.py"))
    assert "two.py cannot be loaded: line 2" in error and "there is already a key named 'mine'" in error


def test_help_names_them_and_outlives_a_broken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv(registry.ENVIRONMENT, ":".join(map(str, PLUGINS)))
    shown = cold("run", "--help").stdout
    for choices in ("majority|random|format|small", "last|input|hidden|kv|relative|letters", "none|brief", "|numbers"):
        assert choices in shown
    (tmp_path / "broken.py").write_text("1 / 0\n")
    monkeypatch.setenv(registry.ENVIRONMENT, str(tmp_path / "broken.py"))
    done = cold("run", "--help")
    assert done.returncode == 0 and "majority|random|format" in done.stdout
    done = cold("run", "--limit", "1")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "broken.py cannot be loaded: line 1" in done.stderr


# -- what is built in is registered as a plug-in is -------------------------------------------------------------------


@pytest.mark.parametrize("kind, name", [(kind, name) for kind, parts in registry.BUILT_IN.items() for name in parts])
def test_built_in_parts_register_in_their_modules(kind: str, name: str) -> None:
    module = importlib.import_module(f"tacit.{registry.BUILT_IN[kind][name]}")
    part = registry.get(kind, name)
    assert registry._REGISTERED[kind][name] is part and part.__module__ == module.__name__
    assert set(registry.BUILT_IN) == set(registry.KINDS)


def test_whatever_registers_is_listed() -> None:
    found: dict[str, dict[str, str]] = {kind: {} for kind in registry.KINDS}
    for file in SRC.rglob("*.py"):
        home = ".".join(file.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "register" and len(node.args) == 2:
                kind, name = (getattr(argument, "value", None) for argument in node.args)
                if isinstance(kind, str) and isinstance(name, str):
                    found[kind][name] = home
    listed = {kind: dict(parts) for kind, parts in registry.BUILT_IN.items()}
    for kind, parts in found.items():
        assert {name: listed[kind].get(name) for name in parts} == parts
    # Only variants of methods are registered otherwise than by a decorator with their names.
    assert {kind for kind in listed if set(listed[kind]) - set(found[kind])} <= {"method"}


# -- what the page says -----------------------------------------------------------------------------------------------

PAGE = DOCS / "extend.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_has_every_kind() -> None:
    assert {kind for text in EXAMPLES for kind in re.findall(r'@register\("([^"]+)"', text)} == set(registry.KINDS)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_page_is_a_plugin(number: int, tmp_path: Path) -> None:
    file = tmp_path / f"example_{number}.py"
    file.write_text(EXAMPLES[number])
    names = re.findall(r'@register\("([^"]+)", "([^"]+)"\)', EXAMPLES[number])
    assert names and all(name not in registry.names(kind) for kind, name in names)
    registry.load([file])
    for kind, name in names:
        part = registry.get(kind, name)
        assert part.__module__ == f"tacit_plugin_example_{number}"
        if kind in FIELDS:
            assert getattr(LearnConfig(**{FIELDS[kind]: name}), FIELDS[kind]) == name
        if kind == "key":
            assert RecallConfig(key=f"{name}:20").key == "length:20"


FIELDS: dict[str, Any] = {"reward": "reward", "label": "label", "start": "init", "admission": "admission"}
