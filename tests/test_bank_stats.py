"""What people are told of a bank: its kinds, what tending did and would do, why a memory is there, what two differ in.

Builds on banks, and keys and jobs as a server leaves them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from banks import make
from conftest import Tacit
from tacit.bank import Bank, open_bank
from tacit.bank.tending.stats import explained, kinds
from tacit.bank.tending.work import tend, undo
from tacit.memory import State
from tacit.server.keys import KeyStore

KINDS, EACH = 6, 5


@pytest.fixture
def filled(bank: Bank) -> Bank:
    """Six kinds of five, all keys with a large part in common."""
    rng = np.random.default_rng(1)
    for kind, centre in enumerate(rng.standard_normal((KINDS, 7))):
        for number in range(EACH):
            key = np.append(centre + 0.05 * rng.standard_normal(7), 9.0)
            key = (key / np.linalg.norm(key)).astype(np.float32)
            bank.add(make(f"k{kind}-{number}", key=key, uses=4, agreed=1, helped=2, hurt=1))
    return bank


def test_kinds_are_found_with_what_they_did(filled: Bank) -> None:
    filled.count("k2-3", "home", uses=10, helped=10)
    filled.set_state("k2-4", "home", State.QUARANTINED, "by hand")
    found = kinds(filled, "home")
    assert sorted(len({id[:2] for id in kind["memories"]}) for kind in found) == [1] * KINDS
    assert {len(kind["memories"]) for kind in found} == {EACH}
    assert found[-1]["memories"][0] == "k2-3" and found[-1]["states"] == {"active": 4, "quarantined": 1}
    assert [found[-1][name] for name in ("uses", "helped", "hurt", "gain")] == [30, 20, 5, 0.5]
    assert found[-1]["age"] == [16, 19] and found[-1]["tended"] == 0
    would = tend(filled, "home", dry_run=True).plan.gone
    assert sum(kind["would_go"] for kind in found) == len(would) > 0


def test_what_tending_did_is_told_until_it_is_undone(filled: Bank) -> None:
    done = tend(filled, "home")
    assert sum(kind["tended"] for kind in kinds(filled, "home")) == len(done.plan.gone) > 0
    undo(filled, "home")
    assert not any(kind["tended"] for kind in kinds(filled, "home")) and kinds(filled, "nobody's") == []


def test_a_memory_is_explained(bank: Bank) -> None:
    key, _ = KeyStore(bank).create("the shop", "home", {"ask", "learn"})
    told = {"label": "7", "why": "the vote", "share": 0.75, "margin": 0.5, "belief": 0.9, "key": key.id, "job": "j1"}
    bank.add(make("one", state=State.CANDIDATE, reason="not yet", provenance=told, uses=9, agreed=1, helped=1, hurt=7))
    bank.set_state("one", "home", State.ACTIVE, "promoted: it helps")
    facts = explained(bank, "one", "home")
    text = {title: "\n".join(lines) for title, lines in facts.items()}
    assert "label '7', the vote" in text["why it is there"] and "share 0.75" in text["why it is there"]
    assert "believes the label to 0.90" in text["why it is there"] and "candidate: not yet" in text["why it is there"]
    assert f"API key {key.id}, named 'the shop'" in text["who it came from"] and "job j1" in text["who it came from"]
    assert "recalled 9 times: agreed 1, helped 1, hurt 7" in text["what it did"]
    assert "tending would take it out of use: harmful" in text["what it did"]
    assert "candidate -> active: promoted: it helps" in facts["what was made of it"][-1]


def test_the_commands_print_tables_and_json(tmp_path: Path, cli: Tacit) -> None:
    url = str(tmp_path / "bank.sqlite")
    with open_bank(url) as bank:
        one = make("one", provenance={"label": "[b]7", "learning": {"lr": 0.02}, "steps": [{"reward": 0.5}]})
        bank.add(one)
        bank.add(replace(one, id="two", problem_id="other", uses=3, provenance={**one.provenance, "label": "8"}))
        bank.add(make("far", prompt=np.ones((1, 4), np.float32), provenance={}))
    home = ("--namespace", "home")
    code, out, err = cli("bank", "stats", url, *home)
    assert code == 0 and "3 memories of 2 kinds" in out and "tending now would leave 2 of 3 active" in out, err
    code, out, _ = cli("bank", "stats", url, *home, "--json")
    facts = json.loads(out)
    assert facts["tendings"] == []
    assert [kind["memories"] for kind in facts["kinds"]] == [["two", "one"], ["far"]] and facts["would"]["active"] == [
        3,
        2,
    ]
    assert cli("bank", "tend", url, *home)[0] == 0
    code, out, _ = cli("bank", "stats", url, *home)
    assert code == 0 and ": 1 near-duplicate\n" in out
    assert [one["retired"] for one in json.loads(cli("bank", "stats", url, *home, "--json")[1])["tendings"]] == [
        {"near-duplicate": 1}
    ]
    code, out, err = cli("memories", "explain", "on", "--bank", url, *home)
    assert code == 0 and "label '[b]7'" in out and "new -> active: admitted" in out and "tended" in out, err
    code, out, err = cli("memories", "diff", "one", "two", "--bank", url, *home)
    assert code == 0 and "[b]7" in out and "cosine of keys: 1.0000" in out and "lr" not in out, err
    code, out, _ = cli("memories", "diff", "one", "far", "--bank", url, *home, "--json")
    told = json.loads(out)
    assert told["differs"]["lr"] == [0.02, None] and told["differs"]["rewards"] == ["0.50", None]
    assert told["cosine of prompts"] is None and -1 <= told["cosine of keys"] <= 1
    assert cli("memories", "diff", "one", "nobody", "--bank", url, *home)[0] == 2
    assert cli("bank", "stats", str(tmp_path / "none.sqlite"))[0] == 2


@pytest.mark.parametrize("created", [1.7e12, 2.0**63 - 1024])
@pytest.mark.parametrize("asked", [["list"], ["show", "late"], ["explain", "late"]], ids=str)
def test_a_time_beyond_the_calendar_is_shown(tmp_path: Path, cli: Tacit, created: float, asked: list[str]) -> None:
    """Such as one that somebody wrote in milliseconds."""
    url = str(tmp_path / "bank.sqlite")
    with open_bank(url) as bank:
        bank.add(make("late", created=created))
    code, out, err = cli("memories", *asked, "--bank", url, "--namespace", "home")
    assert code == 0 and "late" in out, err
