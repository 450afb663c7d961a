"""A comparison whose methods generate and learn in Ray actors. Needs Ray: `make test-scale`."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from commands import forked_cells
from tacit.errors import install_hint
from tacit.experiments.compare import compare
from tacit.experiments.compare_config import CompareConfig

pytestmark = pytest.mark.scale
pytest.importorskip("ray", reason=install_hint("ray"))


def test_a_comparison_on_ray_is_the_same_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked_cells(monkeypatch)
    # Its own, since other tests start Rays beside this one; and short, since a socket's path may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="tacit-", dir="/tmp"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    plan = CompareConfig(
        data=("testbed:A",), methods=("elm",), seeds=(1,), limit=6, window=3, jobs=1, probes=False, learners=1
    )
    here = compare(plan, tmp_path / "here")
    there = compare(replace(plan, ray="local"), tmp_path / "there")
    assert [record["status"] for record in there] == ["done", "done"]
    for one, other in zip(here, there, strict=True):
        assert one["tokens"] == other["tokens"] and one["gradient_steps"] == other["gradient_steps"]
    rows = [sorted(folder.rglob("rows.jsonl")) for folder in (tmp_path / "here", tmp_path / "there")]
    for one, other in zip(*rows, strict=True):
        answers = [[json.loads(line)["answers"] for line in file.open()] for file in (one, other)]
        assert answers[0] == answers[1]
    assert not list(folder.glob("tacit-ray-*"))
    shutil.rmtree(folder)
