"""What is installed: the distribution's name and extras, every hint that names them, the wheel, the quick import."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tacit
from tacit import errors
from test_docs import wrong_commands

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
FILES = ("README.md", "Makefile", "pyproject.toml")
READ = ("src", "docs", "examples", "deploy", "benchmarks", "tests", "tools", ".ci", *FILES)
KINDS = {".py", ".md", ".service", ".toml", ".jinja", ".html", ".js", ""}
NOT_OURS = re.compile(r"(?<![\w./-])tacit" + re.escape("["))
"""Somebody else's package, asked for with an extra."""


def texts() -> Iterator[tuple[Path, str]]:
    for name in READ:
        path = ROOT / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and file.suffix in KINDS and not re.search("__pycache__|egg-info", str(file)):
                yield file, file.read_text(encoding="utf-8")


def named(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", one)[0].lower().replace("_", "-") for one in requirements}  # type: ignore[index]


def installed(command: str) -> list[str]:
    """What a ``pip install`` command of a document asks for: packages, without options."""
    words = [word.rstrip(",").strip("'\"") for word in re.split(r"`|&&|;|\(|#", command)[0].split()]
    skipped = {index + 1 for index, word in enumerate(words) if word in ("-c", "-r", "--index-url")}
    return [
        word
        for index, word in enumerate(words)
        if word and word[0] not in "-<" and index not in skipped and "{" not in word
    ]


def calls(*functions: str) -> Iterator[tuple[Path, ast.Call]]:
    for file in [*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in functions:
                yield file, node


def test_every_command_asks_pip_for_what_there_is() -> None:
    commands = []
    for file, text in texts():
        assert not NOT_OURS.search(text), file
        for command in re.findall(r"pip install +([^\n]*)", text):
            commands.append(command)
            for wanted in installed(command):
                name, _, extras = wanted.rstrip("]").partition("[")
                assert name != "tacit", f"{file}: pip install {command}"
                if extras:
                    assert name in (".", errors.DISTRIBUTION), f"{file}: pip install {command}"
                    assert set(extras.split(",")) <= set(EXTRAS), f"{file}: pip install {command}"
        for extra in re.findall(r"the extra `+(\w+)`+", text):
            assert extra in EXTRAS, file
    assert len(commands) > 10


def test_the_source_writes_hints_in_one_place() -> None:
    writes = [file for file, text in texts() if ROOT / "src" in file.parents and "pip install" in text]
    assert writes == [ROOT / "src" / "tacit" / "errors.py"]
    assert errors.DISTRIBUTION == PROJECT["name"] != "tacit"
    assert errors.install_hint("ray").startswith(f"pip install '{PROJECT['name']}[ray]' ")
    assert "[" not in errors.install_hint()


def test_every_hint_names_an_extra_that_brings_what_is_missing() -> None:
    found = set()
    for file, call in calls("install_hint", "needed"):
        first, *others = [argument.value for argument in call.args if isinstance(argument, ast.Constant)] or [None]
        if first is None:
            continue  # within errors itself, and of all that Tacit needs
        assert first in EXTRAS, file
        found.add(first)
        if isinstance(call.func, ast.Name) and call.func.id == "needed":
            for module in others[1:]:
                assert module.partition(".")[0].replace("_", "-") in named(EXTRAS[first]), (file, module)
    assert found >= {"serve", "hub", "postgres", "vllm", "ray", "fast"}


def test_what_is_missing_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    assert errors.needed("serve", "this", "json.decoder", "json") is sys.modules["json.decoder"]
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(errors.ConfigError, match=r"^serving cannot be used \(.*fastapi.*\); install .*: pip i"):
        errors.needed("serve", "serving", "json", "fastapi")


def test_all_that_is_asked_for_is_pinned() -> None:
    pinned = named((ROOT / "constraints.txt").read_text().split())
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for requirements in (PROJECT["dependencies"], build, *EXTRAS.values()):
        assert named(requirements) <= pinned


def test_the_wheel_has_every_file_of_the_package(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    unwanted = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=unwanted)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").iterdir()
    assert wheel.name == f"{PROJECT['name'].replace('-', '_')}-{tacit.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as content:
        there = {name for name in content.namelist() if not name.split("/")[0].endswith(".dist-info")}
    source = tmp_path / "src"
    wanted = {str(file.relative_to(source)) for file in (source / "tacit").rglob("*") if file.is_file()}
    assert there == wanted
    assert {"tacit/py.typed", "tacit/testbed/weights/model/model.safetensors"} <= there


def test_the_image_and_the_unit_are_made_of_what_there_is() -> None:
    written = (ROOT / "deploy/Dockerfile").read_text().replace("\\\n", " ")
    steps = [line.partition(" ")[::2] for line in written.splitlines() if line and line[0] not in "# "]
    copied = [name for step, rest in steps if step == "COPY" for name in rest.split()[:-1]]
    assert set(copied) >= {"pyproject.toml", "src"} and all((ROOT / name).exists() for name in copied)
    pinned = re.search(r"^torch==.+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned and re.findall(r"torch==[\d.]+", written) == [pinned[0]]
    [base], [user] = ([rest for step, rest in steps if step == name] for name in ("FROM", "USER"))
    assert base.startswith("python:3.") and int(base[9:11]) >= 11 and user != "root"
    [started] = (json.loads(rest) for step, rest in steps if step == "CMD")
    unit = re.findall(r"^ExecStart=(.+)$", (ROOT / "deploy/tacit.service").read_text(), re.MULTILINE)
    noted = re.findall(r"^# .* (tacit keys create .+)$", written, re.MULTILINE)
    assert len(unit) == len(noted) == 1 and wrong_commands([" ".join(started), *unit, *noted]) == []


def fresh(code: str) -> Any:
    """What a new process prints, as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


HEAVY = {"torch", "transformers", "matplotlib", "numpy", "sqlalchemy"}


def test_the_import_is_quick_and_sets_how_products_round() -> None:
    code = "import os, sys; os.environ.pop('MKL_CBWR', None); import tacit, json; dir(tacit);"
    modules, rounding = fresh(code + "print(json.dumps([list(sys.modules), os.environ['MKL_CBWR']]))")
    assert not HEAVY & set(modules) and rounding == "AUTO,STRICT"


def test_help_is_quick() -> None:
    code = """
import contextlib, io, json, sys
from tacit.cli.main import main
sys.argv = ["tacit", "--help"]
with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
    main()
print(json.dumps([list(sys.modules), said.getvalue()]))
"""
    modules, said = fresh(code)
    assert not HEAVY & set(modules) and "Usage" in said


def there_is(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xfail(not there_is(home), reason=f"{home} is still to come", strict=True))
        for name, home in tacit._HOMES.items()
    ],
)
def test_every_public_name_is_what_its_module_has(name: str) -> None:
    assert getattr(tacit, name) is getattr(importlib.import_module(tacit._HOMES[name]), name)
    assert name in dir(tacit)


def test_names_checkers_and_programs_see_are_the_same() -> None:
    tree = ast.parse(Path(tacit.__file__).read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imports for alias in node.names} == tacit._HOMES
    assert set(tacit.__all__) == {*tacit._HOMES, "__version__"}
    with pytest.raises(AttributeError, match="no attribute 'agents'"):
        tacit.agents  # noqa: B018
