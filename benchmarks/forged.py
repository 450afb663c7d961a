"""What forged evidence does to others' memories on the testbed: a key without trust tries to have them quarantined.

    python benchmarks/forged.py --seed 0 --verifier vote --out forged-0.json

Two honest, trusted keys have problems learned; what was admitted is active. A third key, which may ask and learn, then
sends, over HTTP, everything that once silenced a memory (stops, a temperature of 2, one token, chosen seeds, named ids,
another problem than what is asked), and problems of the memories' own kinds as the server would ask them itself, the
ones that hurt. After each round what has hurt is quarantined. Gold answers are read here alone, for the accuracy of
routed answers to fresh problems before and after.
"""

from __future__ import annotations

import json
import time
from tempfile import TemporaryDirectory
from typing import Any

import torch
from promotion import accuracy, learn, options, stream, use_admitted
from starlette.testclient import TestClient

from tacit.assembly import build_verifier
from tacit.bank import open_bank
from tacit.config import LearnConfig, Settings
from tacit.engines.local import LocalEngine
from tacit.memory import State
from tacit.model.backbone import Backbone
from tacit.server.app import create_app
from tacit.server.keys import KeyStore
from tacit.server.learner.process import WorkerSettings
from tacit.server.learner.promotion import quarantine_hurtful
from tacit.server.learner.worker import Worker
from tacit.server.live.service import Service
from tacit.server.settings import ServeConfig

DIGITS = [str(digit) for digit in range(10)]
FORGED: tuple[dict[str, Any], ...] = (
    {"stop": DIGITS},
    {"max_tokens": 1},
    {"temperature": 2},
    {"seed": 1},
    {"seed": 2},
    {"problem": True},
    {"memory": True},
    {},
    {"temperature": 0},
)
"""Changes to an ordinary request, a round each; ``memory`` and ``problem`` are filled in."""


def main() -> None:
    """One seed, one verifier."""
    args = options(__doc__, honest=48, fresh=96).parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    backbone = Backbone.load("testbed", device="cpu")
    verifier = build_verifier(Settings(verifier=args.verifier, device="cpu"))
    honest, fresh = stream(args.seed, args.honest), stream(args.seed + 500, args.fresh)
    with TemporaryDirectory() as folder:
        bank = open_bank(f"{folder}/bank.db")
        worker = Worker(
            bank, backbone, LocalEngine(backbone), verifier,
            WorkerSettings(bank=bank.url, learn=LearnConfig(), seed=args.seed),
        )  # fmt: skip
        keys = KeyStore(bank)
        owners = [keys.create(name, "home", ["learn", "trust"], 10_000)[0] for name in "ab"]
        _, secret = keys.create("c", "home", ["ask", "learn"], 10_000)
        learn(bank, worker, owners[0], honest[::2])
        learn(bank, worker, owners[1], honest[1::2])
        use_admitted(bank)
        agent = worker.agent("home")
        active = bank.find("home", states=[State.ACTIVE])
        result: dict[str, Any] = {"seed": args.seed, "verifier": args.verifier, "active": len(active)}
        result["before"] = accuracy(agent, fresh)
        service = Service(ServeConfig(bank=f"{folder}/bank.db", learner=False, verifier=args.verifier))
        client = TestClient(create_app(service), "http://localhost")
        client.headers["Authorization"] = f"Bearer {secret}"
        asked = 0
        statuses: dict[int, int] = {}
        for change in FORGED:
            for info in active:
                body = {name: value for name, value in change.items() if name not in ("memory", "problem")}
                tacit: dict[str, Any] = {"learn": False}
                tacit |= {"memory": info.id} if "memory" in change else {}
                tacit |= {"problem": info.problem} if "problem" in change else {}
                said = "say nothing" if "problem" in change else info.problem
                response = client.post(
                    "/v1/chat/completions",
                    json={
                        "model": "testbed:tacit", "messages": [{"role": "user", "content": said}], "tacit": tacit,
                        **body,
                    },
                )  # fmt: skip
                asked += 1
                statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
            result.setdefault("quarantined", []).append(len(quarantine_hurtful(bank)))
        counts = [bank.info(info.id, "home") for info in active]
        result |= {"requests": asked, "statuses": statuses, "counted": sum(one.uses for one in counts)}
        result["hurt"] = sum(one.hurt for one in counts)
        service.close()
        result["after"] = accuracy(agent, fresh)
    result["seconds"] = time.perf_counter() - began
    args.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
