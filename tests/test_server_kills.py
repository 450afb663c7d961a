"""kill -9 of server and learner under load: what was acknowledged is learned, exactly once.

A few; ``make drill`` does it a hundred times, with runs and full disks besides.
"""

from __future__ import annotations

import random
from pathlib import Path

from drill import Load, kill_servers, settle, stream


def test_three_kills(tmp_path: Path) -> None:
    load = Load([problem.text for problem in stream(20, seed=4)])
    assert kill_servers(tmp_path / "bank.sqlite", load, 3, random.Random(4), end=float("inf")).total() >= 3
    settle(tmp_path / "bank.sqlite", load)
