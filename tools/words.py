"""The words, counted: sentences of docs, docstrings and error messages that are too long, and words that say nothing.

    python tools/words.py [-v]  # what is past its bound, exit 1 if anything is; -v: whole sentences of docs past it too

For the bound a sentence ends with a full stop, a question mark, a semicolon or a colon, or where a point, a cell or a
paragraph does. For the median only those of paragraphs and points count, whole. Code counts as one word, a link as its
text, what stands in brackets not at all. Builds on the standard library.
"""

from __future__ import annotations

import ast
import inspect
import re
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = "README.md CHANGELOG.md examples/README.md .github/*.md docs/*.md docs/tutorials/*.md docs/reference/*.md"
MEDIAN, MOST, WHOLE = 12, 20, 32
EMPTY = re.compile(
    r"(?i)\b(simply|just|very|really|basically|obviously|of course|please|in order to|due to the fact|make use of"
    r"|utili[sz]\w*|leverag\w*|seamless\w*|robust\w*|powerful|state-of-the-art|cutting-edge)\b"
)
Told = tuple[str, str]  # where it stands, and what it says


def paragraphs(file: Path) -> Iterator[Told]:
    """Paragraphs, points of lists and cells of tables; code, headings and HTML are left out."""
    text = file.read_text(encoding="utf-8")
    text = re.sub(r"^( *)```.*?^\1```$|<!--.*?-->", lambda found: "\n" * found[0].count("\n"), text, flags=re.M | re.S)
    held, start = list[str](), 0
    for number, line in enumerate([*text.splitlines(), ""], 1):
        if held and (not line.strip() or re.match(r"\s*([-*]|\d+\.) |\||#", line)):
            yield f"{file.relative_to(ROOT)}:{start}", " ".join(held)
            held = []
        if line.startswith("|"):
            yield from ((f"{file.relative_to(ROOT)}:{number} (table)", cell) for cell in re.split(r"(?<!\\)\|", line))
        elif line.strip() and (held or not re.match(r"#|<|---|    ", line)):
            start, held = start if held else number, [*held, line.strip()]


def messages(file: Path) -> Iterator[Told]:
    """What the errors that a module raises say, with a word for each value."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            said = node.exc.args[0]
            parts = said.values if isinstance(said, ast.JoinedStr) else [said]
            texts = [str(part.value) if isinstance(part, ast.Constant) else "`x`" for part in parts]
            yield f"{file.relative_to(ROOT)}:{node.lineno}", "".join(texts)


def docstrings(file: Path) -> Iterator[Told]:
    """Paragraphs and points of a module's docstrings, and of the texts under its names; indented code is left out."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        body = getattr(node, "body", None)
        for one in body if isinstance(body, list) else []:
            if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) and isinstance(one.value.value, str):
                where = f"{file.relative_to(ROOT)}:{one.lineno}"
                for part in re.split(r"\n\s*\n", inspect.cleandoc(one.value.value)):
                    points = re.split(r"\n(?=\s*(?:[-*]|\d\.) |(?:    )?[\w, `*]+: )", part)
                    yield from ((where, " ".join(point.split())) for point in points if not part.startswith("    "))


def sentences(told: Iterable[Told], ends: str = ".?!:;") -> Iterator[Told]:
    """Each sentence with where its paragraph begins."""
    for where, text in told:
        plain = re.sub(r"`+[^`]+`+", "x", re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text))
        plain = re.sub(r"\([^()]*\)", "", re.sub(r"[*_>]+", "", plain))
        yield from ((where, one.strip()) for one in re.split(rf"(?<=[{ends}])\s+", plain) if one.strip())


def words(sentence: str) -> int:
    """How many."""
    return len(re.findall(r"\w[^\s]*", sentence))


def main() -> int:
    """Print the figures; 1 if one is past its bound."""
    read = [one for name in DOCS.split() for file in sorted(ROOT.glob(name)) for one in paragraphs(file)]
    source = [*sorted((ROOT / "src/tacit").rglob("*.py")), *sorted((ROOT / "examples").glob("*.py"))]
    said = [one for file in source for one in (*messages(file), *docstrings(file))]
    docs, code = list(sentences(read)), list(sentences(said))
    whole = [(where, one) for where, one in sentences(read, ".?!") if not where.endswith("(table)")]
    wrong, median = 0, statistics.median(words(one) for _, one in whole)
    for some, most in ((docs, MOST), (code, MOST), (whole, MOST if "-v" in sys.argv else WHOLE)):
        for where, one in some:
            count, empty = words(one), EMPTY.search(one) if some is not whole else None
            if count > most or empty:
                print(f"{where}: {count} words{f', one is {empty[0]!r}' if empty else ''}: {one}")
                wrong += empty is not None or count > (MOST if some is not whole else WHOLE)
    print(f"{len(whole):,} sentences of docs, half of them of at most {median:g} words (at most {MEDIAN})")
    print(f"{len(docs):,} pieces of them and {len(code):,} of docstrings and error messages have at most {MOST} words,")
    print(f"whole sentences {WHOLE}, and none has an empty one: {wrong} do not hold that")
    return int(wrong > 0 or median > MEDIAN)


if __name__ == "__main__":
    sys.exit(main())
