"""Programs in texts: the code in a response, the function that a problem wants, and the calls that either shows.

Builds on answers' values; reads syntax trees and runs nothing. A program's normal form is its text without comments,
docstrings, tests and calls, so that equal code is one answer.
"""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from tacit.answers.sandbox import call, values

LONGEST = 20_000
"""Characters of a program; a longer text is none."""
_CALLS = 64
_CALL_LENGTH = 2000
_TRIES = 40

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_BLOCK = re.compile(r"^[ \t]*(`{3,8}|~{3,8})[^`\n]*\n(.*?)(?:^[ \t]*\1|\Z)", re.DOTALL | re.MULTILINE)
_CODE_LINE = re.compile(r"^(?:def |async def |class |import |from \w[\w.]* import |@\w)", re.MULTILINE)
_SIGNATURE = re.compile(r"\bdef\s+([A-Za-z_]\w*)\s*\([^)]*\)(?:\s*->\s*[\w\[\], .|\"']+)?")
_TEST = re.compile(r"^[ \t]*(?:>>>[ \t]*)?((?<=>>> ).+|assert\b.+)$", re.MULTILINE)
_SAID = (
    re.compile(r"`([A-Za-z_]\w*)\("),
    re.compile(r"\b(?:function|method)\s+(?:is\s+)?(?:named|called)?\s*[`'\"]([A-Za-z_]\w*)[`'\"]"),
    re.compile(r"\b(?:function|method)\s+(?:named|called)\s+([A-Za-z_]\w*)"),
    re.compile(r"\b([A-Za-z_]\w*)\([^()\n]*\)\s*(?:==|->|=>|→|➞)"),
)
_RESULT = re.compile(r"`?[ \t]*(?:==|->|=>|→|➞|⇒|#+[ \t]*(?:->|=>|returns?:?)?|(?:should )?returns?:?)[ \t]*`?")


@dataclass(frozen=True)
class Example:
    """A call that a text shows.

    Attributes:
        source: as Python writes it.
        call, result: as texts of the sandbox; the result beside it is None where there is none.
    """

    source: str
    call: str
    result: str | None


@dataclass(frozen=True)
class Wanted:
    """What a problem asks for.

    Attributes:
        name: the function's; None where the problem says none.
        header: its signature, "def f(x: int) -> int:", and its imports; "" where the problem shows none.
        prelude: what the problem defines besides: imports, helpers.
        examples: calls that it shows.
    """

    name: str | None
    header: str
    prelude: str
    examples: tuple[Example, ...]


def parsed(source: str) -> ast.Module | None:
    """The syntax tree of a program, None where it is none."""
    if len(source) > LONGEST or "\0" in source:
        return None
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def functions(tree: ast.Module) -> list[_Function]:
    """Functions on top of a program."""
    return [node for node in tree.body if isinstance(node, _Function)]


# -- problems ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def wanted(problem: str) -> Wanted:
    """The function that a problem wants: the last one that it shows the head of, else the one that its tests call or
    its words name."""
    problem = problem[:LONGEST]
    for source in (*[found[2] for found in _BLOCK.finditer(problem)][::-1], _from_code(problem)):
        code = textwrap.dedent(source).rstrip()
        tree = parsed(code) or parsed(f"{code}\n    pass") or parsed(f"{code}:\n    pass") or _whole(code)
        if tree is not None and (found := functions(tree)):
            target = next((f for f in reversed(found) if _empty(f)), found[-1])
            prelude = "\n".join(ast.unparse(node) for node in _kept(tree, target.name) if node is not target)
            return Wanted(target.name, _head(target), prelude, tuple(calls(problem, target.name)))
    for signature in _SIGNATURE.finditer(problem):
        tree = parsed(f"{signature[0]}: pass")
        if tree is not None:
            return Wanted(signature[1], _head(functions(tree)[0]), "", tuple(calls(problem, signature[1])))
    name = tested(problem)
    for pattern in _SAID:
        name = name or next((name for name in pattern.findall(problem) if not hasattr(builtins, name)), None)
    return Wanted(name, "", "", tuple(calls(problem, name)))


