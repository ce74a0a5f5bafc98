"""Every address of the service: the answers are the library's, the errors problem details."""

import json
import re
import shlex
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from mess_core.cli import main as commands
from mess_core.cli.search import _query
from mess_core.layout import Layout
from mess_core.recordings import read_recordings, write_recordings
from mess_core.search import Query
from mess_core.search.search import search
from mess_core.search.words import understand
from mess_core.service import app as service, create_app
from tests.service.made import DURATION_S, RATE, make_data, open_all, publish_all, ramp

pytestmark = pytest.mark.unit

NOWHERE = Layout(Path("nowhere"), "made")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    publish_all(folder, str(folder / "published"))
    return folder / "published"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def client(published: Path, layout: Layout) -> Iterator[TestClient]:
    with _client(create_app(open_all(published), layout)) as client:
        yield client


def _client(app: Any) -> TestClient:
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


QUESTIONS: list[dict[str, Any]] = [
    {"recording_id": "r0"},
    {"recording_id": "r0", "start_s": 2.5, "end_s": 9, "k": 3, "exclude": "recording"},
    {"clip": "r1@2.500", "like": {"tempo": 1, "general": 0.5}, "unlike": {"contour": 0.25}},
    {"recording_id": "r2", "start_s": 5, "more": {"tempo": 0.25}, "ignore": ["legato"]},
    {"recording_id": "r2", "start_s": 5, "less": {"tempo": 99}},
    {"recording_id": "r0", "start_s": 0, "relative": "work", "dedupe_s": 5, "k": 200},
    {"recording_id": "r0", "start_s": 0, "same_passage": True, "where": {"title": ["Étude 2"]}},
    {"recording_id": "r1", "space": "expression", "ignore": ["tempo"]},
    {"wish": [{"tempo": 0.5, "dynamics": -1}, {"legato": 1}], "k": 4},
    {"recording_id": "r4", "exclude": "work", "where": {"composer": ["Erik Satie", "x 'y' $z"]}},
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_search_is_the_librarys(
    client: TestClient, published: Path, question: dict[str, Any]
) -> None:
    kind = "clips" if {"clip", "start_s", "wish"} & question.keys() else "recordings"
    index = open_all(published, kind)[kind].index
    query = Query.from_dict(question)
    expected = search(index, query)
    answer = client.post("/search", json=question).json()
    assert [hit["clip"] for hit in answer["hits"]] == [hit.clip for hit in expected.hits]
    for hit, its in zip(answer["hits"], expected.hits, strict=True):
        assert hit == asdict(its)
    assert answer["notes"] == list(expected.notes)
    assert answer["predicted"] == expected.predicted
    assert (answer["kind"], answer["version"]) == (kind, index.version_id)

    program, *words = shlex.split(answer["command"])
    assert program == "mess"
    assert _query(commands._parser().parse_args(words)) == query


def test_words_are_understood_as_the_library_does(client: TestClient, published: Path) -> None:
    index = open_all(published, "clips")["clips"].index
    text = "slow but loud, more legato than this, for Paris"
    told = client.post("/words", json={"text": text}).json()
    assert told == understand(text, index).to_dict()
    assert told["not_understood"] == ["Paris"]
    assert client.post("/search", json={**QUESTIONS[1], **told["query"]}).status_code == 200
    alone = client.post("/words", json={"text": "slower", "start": False}).json()
    assert alone == understand("slower", index, start=False).to_dict()


def test_recordings_are_found_by_words_and_columns_page_by_page(client: TestClient) -> None:
    def found(asked: str) -> list[str]:
        answer = client.get(f"/recordings?{asked}").json()
        return [row["recording_id"] for row in answer["recordings"]]

    assert found("") == ["r0", "r1", "r2", "r3", "r4", "r5"]
    assert found("q=FREDERIC+etude") == ["r0", "r2", "r4"]
    assert found("q=chopin+player2") == ["r2"]
    assert found("q=chopin+satie") == []
    assert found("composer=Erik Satie&performer=player3") == ["r3"]
    assert found("work_id=w1") == ["r1", "r3", "r5"]
    assert found("offset=4&limit=1") == ["r4"]
    page = client.get("/recordings?q=satie&offset=1&limit=1").json()
    assert (page["total"], page["offset"]) == (3, 1)
    assert page["recordings"][0] == {
        "recording_id": "r3", "work_id": "w1", "performer": "player3", "composer": "Erik Satie",
        "title": "Étude 3", "split": "", "duration_s": DURATION_S, "audio": False,
    }  # fmt: skip
    assert client.get("/recordings?limit=1").json()["recordings"][0]["audio"] is True


def test_a_recording_has_its_windows_and_their_values(client: TestClient, published: Path) -> None:
    told = client.get("/recordings/r1").json()
    assert told["performances"] == ["r3", "r5"]
    assert told["windows"]["start_s"] == [0, 2.5, 5, 7.5, 10]
    assert told["windows"]["work_end_s"] == [10, 15, 20, 25, 30]
    index = open_all(published, "clips")["clips"].index
    assert set(told["aspects"]) == {"tempo", "legato", "dynamics"}
    number = index.projection.aspects["legato"].number
    values = index.predicted[number, index.rows.positions("r1")]
    assert told["aspects"]["legato"] == pytest.approx(values.tolist(), abs=1e-4)


def test_curves_of_windows_are_joined(client: TestClient) -> None:
    drawn = client.get("/recordings/r0/curves?points=96").json()
    assert set(drawn["curves"]) == {"loudness"}
    line = drawn["curves"]["loudness"]
    assert (line["unit"], line["start_s"]) == ("dBFS", 0.0)
    # 192 cells of 5/64 s, two at a time.
    assert line["step_s"] == 2 * 5 / 64
    times = (np.arange(96) + 0.5) * line["step_s"]
    for time_s, value in zip(times, line["values"], strict=True):
        if 6.1 < time_s < 6.9:
            assert value is None
        elif not 5.8 < time_s < 7.2:
            assert value == pytest.approx(time_s, abs=1e-3)
    assert drawn["waveform"]["step_s"] == pytest.approx(DURATION_S / 96, abs=1 / RATE)
    samples = ramp(0)[: round(drawn["waveform"]["step_s"] * RATE)] / 32768
    assert drawn["waveform"]["low"][0] == pytest.approx(samples.min(), abs=1e-4)
    assert drawn["waveform"]["high"][0] == pytest.approx(samples.max(), abs=1e-4)
    assert client.get("/recordings/r3/curves").json() == {"waveform": None, "curves": {}}


def test_a_passage_is_found_where_others_play_it(client: TestClient) -> None:
    # The work's time is r0's, half of r2's, and that of r4.
    told = client.get("/passages/r0?from=2&to=4").json()
    spans = {hit["recording_id"]: (hit["start_s"], hit["end_s"]) for hit in told["passages"]}
    assert spans == {"r2": (4, 8), "r4": (2, 4)}
    assert (told["start_s"], told["end_s"], told["notes"]) == (2, 4, [])


def test_audio_is_the_passage_and_any_part_of_it(client: TestClient, tmp_path: Path) -> None:
    whole = client.get("/audio/r1?from=1.5&to=4")
    assert (whole.status_code, whole.headers["content-type"]) == (200, "audio/wav")
    assert whole.headers["accept-ranges"] == "bytes"
    (tmp_path / "a.wav").write_bytes(whole.content)
    samples, rate = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert rate == RATE
    np.testing.assert_array_equal(samples, ramp(1)[12_000:32_000])

    part = client.get("/audio/r1?from=1.5&to=4", headers={"Range": "bytes=1001-5000"})
    assert part.status_code == 206
    assert part.headers["content-range"] == f"bytes 1001-5000/{len(whole.content)}"
    assert part.content == whole.content[1001:5001]
    for several in ("bytes=0-1,4-5", "lines=1-2"):
        answer = client.get("/audio/r1?from=1.5&to=4", headers={"Range": several})
        assert (answer.status_code, answer.content) == (200, whole.content)
    unsure = {"Range": "bytes=0-9", "If-Range": '"a"'}
    assert client.get("/audio/r1?from=1.5&to=4", headers=unsure).content == whole.content
    head = client.head("/audio/r1?from=1.5&to=4", headers={"Range": "bytes=0-9"})
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))
    none = client.get("/audio/r1", headers={"Range": "bytes=999999999-"})
    assert none.headers["content-range"] == f"bytes */{44 + 4 * round(DURATION_S * RATE)}"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("POST", "/search", b"{", 400, "no JSON"),
        ("POST", "/search", b"", 400, "no JSON"),
        ("POST", "/search", b"[" * 60_000, 400, "no JSON"),
        ("POST", "/search", b'{"recording": "r0"}', 400, "did you mean 'recording_id'?"),
        ("POST", "/search", b'{"recording_id": "r0", "like": {"temper": 1}}', 400, "'tempo'"),
        ("POST", "/search", b'{"recording_id": "r0", "k": 201}', 413, "at most 200"),
        ("POST", "/search", b'{"recording_id": "nobody"}', 404, "'nobody'"),
        ("POST", "/search", b'{"clip": "nobody@1.000"}', 404, "'nobody'"),
        ("POST", "/search", b'{"k": 3}', 400, "give a recording or a clip"),
        ("POST", "/search", b'{"like": {"tempo": NaN}, "recording_id": "r0"}', 400, "weight nan"),
        ("POST", "/search", b" " * 70_000, 413, "more than 65536 bytes"),
        ("POST", "/search", rb'{"where": {"title": ["\ud800"]}}', 400, "surrogates not allowed"),
        ("POST", "/words", b"{", 400, "Invalid JSON"),
        ("POST", "/words", b'{"words": "slow"}', 400, "text: "),
        ("POST", "/words", b'{"text": 3}', 400, "text: "),
        ("POST", "/words", b'{"text": "slow", "strat": false}', 400, "strat: "),
        ("POST", "/words", b'{"text": "slow", "start": "no"}', 400, "start: "),
        ("POST", "/words", b'{"text": "%s"}' % (b"a" * 1001), 400, "at most 1000"),
        ("POST", "/words", b" " * 70_000, 413, "more than 65536 bytes"),
        ("GET", "/recordings?limit=201", None, 422, "limit: "),
        ("GET", "/recordings?offset=-1", None, 422, "offset: "),
        ("GET", "/recordings/nobody", None, 404, "'nobody'"),
        ("GET", "/recordings/r0/curves?points=5001", None, 422, "points: "),
        ("GET", "/recordings/r4/curves", None, 409, "has changed"),
        ("GET", "/passages/r0", None, 422, "from: "),
        ("GET", "/passages/r0?from=nan", None, 422, "from: "),
        ("GET", "/passages/r0?from=90", None, 400, "is no passage"),
        ("GET", "/passages/nobody?from=1", None, 404, "'nobody'"),
        ("GET", "/audio/r3", None, 404, "not on this machine"),
        ("GET", "/audio/r4", None, 409, "has changed"),
        ("GET", "/audio/nobody", None, 404, "'nobody'"),
        ("GET", "/audio/r0?from=99", None, 400, "is no passage"),
        ("GET", "/audio/r0?to=inf", None, 422, "to: "),
        ("GET", "/audio/..%2f..%2fmade%2ftable", None, 404, ""),
        ("GET", "/audio/r0%00.wav", None, 404, "r0"),
        ("GET", "/nothing", None, 404, "Not Found"),
        ("DELETE", "/audio/r0", None, 405, "Method Not Allowed"),
        ("GET", "/search", None, 405, "Method Not Allowed"),
        ("POST", "/", None, 405, "Method Not Allowed"),
        ("POST", "/page/dom.js", None, 405, "Method Not Allowed"),
    ],
)
def test_errors_are_problem_details(
    client: TestClient, method: str, path: str, body: bytes | None, status: int, said: str
) -> None:
    answer = client.request(method, path, content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (
        status,
        "application/problem+json",
    )
    content = answer.json()
    assert content["status"] == status
    assert content["title"]
    assert said in content["detail"]


def test_a_bug_shows_nothing_of_itself(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(service, "search", broken)
    answer = client.post("/search", json=QUESTIONS[0])
    assert (answer.status_code, answer.json()["title"]) == (500, "Internal Server Error")
    assert "secret" not in answer.text


def test_those_who_wait_too_long_are_asked_to_come_back(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_PATIENCE_S", 0.05)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: [0])
    begun, go = threading.Event(), threading.Event()

    def slow(*given: Any) -> Any:
        begun.set()
        go.wait(20)
        return search(*given)

    monkeypatch.setattr(service, "search", slow)
    with _client(create_app(open_all(published), NOWHERE)) as client, ThreadPoolExecutor() as pool:
        first = pool.submit(client.post, "/search", json=QUESTIONS[0])
        assert begun.wait(20)
        second = client.post("/search", json=QUESTIONS[0])
        go.set()
        assert (second.status_code, second.headers["retry-after"]) == (503, "2")
        assert first.result().status_code == 200
        assert client.post("/search", json=QUESTIONS[0]).status_code == 200


def test_without_data_all_but_audio_and_curves_is_there(published: Path) -> None:
    with _client(create_app(open_all(published), NOWHERE)) as client:
        assert client.post("/search", json=QUESTIONS[1]).status_code == 200
        assert client.get("/recordings/r0").json()["audio"] is False
        assert client.get("/recordings/r0/curves").json() == {"waveform": None, "curves": {}}
        assert client.get("/passages/r0?from=2&to=4").status_code == 200
        assert client.get("/audio/r0").status_code == 404


@pytest.mark.parametrize(("kind", "works"), [("clips", 1), ("recordings", 0)])
def test_with_one_kind_of_index_the_other_is_told_to_be_missing(
    published: Path, kind: str, works: int
) -> None:
    with _client(create_app(open_all(published, kind), NOWHERE)) as client:
        assert client.post("/search", json=QUESTIONS[works]).status_code == 200
        answer = client.post("/search", json=QUESTIONS[1 - works])
        assert answer.status_code == 400
        assert f"only {kind} are published" in answer.json()["detail"]
        assert client.get("/recordings").json()["total"] == 6
        assert client.get("/recordings/r1").json()["performances"] == ["r3", "r5"]
        assert client.get("/aspects").json()["aspects"][0]["name"] == "tempo"
        assert set(client.get("/version").json()["versions"]) == {kind}


def test_aspects_say_what_they_are_and_how_well_they_are_known(client: TestClient) -> None:
    answer = client.get("/aspects").json()
    assert answer["spaces"] == ["general", "expression"]
    told = {entry["name"]: entry for entry in answer["aspects"]}
    assert (told["tempo"]["resolved"], told["tempo"]["directed"], told["tempo"]["r2"]) == (
        True,
        True,
        0.7,
    )
    assert told["contour"]["directed"] is False
    assert told["rubato"]["reason"] == "no layer predicts it"
    assert told["tempo"]["description"]


def test_only_its_own_names_reach_it(published: Path) -> None:
    app = create_app(open_all(published), NOWHERE, hosts=["music.example"])
    for host, status in (
        ("localhost:80", 200),
        ("127.0.0.1:8765", 200),
        ("[::1]:8765", 200),
        ("music.example", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("", 400),
    ):
        answer = _client(app).get("/healthz", headers={"Host": host})
        assert answer.status_code == status, host
        if status == 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["detail"] == f"{host!r} needs --allow-host"


def test_pages_of_other_sites_are_refused(client: TestClient) -> None:
    for site, status in (("cross-site", 403), ("same-origin", 200), ("none", 200)):
        answer = client.post(
            "/search", json={"recording_id": "r0"}, headers={"Sec-Fetch-Site": site}
        )
        assert answer.status_code == status, site
    # A link to the page may be anywhere.
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_pages_ask_nobody_else(client: TestClient) -> None:
    for path in ("/", "/docs"):
        page = client.get(path)
        assert page.status_code == 200
        assert "//" not in page.text.replace("<!DOCTYPE html>", "")
        for part in re.findall(r'(?:src|href)="(.+?)"', page.text):
            assert client.get(f"/{part}").status_code == 200, part


def test_the_description_says_what_is_answered(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]
    for path, operations in described.items():
        for operation in operations.values():
            assert operation["summary"]
            answers = operation["responses"]
            assert {*answers} == {"200", "default"}
            assert {*answers["default"]["content"]} == {"application/problem+json"}
            kind = "audio/wav" if path == "/audio/{recording_id}" else "application/json"
            assert {*answers["200"]["content"]} == {kind}
    for path in ("/search", "/words"):
        content = described[path]["post"]["requestBody"]["content"]["application/json"]
        assert content["example"].keys() <= content["schema"]["properties"].keys()
        assert client.post(path, json=content["example"]).status_code == 200


def test_health_can_be_asked_by_head(client: TestClient) -> None:
    assert [client.head(path).status_code for path in ("/healthz", "/")] == [200] * 2


@pytest.mark.integration
def test_a_refresh_swaps_versions_without_a_pause(tmp_path: Path) -> None:
    location = tmp_path / "published"
    publish_all(tmp_path, str(location))
    question = QUESTIONS[1]
    expected: dict[str, Any] = {}

    def note() -> str:
        index = open_all(location, "clips")["clips"].index
        hits = search(index, Query.from_dict(question)).hits
        expected[index.version_id] = [hit.score for hit in hits]
        return index.version_id

    first = note()
    app = create_app(open_all(location), NOWHERE, refresh_s=0.05)
    stop = threading.Event()

    def ask(client: TestClient) -> list[dict[str, Any]]:
        answers = []
        while not stop.is_set():
            answer = client.post("/search", json=question)
            assert answer.status_code == 200
            answers.append(answer.json())
        return answers

    with _client(app) as client, ThreadPoolExecutor() as pool:
        asked = [pool.submit(ask, client) for _ in range(3)]
        publish_all(tmp_path, str(location), seed=1)
        second = note()
        _until(lambda: client.get("/version").json()["versions"]["clips"] == second)
        pointer = location / "made" / "clips" / "latest.json"
        pointer.write_text(json.dumps({"artifact_version_id": "0" * 64}))
        _until(lambda: "clips" in client.get("/readyz").json()["refresh_errors"])
        time.sleep(0.1)
        stop.set()
        answers = [answer for each in asked for answer in each.result()]
        assert client.get("/version").json()["versions"]["clips"] == second
    assert {answer["version"] for answer in answers} == {first, second}
    for answer in answers:
        assert [hit["score"] for hit in answer["hits"]] == expected[answer["version"]]


def _until(reached: Any) -> None:
    for _ in range(400):
        if reached():
            return
        time.sleep(0.05)
    raise AssertionError("it never came to that")


def test_a_refresh_reads_the_table_again(published: Path, tmp_path: Path) -> None:
    layout = make_data(tmp_path)
    rows = read_recordings(layout.table)
    with _client(create_app(open_all(published), layout, refresh_s=0.05)) as client:
        assert client.get("/audio/r0").status_code == 200
        write_recordings(layout.table, rows[1:])
        _until(lambda: client.get("/audio/r0").status_code == 404)
        assert client.get("/audio/r1").status_code == 200
        layout.table.write_text("nothing")
        _until(lambda: "recording table" in client.get("/readyz").json()["refresh_errors"])
        assert client.get("/audio/r1").status_code == 200
