"""The dashboard's files and feed as ASGI: who gets them, whose answers are told to whom."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from server import InProcess
from tacit.server.api.dashboard import FILES
from tacit.server.live.feed import LATEST, MINUTES, Feed

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
