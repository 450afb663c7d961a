"""How long ``/health/live`` takes beside the largest legal requests of four clients, all kinds of them at once.

    python tests/health.py [--seconds 60] [--clients 4]

Each client sends every kind of large request in turn, beginning with another one, as soon as the last is answered;
health is asked for fifty times a second, each time over a new connection. A client of its own asks for lists. The
figures depend on what else the machine does, so they are printed with its load, and asserted nowhere.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from server import InProcess, looks, serving
from tacit.memory import State
from tacit.server.keys import OPEN_NAMESPACE
from test_server_load import LARGEST, PROBLEM, post
from test_server_memories_api import made


def filled(path: Path) -> None:
    """A bank with an active memory, and others with long problems."""
    with_model = InProcess(path)
    with_model.service.bank.add(made(with_model.service, "m", PROBLEM, OPEN_NAMESPACE))
    for number in range(60):
        long = f"{number} + 3 " * 2000
        with_model.service.bank.add(made(with_model.service, f"long-{number}", long[:18_000], OPEN_NAMESPACE,
                                         state=State.CANDIDATE))  # fmt: skip
    with_model.service.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        filled(Path(folder) / "bank.db")
        with serving(Path(folder) / "bank.db", "--no-learn", cold=True) as served:
            done: Counter[tuple[str, int]] = Counter()
            end = time.monotonic() + args.seconds

            def asks(first: int) -> None:
                kinds = [*LARGEST][first:] + [*LARGEST][:first]
                while time.monotonic() < end:
                    for kind in kinds:
                        status, _ = post(served, *LARGEST[kind])
                        done[kind, status] += 1

            def lists() -> None:
                while time.monotonic() < end:
                    done["a list", served.get("/tacit/v1/memories?limit=1000").status_code] += 1
                    time.sleep(0.2)

            threads = [threading.Thread(target=asks, args=(3 * number,)) for number in range(args.clients)]
            threads.append(threading.Thread(target=lists))
            for thread in threads:
                thread.start()
            seconds = looks(served, lambda: any(thread.is_alive() for thread in threads))
    seconds.sort()
    shown = {f"p{share}": round(1000 * seconds[int(len(seconds) * share / 100)]) for share in (50, 90, 99)}
    print(f"{len(seconds)} looks, in ms: {shown}, longest {1000 * seconds[-1]:.0f}; load {os.getloadavg()}")
    print("answered:", dict(sorted(done.items())))


if __name__ == "__main__":
    main()
