"""The dashboard's pages in a browser; its files and feed are in test_server_dashboard_files."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from browser import barriers, chromium, driver
from server import serving
from tacit.engines.base import Rollout
from tacit.judges.verifiers import Candidate
from tacit.memory import State
from tacit.routing import route
from tacit.server.api.views import FeedPage
from tacit.server.live.answering import ALONE
from tacit.server.live.feed import Feed
from tacit.server.live.service import Service
from tacit.server.settings import ServeConfig
from test_server_memories_api import made

EVIL = "<img src=x onerror=\"document.title='taken'\"> compute 1 + 2"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A server process on a bank with memories and jobs, and a page of a real browser with an administrator's key."""
    browser = chromium()
    sync_playwright = driver()
    bank = tmp_path_factory.mktemp("opened") / "bank.sqlite"
    service = Service(ServeConfig(bank=str(bank), learner=False))
    for number in range(60):
        service.bank.add(made(service, f"m{number}", f"compute {number} + 4", created=1000.0 + number))
    service.bank.add(made(service, "evil", EVIL, created=5000.0))
    service.bank.add(made(service, "candidate", "compute 60 + 4", state=State.CANDIDATE, created=500.0))
    service.bank.add(made(service, "foreign", "of somebody else", namespace="work", created=6000.0))
    admin, secret = service.keys.create("test", "home", ("admin", "ask", "learn"))
    _, asker = service.keys.create("test", "home", ("ask",))
    for problem in ("first job", "second job", "third job"):
        service.jobs.submit("home", problem, admin)
    failing, learning = service.jobs.claim("worker", 3600, 2)
    service.jobs.fail(failing, "worker", "it did not fit")
    service.jobs.progress(learning, "worker", {"stage": "answering"})
    service.close()
    with serving(bank, "--no-learn") as served, sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = launched.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text) if message.type != "log" else None)
        page.on("pageerror", lambda error: said.append(str(error)))

        def use(key: str) -> None:
            page.set_extra_http_headers({"Authorization": f"Bearer {key}"})

        use(secret)
        page.goto(served.url)
        yield SimpleNamespace(page=page, said=said, use=use, secret=secret, asker=asker, url=served.url, served=served)
        launched.close()


@pytest.fixture
def page(opened: SimpleNamespace) -> Iterator[Any]:
    """The page, which must have written nothing on the browser's console."""
    opened.said.clear()
    opened.page.set_viewport_size({"width": 1200, "height": 900})
    yield opened.page
    assert opened.said == []


def rows(page: Any, label: str) -> Any:
    return page.get_by_role("region", name=label).locator("tbody tr")


def test_overview_shows_the_state_and_new_answers_by_itself(opened: SimpleNamespace, page: Any) -> None:
    page.goto(f"{opened.url}/#/")
    page.get_by_text("Nothing has been asked since the server started.").wait_for()
    asked = {"model": "testbed:tacit", "messages": [{"role": "user", "content": EVIL}], "temperature": 0}
    headers = {"Authorization": f"Bearer {opened.secret}"}
    assert httpx.post(f"{opened.url}/v1/chat/completions", json=asked, headers=headers, timeout=60).status_code == 200
    row = rows(page, "Latest answers").filter(has_text=EVIL)
    row.wait_for()
    assert row.get_by_role("link").get_attribute("href") == "#/memories/evil"
    facts = page.locator("dl.facts div")
    shown = dict(zip(facts.locator("dt").all_inner_texts(), facts.locator("dd").all_inner_texts(), strict=True))
    assert (shown["model"], shown["namespace"], shown["learner"]) == ("testbed", "home", "none on this server")
    assert (shown["active"], shown["quarantined"], shown["failed"]) == ("61", "0", "1")
    page.get_by_text("In the last hour 1 answer with memory was compared with one without.").wait_for()
    assert page.locator(".chart canvas").count() == 2
    assert page.title() == "Overview · Tacit"  # the problem's script has not run


