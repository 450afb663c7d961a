"""The sandbox against programs that mean harm: each costs its limit at most, harms nothing, fools no comparison, and an
honest candidate right behind it works."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tacit.answers import sandbox
from tacit.answers.pool import Pool
from tacit.answers.sandbox import FAILED, Program, limits, values
from tacit.errors import ConfigError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="candidates run on Linux alone")

ONE = sandbox.call([1], {})
HONEST = Program("def f(x):\n    return x + 1", "f")
ALL_FDS = "\n        for fd in range(64):\n            try: os.write(fd, {text})\n            except OSError: pass"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "CPU", 1)
    monkeypatch.setattr(sandbox, "CPU_TESTS", 1)


def run(body: str, *calls: str, before: str = "") -> tuple[str, ...]:
    return sandbox.results(Program(f"import os, sys\n{before}\ndef f(x):\n    {body}", "f"), calls or (ONE,))


HARM = {
    "forks for ever": "while True: os.fork()",
    "forks by the C library": "return sys.modules['limits']._libc.fork() > 0 or int('no process')",
    "starts a thread": "import threading; threading.Thread(target=f).start()",
    "starts a program": "os.execv('/bin/sh', ['/bin/sh', '-c', 'touch /tmp/harm'])",
    "starts a shell": "return int(os.system('true') == 0 or 'no shell')",
    "fills the disk": "h = open('/tmp/harm', 'wb')\n    while True: h.write(b'x' * 2**20)",
    "fills memory as a file": "os.memfd_create('x')",
    "opens a socket": "import _socket; _socket.socket()",
    "opens a socket by number": "return sys.modules['limits']._libc.syscall(41, 2, 1, 0) >= 0 or int('no socket')",
    "reads a file": "return open('/etc/passwd').read()",
    "reads a file by name alone": "return os.stat('/etc/passwd').st_size",
    "lists a folder": "return os.listdir('/')",
    "reads the process": "return open('/proc/self/environ', 'rb').read()",
    "has a variable": "return os.environ['PATH']",
    "has another variable": "return os.environ['PYTHONHASHSEED']",
    "kills its parent": "os.kill(int(x), 9)",
    "kills everybody": "os.kill(-1, 9)",
    "raises its limits": "import resource; resource.setrlimit(resource.RLIMIT_CPU, (99, 99))",
    "is deaf to signals": "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)",
    "sets a timer": "import signal; signal.setitimer(signal.ITIMER_REAL, 1)",
    "leaves at once": "os._exit(0)",
    "leaves": "sys.exit(0)",
    "aborts": "os.abort()",
    "eats memory": "a = []\n    while True: a.append(bytearray(2**24))",
    "maps memory": "return len([0] * 10**10)",
    "counts for ever": "while True: pass",
    "counts without Python": "return 10**10**10",
    "searches for ever": "import re; return bool(re.match('(a|a)*$', 'a' * 60 + 'b'))",
    "falls": "return f(x)",
    "falls deep": "sys.setrecursionlimit(10**9); return f(x)",
    "is too large": "return 'x' * 10**8",
    "is too deep": "a = []\n    for _ in range(10**5): a = [a]\n    return a",
    "holds itself": "a = []; a.append(a); return a",
    "is endless": "import itertools; return itertools.count()",
    "is a function": "return lambda: 1",
    "floods the pipe": "while True: os.write([fd for fd in range(3, 64) if _open(fd)][0], b'x' * 65536)",
}  # fmt: skip
BEFORE = """
def _open(fd):
    try: return os.write(fd, b'') == 0
    except OSError: return False