def tested(text: str) -> str | None:
    """The function that most asserts and doctests of a text call: the outermost that is not Python's own."""
    found: list[str] = []
    for line in _TEST.findall(text):
        nodes = ast.walk(parsed(line) or ast.Module([], []))
        names = [node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        found += [name for name in names if not hasattr(builtins, name)][:1]
    return max(found, key=lambda name: (found.count(name), -found.index(name)), default=None)


def _from_code(text: str) -> str:
    first = _CODE_LINE.search(text)
    return text[first.start() :] if first else ""


def _head(function: _Function) -> str:
    """A function's signature, and what it imports before anything else."""
    imports = [node for node in function.body if isinstance(node, ast.Import | ast.ImportFrom)]
    bare = ast.FunctionDef(function.name, function.args, [*imports, ast.Pass()], [], function.returns)
    return ast.unparse(ast.fix_missing_locations(bare)).rpartition("\n")[0]


def calls(text: str, name: str | None) -> Iterator[Example]:
    """Calls of a function with literal arguments, in the order of a text: in tests, doctests and prose."""
    if name is None:
        return
    for start in [found.start() for found in re.finditer(rf"(?<![\w.]){re.escape(name)}\(", text)][:_CALLS]:
        for closing in [found.end() for found in re.finditer(r"\)", text[start : start + _CALL_LENGTH])][:_TRIES]:
            made = _call(text[start : start + closing])
            if made is not None:
                line_start = text.rfind("\n", 0, start) + 1
                line, _, following = text[start + closing :].partition("\n")
                if not line.strip() and re.fullmatch(r"\s*>>> *", text[line_start:start]):
                    yield Example(*made, _literal(following.partition("\n")[0]))
                else:
                    result = _RESULT.match(line)
                    yield Example(*made, _literal(line[result.end() :]) if result else None)
                break


def _call(source: str) -> tuple[str, str] | None:
    """A call with literal arguments, as Python and as the sandbox write it; None for any other."""
    try:
        node = ast.parse(source, mode="eval").body
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            return None
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
        return ast.unparse(node), call([ast.literal_eval(argument) for argument in node.args], named)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, values.Unsayable):
        return None


def _literal(line: str) -> str | None:
    """The canonical text of the literal that a line begins with, up to a comma or the words behind it."""
    words = _until_comma(line).strip().split(" ")
    for count in range(len(words), max(0, len(words) - 8), -1):
        behind = words[count][:1] if count < len(words) else "("
        if behind.isalpha() or behind in "(#-":
            text = " ".join(words[:count])
            found = _value(text) or _value(text.rstrip(".`)"))
            if found is not None:
                return found
    return None


def _value(text: str) -> str | None:
    try:
        return values.canonical(values.encode(ast.literal_eval(text)))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError, values.Unsayable):
        return None


def _until_comma(line: str) -> str:
    """A line up to its first comma or semicolon outside of brackets and quotes."""
    depth, quote = 0, ""
    for place, character in enumerate(line[:_CALL_LENGTH]):
        if quote:
            quote = "" if character == quote and line[place - 1] != "\\" else quote
        elif character in "'\"":
            quote = character
        elif character in ",;" and depth <= 0:
            return line[:place]
        else:
            depth += (character in "([{") - (character in ")]}")
    return line


# -- responses --------------------------------------------------------------------------------------------------------


def answer(text: str, wanted: Wanted) -> str | None:
    """The answer in a response: the normal form of its program, and below it, as comments, the calls that it shows.

    The last fenced block that defines the function counts; then code without a fence; then, if the problem shows the
    function's head, a text that goes on with its body, as of base models.
    """
    text = text.rpartition("</think>")[2][: 10 * LONGEST]
    if "<think>" in text:  # it never stopped thinking
        return None
    blocks = [textwrap.dedent(found[2]) for found in _BLOCK.finditer(text)][::-1]
    trees = [_whole(source) for source in (*blocks, text, _from_code(text)) if source]
    if wanted.header:
        bodies = [*(textwrap.indent(block, "    ") for block in blocks if not _from_code(block)), _body(text)]
        trees += [tree for body in bodies if (tree := parsed(f"{wanted.header}\n{body}")) and _gives(tree)]
    for tree in trees:
        code = normal(tree, wanted.name) if tree is not None else None
        if code is not None:
            name = wanted.name or called(code)
            shown = {f"# {found.source}" for found in calls(text, name)}
            return "\n".join([code, *sorted(shown, key=lambda line: (len(line), line))[:8]])
    return None