@pytest.mark.parametrize(
    ("routes", "word", "evidence"),
    [
        ("", "Not known yet.", "no answer with memory was compared with one without. 61 memories are in use"),
        ("a a", "It changes nothing.", "2 answers with memory were compared with one without. None differed."),
        ("a m z", "Too early to say.", "2 differed; the one with memory was judged better in 1 of these: 50%"),
        ("m m m m m m m m m m z", "Yes.", "judged better in 10 of these: 91%, 95% interval 62% to 98%"),
        ("z z z z z z z z z z m", "No, it hurts.", "judged better in 1 of these: 9%, 95% interval 2% to 38%"),
        ("u u u u u u u u u r r r", "Not known yet.", "no answer with memory was compared with one without"),
        ("o o o o o o o o", "Not known yet.", "no answer with memory was compared with one without"),
    ],
)
def test_the_first_screen_says_whether_memory_helps_and_by_what(
    opened: SimpleNamespace, page: Any, routes: str, word: str, evidence: str
) -> None:
    scored = "reward model: 0.900 with memory, 0.100 without"
    one, other = (Candidate(Rollout((1,), (-0.5,), said, "stop"), said, 0.5) for said in "12")
    [trusted] = route("p", [(one, other)], None)
    told = {
        "a": ("agree", "both give the same answer"), "m": ("memory", scored), "z": ("zero_shot", scored),
        "u": ("memory", ALONE.why), "r": ("memory", trusted.why), "o": ("memory", scored),
    }  # fmt: skip
    feed = Feed(lambda: time.time() - (7200 if "o" in routes else 0))
    for letter in routes.split():
        name, why = told[letter]
        feed.add(
            "a", model="m", route=name, why=why, memory="m1", similarity=0.9, seconds=1.0, tokens=1, problem="p",
            learning="no",
        )  # fmt: skip
    last, answers, minutes = feed.since("a")
    body = FeedPage(last=last, answers=answers, minutes=minutes).model_dump_json()
    page.route("**/tacit/v1/feed*", lambda asked: asked.fulfill(body=body, content_type="application/json"))
    page.goto(f"{opened.url}/#/")
    page.reload()
    page.locator(".verdict").get_by_text(evidence).wait_for()
    assert page.locator(".verdict h2").inner_text() == f"Does memory help right now? {word}"
    assert page.locator(".verdict").get_by_text("No right answer is known here").count() == ("Not known" not in word)
    page.unroute("**/tacit/v1/feed*")


def test_memories_are_filtered_sorted_and_paged_by_the_server(opened: SimpleNamespace, page: Any) -> None:
    page.goto(f"{opened.url}/#/memories")
    page.get_by_text("1 to 50 of 62").wait_for()
    assert EVIL in rows(page, "Memories").first.inner_text()
    page.get_by_role("button", name="Next").press("Enter")
    page.get_by_text("51 to 62 of 62").wait_for()
    page.get_by_label("Problem contains").fill("59 +")
    page.get_by_text("1 to 1 of 1").wait_for()
    assert "compute 59 + 4" in rows(page, "Memories").inner_text()
    page.get_by_label("Problem contains").fill("")
    page.get_by_text("1 to 50 of 62").wait_for()
    page.get_by_role("button", name="Created").click()
    page.locator("th[aria-sort=ascending]").wait_for()
    assert "compute 60 + 4" in rows(page, "Memories").first.inner_text()
    page.reload()  # the address has kept what was chosen
    page.locator("th[aria-sort=ascending]").wait_for()
    page.get_by_label("State").select_option("quarantined")
    page.get_by_text("none of 0").wait_for()


def test_the_map_says_kinds_and_benefits_before_a_mouse_is_over_it(opened: SimpleNamespace, page: Any) -> None:
    page.goto(f"{opened.url}/#/memories")
    page.locator(".chart canvas").nth(1).wait_for()
    by_kind, by_benefit = page.locator(".chart").all()
    assert by_kind.get_attribute("aria-label").startswith("Map of 61 memories by kind: ")
    benefits = ["problem", "helped more than it hurt", "hurt more than it helped", "as often", "not recalled yet"]
    assert by_benefit.locator(".u-label").all_inner_texts() == benefits
    for legend in (by_kind, by_benefit):
        pointed, *counts = legend.locator(".u-value").all_inner_texts()
        assert pointed == "point at one" and sum(map(int, counts)) == 61
    by_kind.locator(".u-over").hover()
    assert by_kind.locator(".u-value").first.inner_text().startswith("compute ")
    found = opened.served.get("/tacit/v1/map", opened.secret).json()
    assert found["active"] == len(found["places"]) == 61 and "foreign" not in {one["id"] for one in found["places"]}