"""


@pytest.mark.parametrize("harm", HARM)
def test_harm_gives_nothing_and_the_next_one_works(harm: str) -> None:
    assert run(HARM[harm], before=BEFORE) == (FAILED,)
    assert sandbox.results(HONEST, (ONE,)) == ("2",)
    (pid,) = sandbox.pool.pids()
    assert psutil.Process(pid).children() == []
    assert not Path("/tmp/harm").exists()


def test_the_process_that_forks_cannot_be_killed_by_those_it_forks() -> None:
    sandbox.results(HONEST, (ONE,))
    (pid,) = sandbox.pool.pids()
    for victim in (pid, os.getpid()):
        assert run("os.kill(x, 9)", sandbox.call([victim], {})) == (FAILED,)
    assert run("os.kill(os.getppid(), 9)") == (FAILED,)
    assert sandbox.pool.pids() == [pid] and psutil.pid_exists(pid)


def test_what_only_wastes_is_harmless() -> None:
    assert run("import time; time.sleep(10**6); return x") == ("1",)
    assert run("for _ in range(1000): print('x' * 10**6)\n    return x") == ("1",)
    assert run("return sorted(os.environ)") == ("list()",)
    assert run("try: return f(x + 1)\n    except RecursionError: return 'bottom'") == ('"bottom"',)
    assert run("try: input()\n    except EOFError: return 'nobody there'") == ('"nobody there"',)


def test_results_up_to_the_limit_count() -> None:
    calls = [sandbox.call([n], {}) for n in range(4)]
    assert run("while x == 2: pass\n    return x", *calls) == ("0", "1", FAILED, FAILED)
    assert run("return 1 / x", *calls[:3]) == (FAILED, "1", "0.5")
    assert run("os._exit(0) if x == 1 else 0\n    return x", *calls[:3]) == ("0", FAILED, FAILED)


def test_each_call_has_its_own_arguments_and_random_numbers() -> None:
    call = sandbox.call([[3, 1]], {})
    assert run("x.sort(); x.append(0); return len(x)", call, call) == ("3", "3")
    first, second = run("import random; return random.random()", ONE, ONE)
    assert first == second != FAILED


def test_what_gives_nothing_is_told_by_what_it_does() -> None:
    call = sandbox.call([[3, 1]], {})
    sorts, rests, prints = (run(body, call) for body in ("x.sort()", "x", "print(x)"))
    assert rests == ("null",)
    assert len({sorts, rests, prints}) == 3


def test_a_forged_line_is_a_result_and_nothing_more() -> None:
    forged = json.dumps(["value", "[" * 5000]).encode()
    lines = [b'["value", "7"]\n', b"\x80\x04.\n", b"null\n", forged + b"\n", b"[]\n", b'["value", "{\\"a\\": NaN}"]\n']
    for line in lines:
        found = run("x" + ALL_FDS.format(text=line) + "\n    return 5", ONE, ONE)
        assert set(found) <= {"7", "5", FAILED}
    assert sandbox.results(HONEST, (ONE,)) == ("2",)


CHEATS = {
    "equal to all": "class E:\n    def __eq__(self, o): return True\n    def __abs__(self): return 0\n"
    "    __sub__ = __lt__ = __hash__ = __eq__\ndef f(x): return E()",
    "a number equal to all": "class E(int):\n    def __eq__(self, o): return True\ndef f(x): return E(5)",
    "writes a verdict": "import os\ndef f(x):\n    if x:" + ALL_FDS.format(text=b"true\n"),
    "leaves well": "import os\ndef f(x): os._exit(0)",
    "exits": "def f(x): raise SystemExit(0)",
    "ends loops": "def f(x): raise StopIteration",
    "other builtins": "import builtins\nbuiltins.all = builtins.abs = abs = all = lambda *a: 0\ndef f(x): return 5",
    "other modules": "import sys, json\njson.dumps = lambda *a: 'true'\nsys.modules.clear()\ndef f(x): return 5",
    "reads the tests": "import sys, gc\ndef f(x):\n    frame, seen = sys._getframe(), []\n    while frame:\n"
    "        seen.append(frame.f_locals)\n        frame = frame.f_back\n"
    "    seen += [o for o in gc.get_objects() if isinstance(o, (dict, list, tuple))]\n"
    "    held = [str(v) for o in seen for v in (o.values() if isinstance(o, dict) else o) if isinstance(v, str)]\n"
    "    return 2 if any(''.join(['need', 'le']) in text for text in held) else 5",
    "defines nothing": "x = 1",
    "is no program": "def f(x",
}  # fmt: skip
TESTS = """
needle = 2
def check(candidate):
    assert abs(candidate(1) - 2) < 1e-6
    assert candidate(1) == 2 and 2 == candidate(1)
    assert list(map(candidate, [1, 1])) == [2, 2]
