"""What a search for settings may spend, and the file of its trials, by which it goes on.

Builds on the run folder's way of writing. Every trial is a line of the file, written once it is done: a search that is
interrupted loses the trial it was in and no more.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tacit.errors import ConfigError, DataError
from tacit.experiments.run_folder import write_atomically


@dataclass(frozen=True)
class Budget:
    """How much may be spent: tokens generated, or minutes; the other one is 0."""

    tokens: int = 0
    minutes: float = 0.0

    @staticmethod
    def read(text: str) -> Budget:
        """From "40000", "40k", "15m" or "15 minutes".

        Raises:
            ConfigError: it is neither.
        """
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(k|m|min|minutes?)?", text.strip().lower())
        if not match or not float(match[1]):
            raise ConfigError(f"--budget is {text!r}; give tokens, as in 40000 or 40k, or minutes, as in 15m")
        number, unit = float(match[1]), match[2]
        return Budget(minutes=number) if unit and unit != "k" else Budget(int(number * (1000 if unit else 1)))

    def __str__(self) -> str:
        return f"{self.minutes:g} minutes" if self.minutes else f"{self.tokens:,} tokens"


class Trials:
    """The file of trials: what is in it is not done again.

    Args:
        path: made if missing.
        head: what all of them hang on.

    Raises:
        ConfigError: it holds trials of something else, or cannot be written.
    """

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self.path = path
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        self.tokens, self.seconds = 0, 0.0
        head = json.loads(json.dumps(head))
        try:
            lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []  # a cut line is no trial
            held = [json.loads(line) for line in lines] or [head]
            held[0] = {"content": head["content"], **held[0]}  # which trials did not always say
            if held[0] != head:
                other = ", ".join(sorted(name for name in head if held[0].get(name) != head[name]))
                raise ConfigError(f"{path} holds trials with another {other}; delete it, or choose another --out")
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in held))
        except OSError as error:
            raise ConfigError(f"{path} cannot be written ({error.strerror}); choose another --out") from None
        except (ValueError, AttributeError, TypeError):
            raise DataError(f"{path} is damaged; delete it, or choose another --out") from None
        for row in held[1:]:
            self._keep(row)

    def _keep(self, row: dict[str, Any]) -> None:
        self.rows[tuple(row["key"])] = row
        self.tokens += row["tokens"]
        self.seconds += row["seconds"]

    def add(self, key: tuple[Any, ...], tokens: int, seconds: float, **values: Any) -> None:
        """A trial is done."""
        row = {"key": list(key), "tokens": tokens, "seconds": seconds, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._keep(row)

    def spent(self, budget: Budget) -> float:
        """The share of a budget that is used up."""
        return self.seconds / 60 / budget.minutes if budget.minutes else self.tokens / budget.tokens


def trials_file(out: Path) -> Path:
    """Where the trials of a result are."""
    return out.with_name(f"{out.name}.trials.jsonl")