def test_a_memory_is_shown_quarantined_restored_and_deleted(opened: SimpleNamespace, page: Any) -> None:
    page.goto(f"{opened.url}/#/memories/evil")
    assert page.locator(".problem").inner_text() == EVIL
    page.locator(".chart canvas").wait_for()
    assert rows(page, "Nearest memories").count() == 5
    page.get_by_label("Reason").fill("looks <b>odd</b>")
    page.get_by_role("button", name="Quarantine").click()
    page.get_by_role("button", name="Restore").wait_for()
    assert rows(page, "History").last.inner_text().endswith("looks <b>odd</b>")
    page.get_by_role("button", name="Restore").click()
    page.get_by_role("button", name="Quarantine").wait_for()
    assert "quarantined → active" in rows(page, "History").last.inner_text()
    assert page.title() == "Memory · Tacit"

    page.goto(f"{opened.url}/#/memories/candidate")
    page.get_by_role("button", name="Activate").click()
    page.get_by_role("button", name="Activate").wait_for(state="hidden")
    assert "candidate → active" in rows(page, "History").last.inner_text()

    page.goto(f"{opened.url}/#/memories/m7")
    page.get_by_role("button", name="Delete …").click()
    page.get_by_role("button", name="Keep it").click()
    assert opened.served.get("/tacit/v1/memories/m7", opened.secret).status_code == 200
    page.get_by_role("button", name="Delete …").click()
    page.get_by_role("button", name="Delete for good").click()
    page.get_by_text("1 to 50 of 61").wait_for()
    assert opened.served.get("/tacit/v1/memories/m7", opened.secret).status_code == 404


def test_queue_shows_jobs_with_progress_and_errors(opened: SimpleNamespace, page: Any) -> None:
    page.goto(f"{opened.url}/#/queue")
    jobs = rows(page, "Jobs")
    jobs.filter(has_text="first job").wait_for()
    assert "it did not fit" in jobs.filter(has_text="first job").inner_text()
    assert "stage: answering" in jobs.filter(has_text="second job").inner_text()
    page.get_by_label("State").select_option("failed")
    page.get_by_text("1 job, newest first").wait_for()
    assert jobs.count() == 1
    jobs.get_by_role("button", name="Try again").click()
    page.get_by_text("There is no such job.").wait_for()
    page.get_by_label("State").select_option("queued")
    jobs.filter(has_text="first job").wait_for()


def test_try_it_answers_side_by_side_and_learns_only_if_told(opened: SimpleNamespace, page: Any) -> None:
    page.goto(f"{opened.url}/#/ask")
    page.get_by_label("Problem").fill("compute 34 + 58")
    page.get_by_role("button", name="Ask").click()
    page.locator(".answer").nth(1).wait_for()
    plain, memory = page.locator(".pair .card").all()
    assert "memory is off for this request" in plain.inner_text()
    assert "the request forbids it" in memory.inner_text()
    assert re.search(r"route\s+(agree|zero shot|memory)\b", memory.inner_text())
    page.get_by_label("learn from it").check()
    page.get_by_role("button", name="Ask").click()
    page.locator(".card").filter(has_text="With memory").get_by_text("queued").wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("where", ["", "memories", "memories/m3", "queue", "ask"])
def test_no_page_is_wider_than_a_phone(opened: SimpleNamespace, page: Any, where: str, theme: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme=theme)
    page.goto(f"{opened.url}/#/{where}")
    page.locator("main :is(table, textarea)").first.wait_for()
    # What was drawn for a wider window is drawn anew when that has become narrower.
    page.wait_for_function("document.documentElement.scrollWidth == document.documentElement.clientWidth")
    assert barriers(page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("where", ["", "memories", "memories/m3", "queue", "ask"])
def test_no_page_keeps_anybody_out(opened: SimpleNamespace, page: Any, where: str, theme: Any) -> None:
    page.emulate_media(color_scheme=theme)
    page.goto(f"{opened.url}/#/{where}")
    page.locator("main :is(table, textarea)").first.wait_for()
    assert barriers(page) == []


def test_a_key_without_the_right_is_told_so(opened: SimpleNamespace) -> None:
    page = opened.page
    opened.use(opened.asker)
    page.goto(f"{opened.url}/#/memories")
    page.reload()
    page.get_by_role("alert").filter(has_text="lacks the right “admin”").wait_for()
    opened.use("sk-unknown")
    page.get_by_role("link", name="Queue").click()
    page.get_by_role("alert").filter(has_text="missing or was revoked").wait_for()
    opened.use(opened.secret)
    page.get_by_role("alert").wait_for(state="hidden")  # it tries again by itself
    assert rows(page, "Jobs").count() > 1
