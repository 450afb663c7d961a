"""What the commands share: printing, JSON, options of the same name and meaning, the table of a run's figures.

Builds on errors, typer and rich (both imported late where they are slow). Results go to stdout, progress to stderr.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import time
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from tacit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from tacit.bank import Bank

DEFAULT_NAMESPACE = "default"


class Interrupted(Exception):
    """Ctrl-C during something that can be continued; the message says how."""


BankOption = Annotated[
    str,
    typer.Option(
        "--bank",
        metavar="URL",
        envvar="TACIT_BANK",
        help="Memory bank: sqlite:///FILE, the path of the file, or postgresql+psycopg://USER@HOST/DATABASE.",
    ),
]
NamespaceOption = Annotated[
    str,
    typer.Option(
        "--namespace",
        metavar="NAME",
        help="Whose memories; nothing crosses namespaces.",
        callback=lambda name: unicodedata.normalize("NFC", name),  # as keys.py keeps it, whatever a keyboard makes
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


class ReaderGone(Exception):
    """Whoever read stdout has closed it."""


def emit(text: str) -> None:
    """One line (or more) on stdout; what the terminal's encoding lacks is replaced.

    Raises:
        ReaderGone: nobody reads stdout any more (``tacit ... | head``).
        DataError: stdout cannot be written, a full disk for instance.
    """
    encoding = sys.stdout.encoding or "utf-8"
    with writing():
        sys.stdout.write(text.encode(encoding, errors="replace").decode(encoding) + "\n")


@contextmanager
def writing() -> Iterator[None]:
    """Turns what can go wrong in writing to stdout into ReaderGone and DataError."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderGone from None
    except OSError as error:
        raise DataError(f"The output cannot be written: {error.strerror or error}.") from None


def emit_json(value: Any, *, indent: int | None = 2) -> None:
    """``value`` as JSON on stdout. Without indent it is one line, for JSONL."""
    emit(json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False))


def one_line(text: str) -> str:
    """``text`` on one line and harmless to a terminal, wherever it came from: white space becomes single blanks, and
    control characters, which could move the cursor or worse, become question marks."""
    return "".join(char if char.isprintable() else "\ufffd" for char in " ".join(text.split()))


def console(stream: TextIO | None = None, *, like: TextIO | None = None) -> Console:
    """A rich console on ``stream`` (stderr) that takes text as it is: no markup, no emoji, no highlighting.

    ``like`` is the stream whose terminal it imitates, if not ``stream`` itself.
    """
    from rich.console import Console

    stream = stream or sys.stderr
    terminal = (like or stream).isatty()
    # Piped output has no width: tables then get as much as they want.
    width = None if terminal else 160
    return Console(file=stream, markup=False, emoji=False, highlight=False, width=width, force_terminal=terminal)


class _Notes(logging.Handler):
    """Writes to the stderr of the moment, which a live display takes over for a while."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(one_line(self.format(record)) + "\n")


def show_notes() -> None:
    """From now on stderr tells of what makes a user wait for no visible reason."""
    for name in ("tacit.model.fused", "tacit.testbed.real"):
        log = logging.getLogger(name)
        log.setLevel(logging.INFO)
        log.propagate = False
        log.handlers = [_Notes()]


def show(*things: Any) -> None:
    """Print rich tables and texts on stdout."""
    buffer = io.StringIO()
    screen = console(buffer, like=sys.stdout)
    for thing in things:
        screen.print(thing, soft_wrap=isinstance(thing, str))
    emit(buffer.getvalue().rstrip("\n"))


def table(titles: Sequence[str], right: Collection[str] = (), **how: Any) -> Table:
    """An empty table with bold titles; numbers go to the ``right``; ``how`` is of all columns but the problem's."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        made.add_column(title, justify="right" if title in right else "left", **({} if title == "problem" else how))
    return made


def when(seconds: float, form: str = "%Y-%m-%d %H:%M:%S UTC") -> str:
    """A time as people read it."""
    return time.strftime(form, time.gmtime(min(seconds, 2**55)))  # a memory may name any time; no year is later


def at_least(name: str, value: int | None, least: int) -> None:
    """ConfigError unless ``value`` is None or at least ``least``."""
    if value is not None and value < least:
        raise ConfigError(f"{name} must be at least {least}, not {value}.")


@contextmanager
def opened_bank(url: str, *, create: bool = False) -> Iterator[Bank]:
    """The bank at ``url``, closed at the end. By default it must exist: looking at memories makes no bank."""
    from tacit.bank import open_bank

    with closing(open_bank(url, create=create)) as bank:
        yield bank


