"""Which answers are the same answer: exact numbers, real reference answers, hostile ones, the worker's ends."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tacit.answers import pool as answer_pool
from tacit.answers.equivalence import equivalent, group, number, verdicts
from tacit.answers.normalisation import normalise
from tacit.tasks.maths import MATHS

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.mark.parametrize("nothing", [None, "", "  ", "$$", ".", "no answer", "No answer.", r"\text{no answer}"])
def test_no_answer_equals_nothing(nothing: str | None) -> None:
    assert not equivalent(nothing, nothing)
    assert not equivalent(nothing, "5")
    assert not equivalent("5", nothing)
    assert not equivalent(nothing, "0")


def test_both_directions_must_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen by the worker alone, without the layers before it: an inequality is an interval in one direction only."""
    assert answer_pool.compare("x>5", r"(5,\infty)", 10).value is False
    assert answer_pool.compare(r"(5,\infty)", "x>5", 10).value is False
    assert answer_pool.compare("x>5", "5<x", 10).value is True


TERMS = r"1 -2 0.5 \frac{1}{2} x 2x x^2 \sqrt{2} \pi (1,2) [1,2] {1,2} C + - = < %"
EXPRESSIONS = st.lists(st.sampled_from([", ", " cm", *TERMS.split()]), min_size=1, max_size=4).map("".join)


@settings(max_examples=60, deadline=None)
@given(EXPRESSIONS, EXPRESSIONS)
def test_equivalence_is_symmetric_and_reflexive(a: str, b: str) -> None:
    assert equivalent(a, b) == equivalent(b, a)
    for answer in (a, b):
        assert equivalent(answer, answer) == (normalise(answer) != "")


@given(st.text())
def test_any_text_equals_itself(text: str) -> None:
    assert equivalent(text, text) == (normalise(text) not in ("", "no answer"))


def written(value: Fraction) -> st.SearchStrategy[str]:
    """Ways of writing a fraction."""
    top, bottom = value.numerator, value.denominator
    ways = [f"{top}/{bottom}", f"\\frac{{{top}}}{{{bottom}}}", f"\\dfrac{{{3 * top}}}{{{3 * bottom}}}"]
    if bottom == 1:
        ways += [str(top), f"{top}.0", f"{top:,}", f"{top:,}".replace(",", "{,}"), f"x = {top}"]
    if 1000 % bottom == 0:
        ways.append(f"{float(value):.3f}")
    return st.sampled_from(ways)


RATIONALS = st.fractions(min_value=-2000, max_value=2000, max_denominator=50)


@settings(max_examples=300)
@given(st.data(), RATIONALS, RATIONALS)
def test_numbers_are_compared_exactly(data: st.DataObject, x: Fraction, y: Fraction) -> None:
    answer_pool.pool.close()
    assert equivalent(data.draw(written(x)), data.draw(written(x)))
    assert equivalent(data.draw(written(x)), data.draw(written(y))) == (x == y)
    assert answer_pool.pool.pids() == []


# ---------------------------------------------------------------- real reference answers


def golds(name: str) -> list[str]:
    path = DATA / f"{name}.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return [json.loads(line)["answer"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["math500", "amc23", "aime24", "gsm8k_test"])
def test_reference_answers_equal_themselves_however_written(name: str) -> None:
    for gold in sorted(set(golds(name))):
        spaced = gold.replace("+", " + ").replace("=", " = ").replace("(", "( ")
        display = gold.replace(r"\frac", r"\dfrac")
        for way in (gold, f"${gold}$", f"\\boxed{{{gold}}}", f"{gold}.", display, normalise(gold), spaced):
            assert equivalent(gold, way), (gold, way)
            assert normalise(normalise(way)) == normalise(way)


def test_reference_answers_that_differ_are_different() -> None:
    distinct = sorted({normalise(gold) for gold in golds("math500")})
    values = [(answer, number(answer)) for answer in distinct]
    for (a, x), (b, y) in itertools.combinations([pair for pair in values if pair[1] is not None], 2):
        assert equivalent(a, b) == (x == y)
    others = [answer for answer, value in values if value is None]
    merged = {pair for pair in itertools.combinations(others[::3], 2) if equivalent(*pair)}
    assert merged <= {("-2, 1", "1, -2")}


# ---------------------------------------------------------------- the worker's ends


@pytest.fixture
def fresh() -> Iterator[None]:
    """No worker and no verdict from before."""
    answer_pool.pool.close()
    verdicts.clear()
    yield
    answer_pool.pool.close()
    verdicts.clear()


def warm() -> None:
    """Have a worker that has started and imported: what that takes is not a hostile answer's cost."""
    assert answer_pool.compare("x+1", "1+x", 30).value is True


