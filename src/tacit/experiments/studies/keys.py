"""Which kind of key finds memories of the right kind on a model, and finds none where there is none.

Builds on recall's keys, sources and report. Nothing is generated and nothing learned: a key is a forward pass over a
question. In each round half of the families are known, and half of each one's problems lie in the bank. Asked are the
other problems of these families (*like*), those of unknown families (*other kinds*), and those of further sources
(*unlike*). Families only arrange the experiment; no gold answer is read.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from tacit.assembly import load_backbone, set_threads
from tacit.config import RecallConfig, RunConfig
from tacit.errors import DataError
from tacit.experiments.report.study_tables import publish_study
from tacit.experiments.studies.trials import Tell
from tacit.recall import Keys
from tacit.tasks import sources

KINDS = ("relative", "last", "hidden", "input")
REFUSED = 0.8
"""Share of other kinds that the floor found for each kind of key refuses."""


@dataclass(frozen=True)
class KeysConfig:
    """One study of keys.

    Attributes:
        run: model, data with families, seed and the floor of recall.
        kinds: of keys.
        unlike: sources of problems of no family that is known.
        limit: problems of the data, and at most so many of each unlike source.
        rounds: ways in which the families are split.
    """

    run: RunConfig = field(default_factory=RunConfig)
    kinds: tuple[str, ...] = KINDS
    unlike: tuple[str, ...] = ()
    limit: int = 160
    rounds: int = 8


@dataclass(frozen=True)
class Nearest:
    """Similarity of the nearest memory: to problems of known families, whether it is of their own; to those of unknown
    families; to those of other sources."""

    like: np.ndarray
    own: np.ndarray
    others: np.ndarray
    unlike: np.ndarray


def study(config: KeysConfig, out: str | Path, tell: Tell = lambda line: None) -> dict[str, Any]:
    """Measure every kind; writes ``keys.json`` and ``keys.md`` in ``out`` and returns the former.

    Args:
        config: see KeysConfig.
        out: folder, made if missing.
        tell: called with a line as each kind is done.

    Returns:
        ``{"families", "problems", "unlike", "keys": [{"key", "apart": [low, high], "nearest", "floor", "recalled",
        "own", "refused", "refused_unlike", "fitted": {the same at the floor that refuses four of five other kinds},
        "n": [like, others, unlike], "seconds"}]}``.

    Raises:
        TacitError: anything a user can mend, such as data with fewer than four families.
    """
    set_threads(config.run)
    for kind in config.kinds:
        RecallConfig(key=kind)
    run = config.run
    problems = sources.load(run.data, seed=run.seed, limit=config.limit, fields=run.fields, model=run.model)
    other = [sources.load(name, seed=run.seed, limit=config.limit, model=run.model) for name in config.unlike]
    families = [problem.family or "" for problem in problems]
    if "" in families or len(set(families)) < 4:
        raise DataError(f"{run.data} does not name at least four families of problems; give data with a field family")
    backbone = load_backbone(replace(run, task=run.task or problems.task))
    texts = [problem.text for problem in chain(problems, *other)]
    rows = []
    for kind in config.kinds:
        began = time.perf_counter()
        found = Keys(backbone, kind).of(texts).astype(np.float64)
        row = {"key": kind, **figures(found, families, run.recall.floor, config.rounds)}
        rows.append({**row, "seconds": (time.perf_counter() - began) / len(texts)})
        tell(f"{kind}: {row['own']:.0%} of recalls of the own kind, {row['refused']:.0%} of other kinds refused")
    result = {
        "settings": {**vars(config), "run": run.settings()},
        "families": sorted(set(families)),
        "problems": len(families),
        "unlike": len(texts) - len(families),
        "keys": rows,
    }
    publish_study(Path(out), "keys", "Keys", result)
    return result


def figures(keys: np.ndarray, families: Sequence[str], floor: float, rounds: int = 8) -> dict[str, Any]:
    """What a kind of key finds and refuses: at a floor, and at that which refuses four of five other kinds.

    Args:
        keys: [N, D] of unit norm; the first ones are of problems with families, the others of unlike ones.
        families: of the first ones.
        floor: least similarity of a recall.
        rounds: ways in which the families are split.
    """
    similarity = keys @ keys.T
    held = np.array(families)
    apart = similarity[: len(held), : len(held)][held[:, None] != held]
    nearest = _nearest(similarity, held, rounds)
    fitted = float(np.quantile(nearest.others, REFUSED))
    return {
        "apart": [float(value) for value in np.quantile(apart, (0.05, 0.95))],
        "nearest": float(nearest.own.mean()),
        **_at(nearest, floor),
        "fitted": _at(nearest, fitted),
        "n": [len(nearest.like), len(nearest.others), len(nearest.unlike)],
    }


def _nearest(similarity: np.ndarray, families: np.ndarray, rounds: int) -> Nearest:
    names, unlike = sorted(set(families)), np.arange(len(families), len(similarity))
    like, own, others, far = [], [], [], []
    for number in range(rounds):
        rng = random.Random(f"keys/{number}")
        known = rng.sample(names, len(names) // 2)
        places = {name: np.flatnonzero(families == name).tolist() for name in names}
        mixed = {name: rng.sample(places[name], len(places[name])) for name in known}
        bank = np.array([one for all_ in mixed.values() for one in all_[: (len(all_) + 1) // 2]])
        asked = np.array([one for all_ in mixed.values() for one in all_[(len(all_) + 1) // 2 :]], dtype=int)
        best = bank[similarity[np.ix_(asked, bank)].argmax(1)] if len(asked) else asked
        like.append(similarity[asked, best])
        own.append(families[asked] == families[best])
        rest = np.array([one for name in names if name not in known for one in places[name]])
        others.append(similarity[np.ix_(rest, bank)].max(1))
        far.append(similarity[np.ix_(unlike, bank)].max(1))
    return Nearest(*map(np.concatenate, (like, own, others, far)))


def _at(nearest: Nearest, floor: float) -> dict[str, float | None]:
    recalled = nearest.like >= floor
    return {
        "floor": floor,
        "recalled": float(recalled.mean()),
        "own": float(nearest.own[recalled].mean()) if recalled.any() else 0.0,
        "refused": float((nearest.others < floor).mean()),
        "refused_unlike": float((nearest.unlike < floor).mean()) if len(nearest.unlike) else None,
    }
