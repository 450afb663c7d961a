"""Settings are said once: in a file, a variable or a flag; a run folder and a bank know theirs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from conftest import Tacit
from frozen import GOLDEN
from server import InProcess
from tacit.assembly import load_backbone
from tacit.bank import open_bank
from tacit.config import RunConfig, Settings
from tacit.experiments.run_folder import RunFolder
from tacit.model.backbone import Backbone
from tacit.model.prompts import Template
from tacit.tasks.maths import MATHS
from test_cli_run import asked  # noqa: F401 - a fixture

INSTRUCTION = "in words ?"
RUN = ["run", "--limit", 3, "--steps", 1, "--samples", 4, "--rollouts", 4, "--baselines", "none", "--reward", "random"]


def test_flag_beats_variable_beats_file_beats_default(
    cli: Tacit,
    asked: list[RunConfig],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("mine.toml").write_text(
        'seed = 4\nbaselines = ["icl"]\n[learn]\nlr = 0.1\nsteps = 7\ntokens = 5\n[sampling]\nsamples = 3\n'
        "[recall]\nfloor = 0\n"
    )
    for name, value in (("LR", "0.2"), ("STEPS", "8"), ("TOP_P", "0.9")):
        monkeypatch.setenv(f"TACIT_{name}", value)
    code, _, err = cli("run", "--config", "mine.toml", "--lr", "0.3")
    assert code == 0, err
    [config] = asked
    assert (config.learn.lr, config.learn.steps, config.learn.tokens) == (0.3, 8, 5)  # flag, variable, file
    assert (config.sampling.samples, config.sampling.top_p, config.recall.floor) == (3, 0.9, 0.0)
    assert (config.seed, config.baselines, config.learn.rollouts) == (4, ("icl",), 8)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[learn]\nstep = 3\n", "mine.toml [learn]: there is no setting 'step' (did you mean steps?)"),
        ("lr = 0.1\n", "mine.toml: there is no setting 'lr'"),
        ("sede = 1\n", "there is no setting 'sede' (did you mean seed?)"),
        ("[learn]\nlr = 'much'\n", "mine.toml [learn]: lr is 'much'; it must be of type float"),
        ("[learn]\nreward = 'majorty'\n", "there is no reward 'majorty'; did you mean majority?"),
        ("learn = 3\n", "mine.toml [learn]: settings are a table, not int"),
    ],
)
def test_what_a_file_says_wrong_is_one_sentence(cli: Tacit, text: str, said: str) -> None:
    Path("mine.toml").write_text(text)
    code, out, err = cli("run", "--config", "mine.toml")
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1


def test_a_run_folder_keeps_its_settings(cli: Tacit, asked: list[RunConfig]) -> None:  # noqa: F811
    begun = RunConfig(out="out", seed=6, window=3, instruction="so")
    folder = RunFolder("out", begun.settings())
    with open_bank("out/bank.sqlite") as bank:
        folder.resume(bank, "default")
    folder.close()
    assert cli("run", "--out", "out", "--limit", "9", "--lr", "0.5")[0] == 0
    [config] = asked
    assert (config.seed, config.window, config.instruction, config.limit, config.learn.lr) == (6, 3, "so", 9, 0.5)
    assert config.strict


def test_a_run_from_before_windows_were_strict_goes_on_as_it_began(cli: Tacit, asked: list[RunConfig]) -> None:  # noqa: F811
    held = RunConfig(out="out", window=3).settings()
    del held["strict"]
    Path("out").mkdir()
    Path("out/run.json").write_text(json.dumps({"run_id": "a", **held}))
    assert cli("run", "--out", "out")[0] == 0
    [config] = asked
    assert (config.window, config.strict) == (3, False)
    assert config.settings() == {**held, "strict": False}


def test_a_bank_is_asked_and_served_as_it_was_made(cli: Tacit, tmp_path: Path) -> None:
    words = ["--instruction", INSTRUCTION, "--key", "input", "--min-votes", 1, "--min-lead", 0, "--admit", 0]
    code, _, err = cli(*RUN, *words, "--out", "out")
    assert code == 0, err
    with open_bank("out/bank.sqlite", create=False) as bank:
        found = bank.find("default")
    assert found and {info.key_kind for info in found} == {"input"}
    code, out, err = cli("ask", found[0].problem, "--bank", "out/bank.sqlite", "--samples", 2, "--json")
    assert code == 0 and f'"problem_id": "{found[0].problem_id}"' in out, err
    for command in (["ask", "compute 1 + 1"], ["serve", "--port", "0", "--no-learn"]):
        code, _, err = cli(*command, "--bank", "out/bank.sqlite", "--instruction", "say it .")
        assert code == 2 and err.count("\n") == 1
        assert f"are for the instruction '{INSTRUCTION}', not for 'say it .'" in err and "--bank" not in err
    server = InProcess(tmp_path / "out/bank.sqlite", recall=_bound(tmp_path / "out/bank.sqlite").recall)
    try:
        assert server.service.backbone.template.instruction == INSTRUCTION
        assert server.service.backbone.fingerprint == found[0].fingerprint
        body = {"messages": [{"role": "user", "content": found[0].problem}], "seed": 1, "max_tokens": 16}
        said = server.anyone().post("/v1/chat/completions", json={"model": "testbed:tacit", **body}).json()
        assert said["tacit"]["memory"] == found[0].id and said["tacit"]["similarity"] == pytest.approx(1, abs=1e-5)
    finally:
        server.service.close()


def _bound(bank: Path) -> Settings:
    """What ``tacit serve --bank`` makes of its defaults."""
    from tacit.server.run import as_bound
    from tacit.server.settings import ServeConfig

    return as_bound(ServeConfig(bank=str(bank)))


@pytest.mark.parametrize("instruction", ["", MATHS.instruction], ids=["none", "the task's"])
def test_memories_from_before_banks_knew_are_recognised(instruction: str, tmp_path: Path, testbed: Backbone) -> None:
    """By their fingerprint, whatever would be said otherwise."""
    path = tmp_path / "bank.sqlite"
    shutil.copy(GOLDEN / "v1/run/bank.sqlite", path)
    asked_so = testbed.asked(Template(instruction))
    with open_bank(str(path), create=False) as bank:
        assert bank.marked("default", "binding") is None
        if instruction:
            old = bank.get(bank.find("default")[0].id, "default")
            bank.bind("maths", asked_so.fingerprint, asked_so.name)
            bank.add(replace(old, namespace="maths", fingerprint=asked_so.fingerprint))
        namespace = "maths" if instruction else "default"
        for unsaid in ("", "something else", None):
            held = load_backbone(Settings(), bank, [namespace], unsaid=unsaid)
            assert held.fingerprint == asked_so.fingerprint and held.template.instruction == instruction
