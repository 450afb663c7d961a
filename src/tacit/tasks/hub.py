"""Rows of data sets of the Hub, of local data-set folders, and of what ``save_to_disk`` wrote.

Builds on errors and fields; the data sets are read by datasets, which the extra ``hub`` brings.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tacit.errors import ConfigError, DataError, needed
from tacit.tasks.fields import Row


def rows(address: str) -> Iterator[Row]:
    """Rows of NAME, NAME:SPLIT or NAME:CONFIG:SPLIT; the split is test unless said.

    Raises:
        ConfigError: datasets is not installed, or the address has more parts.
        DataError: there is no such data set, configuration or split.
    """
    name, *rest = address.split(":")
    if len(rest) > 2:
        raise ConfigError(f"hub:{address} has too many parts; give hub:NAME, hub:NAME:SPLIT or hub:NAME:CONFIG:SPLIT")
    datasets = needed("hub", "a data set of the Hub", "datasets")
    config, split = rest if len(rest) == 2 else ("", *(rest or ["test"]))
    try:
        loaded = _saved(datasets, name, config, split) if saved(Path(name)) else _loaded(datasets, name, config, split)
    except Exception as error:  # the client raises many kinds, none of which a user should have to know
        text = " ".join(str(error).split())[:200]
        hint = "; a configuration stands before the split: hub:NAME:CONFIG:SPLIT" if "config" in text.lower() else ""
        raise DataError(f"data set {name} cannot be loaded: {text}{hint}") from error
    for index, value in enumerate(loaded):
        yield Row(
            dict(value), f"hub:{address} row {index}", f"{name}/{config}/{index}" if config else f"{name}/{index}"
        )


def saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote that folder."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _loaded(datasets: Any, name: str, config: str, split: str) -> Any:
    if config and Path(name, config).is_dir() and not Path(name, "README.md").exists():
        return datasets.load_dataset(name, data_dir=config, split=split)  # no card names configurations: folders are
    return datasets.load_dataset(name, *([config] if config else []), split=split)


def _saved(datasets: Any, name: str, config: str, split: str) -> Any:
    folder = Path(name, config) if config else Path(name)
    loaded = datasets.load_from_disk(str(folder))
    if isinstance(loaded, dict):
        if split not in loaded:
            raise ValueError(f"there is no split {split!r} in it; there are: {', '.join(loaded)}")
        return loaded[split]
    return loaded
