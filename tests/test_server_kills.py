"""kill -9 of server, learner and run under load, and full disks: what was acknowledged is learned, exactly once.

A few of each; ``make drill`` does it a hundred times.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from drill import Load, drill, fill_disks, kill_servers, settle, small_disk, stream


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    told = drill(tmp_path, kills=20, fills=0, seed=2, seconds=600)
    assert told["killed runs"] == 4 and sum(told["killed"].values()) >= 16


@pytest.mark.slow
def test_ten_full_disks(tmp_path: Path) -> None:
    texts = [problem.text for problem in stream(60, seed=3)]
    with small_disk(tmp_path / "disk") as disk:
        if disk is None:
            pytest.skip("a small disk cannot be mounted here")
        load = Load(list(dict.fromkeys(texts)))
        assert fill_disks(disk, load, 10, random.Random(3), end=float("inf"))["fills"] >= 10
        assert settle(disk / "bank.sqlite", load)["acknowledged"] > 0


def test_three_kills(tmp_path: Path) -> None:
    load = Load([problem.text for problem in stream(20, seed=4)])
    assert kill_servers(tmp_path / "bank.sqlite", load, 3, random.Random(4), end=float("inf")).total() >= 3
    settle(tmp_path / "bank.sqlite", load)
