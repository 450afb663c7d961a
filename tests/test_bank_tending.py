"""Tending: what goes and why, what stays, that it comes back byte for byte, and that kills and rivals change nothing.

Builds on banks and commands.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from banks import make, same, search
from commands import Command, ran
from tacit.bank import Bank, open_bank
from tacit.bank.tending import work
from tacit.bank.tending.plan import CAUSES, Rule
from tacit.bank.tending.work import due, tend, undo
from tacit.errors import BankUnavailable, ConfigError
from tacit.memory import Memory, State
from tended import DIM, RULE, crowd, killed, spread, states, stored, unit


def rewarded(*rewards: float) -> dict[str, Any]:
    return {"label": "1", "steps": [{"reward": reward} for reward in rewards]}


def gone(bank: Bank, rule: Rule | None = None) -> dict[str, str]:
    return {one.id: one.cause for one in tend(bank, "home", rule, dry_run=True).plan.gone}


def test_each_cause_is_told_with_its_evidence(bank: Bank) -> None:
    spread(bank)
    rng = np.random.default_rng(0)
    bank.add(make("hurts", key=unit(1, 1), uses=9, helped=1, hurt=5))
    bank.add(make("idles", key=unit(0, 1, 1)))
    bank.add(make("waits", key=unit(0, 0, 1, 1), state=State.CANDIDATE))
    bank.add(make("agrees", key=unit(1, 0, 1), uses=50, agreed=50))
    bank.add(make("double", key=unit(1, 0.01), uses=9, agreed=6, helped=3))
    for number in range(20):
        bank.add(make(f"later{number}", key=rng.permuted(unit(*range(1, 9))), state=State.RETIRED))
    done = tend(bank, "home", Rule(idle=20))
    assert done.plan.causes() == dict.fromkeys(CAUSES[:4], 1)
    assert done.plan.active == (12, 9) and done.plan.size[1] < done.plan.size[0] and done.plan.kept == 1
    reasons = {one.id: one.reason.removeprefix(f"tended {done.name}: ") for one in bank.find("home")}
    assert reasons["hurts"].startswith("harmful: in 9 uses it hurt 5 and helped 1 times")
    assert reasons["idles"].startswith("idle: never recalled while ") and "20 are enough" in reasons["idles"]
    assert reasons["waits"].startswith("not admitted: ")
    assert bank.get("agrees", "home").state == "active"  # who agrees makes samples surer
    assert "of double" in reasons["s0"] and "helped 1, hurt 0, used 4" in reasons["s0"]
    assert bank.history("s0", "home")[-1].old is State.ACTIVE and bank.history("waits", "home")[-1].old == "candidate"
    assert search(bank, make("q", key=unit(1, 0)), k=1) == ["double"]  # out of recall at once
    assert [bank.get(f"s{number}", "home").state for number in range(1, 8)] == ["active"] * 7


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"helped": 3, "uses": 3}, {"helped": 3, "hurt": 1, "uses": 9}),
        ({"helped": 1, "uses": 9}, {"helped": 1, "uses": 3}),
        ({"provenance": rewarded(0, 1, 1, 1)}, {"provenance": rewarded(1, 1, 1, 0)}),
        ({}, {}),
    ],
)
def test_of_two_that_are_near_the_better_stays(tmp_path: Path, better: dict[str, Any], worse: dict[str, Any]) -> None:
    for order in ("better first", "worse first") if better != worse else ("better first",):
        with open_bank(str(tmp_path / f"{order}.db")) as bank:
            spread(bank)
            both = [make("a", key=unit(1, 1), **better), make("b", key=unit(1, 1.01), **worse)]
            for memory in both if order == "better first" else reversed(both):
                bank.add(memory)
            assert gone(bank) == {"b": "near-duplicate"}


def test_what_is_doubled_stays_while_there_is_room(tmp_path: Path) -> None:
    """With a budget the worst of those that are near to another go, and no more than have to."""
    with open_bank(str(tmp_path / "bank.db")) as bank:
        spread(bank)
        for number, helped in enumerate((9, 7, 5, 3)):
            bank.add(make(f"d{number}", key=unit(1, 1, 0.01 * number), uses=9, helped=helped))
        assert gone(bank) == dict.fromkeys(("d1", "d2", "d3"), "near-duplicate")
        assert gone(bank, Rule(keep=12)) == {}
        assert gone(bank, Rule(keep=10)) == dict.fromkeys(("d2", "d3"), "near-duplicate")
        size = tend(bank, "home", Rule(keep=11), dry_run=True).plan.size[1]
        assert gone(bank, Rule(keep_bytes=size)) == {"d3": "near-duplicate"}
        assert sorted(gone(bank, Rule(keep=8)).values()) == [
            "budget",
            "near-duplicate",
            "near-duplicate",
            "near-duplicate",
        ]


def test_near_is_measured_by_the_bank_itself(tmp_path: Path) -> None:
    """The same memories, and those whose keys share a large part, as hidden states of real models do."""
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((6, 1, DIM - 1)) + 0.02 * rng.standard_normal((6, 3, DIM - 1))
    for name, common in (("apart", 0.0), ("alike", 20.0)):
        with open_bank(str(tmp_path / f"{name}.db")) as bank:
            for kind, members in enumerate(kinds):
                for number, key in enumerate(members):
                    bank.add(make(f"{kind}-{number}", key=unit(*key, common)))
            assert sorted(gone(bank)) == [f"{kind}-{number}" for kind in range(6) for number in (1, 2)], name


def test_a_budget_gives_up_what_costs_least(tmp_path: Path) -> None:
    with open_bank(str(tmp_path / "bank.db")) as bank:
        spread(bank)
        bank.count("s3", "home", uses=20, helped=20)
        bank.count("s5", "home", uses=20, agreed=20)
        bank.count("s6", "home", uses=9, helped=9)
        done = tend(bank, "home", Rule(keep=3), dry_run=True).plan
        assert done.active == (8, 3) and done.causes() == {"budget": 5} and 0 < done.kept < 1
        assert {"s3", "s6"} & {one.id for one in done.gone} == set()
        each = done.size[0] // 8
        for most in (4 * each + each // 2, 1):
            plan = tend(bank, "home", Rule(keep_bytes=most), dry_run=True).plan
            assert plan.active[1] == most // each and plan.size[1] <= most
        assert bank.counts("home")[State.ACTIVE] == 8  # dry


def test_age_is_counted_in_problems(tmp_path: Path) -> None:
    """The first tending starts the clock; recalls since then make old what nobody recalls, seconds do not."""
    with open_bank(str(tmp_path / "bank.db")) as bank:
        spread(bank)
        bank.add(make("idles", key=unit(1, 1)))
        tend(bank, "home", Rule(idle=30))
        bank.count("s1", "home", uses=29, helped=9)
        assert gone(bank, Rule(idle=30)) == {} and not due(bank, "home", 30) and due(bank, "home", 29)
        bank.count("s1", "home", uses=1)
        bank.add(make("younger", key=unit(0, 1, 1)))
        assert gone(bank, Rule(idle=30)) == {"idles": "idle"}
        bank.count("s1", "home", uses=30)
        assert gone(bank, Rule(idle=30)) == {"idles": "idle"}  # no tending has seen the younger one
        tend(bank, "home", Rule(idle=30))
        bank.count("s1", "home", uses=30)
        assert gone(bank, Rule(idle=30)) == {"younger": "idle"}


counts = st.integers(0, 60)
memories = st.lists(
    st.tuples(
        st.sampled_from(list(State)), st.integers(0, 5), st.integers(0, 3), counts, counts, counts, st.integers(0, 4)
    ),
    min_size=1,
    max_size=30,
)
rules = st.builds(
    Rule,
    keep=st.none() | st.integers(1, 20),
    keep_bytes=st.none() | st.integers(1, 20_000),
    near=st.floats(0, 0.9),
    idle=st.integers(1, 40),
)


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(memories=memories, rule=rules, more=rules)
def test_tended_twice_is_tended_once_and_undone_is_as_before(
    tmp_path_factory: pytest.TempPathFactory, memories: list[Any], rule: Rule, more: Rule
) -> None:
    path = tmp_path_factory.mktemp("tended") / "bank.db"
    with open_bank(str(path)) as bank:
        for number, (state, kind, turn, agreed, helped, hurt, reward) in enumerate(memories):
            key = unit(*np.eye(6)[kind], 0.05 * turn)
            uses = {"uses": agreed + helped + hurt, "agreed": agreed, "helped": helped, "hurt": hurt}
            bank.add(make(f"m{number}", key=key, state=state, provenance=rewarded(reward / 4), **uses))
        before = stored(path)
        assert tend(bank, "home", rule, dry_run=True).plan == tend(bank, "home", rule, dry_run=True).plan
        assert stored(path) == before
        done = tend(bank, "home", rule)
        after = stored(path)
        active = {one.id for one in bank.find("home", states=[State.ACTIVE])}
        assert len(active) == done.plan.active[1] <= (rule.keep or len(memories))
        assert rule.keep_bytes is None or done.plan.size[1] <= rule.keep_bytes
        assert set(search(bank, make("q", key=unit(1)))) == active
        bank.check()
        again = tend(bank, "home", rule)
        assert (again.plan.gone, again.freed) == ((), 0) and stored(path) == after
        second = tend(bank, "home", more)
        for one in (second, done):
            if one.plan.gone:
                assert undo(bank, "home") == (one.name, len(one.plan.gone))
        assert stored(path) == before
        over = tend(bank, "home", rule)  # what comes back has the reason that it had at first
        if over.plan.gone:
            assert undo(bank, "home", over.name) == (over.name, len(over.plan.gone)) and stored(path) == before
            assert not due(bank, "home", 1)
        with pytest.raises(ConfigError, match="has nothing that tending 'last' took out of use"):
            undo(bank, "home")
        bank.check()


def test_an_undone_tending_is_in_the_history(bank: Bank) -> None:
    spread(bank)
    one = make("double", key=unit(1, 0.01))
    bank.add(one)
    name = tend(bank, "home").name
    assert undo(bank, "home", name) == (name, 1) and same(bank.get("double", "home"), one)
    assert [step.new for step in bank.history("double", "home")] == ["active", "retired", "active"]
    assert bank.history("double", "home")[-1].reason == f"tending {name} undone; admitted"


def test_after_the_time_for_undoing_memories_are_deleted_whole(bank: Bank) -> None:
    spread(bank)
    bank.add(make("by hand", key=unit(1, 1), state=State.RETIRED, reason="by hand"))
    bank.add(make("double", key=unit(1, 0.01), uses=2))
    bank.count("s1", "home", uses=8)
    tend(bank, "home")
    assert tend(bank, "home", Rule(undo_days=1)).freed == 0
    assert tend(bank, "home", Rule(undo_days=0), dry_run=True).freed == 1
    assert due(bank, "home", 1) is False
    done = tend(bank, "home", Rule(undo_days=0))
    assert done.freed == 1 and "double" not in {one.id for one in bank.find("home")}
    assert bank.get("by hand", "home").reason == "by hand"
    assert due(bank, "home", 1) is False  # the clock does not go back with what was recalled of it
    with pytest.raises(ConfigError, match="deleted for good"):
        undo(bank, "home")
    bank.check()
    assert bank.add(make("double", key=unit(1, 0.01)))


def test_the_file_shrinks_while_others_read_it(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    with open_bank(str(path)) as bank, open_bank(str(path)) as other:
        prompt = np.ones((20, 512), dtype=np.float32)
        for number in range(100):
            bank.add(make(f"m{number}", key=unit(1, number), prompt=prompt * number))
        with bank.connection() as reading:
            reading.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        before = path.stat().st_size
        tend(bank, "home", Rule(keep=10, near=0))
        left = [one.id for one in other.find("home", states=[State.ACTIVE])]
        done = tend(bank, "home", Rule(keep=10, near=0, undo_days=0))
        assert done.freed == 90 == 100 - len(left) and path.stat().st_size < before / 4
        assert done.shrunk == pytest.approx(before - path.stat().st_size, rel=0.1)
        assert [one.id for one in other.find("home")] == left
        assert len(search(other, make("q", key=unit(1)))) == len(left)
        other.check()


@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_killed_at_any_moment_the_rest_is_done_the_next_time(tmp_path: Path, kills: int) -> None:
    crowd(tmp_path / "whole.db", 600)
    shutil.copy(tmp_path / "whole.db", tmp_path / "killed.db")
    assert ran("bank", "tend", tmp_path / "whole.db", *RULE).returncode == 0
    expected, rng, path = states(tmp_path / "whole.db"), random.Random(0), tmp_path / "killed.db"
    before, first, cut = states(path), stored(path), 0
    for number in range(kills):
        killed(path, rng.uniform(0, 0.1) if number else 0, *RULE, begun=number % 2 == 0)
        found = states(path)
        assert all(one in (before[id], expected[id]) for id, one in found.items()) and len(found) == len(before)
        cut += found not in (before, expected)
    done = ran("bank", "tend", path, *RULE)
    assert done.returncode == 0, done.stderr  # a claim of one that was killed holds nobody up
    assert states(path) == expected and cut
    for _ in range(kills // 2):  # the undoing as well, and it takes back what all of them did
        killed(path, rng.uniform(0, 0.1), "--undo", "last", "--namespace", "home", begun=True)
    assert ran("bank", "tend", path, "--undo", "last", "--namespace", "home").returncode in (0, 2)  # 2: it was done
    assert stored(path) == first


def test_of_two_that_tend_one_does_each_thing_once(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    crowd(path)
    commands = [Command("bank", "tend", path, *RULE) for _ in range(4)]
    ends = [(command.wait(), command.written()[1]) for command in commands]
    assert 0 in [code for code, _ in ends]
    assert all(code == 0 or "another process is tending namespace 'home'" in said for code, said in ends), ends
    found = states(path)
    assert max(steps for _, steps in found.values()) == 2
    assert sum(state == State.ACTIVE for state, _ in found.values()) == 20


def test_a_claim_holds_until_it_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_bank(str(tmp_path / "bank.db")) as bank:
        spread(bank)
        bank.add(make("double", key=unit(1, 0.01)))
        now = time.time()
        for by, until, free in (
            ("elsewhere 1 x", now + 60, False),
            ("elsewhere 1 x", now - 1, True),
            ("elsewhere 1 x", now + 10 * work.LEASE, True),  # a clock that was put back
        ):
            bank.mark("home", "tending", json.dumps({"by": by, "until": until}))
            if free:
                tend(bank, "home")
                continue
            for act in (tend, undo):
                with pytest.raises(BankUnavailable, match="another process is tending"):
                    act(bank, "home")
        # Taken over in the middle: the first does nothing more.
        undo(bank, "home")
        moved = bank.set_state

        def slow(id: str, namespace: str, state: State, reason: str, note: str = "") -> None:
            moved(id, namespace, state, reason, note)
            bank.mark("home", "tending", json.dumps({"by": "elsewhere 1 x", "until": now + 60}))

        monkeypatch.setattr(bank, "set_state", slow)
        with pytest.raises(BankUnavailable, match="nothing is done twice"):
            tend(bank, "home")


def test_nothing_crosses_namespaces(tmp_path: Path) -> None:
    with open_bank(str(tmp_path / "bank.db")) as bank:
        spread(bank)
        bank.add(make("double", key=unit(1, 0.01)))
        bank.add(make("double", namespace="away", key=unit(1)))
        bank.add(make("third", namespace="away", key=unit(1)))
        tend(bank, "away")
        assert bank.get("double", "home").state is State.ACTIVE and bank.get("third", "away").state is State.RETIRED
        with pytest.raises(ConfigError):
            undo(bank, "home")


def test_the_command_shows_what_would_go_does_it_and_takes_it_back(tmp_path: Path) -> None:
    path = tmp_path / "bank.db"
    crowd(path)
    before = stored(path)

    def said(*more: object, code: int = 0) -> str:
        done = ran("bank", "tend", path, "--namespace", "home", *more)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    dry = said("--dry-run", "--keep", 20)
    assert "budget: of 20 memories; expected loss" in dry and "257 before, 20 after" in dry and stored(path) == before
    done = json.loads(said("--keep", 20, "--json"))
    assert done["active"] == [257, 20] and done["bytes"][1] < done["bytes"][0]
    assert sum(done["causes"].values()) == len(done["memories"])
    assert f"of tending {done['name']} are as they were before it" in said("--undo", done["name"])
    assert stored(path) == before
    assert "took out of use" in said("--undo", "last", code=2)
    assert "without --dry-run" in said("--undo", "last", "--keep", 3, code=2)
    assert said("--keep", 0, code=2) == "error: keep is 0; it must be at least 1\n"


def test_a_fresh_start_after_harm(tmp_path: Path) -> None:
    """As of quarantine: what was brought back is not taken out again for what it did before."""
    with open_bank(str(tmp_path / "bank.db")) as bank:
        spread(bank)
        hurts: Memory = make("hurts", key=unit(1, 1), uses=9, helped=1, hurt=5)
        bank.add(hurts)
        tend(bank, "home")
        undo(bank, "home")
        assert same(bank.get("hurts", "home"), hurts) and gone(bank) == {}
        bank.count("hurts", "home", uses=3, hurt=3)
        assert gone(bank) == {"hurts": "harmful"}
