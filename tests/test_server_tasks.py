"""A server of a bank whose memories were learned on a task other than mathematics: nothing has to be said again."""

from __future__ import annotations

from pathlib import Path

from starlette.testclient import TestClient

from conftest import Tacit
from tacit.server.app import create_app
from tacit.server.live.service import Service
from tacit.server.run import as_bound
from tacit.server.settings import ServeConfig
from tacit.tasks import sources


def test_a_bank_of_choices_is_served_as_one(cli: Tacit, tmp_path: Path) -> None:
    words = ("--model", "testbed:C", "--data", "testbed:C:choice", "--limit", "12", "--window", "6", "--steps", "4")
    code, _, err = cli("run", *words, "--baselines", "none", "--out", str(tmp_path / "run"))
    assert code == 0, err
    bank = str(tmp_path / "run" / "bank.sqlite")
    service = Service(as_bound(ServeConfig(model="testbed:C", bank=bank, learner=False, votes=3)))
    try:
        assert service.task.name == "choice"
        [*_, problem] = sources.load("testbed:C:choice", seed=4, limit=8, model="testbed:C")
        asked = {"model": "testbed-C:tacit", "messages": [{"role": "user", "content": problem.text}], "max_tokens": 48}
        client = TestClient(create_app(service), "http://localhost")  # type: ignore[arg-type]
        response = client.post("/v1/chat/completions", json={**asked, "temperature": 0, "tacit": {"learn": False}})
        assert response.status_code == 200, response.text
        text = response.json()["choices"][0]["message"]["content"]
        assert service.task.on(problem.text).extract(text) in service.task.on(problem.text).options
    finally:
        service.close()


def test_another_task_than_the_banks_is_refused(cli: Tacit, tmp_path: Path) -> None:
    words = ("--model", "testbed:C", "--data", "testbed:C:text", "--limit", "6", "--window", "6", "--steps", "2")
    assert cli("run", *words, "--baselines", "none", "--out", str(tmp_path / "run"))[0] == 0
    bank = str(tmp_path / "run" / "bank.sqlite")
    code, out, err = cli("ask", "--model", "testbed:C", "--bank", bank, "--task", "number", "3 + 4")
    assert code == 2 and not out
    assert "for the task text, not for number; leave --task out" in err