check(f)
"""


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_cheat_passes_tests(cheat: str) -> None:
    assert not sandbox.passes(Program(CHEATS[cheat], "f"), TESTS)
    assert not sandbox.passes(Program(CHEATS[cheat], "f"), "assert all(map(lambda x: f(x) == 2, [1]))")
    assert sandbox.passes(HONEST, TESTS)


def test_a_look_around_finds_what_is_there() -> None:
    """The cheat that reads the tests is able to: it finds a word that is among its calls."""
    assert sandbox.results(Program(CHEATS["reads the tests"], "f"), [sandbox.call(["needle"], {})]) == ("2",)


def test_tests_see_values_exceptions_and_helpers() -> None:
    code = "def helper(x):\n    return x * 2\n"
    code += "def f(x):\n    if x < 0:\n        raise ValueError('below')\n    return (helper(x), [x])"
    tests = """
import math
assert f(2) == (4, [2]) and isinstance(f(2), tuple) and f(x=1)[1][0] == 1
assert helper(3) == 6 and twice(3) == 6
try: f(-1)
except ValueError: caught = True
assert caught and math.isclose(f(1)[0], 2.0)
"""
    program = Program(code, "f", prelude="def twice(x):\n    return x + x")
    assert sandbox.passes(program, tests)
    assert not sandbox.passes(program, tests + "assert f(0) == [0, [0]]")
    assert not sandbox.passes(program, "while True: pass")


def _altered(tmp_path: Path, old: str, new: str) -> str:
    """What is missing where the limits are other ones."""
    home = Path(sandbox.__file__).parent
    for name in ("zygote.py", "values.py", "limits.py"):
        shutil.copy(home / name, tmp_path)
    text = (tmp_path / "limits.py").read_text()
    assert old in text
    (tmp_path / "limits.py").write_text(text.replace(old, new))
    pool = Pool([sys.executable, "-S", "-s", "-B", str(tmp_path / "zygote.py")], dict)
    try:
        return str(pool.run({}, 30).value[0])
    finally:
        pool.close()


def test_a_machine_that_cannot_confine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sandbox.check() == sandbox.check()
    assert _altered(tmp_path, "prctl(_PR_SET_SECCOMP, 2,", "prctl(_PR_SET_SECCOMP, 7,") == "seccomp filters"
    more = '"read": (0, 63), "openat": (257, 56)'
    assert _altered(tmp_path, '"read": (0, 63)', more) == "a wall against opening files"
    assert _altered(tmp_path, '("CORE", 0)', '("NONE", 0)').startswith("the limit")
    sandbox.check.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(limits.platform, "machine", lambda: "riscv64")
        with pytest.raises(ConfigError, match="x86 and ARM"):
            sandbox.check()
        patch.setattr(sys, "platform", "darwin")
        with pytest.raises(ConfigError, match="Linux alone"):
            sandbox.check()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
        | st.frozensets(st.integers() | st.text(max_size=5), max_size=5)
    ),
    max_leaves=20,
)


@given(PLAIN)
def test_plain_values_cross_unchanged(value: object) -> None:
    text = values.encode(value)
    assert values.decode(text) == value and type(values.decode(text)) is type(value)
    assert values.encode(values.decode(text)) == text


@given(PLAIN, PLAIN)
def test_one_canonical_text_for_what_is_equal(one: object, other: object) -> None:
    texts = [values.canonical(values.encode(value)) for value in (one, other)]
    assert texts[0] == texts[1] or one != other


def test_canonical_texts_tell_kinds_apart() -> None:
    def text(value: object) -> str:
        return values.canonical(values.encode(value))

    assert text(1) == text(1.0) == text(True) and text({1, 2}) == text(frozenset((2, 1)))
    assert text({"a": 1, "b": 2}) == text({"b": 2.0, "a": True}) and text(0.1 + 0.2) == text(0.3)
    different = [
        1,
        "1",
        [1],
        (1,),
        {1},
        {1: 1},
        None,
        b"1",
        1.5,
        1j,
        float("nan"),
        float("inf"),
        10**400,
        [[1]],
        "None",
    ]
    assert len({text(value) for value in different}) == len(different)


@given(st.text() | st.recursive(st.none() | st.text(), st.lists, max_leaves=9).map(json.dumps))
def test_hostile_texts_are_refused_or_values(text: str) -> None:
    for read in (values.decode, values.canonical):
        with contextlib.suppress(values.Unsayable):
            read(text)