HOSTILE = {
    "tower": "10^{10^{10}}",
    "higher tower": "10^{10^{10^{10}}}",
    "digits": "9" * 1_000_000,
    "braces": "{" * 10_000 + "1" + "}" * 10_000,
    "short braces": "{" * 900 + "1" + "}" * 900,
    "brackets": "(" * 900 + "1" + ")" * 900,
    "fractions": r"\frac{1}{" * 180 + "2" + "}" * 180,
    "roots": r"\sqrt{" * 200 + "2" + "}" * 200,
    "backslashes": "\\" * 100_000,
    "some backslashes": "\\" * 1_900,
    "null": "\0" * 1_900 + "5",
    "emoji": "😀" * 1_900,
    "surrogate": "\ud800 5",
    "power": "(x+y+z)^{5000}",
    "factorial": "(10^{9})!",
    "commas": "x," * 900,
    "signs": r"\pm" * 600,
    "spaces": "1 " * 900,
    "unions": r"(1,2)\cup" * 200,
}
PATIENCE = 1.0


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_costs_at_most_the_limit(name: str) -> None:
    hostile = HOSTILE[name]
    for other in ("x+7", hostile + "+1"):
        warm()
        start = time.monotonic()
        assert not equivalent(hostile, other, PATIENCE)
        assert time.monotonic() - start < 1.5 * PATIENCE + 1.5
    assert equivalent("x+1", "1+x")


def test_what_timed_out_once_is_not_asked_again(fresh: None) -> None:
    hostile = HOSTILE["higher tower"]
    assert not equivalent(hostile, "x+1", 0.5)
    start = time.monotonic()
    assert not equivalent("x+2", hostile, 0.5)
    assert not equivalent("x+1", hostile, 0.3)
    assert time.monotonic() - start < 0.2


def test_a_hostile_answer_does_not_spoil_a_vote(fresh: None) -> None:
    answers = [HOSTILE["higher tower"], r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}", HOSTILE["braces"]]
    warm()
    start = time.monotonic()
    assert group(answers, PATIENCE)[0] == [1, 2]
    assert time.monotonic() - start < 3 * (1.5 * PATIENCE + 1)
    assert MATHS.vote(answers).agrees == (False, True, True, False)


HANGS = """\
import os, sys, time
for line in sys.stdin:
    with open(sys.argv[1], "a") as file:
        print(os.getpid(), file=file)
    print(0, flush=True)  # it has begun
    time.sleep(600)  # spends no CPU time, so a timer of its own would not help
"""


def test_a_worker_that_hangs_is_killed_by_the_wall_clock(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pool = answer_pool.Pool([sys.executable, "-c", HANGS, str(pids)], lambda: dict(os.environ))
    start = time.monotonic()
    for _ in range(2):  # the second job gets a worker of its own
        assert pool.run({"do": "compare"}, 0.5) == answer_pool.Reply(None, "timeout", 0, 0.5)
    assert time.monotonic() - start < 10
    assert pool.pids() == []
    first, second = map(int, pids.read_text().split())
    assert first != second and not alive(first) and not alive(second)


def test_a_worker_killed_from_outside_is_replaced(fresh: None) -> None:
    for _ in range(3):
        verdicts.clear()
        assert equivalent("x+1", "1+x")
        (pid,) = answer_pool.pool.pids()
        os.kill(pid, signal.SIGKILL)
    verdicts.clear()
    assert equivalent("x+1", "1+x")


def test_a_worker_killed_in_the_middle_is_replaced_once(fresh: None) -> None:
    equivalent("x+1", "1+x")
    (pid,) = answer_pool.pool.pids()
    killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
    killer.start()
    start = time.monotonic()
    assert not equivalent(HOSTILE["higher tower"], "x+1", PATIENCE)  # asked again of a second worker, which times out
    assert time.monotonic() - start < 10
    killer.join()
    assert equivalent("x+3", "3+x")


def test_a_worker_that_cannot_import_says_so(fresh: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "math_verify.py").write_text("raise ImportError('it is gone')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(answer_pool.ConfigError, match="it is gone"):
        equivalent("x+1", "1+x")


def test_many_threads(fresh: None) -> None:
    wrong: list[int] = []

    def ask(n: int) -> None:
        for k in range(4):
            if not equivalent(f"x+{n % 3 + k}", f"{n % 3 + k}+x") or equivalent(f"x+{n}+{k}", f"x+{n}+{k + 1}"):
                wrong.append(n)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []
    assert len(answer_pool.pool.pids()) <= answer_pool.MAX_WORKERS


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_starts_its_own_worker(fresh: None) -> None:
    equivalent("x+1", "1+x")
    (pid,) = answer_pool.pool.pids()
    child = os.fork()
    if child == 0:
        good = answer_pool.pool.pids() == [] and equivalent("x+3", "3+x") and answer_pool.pool.pids() != [pid]
        answer_pool.pool.close()
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert answer_pool.pool.pids() == [pid]
    assert equivalent("x+4", "4+x")
    assert answer_pool.pool.pids() == [pid]


SCRIPT = """
import sys, os, time
from tacit.answers import pool as answer_pool
from tacit.answers.equivalence import equivalent
assert equivalent("x+1", "1+x")
assert "torch" not in sys.modules and "sympy" not in sys.modules
print(answer_pool.pool.pids()[0], flush=True)
if sys.argv[1] == "wait":
    time.sleep(60)
"""


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_the_worker_ends_with_its_parent(end: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "wait" if end == "kill" else "go"], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    if end == "kill":
        parent.kill()
    parent.wait(30)
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)
