"""The dashboard: its files and feed as ASGI (who gets them, whose answers are told to whom), its pages in a browser."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from browser import barriers, chromium, driver
from server import InProcess, serving
from tacit.engines.base import Rollout
from tacit.judges.verifiers import Candidate
from tacit.memory import State
from tacit.routing import route
from tacit.server.api.dashboard import FILES
from tacit.server.api.views import FeedPage
from tacit.server.live.answering import ALONE
from tacit.server.live.feed import LATEST, MINUTES, Feed
from tacit.server.live.service import Service
from tacit.server.settings import ServeConfig
from test_server_memories_api import made

SOURCE = Path(__file__).parents[1] / "src/tacit/server/static"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    made = InProcess(tmp_path_factory.mktemp("bank") / "bank.db")
    yield SimpleNamespace(
        home=made.client("home", "admin", "ask"),
        work=made.client("work", "admin", "ask"),
        asker=made.client("home", "ask"),
        nobody=made.anyone(),
    )
    made.service.close()


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_with_its_type_and_kept_only_while_it_is_the_same(
    server: SimpleNamespace, name: str
) -> None:
    path = "/" if name == "index.html" else f"/static/{name}"
    got = server.asker.get(path)
    assert got.status_code == 200
    assert got.content == (SOURCE / name).read_bytes()
    assert got.headers["content-type"].partition(";")[0] == FILES[name]
    assert got.headers["cache-control"] == "no-cache"
    again = server.asker.get(path, headers={"If-None-Match": got.headers["etag"]})
    assert again.status_code == 304 and not again.content
    assert server.asker.get(path, headers={"If-None-Match": '"another"'}).status_code == 200


def test_what_is_served_is_what_there_is() -> None:
    there = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*") if path.is_file()}
    assert there == set(FILES)


def test_the_page_may_load_nothing_but_its_own_files(server: SimpleNamespace) -> None:
    page = server.home.get("/")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    used = re.findall(r'(?:src|href)="([^"#][^"]*)"', page.text)
    assert used and all(server.home.get(one).status_code == 200 for one in used)
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|style=", page.text)


def test_scripts_set_text_only_and_import_what_is_there(server: SimpleNamespace) -> None:
    for path in SOURCE.glob("*.js"):
        code = "\n".join(line.partition("// ")[0] for line in path.read_text().splitlines())
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", code), (
            path
        )
        for name in re.findall(r'from "\./([^"]+)"', code):
            assert name in FILES, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/static/nothing", "/tacit/v1/feed"])
def test_nothing_of_it_without_a_key(server: SimpleNamespace, path: str) -> None:
    refused = server.nobody.get(path, headers={"Accept": "text/html"})
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize(
    "name",
    [
        "../app.py",
        "..%2fapp.py",
        "%2e%2e/app.py",
        "vendor/../../app.py",
        "/etc/passwd",
        "",
        "vendor",
        "app.js/",
        "App.js",
    ],
)
def test_no_other_file_can_be_had(server: SimpleNamespace, name: str) -> None:
    assert server.home.get(f"/static/{name}").status_code == 404


def ask(client: TestClient, problem: str, model: str = "testbed:tacit") -> None:
    body = {"model": model, "temperature": 0, "messages": [{"role": "user", "content": problem}]}
    assert client.post("/v1/chat/completions", json=body).status_code == 200


def test_the_feed_tells_each_namespace_its_own_answers(server: SimpleNamespace) -> None:
    start = {name: getattr(server, name).get("/tacit/v1/feed").json()["last"] for name in ("home", "work")}
    ask(server.asker, "compute 3 + 4")
    ask(server.home, "compute 5 + 6" + " " * 300, "testbed")
    ask(server.work, "compute 7 + 8")
    home = server.home.get("/tacit/v1/feed", params={"after": start["home"]}).json()
    work = server.work.get("/tacit/v1/feed", params={"after": start["work"]}).json()
    assert [one["problem"] for one in work["answers"]] == ["compute 7 + 8"]
    first, second = home["answers"]
    assert (first["problem"], first["model"], first["route"]) == ("compute 3 + 4", "testbed:tacit", "no_memory")
    assert first["learning"] == "the key has no right to learn"
    assert first["why"] and first["memory"] is None and first["tokens"] > 0 and first["seconds"] > 0
    assert (second["problem"], second["route"]) == ("compute 5 + 6".ljust(200), "off")
    assert sum(minute["requests"] for minute in home["minutes"]) == home["last"] == start["home"] + 2
    assert sum(minute["requests"] for minute in work["minutes"]) == work["last"] == start["work"] + 1

    after = server.home.get("/tacit/v1/feed", params={"after": first["number"]}).json()
    assert after["answers"] == [second]
    assert server.home.get("/tacit/v1/feed", params={"after": home["last"]}).json()["answers"] == []
    assert len(server.home.get("/tacit/v1/feed", params={"after": 10**9}).json()["answers"]) == home["last"]


def test_the_feed_needs_the_right_admin(server: SimpleNamespace) -> None:
    refused = server.asker.get("/tacit/v1/feed")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
    assert server.home.get("/tacit/v1/feed", params={"after": -1}).status_code == 400


def test_a_feed_is_bounded_and_counts_by_minute() -> None:
    now = [1000.0 * 60]
    feed = Feed(lambda: now[0])

    def add(route: str | None) -> None:
        feed.add(
            "a", model="m", route=route, why="w" * 999, memory=None, similarity=None, seconds=1.0, tokens=1,
            problem="p" * 999, learning="no",
        )  # fmt: skip

    for number in range(LATEST + 10):
        add("agree" if number % 2 else "memory")
    last, answers, [minute] = feed.since("a")
    assert (last, len(answers), answers[0].number) == (LATEST + 10, LATEST, 11)
    assert (len(answers[0].problem), len(answers[0].why or "")) == (200, 200)
    half = (LATEST + 10) // 2
    assert (minute.time, minute.requests, minute.routes) == (60_000, 2 * half, {"memory": half, "agree": half})

    now[0] += 59.9
    add(None)
    assert feed.since("a", last)[2][0].requests == 2 * half + 1
    for _ in range(MINUTES + 5):
        now[0] += 60
        add("agree")
    _, _, minutes = feed.since("a")
    assert len(minutes) == MINUTES and minutes[-1].time == int(now[0] // 60) * 60
    now[0] -= 3600  # a clock put back makes no minute of the past
    add("agree")
    assert [m.time for m in feed.since("a")[2]] == [m.time for m in minutes]
    assert feed.since("b") == (0, [], [])


# -- in a browser ----------------------------------------------------------------------------------------------------

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