def parts(answer: str) -> tuple[str, list[str]]:
    """The program of an answer, and the calls that it shows."""
    lines = answer.split("\n")
    end = len(lines)
    while end and lines[end - 1].startswith("# "):
        end -= 1
    shown = [_call(line[2:]) for line in lines[end:]]
    return "\n".join(lines[:end]), [made[1] for made in shown if made]


def head(code: str, name: str | None) -> str:
    """The signature of a program's function; "" where there is none."""
    tree = parsed(code)
    found = [one for one in functions(tree) if name in (None, one.name)] if tree is not None else []
    return _head(found[-1]) if found else ""


def called(code: str) -> str:
    """The function of a program that is meant where a problem names none: the last one on top."""
    tree = parsed(code)
    found = functions(tree) if tree is not None else []
    return found[-1].name if found else ""


def normal(tree: ast.Module, name: str | None) -> str | None:
    """A program's normal form; None where it does not define the function (any, where nobody has said its name), or
    only its head."""
    kept = _kept(tree, name)
    found = [node for node in kept if isinstance(node, _Function) and name in (None, node.name)]
    if not found or _empty(found[-1]):
        return None
    try:
        return ast.unparse(ast.fix_missing_locations(_Bare().visit(ast.Module(kept, []))))
    except (RecursionError, ValueError):
        return None


def _kept(tree: ast.Module, name: str | None) -> list[ast.stmt]:
    """Statements on top of a program that define something: no calls, tests, loops nor what runs as a script."""
    kept: list[ast.stmt] = []
    for node in tree.body:
        main = isinstance(node, ast.If) and "__name__" in ast.dump(node.test)
        tried = isinstance(node, ast.Assign | ast.AnnAssign) and any(
            isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id == name
            for inner in ast.walk(node)
        )
        test = isinstance(node, _Function) and node.name != name and re.match("test_|check$|main$", node.name)
        if not (main or tried or test or isinstance(node, ast.Expr | ast.Assert | ast.For | ast.While)):
            kept.append(node)
    return kept


class _Bare(ast.NodeTransformer):
    """Takes docstrings out."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, _Function | ast.ClassDef) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        return node


def _empty(function: _Function) -> bool:
    """Whether a function has a head alone: imports, a docstring, pass or an ellipsis for a body."""
    return all(
        isinstance(node, ast.Pass | ast.Import | ast.ImportFrom)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in function.body
    )


def _gives(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.Return | ast.Yield | ast.YieldFrom) for node in ast.walk(tree))


def _whole(source: str) -> ast.Module | None:
    """The program that a text begins with: up to the line on top level where it is none any more. A function that the
    end of the text cuts is not part of it."""
    lines = source.split("\n")
    end = len(lines)
    for _ in range(_TRIES):
        text = "\n".join(lines[:end])
        if len(text) > LONGEST:
            return None
        try:
            return ast.parse(text)
        except SyntaxError as error:
            wrong = min(error.lineno or end, end) - 1
        except (ValueError, RecursionError, MemoryError):
            return None
        end = next((n for n in range(wrong, 0, -1) if lines[n][:1].strip()), 0)
        if not end:
            return None
    return None


def _body(source: str) -> str:
    """What goes on with the body of a function: indented lines, the first of which may have lost its indent."""
    lines = source.strip("\n").split("\n")
    if lines[0][:1].strip():
        lines[0] = "    " + lines[0]
    end = next((n for n, line in enumerate(lines) if line[:1].strip()), len(lines))
    return "\n".join(lines[:end])
