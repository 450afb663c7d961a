"""What a comparison compares: methods x data x seeds x orders, from flags or one TOML file.

Builds on config and the method registry. A *label* names a row of the table: a registered method, or a variant of one
with settings of its own.

    methods = ["zero-shot", "elm", "elm-k1"]
    seeds = [0, 1, 2]
    [variants."elm-k1"]
    method = "elm"
    learn = { tokens = 1 }
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tacit.config import LearnConfig, RecallConfig, Sampling
from tacit.errors import ConfigError
from tacit.experiments.report.cells import ORDERS
from tacit.methods import base
from tacit.tasks.sources import endless

EXPECTED = ("problems", "tokens", "prompt")
SHIPPED = ("paper", "ablations")
"""Folders of ``plan`` with comparisons that are shipped."""


@dataclass(frozen=True)
class CompareConfig:
    """One comparison.

    Attributes:
        model, reward_model: as for a run; reward_model None is the testbed's for the testbed, else vote share routes.
        data: sources of problems; the path of a file counts from the working directory.
        methods: labels; empty for every registered method.
        seeds: one stream and one set of random numbers each.
        orders: "shuffled" (as the source has them), "blocked" (family by family), "reversed".
        limit: problems per stream; 0 for all that a source has.
        window: problems answered before a method learns from them.
        jobs: cells run at once, a process each.
        probes: answer earlier and fresh problems again at the end of each stream (forgetting, transfer).
        max_tokens: None for the sampling's.
        sampling, learn, recall: for all methods.
        options: per label, options of the method.
        variants: per label, {"method", "learn", "recall", "sampling", "options"}.
        files: Python files that register further methods.
        training: per source, another source of labelled problems of the same kind, for methods that train on such
            (the testbed makes its own). Those of the stream are left out, and as many as the stream has are taken.
        expected: per source, what a plan may count on where it cannot look: "problems" (how many there are), "tokens"
            (of an answer, on average), "prompt" (tokens of a prompt, on average). For --dry-run alone.
    """

    model: str = "testbed"
    reward_model: str | None = None
    data: tuple[str, ...] = ("testbed:A", "testbed:B")
    methods: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    orders: tuple[str, ...] = ("shuffled",)
    limit: int = 60
    window: int = 12
    jobs: int = 2
    probes: bool = True
    device: str = "auto"
    dtype: str = "float32"
    sampling: Sampling = field(default_factory=Sampling)
    learn: LearnConfig = field(default_factory=LearnConfig)
    recall: RecallConfig = field(default_factory=RecallConfig)
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    training: dict[str, str] = field(default_factory=dict)
    expected: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("window", "jobs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.limit < 0:
            raise ConfigError(f"limit is {self.limit}; it must be 0 (all) or more")
        for source in self.data:
            if self.limit == 0 and endless(source):
                raise ConfigError(f"{source} makes problems without end; set a limit above 0")
        self._check_tables()
        if not self.data or not self.seeds or not self.orders:
            raise ConfigError("a comparison needs at least one data source, one seed and one order")
        for order in self.orders:
            if order not in ORDERS:
                raise ConfigError(f"order is {order!r}; use one of {', '.join(ORDERS)}")
        for seed in self.seeds:
            if seed < 0:
                raise ConfigError(f"seed is {seed}; it must be 0 or more")

    def _check_tables(self) -> None:
        for source, other in self.training.items():
            if not isinstance(other, str):
                raise ConfigError(f"training of {source} is {other!r}; it must be the name of a source")
        for source, values in self.expected.items():
            for name, value in values.items() if isinstance(values, dict) else [("", values)]:
                if name not in EXPECTED or type(value) not in (int, float) or value <= 0:
                    raise ConfigError(
                        f"expected of {source} has {name or 'a value'} = {value!r}; it is a table of numbers above 0, "
                        f"named {', '.join(EXPECTED)}"
                    )

    def labels(self) -> list[str]:
        """The rows of the table, checked."""
        for file in self.files:
            base.load_file(file)
        labels = list(self.methods) or _ordered([*base.names(), *self.variants])
        if "zero-shot" not in labels:
            labels.insert(0, "zero-shot")  # what every gain is measured against
        for label in labels:
            self.resolve(label)
        return list(dict.fromkeys(labels))

    def resolve(self, label: str) -> tuple[type[base.Method], CompareConfig, dict[str, Any]]:
        """A label's method, the settings it runs with, and its options.

        Raises:
            ConfigError: no such method or setting.
        """
        variant = dict(self.variants.get(label, {}))
        method = base.get(str(variant.pop("method", label)))
        options = {**self.options.get(label, {}), **variant.pop("options", {})}
        config = self
        for part in ("learn", "recall", "sampling"):
            config = replace(config, **{part: _changed(getattr(self, part), variant.pop(part, {}), label)})
        if variant:
            raise ConfigError(f"variant {label} has no setting {', '.join(sorted(variant))}")
        return method, config, options

    def settings(self, label: str) -> dict[str, Any]:
        """Everything that decides a cell of this label, as JSON-ready values."""
        method, config, options = self.resolve(label)
        values = {
            name: dataclasses.asdict(getattr(config, name)) if name in ("sampling", "learn", "recall") else value
            for name, value in vars(config).items()
            if name in ("model", "reward_model", "limit", "window", "probes", "dtype", "sampling", "learn", "recall")
        }
        if method.uses_labels and self.training:
            values["training"] = self.training
        values["data"] = sorted(self.data) if self.probes else []  # probes are drawn from all of them
        settings: dict[str, Any] = json.loads(json.dumps({"method": method.name, "options": options, **values}))
        return settings


def shipped() -> dict[str, str]:
    """Names of the comparisons shipped with Tacit ("ablations/tokens"), each with the first sentence of its comment."""
    here = Path(__file__).parent / "plan"
    found = {}
    for file in sorted(file for folder in SHIPPED for file in (here / folder).glob("*.toml")):
        lines = [
            line.removeprefix("#").strip() for line in file.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        ]
        text = " ".join(lines)
        found[f"{file.parent.name}/{file.stem}"] = text[: text.find(". ") + 1] if ". " in text else text
    return found


def _ordered(labels: list[str]) -> list[str]:
    first = ("zero-shot", "majority", "best-of", "icl", "reasoning-bank", "lag", "grpo", "ttrl", "elm", "")
    return sorted(dict.fromkeys(labels), key=lambda label: next(i for i, p in enumerate(first) if label.startswith(p)))


def _changed(settings: Any, changes: Any, where: str) -> Any:
    if not isinstance(changes, dict):
        raise ConfigError(f"{where}: settings are a table, not {type(changes).__name__}")
    known = {part.name: part for part in dataclasses.fields(settings)}
    for name, value in changes.items():
        if name not in known:
            raise ConfigError(f"{where}: there is no setting {name!r}; there are: {', '.join(known)}")
        held = getattr(settings, name)
        if type(value) is not type(held) and not (isinstance(held, float) and isinstance(value, int)):
            raise ConfigError(f"{where}: {name} is {value!r}; it must be of type {type(held).__name__}")
    return replace(settings, **changes)


def load(path: str | Path) -> CompareConfig:
    """Read a comparison from a TOML file, or from one shipped with Tacit by its name ("ablations/tokens").

    Raises:
        ConfigError: missing, malformed, or with a key that means nothing.
    """
    file = Path(path)
    shipped = Path(__file__).parent / "plan" / f"{path}.toml"
    if not file.is_file() and shipped.is_file():
        file = shipped
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"no comparison at {path} ({error.strerror}); give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is no TOML file: {error}") from None
    known = {part.name: part for part in dataclasses.fields(CompareConfig)}
    defaults = CompareConfig()
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{file} has a key {name!r} that means nothing; there are: {', '.join(known)}")
        held = getattr(defaults, name)
        if name in ("sampling", "learn", "recall"):
            given[name] = _changed(held, value, f"{file} [{name}]")
        elif isinstance(held, tuple):
            if not isinstance(value, list):
                raise ConfigError(f"{file}: {name} is {value!r}; it must be a list")
            given[name] = tuple(value)
        elif held is not None and type(value) is not type(held):
            raise ConfigError(f"{file}: {name} is {value!r}; it must be of type {type(held).__name__}")
        else:
            given[name] = value
    return CompareConfig(**given)
