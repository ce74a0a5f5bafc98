"""A study in a real browser, from a file, answered by keyboard alone, and scored."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mess_core.cli.main import main
from mess_core.evaluation.judgments import read_judgments
from mess_core.files import save_array, write_json
from mess_core.index import save_artifact
from mess_core.layout import Layout
from mess_core.recordings import write_recordings
from tests.evaluation.planted_study import WINDOW_S, plant, read_page
from tests.planted import Corpus

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: .[dev]")
expect = playwright.expect

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]
SWITCHES = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
TRIALS = 5
#: How sure a listener is, trial after trial.
SURE = ("3", "1", "", "2", "")

OpenPage = Callable[..., Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data folder of a corpus with a study beside it, made by the command."""
    data = tmp_path_factory.mktemp("study") / "data"
    data.mkdir()
    index, recordings = plant(data)
    layout = Layout(data, "planted")
    for number, of_one in enumerate(np.split(Corpus(len(index.rows)).features, len(recordings))):
        save_array(layout.features("segments", f"r{number}"), of_one)
    write_recordings(layout.table, recordings)
    folder = save_artifact(index, layout.index("clips"))
    write_json(layout.index_receipt("clips"), {"artifact_version_id": folder.name})
    words = ["triplets", "make", "--dataset", "planted", "--data", str(data), "--triplets", "3"]
    assert main([*words, "--out", str(data / "study.html"), "--study", "Étude 1"]) == 0
    return data


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, made: Path) -> Iterator[OpenPage]:
    """Give a function that opens the study. Nothing may fail in it, nor be asked of a network."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def asked(request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            wrong.append(request.url)

    def open_(**settings: Any) -> Any:
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(8000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda told: wrong.append(told.text))
        page.on("request", asked)
        page.goto((made / "study.html").as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not wrong


def start(page: Any, name: str = "Zoë") -> None:
    expect(page.locator("#rater")).to_be_focused()
    page.keyboard.type(name)
    page.keyboard.press("Enter")


def hear(page: Any, keys: str = "abc") -> None:
    for key in keys:
        page.keyboard.press(key)
        number = "abc".index(key)
        expect(page.locator(".play").nth(number)).to_contain_text("heard ✓")
        # It was not only said to be heard.
        assert page.evaluate(f"sounds[{number}].currentTime") > WINDOW_S - 0.1


def test_a_study_is_answered_by_keyboard_and_scored(
    made: Path, open_page: OpenPage, capsys: pytest.CaptureFixture[str]
) -> None:
    page = open_page()
    start(page)
    trials = read_page((made / "study.html").read_text(encoding="utf-8"))["trials"]
    assert len(trials) == TRIALS
    # Of catch trials what is right, else what is on the left.
    own = ["b" if trial["b"] == trial["anchor"] else "c" for trial in trials]
    sides = [
        t["order"].index(name) if t["catch"] else 0 for t, name in zip(trials, own, strict=True)
    ]
    for number, (side, sure) in enumerate(zip(sides, SURE, strict=True)):
        expect(page.locator("#place")).to_have_text(f"Trial {number + 1} of {TRIALS}")
        expect(page.locator("#trial h2")).to_be_focused()
        hear(page, "ab")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
        # Who has not heard all three cannot choose, nor go on.
        expect(page.locator("#status")).to_have_text("Play C to the end.")
        expect(page.locator(".choose").first).to_be_disabled()
        hear(page, "c")
        page.keyboard.press("Enter")
        expect(page.locator("#status")).to_have_text("Choose B or C.")
        # A choice can be changed.
        for key in ("ArrowLeft", "ArrowRight", ("ArrowLeft", "ArrowRight")[side], *sure):
            page.keyboard.press(key)
        if number == TRIALS - 1:
            break
        page.keyboard.press("Enter")
        if number == 1:
            page.reload()
    with page.expect_download() as caught:
        page.keyboard.press("Enter")
    expect(page.locator("#end h2")).to_be_focused()
    saved = made / "judgments" / caught.value.suggested_filename
    assert saved.name == "Étude_1-Zoë.jsonl"
    caught.value.save_as(saved)

    judgments = read_judgments([saved])
    assert [j.confidence for j in judgments] == [3, 1, None, 2, None]
    assert {(j.study, j.rater, j.aspect) for j in judgments} == {("Étude 1", "Zoë", "overall")}
    for judgment, trial, side in zip(judgments, trials, sides, strict=True):
        assert (judgment.triplet_id, judgment.order) == (trial["triplet_id"], trial["order"])
        assert judgment.choice == judgment.order[side]
    assert main(["triplets", "score", "--dataset", "planted", "--data", str(made)]) == 0
    told = [line.split() for line in capsys.readouterr().out.splitlines()]
    # The same side is the other answer the second time, which counts only for that.
    zoe = "3 judgments count, 1 of 1 catch trials right, 0 of 1 repeats answered alike"
    assert ["Zoë:", *zoe.split()] in told
    assert ["overall", "general"] in [line[:2] for line in told]

    page.reload()
    expect(page.locator("#end")).to_be_visible()
    with page.expect_download() as caught:
        page.locator("#again").click()
    assert Path(caught.value.path()).read_bytes() == saved.read_bytes()
    page.locator("#other").click()
    expect(page.locator("#rater")).to_be_focused()


def test_a_phone_is_enough_and_what_is_answered_can_be_saved(
    made: Path, open_page: OpenPage
) -> None:
    page = open_page(viewport={"width": 390, "height": 844}, has_touch=True, color_scheme="dark")
    # A name whose code points have an odd sum: sides are turned.
    page.locator("#rater").fill("Zof")
    page.get_by_role("button", name="Start").tap()
    for button in page.locator(".play").all():
        button.tap()
        expect(button).to_contain_text("heard ✓")
    page.get_by_role("button", name="C is more like A").tap()
    page.get_by_role("button", name="fairly sure").tap()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # A tap or a click leaves the focus, so that Enter goes on.
    page.keyboard.press("Enter")
    expect(page.locator("#place")).to_have_text(f"Trial 2 of {TRIALS}")
    with page.expect_download() as caught:
        page.get_by_role("button", name="Save answers so far").tap()
    [judgment] = read_judgments([Path(caught.value.path())])
    trial = read_page((made / "study.html").read_text(encoding="utf-8"))["trials"][0]
    assert (judgment.choice, judgment.confidence) == (judgment.order[1], 2)
    assert judgment.order == trial["order"][::-1]