def counted(count: int, one: str, many: str) -> str:
    """How many, in words."""
    return f"{count:,} {one if count == 1 else many}"


def percent(value: float | None, sign: str = " %") -> str:
    """A share as a percentage, "-" for None."""
    return "-" if value is None else f"{100 * value:.1f}{sign}"


def points(value: Mapping[str, Any] | None) -> str:
    """A gain with its interval in percentage points."""
    if not value or value.get("mean") is None:
        return "-"
    return f"{100 * value['mean']:+.1f}  [{100 * value['low']:+.1f}, {100 * value['high']:+.1f}]"


def show_summary(summary: Mapping[str, Any]) -> None:
    """The figures of a run as a table on stdout."""
    from tacit.experiments.report.run_figures import LABELS
    from tacit.experiments.scoring import HELP, MOST

    things: list[Any] = []
    if not summary["scored"]:
        problems = counted(summary["problems"], "problem", "problems")
        things.append(f"{problems}, none with a reference answer: no accuracy to report.")
    else:
        # With nine digits of tokens it is 80 columns wide.
        heat = summary["settings"].get("sampling", {}).get("temperature") or 1
        measured = ("sampled", "95 % interval", "greedy", "answered", "tokens")
        answers = table((f"% right, T = {heat:g}", *measured), measured)
        for arm, label in LABELS.items():
            figures = summary["arms"].get(arm)
            if figures and figures["n"]:
                answers.add_row(
                    label,
                    percent(figures["accuracy"], ""),
                    f"[{percent(figures['low'], '')}, {percent(figures['high'], '')}]",
                    percent(figures["greedy"], ""),
                    percent(figures.get("answered"), ""),
                    f"{figures['tokens']:,}",
                    style="bold" if arm == "routed" else None,
                )
        things.append(answers)
        gains = table(("gain in points, 95 % interval", "sampled", "greedy"), ("sampled", "greedy"))
        gains.add_row("routed over zero-shot", points(summary["gain"]), points(summary["gain_greedy"]), style="bold")
        if summary["gain_over_icl"]["n"]:
            gains.add_row("routed over ICL", points(summary["gain_over_icl"]), points(summary["gain_over_icl_greedy"]))
        if summary["gain_over_verified"]["n"]:
            over = summary["gain_over_verified"], summary["gain_over_verified_greedy"]
            gains.add_row("routed over the verifier alone", *map(points, over))
        if "gain_over_vote" in summary:
            gains.add_row("routed over a vote of as many", points(summary["gain_over_vote"]), "-")
            gains.add_row("vote of routed over that vote", points(summary["votes_over_vote"]), "-")
        if summary["gain_over_majority"]["n"]:
            gains.add_row("vote, at equal compute", points(summary["gain_over_majority"]), "-")
        if "random" in summary["gains"]:
            control = summary["gains"]["random"]
            gains.add_row("random memory over zero-shot", points(control["sampled"]), points(control["greedy"]))
            over = summary["gain_over_random"], summary["gain_over_random_greedy"]
            gains.add_row("memory over a random one", *map(points, over))
        things.append("")
        things.append(gains)
        changes = summary["changes"]["routed"]
        things.append("")
        things.append(
            f"problems learned {changes['learned']}, sharpened {changes['sharpened']}, "
            f"corrupted {changes['corrupted']} of {changes['n']}"
        )
    unanswered = summary["unanswered"]
    if unanswered["responses"]:
        helps = f"; try {HELP}" if unanswered["share"] > MOST else ""
        things.append(f"zero-shot responses without an answer {percent(unanswered['share'])}{helps}")
    if not_asked := summary["not_learned"].get("not asked"):
        things.append(
            f"not asked, because the model has no room for them: {not_asked} of {summary['problems']} problems"
        )
    none = {f"not learned, {reason}": count for reason, count in summary["not_learned"].items()}
    states = ", ".join(f"{n} {state}" for state, n in sorted((summary["memories_by_state"] or none).items()))
    memories = counted(summary["memories"], "memory", "memories") + (f" ({states})" if states else "")
    things.append(f"{memories}; {summary['tokens']:,} tokens, {summary['seconds']:.0f} s")
    if str(summary.get("model")).partition(":")[0] == "testbed":
        things.append("The testbed shows the mechanism; it is not evidence about 7B models.")
    show(*things)
