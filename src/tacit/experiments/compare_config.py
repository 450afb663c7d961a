"""What a comparison compares: methods x data x seeds x orders, from flags or one TOML file.

Builds on config and the registry. A *label* names a row of the table: a registered method, or a variant of one
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tacit import registry
from tacit.config import Settings, require
from tacit.errors import ConfigError
from tacit.experiments.report.cells import ORDERS
from tacit.experiments.run_folder import changed, read_toml
from tacit.tasks.sources import endless

if TYPE_CHECKING:
    from tacit.methods.base import Method

EXPECTED = ("problems", "tokens", "prompt")
SHIPPED = ("paper", "ablations", "real")
"""Folders of ``plan`` with comparisons that are shipped."""


@dataclass(frozen=True)
class CompareConfig(Settings):
    """One comparison.

    Attributes:
        data: Sources of problems; the path of a file counts from the working directory.
        fields: Which field of the data is what, as in problem=question; the rest is found by its usual names.
        methods: Rows of the table: methods, or variants of this file. Default: every registered method.
        seeds: One stream and one set of random numbers each.
        orders: shuffled (as the source has them), blocked (family by family), reversed.
        limit: Problems per stream; 0 for all that a source has.
        window: Most problems answered before a method learns from them.
        strict: End a window before a problem that would recall what another of it leaves, where a method recalls.
        jobs: Cells run at once, a process each.
        probes: Answer earlier and fresh problems again at the end of each stream (forgetting, transfer).
        sampling, learn, recall: for all methods.
        options: per label, options of the method.
        variants: per label, {"method", "learn", "recall", "sampling", "options"}.
        training: per source, another source of labelled problems of the same kind, for methods that train on such
            (the testbed makes its own). Those of the stream are left out, and as many as the stream has are taken.
        expected: per source, what a plan may count on where it cannot look: "problems" (how many there are), "tokens"
            (of an answer, on average), "prompt" (tokens of a prompt, on average). For --dry-run alone.
    """

    data: tuple[str, ...] = ("testbed:A", "testbed:B")
    fields: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    orders: tuple[str, ...] = ("shuffled",)
    limit: int = 60
    window: int = 12
    strict: bool = True
    jobs: int = 2
    probes: bool = True
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    training: dict[str, str] = field(default_factory=dict)
    expected: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window", "jobs"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be at least 1")
        require(self.limit >= 0, f"limit is {self.limit}; it must be 0 (all) or more")
        for source in self.data:
            require(self.limit > 0 or not endless(source), f"{source} makes problems without end; set a limit above 0")
        self._check_tables()
        require(
            bool(self.data and self.seeds and self.orders),
            "a comparison needs at least one data source, one seed and one order",
        )
        for order in self.orders:
            require(order in ORDERS, f"order is {order!r}; use one of {', '.join(ORDERS)}")
        for seed in self.seeds:
            require(seed >= 0, f"seed is {seed}; it must be 0 or more")

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
        labels = list(self.methods) or _ordered([*sorted(registry.names("method")), *self.variants])
        if "zero-shot" not in labels:
            labels.insert(0, "zero-shot")  # what every gain is measured against
        for label in labels:
            self.resolve(label)
        return list(dict.fromkeys(labels))

    def resolve(self, label: str) -> tuple[type[Method], CompareConfig, dict[str, Any]]:
        """A label's method, the settings it runs with, and its options.

        Raises:
            ConfigError: no such method or setting.
        """
        variant = dict(self.variants.get(label, {}))
        method = registry.get("method", str(variant.pop("method", label)))
        options = {**self.options.get(label, {}), **variant.pop("options", {})}
        config = self
        for part in ("learn", "recall", "sampling"):
            config = replace(config, **{part: changed(getattr(self, part), variant.pop(part, {}), label)})
        if variant:
            raise ConfigError(f"variant {label} has no setting {', '.join(sorted(variant))}")
        return method, config, options

    def keeps_apart(self, method: type[Method]) -> bool:
        """Whether windows end before a problem that would recall what another leaves; a method may not recall."""
        from tacit.methods.base import Method

        return self.strict and self.window > 1 and method.strangers is not Method.strangers

    def settings(self, label: str) -> dict[str, Any]:
        """Everything that decides a cell of this label, as JSON-ready values."""
        from tacit.model.presets import known

        method, config, options = known(self).resolve(label)
        values = {
            name: dataclasses.asdict(getattr(config, name)) if name in ("sampling", "learn", "recall") else value
            for name, value in vars(config).items()
            if name in ("model", "reward_model", "limit", "window", "probes", "dtype", "sampling", "learn", "recall")
        }
        # Came later: they count where they are used, so that cells of before are kept.
        later = {name: getattr(self, name) for name in ("task", "instruction", "verifier", "carrier")}
        values |= {name: value for name, value in later.items() if value != getattr(Settings, name)}
        if config.keeps_apart(method):
            values["strict"] = True
        if method.uses_labels and self.training:
            values["training"] = self.training
        if self.fields:
            values["fields"] = self.fields
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


def read(path: str | Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tables of a TOML file, or of one shipped with Tacit by its name ("ablations/tokens"). Its ``base`` names
    another such file, whose keys hold where it has none itself; a path may count from the file's own folder.

    Args:
        path: the file, or the name.
        above: files that this one is the base of.

    Raises:
        ConfigError: missing or malformed, or its own base in the end.
    """
    path = Path(path)
    shipped = Path(__file__).parent / "plan" / f"{path}.toml"
    beside = above[-1].parent / path if above else path
    file = next((one for one in (beside, path, shipped) if one.is_file()), path)
    if above and not file.is_file():
        raise ConfigError(
            f"{above[-1]}: base is {str(path)!r}, and there is no such file; give one, or a name that `tacit compare "
            "--list` shows"
        )
    if file.resolve() in above:
        raise ConfigError(f"{above[-1]}: base is {str(path)!r}, which builds on this file; take one base out")
    values = read_toml(file)
    if "files" in values:  # what plug-ins were called when only methods could be added
        values["plugins"] = values.pop("files")
    if (base := values.pop("base", None)) is None:
        return values
    if not isinstance(base, str):
        raise ConfigError(f"{file}: base is {base!r}; it must be the name of a comparison")
    return _merged(read(base, (*above, file.resolve())), values)


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``own`` in place of its; of tables key by key."""
    both = {name for name, value in own.items() if isinstance(value, dict) and isinstance(base.get(name), dict)}
    return base | own | {name: _merged(base[name], own[name]) for name in both}


def load(path: str | Path) -> CompareConfig:
    """A comparison from a TOML file, or from one shipped with Tacit by its name.

    Raises:
        ConfigError: missing, malformed, or with a key that means nothing.
    """
    return changed(CompareConfig(), read(path), str(path))
