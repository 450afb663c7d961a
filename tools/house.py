"""The house, counted: top-level files, lines, imports that go up, circles, and the files that one problem passes.

    python tools/house.py            # print the figures; exit 1 if one is past its bound
    python tools/house.py --no-trace # without running a problem

Builds on the standard library; the trace runs the testbed. ``tests/test_house.py`` holds what this file defines.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

SRC = Path(__file__).resolve().parent.parent / "src" / "tacit"

TOP_FILES = 20
SPINE_LINES = 2700
MODULE_LINES = 400
ALL_LINES = 42_200
"""29,400 while there was one task, 35,400 before models came as files and problems in families, 41,600 before larger
models had compiled steps, 42,000 before these had gradients."""
PASSED_FILES = 50  # 45 before presets, keys relative to a background, and records read back once written

# From the ground up; modules of one room may import each other. A room is a top-level module or a folder; a longer path
# is a room of its own within its folder.
ROOMS = [
    ["errors"],
    ["checks"],
    ["registry", "seeds", "problem"],
    ["config"],
    ["testbed"],
    ["answers", "tasks"],
    ["model"],
    ["engines"],
    ["memory"],
    ["bank"],
    ["judges"],
    ["rewards", "routing"],
    ["responses", "gradients", "recall"],
    ["labels", "learning"],
    ["agent"],
    ["assembly"],
    ["cluster"],
    ["methods"],
    ["experiments"],
    ["server"],
    ["cli"],
]
LEVEL = {name: level for level, names in enumerate(ROOMS) for name in names}


def files() -> list[Path]:
    """Every module of the package."""
    return sorted(SRC.rglob("*.py"))


def top() -> list[Path]:
    """The spine: the modules on top."""
    return sorted(SRC.glob("*.py"))


def module(file: Path) -> str:
    """A file's dotted name within the package ("" for the package itself)."""
    parts = list(file.relative_to(SRC).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file: Path, *, late: bool = True) -> set[str]:
    """Modules of the package that a file imports, as dotted names within it; ``late=False`` leaves out what is imported
    within functions and for type checking alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in _imports(tree, late):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif node.module:
            if node.level:
                raise SystemExit(f"{file}: relative imports hide where a module stands")
            names |= {_existing(f"{node.module}.{alias.name}") or node.module for alias in node.names}
    return {name.removeprefix("tacit").removeprefix(".") for name in names if name.split(".")[0] == "tacit"}


def _imports(tree: ast.AST, late: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif late or not _is_late(node):
            yield from _imports(node, late)


def _is_late(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.dump(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def _existing(name: str) -> str | None:
    path = SRC.parent / Path(*name.split("."))
    return name if path.with_suffix(".py").exists() or (path / "__init__.py").exists() else None


def room(name: str) -> str:
    """The room that a module stands in."""
    return name.partition(".")[0]


def going_up() -> list[str]:
    """Imports of an upper room, one sentence each."""
    found = []
    for file in files():
        own = room(module(file))
        if own in ("", "__main__"):
            continue
        for name in sorted(imported(file)):
            if name and LEVEL[room(name)] > LEVEL[own]:
                found.append(f"{module(file)} imports {name}, which stands above it")
    return found


def circles() -> list[str]:
    """Circles of modules that need each other to be imported, and of folders within folders."""
    modules = {module(file): imported(file, late=False) for file in files()}
    folders: dict[str, set[str]] = {}
    for name, needs in modules.items():
        for other in needs:
            ours, theirs = name.split("."), other.split(".")
            # Between sub-folders of one folder, and between a folder's own files and its sub-folders.
            if ours[0] == theirs[0] and len(ours) + len(theirs) > 4:
                here, there = ".".join(ours[:2] if len(ours) > 2 else ours), ".".join(theirs[:2])
                if here != there:
                    folders.setdefault(here, set()).add(there)
    found = {"modules": _circles(modules), "folders": _circles(folders)}
    return [f"circle of {what}: {circle}" for what, circles in found.items() for circle in circles]


def _circles(graph: dict[str, set[str]]) -> list[str]:
    done: set[str] = set()
    found: list[str] = []

    def visit(name: str, path: list[str]) -> None:
        if name in path:
            found.append(" -> ".join([*path[path.index(name) :], name]))
            return
        if name in done:
            return
        for other in sorted(graph.get(name, ())):
            if other and other != name:
                visit(other, [*path, name])
        done.add(name)

    for name in sorted(graph):
        visit(name, [])
    return found


def lines(file: Path) -> int:
    """Lines of a file."""
    return len(file.read_text(encoding="utf-8").splitlines())


def passed() -> set[str]:
    """Files of the package in which a function runs while ``tacit run`` answers one problem, learns from it and stores
    its memory: from the command's call to the report's. Problem and model are a user's, a file and a folder. The first
    run imports and compiles; the second one is traced."""
    sys.path.insert(0, str(SRC.parent))
    from tacit.cli import main
    from tacit.testbed import model_path

    seen: set[str] = set()
    prefix = f"{SRC}/"
    counting = False

    def trace(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal counting
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(prefix):
            counting = counting and frame.f_code.co_name != "write_report"
            if counting:
                seen.add(name.removeprefix(prefix))

    quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())  # and no terminal
    with tempfile.TemporaryDirectory() as folder, quiet[0], quiet[1]:
        data = Path(folder, "problem.jsonl")
        data.write_text('{"id": "1", "problem": "compute 99 * 4"}\n')
        arguments = ["run", "--model", str(model_path()), "--data", str(data), "--instruction", ""]
        arguments += ["--baselines", "none", "--out"]
        threading.setprofile(trace)  # threads that the first run starts live on in the second
        try:
            main.app([*arguments, f"{folder}/first"], standalone_mode=False)
            counting = True
            sys.setprofile(trace)
            main.app([*arguments, f"{folder}/second"], standalone_mode=False)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        if json.loads(Path(folder, "second", "summary.json").read_text())["memories"] != 1:
            raise SystemExit("the traced run stored no memory, so its files are not the way of one")
    return seen


def main() -> int:
    """Print the figures; 1 if one is past its bound."""
    parser = argparse.ArgumentParser(description="The house, counted.")
    parser.add_argument("--no-trace", action="store_true", help="do not run a problem")
    options = parser.parse_args()
    counts = {
        f"top-level files (at most {TOP_FILES})": (len(top()), TOP_FILES),
        f"lines of the spine (at most {SPINE_LINES:,})": (sum(map(lines, top())), SPINE_LINES),
        f"lines of the longest module (at most {MODULE_LINES})": (max(map(lines, files())), MODULE_LINES),
        f"lines in all (at most {ALL_LINES:,})": (sum(map(lines, files())), ALL_LINES),
    }
    if not options.no_trace:
        names = sorted(passed())
        counts[f"files that a problem passes (at most {PASSED_FILES})"] = (len(names), PASSED_FILES)
    wrong = going_up() + circles()
    for what, (count, bound) in counts.items():
        print(f"{count:7,}  {what}{'' if count <= bound else '  <-- too many'}")
    if not options.no_trace:
        print("         " + ", ".join(names))
    print("\n".join(wrong) if wrong else "imports go down; no circle")
    return int(bool(wrong) or any(count > bound for count, bound in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
