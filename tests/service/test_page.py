"""The page in a real browser, over a real server and a small corpus that is known."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mess_core.search import Query
from mess_core.search.search import Searcher
from mess_core.search.words import understand
from tests.service.made import DURATION_S, open_all

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: .[dev]")
expect = playwright.expect

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]

SWITCHES = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
START = "import sys; from mess_core.cli.main import main; sys.exit(main(sys.argv[1:]))"
#: What stands on what in `test_texts_have_contrast`, and is looked at in both schemes.
TEXTS = "h1, h2, h3, header p, .soft, .hint, .value, button:enabled, summary, label, .hows span, dt"

OpenPage = Callable[..., Any]


@pytest.fixture(scope="module")
def clips(made: Path) -> Searcher:
    return open_all(made / "published", "clips")["clips"]


@pytest.fixture(scope="module")
def url(made: Path) -> Iterator[str]:
    words = ["serve", "--artifacts", str(made / "published"), "--data", str(made / "data")]
    process = subprocess.Popen(
        [sys.executable, "-c", START, *words, "--port", "0"],
        stdout=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    assert process.stdout
    line = process.stdout.readline()
    yield line.split()[0]
    process.terminate()
    process.communicate(timeout=20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any, url: str) -> Iterator[OpenPage]:
    """Give a function that opens the page. Nothing may fail in it, nor be asked of others."""
    contexts: list[Any] = []
    wrong: list[str] = []

    def asked(request: Any) -> None:
        if not request.url.startswith(url):
            wrong.append(request.url)

    def open_(link: str = "", *, failures: bool = False, **settings: Any) -> Any:
        settings.setdefault("viewport", {"width": 1280, "height": 900})
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(8000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", asked)
        if not failures:
            page.on("console", lambda told: wrong.append(told.text))
        page.goto(url + link)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not wrong


def shown(page: Any) -> list[str]:
    """Return the hits that are shown, as ids and times."""
    keys = page.eval_on_selector_all("#hits li", "items => items.map((item) => item.dataset.key)")
    return list(keys)


def found(clips: Searcher, **asked: Any) -> list[str]:
    """Return what the library finds, in the same form; the rest of the question is the page's."""
    usual = {"recording_id": "r0", "start_s": 5.0, "end_s": 10.0}
    usual |= {"dedupe_s": 5, "exclude": "recording"}
    return keys_of(clips, usual | asked)


def keys_of(clips: Searcher, question: dict[str, Any]) -> list[str]:
    hits = clips.search(Query.from_dict(question)).hits
    return [f"{hit.recording_id}@{hit.start_s:.3f}-{hit.end_s:.3f}" for hit in hits]


def expect_hits(page: Any, hits: list[str]) -> None:
    expect(page.locator("#hits li")).to_have_count(len(hits))
    for place in (0, len(hits) - 1):
        expect(page.locator("#hits li").nth(place)).to_have_attribute("data-key", hits[place])
    assert shown(page) == hits


def drag(page: Any, from_s: float, to_s: float) -> None:
    box = page.locator("#stage").bounding_box()
    x = [box["x"] + box["width"] * at / DURATION_S for at in (from_s, to_s)]
    page.mouse.move(x[0], box["y"] + 60)
    page.mouse.down()
    page.mouse.move(x[1], box["y"] + 60, steps=4)
    page.mouse.up()


def times(page: Any) -> str:
    return str(page.locator("#times").inner_text()).replace("\u2013", "-")


def test_a_newcomer_hears_answers_at_once(open_page: OpenPage, clips: Searcher) -> None:
    page = open_page()
    expect_hits(page, found(clips))
    expect(page.locator("#number")).to_have_text("10 answers")
    expect(page.locator("#recording-title")).to_contain_text("Étude 0")


def test_marking_with_the_mouse(open_page: OpenPage, clips: Searcher) -> None:
    page = open_page()
    expect(page.locator("#hits li")).to_have_count(10)
    drag(page, 1, 4)
    assert times(page) == "0:01.0 - 0:04.0 (3.0 s)"
    drag(page, 2, 3)  # inside: moves
    assert times(page) == "0:02.0 - 0:05.0 (3.0 s)"
    drag(page, 5, 9.5)  # an edge
    assert times(page) == "0:02.0 - 0:09.5 (7.5 s)"
    expect_hits(page, found(clips, start_s=2.0, end_s=9.5))
    drag(page, 11, 11)  # a click
    assert times(page) == "0:10.0 - 0:15.0 (5.0 s)"
    expect_hits(page, found(clips, start_s=10.0, end_s=15.0))


def test_marking_with_the_keyboard(open_page: OpenPage, clips: Searcher) -> None:
    page = open_page()
    expect(page.locator("#hits li")).to_have_count(10)
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "Shift+ArrowLeft"):
        page.keyboard.press(key)
    assert times(page) == "0:05.5 - 0:10.0 (4.5 s)"
    page.locator("#mark-start").press("ArrowLeft")
    page.locator("#mark-end").press("End")
    start = page.get_by_role("slider", name="Start of the passage")
    expect(start).to_have_attribute("aria-valuetext", "0:05.0")
    expect(start).to_have_attribute("aria-valuemax", "15.00")
    expect_hits(page, found(clips, start_s=5.0, end_s=15.0))
    for key in ("ArrowLeft", " ", "x"):  # in a field they are the field's
        page.locator("#words").press(key)
    assert times(page) == "0:05.0 - 0:15.0 (10.0 s)"
    assert page.evaluate("sound.paused")


def test_recordings_are_found_and_opened_by_the_keyboard(
    open_page: OpenPage, clips: Searcher
) -> None:
    page = open_page()
    field = page.get_by_role("combobox", name="Recording")
    field.focus()
    option = page.locator("#found [role=option]")
    expect(option).to_have_count(6)
    field.fill("satie")
    field.press("Enter")  # at once: what is listed is still all
    expect(page.locator("#recording-title")).to_contain_text("Erik Satie, player1")
    field.fill("nobody")
    field.press("Enter")
    expect(page.locator("#found-number")).to_have_text("No recordings")
    field.fill("satie")
    expect(option).to_have_count(3)
    page.evaluate("() => { found.style.maxHeight = '3rem'; }")  # A list that scrolls
    page.keyboard.press("Tab")  # is no stop of its own.
    assert page.evaluate("document.activeElement.id") == "mark-start"
    field.fill("satie player3")
    expect(option).to_have_count(1)
    field.press("ArrowDown")
    expect(option).to_have_attribute("aria-selected", "true")
    field.press("Enter")
    expect(page.locator("#recording-title")).to_contain_text("Erik Satie, player3")
    expect_hits(page, found(clips, recording_id="r3"))
    expect(page.locator("#no-audio")).to_be_visible()
    expect(page.locator("#play")).to_be_disabled()


def test_it_plays_the_passage_and_the_hits(open_page: OpenPage) -> None:
    page = open_page("#recording=r0&start=5&end=10&performer=player2")
    heard = "[sound.paused, sound.currentTime, performance.now() / 1000, sound.loop]"
    expect(page.locator("#hits li").first).to_be_visible()
    page.keyboard.press(" ")
    expect(page.locator("#play")).to_have_text("Stop")
    expect(page.locator("#head")).to_be_visible()
    page.wait_for_function("() => sound.currentTime > 0")
    _, earlier, then, _ = page.evaluate(heard)
    page.wait_for_timeout(400)
    paused, at, now, loops = page.evaluate(heard)
    assert (paused, loops) == (False, True)
    assert at - earlier == pytest.approx(now - then, abs=0.2)
    assert page.evaluate("sound.duration") == pytest.approx(5)
    place = page.locator("#head").evaluate("h => parseFloat(h.style.left)")
    assert place == pytest.approx(100 * (5 + at) / DURATION_S, abs=3)
    page.get_by_role("button", name="Play answer 2").click()
    expect(page.get_by_role("button", name="Stop answer 2")).to_be_visible()
    key = shown(page)[1].replace("@", "?from=").replace("-", "&to=")
    assert page.evaluate("sound.src").endswith(key)
    page.keyboard.press(" ")
    assert page.evaluate(heard)[0]


def test_why_nothing_is_heard_is_told(open_page: OpenPage) -> None:
    page = open_page("#recording=r4&start=5&end=10", failures=True)
    page.get_by_role("button", name="Play", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("the audio of r4 has changed")
    page.route("**/audio/**", lambda route: route.abort())
    page.get_by_role("button", name="Play", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("cannot be reached")


def test_sliders_and_buttons_change_the_order_as_the_query_says(
    open_page: OpenPage, clips: Searcher
) -> None:
    page = open_page()
    expect_hits(page, found(clips))
    tempo = page.get_by_role("slider", name="Tempo", exact=True)
    tempo.fill("0.8")
    page.get_by_role("slider", name="General", exact=True).fill("0")
    expect_hits(page, found(clips, like={"tempo": 0.8}))
    query = Query("r0", 5.0, 10.0, like={"tempo": 0.8}, exclude="recording")
    added = clips.search(query).hits[0].contributions["tempo"]
    expect(page.locator(".hit .bars").first).to_have_text(f"Tempo+{added:.2f}")

    def press(aspect: str, how: str) -> None:
        group = page.get_by_role("radiogroup", name=f"How {aspect} counts")
        group.get_by_role("radio", name=how, exact=True).check()

    press("dynamics", "unlike")
    press("legato", "ignore")
    asked = {"unlike": {"dynamics": 0.5}, "ignore": ["legato"]}
    expect_hits(page, found(clips, like={"tempo": 0.8}, **asked))
    press("tempo", "less")
    tempo.fill("0.5")
    expect_hits(page, found(clips, less={"tempo": 0.5}, **asked))
    contour = page.get_by_role("radiogroup", name="How contour counts")
    assert contour.get_by_role("radio").count() == 3  # There is no more of a shape.
    page.locator("#unresolved summary").click()
    expect(page.locator("#unresolved")).to_contain_text("Rubato")
    expect(page.locator("#unresolved")).to_contain_text("no layer predicts it")
    press("tempo", "more")
    tempo.fill("4")
    expect(page.locator("#notes")).to_contain_text("no row satisfies")
    expect(page.locator("#number")).to_have_text("No answers")


def test_filters_and_searching_from_a_hit(open_page: OpenPage, clips: Searcher) -> None:
    page = open_page()
    page.locator("#filters > summary").click()
    page.get_by_label("Composer").fill("frederic CHOP; nobody")
    expect_hits(page, found(clips, where={"composer": ["Frédéric Chopin", "nobody"]}))
    page.get_by_label("Composer").fill("Erik Satie")
    page.get_by_label("How many").select_option("5")
    page.get_by_label("Leave out").select_option("none")
    wanted = {"where": {"composer": ["Erik Satie"]}, "k": 5, "exclude": "none"}
    hits = found(clips, **wanted)
    expect_hits(page, hits)
    expect(page.locator("#command")).to_contain_text("--where 'composer=Erik Satie'")
    page.get_by_role("button", name="Search from here, answer 1").click()
    name, start = hits[0].split("-")[0].split("@")
    asked = {"recording_id": name, "start_s": float(start), "end_s": float(start) + 5}
    expect_hits(page, found(clips, **wanted, **asked))


def test_a_learned_space_is_chosen_and_linked(open_page: OpenPage, clips: Searcher) -> None:
    page = open_page()
    expect(page.locator("#space option:enabled")).to_have_text(["everything", "expression"])
    page.locator("#space").select_option("expression")
    hits = found(clips, space="expression")
    assert hits != found(clips)
    expect_hits(page, hits)
    expect(page.locator("#hits li").first.locator("dt").first).to_have_text("Expression")
    expect(page.locator("#command")).to_contain_text("--space expression")
    page.wait_for_function("() => location.hash.includes('space=expression')")
    again = open_page("#" + page.url.partition("#")[2])
    expect_hits(again, hits)
    expect(again.locator("#space")).to_have_value("expression")


def test_without_learned_spaces_there_is_nothing_to_choose(
    open_page: OpenPage, clips: Searcher
) -> None:
    page = open_page()
    aspects = page.request.get(page.url.partition("#")[0] + "aspects").json()
    page.route("**/aspects", lambda route: route.fulfill(json=aspects | {"spaces": ["general"]}))
    page.goto(page.url.partition("#")[0] + "?again#recording=r0&start=5&end=10&space=expression")
    expect(page.get_by_role("alert")).to_contain_text("Left out: space")
    expect(page.locator("#space-label")).to_be_hidden()
    expect_hits(page, found(clips, exclude="recording"))


def test_words_become_sliders_that_can_be_changed(open_page: OpenPage, clips: Searcher) -> None:
    page = open_page()
    text = "slow but loud, Paris"
    wish = [dict(group) for group in understand(text, clips.index).query["wish"]]
    assert [list(group) for group in wish] == [["tempo"], ["dynamics"]]
    page.get_by_label("In words").fill(text)
    expect(page.locator("#terms")).to_contain_text("slow: tempo \u2212")
    expect(page.locator("#terms")).to_contain_text("Not understood: Paris")
    wished = found(clips, wish=wish)
    expect_hits(page, wished)
    expect(page.locator(".hit .bars").first).to_contain_text("Wish 2")
    first = page.get_by_role("slider", name="Wish 1: tempo")
    first.fill("0")
    expect_hits(page, found(clips, wish=wish[1:]))
    expect(page.locator(".hit .bars").first).to_contain_text("Wish 2")
    first.fill("0.9")
    page.get_by_label("In words").press("Enter")  # These words have been read.
    wish[0]["tempo"] = 0.9
    changed = found(clips, wish=wish)
    expect_hits(page, changed)
    assert changed != wished
    page.get_by_role("button", name="Remove dynamics").click()
    page.get_by_label("By these words alone").check()
    expect_hits(page, keys_of(clips, {"wish": [{"tempo": 0.9}], "dedupe_s": 5}))


def test_words_give_back_what_they_replace(open_page: OpenPage, clips: Searcher) -> None:
    page = open_page("#recording=r0&start=5&end=10&like=general:1,dynamics:0.7")
    by_hand = {"general": 1.0, "dynamics": 0.7}
    expect_hits(page, found(clips, like=by_hand))
    field = page.get_by_label("In words")
    field.fill("louder than this")
    expect(page.locator("#aspects-sum")).to_contain_text("more dynamics 1")
    field.fill("")
    expect(page.locator("#aspects-sum")).to_have_text("general 1, dynamics 0.7")
    expect_hits(page, found(clips, like=by_hand))


def test_words_alone_in_a_link_are_taken(open_page: OpenPage, clips: Searcher) -> None:
    wish = [dict(group) for group in understand("slow", clips.index).query["wish"]]
    page = open_page("#words=slow")
    expect_hits(page, found(clips, wish=wish))
    page.get_by_role("button", name="Remove tempo").click()
    page.wait_for_function("() => location.hash.includes('wish=&')")
    page.reload()
    expect_hits(page, found(clips))


def test_a_link_restores_the_question_and_back_goes_back(
    open_page: OpenPage, clips: Searcher
) -> None:
    link = (
        "#recording=r2&start=2.5&end=9&like=tempo:0.8&ignore=legato&less=dynamics:0.5&exclude=none"
        "&k=5&apart=0&composer=Fr%C3%A9d%C3%A9ric+Chopin&curves=windows.tempo&b=r0@0.00-5.00"
    )
    page = open_page(link)
    asked = {"recording_id": "r2", "start_s": 2.5, "end_s": 9.0, "like": {"tempo": 0.8}, "k": 5}
    asked |= {"ignore": ["legato"], "less": {"dynamics": 0.5}, "exclude": "none", "dedupe_s": 0}
    asked["where"] = {"composer": ["Frédéric Chopin"]}
    hits = found(clips, **asked)
    expect_hits(page, hits)
    assert times(page) == "0:02.5 - 0:09.0 (6.5 s)"
    expect(page.locator(".lane .label")).to_contain_text("Tempo, per window")
    expect(page.locator("#compare")).to_contain_text("Étude 0")
    for at in ("3", "3.5"):  # one step
        page.keyboard.press("ArrowRight")
        page.wait_for_function(f"() => location.hash.includes('start={at}&')")
    expect_hits(page, found(clips, **{**asked, "start_s": 3.5, "end_s": 10.0}))
    linked = page.url
    page.go_back()
    expect_hits(page, hits)
    assert times(page) == "0:02.5 - 0:09.0 (6.5 s)"
    again = open_page("#" + linked.partition("#")[2])
    expect_hits(again, found(clips, **{**asked, "start_s": 3.5, "end_s": 10.0}))


@pytest.mark.parametrize(
    ("link", "told"),
    [
        ("#recording=nobody", "nobody"),
        ("#start=x&like=tempo:7,nonsense:1&k=0&what=1", "start=x"),
        ("#wish=%00;:,&a=@&end=3&ignore=general%27", "Left out"),
        ("#recording=r0&start=100&end=200", "start=100 (it ends at 0:15.0)"),
    ],
)
def test_bad_links_are_said(open_page: OpenPage, link: str, told: str) -> None:
    page = open_page(link, failures="nobody" in link)
    expect(page.get_by_role("alert")).to_contain_text(told)
    expect(page.locator("#hits li")).to_have_count(10)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"status": 503, "body": '{"detail": "come back later"}'}, "busy. come back later"),
        ({"status": 400, "body": '{"title": "Bad", "detail": "no such thing"}'}, "no such thing"),
        ({"status": 500, "body": "<h1>Oops"}, "error 500"),
        ({"body": "garbage"}, "cannot be read"),
        ({"body": '{"hits": 5}'}, "not what this page expects"),
        (None, "cannot be reached"),
    ],
)
def test_bad_answers_are_said_and_the_page_goes_on(
    open_page: OpenPage, clips: Searcher, answer: dict[str, Any] | None, told: str
) -> None:
    page = open_page(failures=True)
    expect(page.locator("#hits li")).to_have_count(10)
    page.route("**/search", lambda route: route.fulfill(**answer) if answer else route.abort())
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("alert")).to_contain_text(told)
    page.unroute("**/search")
    page.get_by_role("button", name="Try again").click()
    expect_hits(page, found(clips, start_s=5.5, end_s=10.5))
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_and_b_are_heard_at_the_same_moment(open_page: OpenPage) -> None:
    # The work's time runs half as fast in r2 as in r0: what is at 2.5 s in r0 is at 5 s in r2.
    page = open_page("#recording=r0&start=2.5&end=7.5&b=r2@4-12")
    expect(page.locator("#compare-how")).to_have_text("Switches at the same moment of the music.")
    playing = "['sound', 'sound-a', 'sound-b'].filter((id) => !document.getElementById(id).paused)"
    page.keyboard.press("x")
    page.wait_for_function("() => document.getElementById('sound-a').currentTime > 0.3")
    assert page.evaluate(playing) == ["sound-a"]
    began = page.evaluate("performance.now() / 1000")
    page.keyboard.press("x")
    page.wait_for_function("() => document.getElementById('sound-b').currentTime > 0")
    assert page.evaluate(playing) == ["sound-b"]
    a, b, now = page.evaluate(
        "[...['a', 'b'].map((side) => document.getElementById(`sound-${side}`).currentTime),"
        "performance.now() / 1000]"
    )
    assert 1 + 2 * a - 0.1 <= b <= 1 + 2 * a + now - began + 0.1
    page.keyboard.press("x")
    page.locator("#mark").press("ArrowRight")  # A is what is marked.
    page.wait_for_function("() => document.getElementById('sound-a').src.includes('from=3.000')")
    assert page.evaluate(playing) == ["sound-a"]
    moment = """async ([into, to]) => {
      const { same_moment, recording_of } = await import("/page/sound.js");
      const known = [await recording_of("r0"), await recording_of(to.id)];
      return same_moment({ start: 2.5, end: 7.5 }, into, to, ...known).into;
    }"""
    same = {"id": "r2", "start": 4.0, "end": 12.0}
    assert page.evaluate(moment, [1.25, same]) == pytest.approx(3.5)
    assert page.evaluate(moment, [4.5, same]) == pytest.approx(8, rel=0.02)  # it ends before
    zero = """async () => {
      const { same_moment, recording_of } = await import("/page/sound.js");
      const known = [await recording_of("r0"), await recording_of("r2")];
      return same_moment({ start: 0, end: 5 }, 0, { start: 0, end: 10 }, ...known).by;
    }"""
    assert page.evaluate(zero) == "moment of the music"
    other = {"id": "r1", "start": 0.0, "end": 2.5}
    assert page.evaluate(moment, [1.25, other]) == pytest.approx(0.625)


def test_every_control_has_a_name(open_page: OpenPage) -> None:
    page = open_page("#recording=r0&start=5&end=10&wish=tempo:0.5&b=r2@0.00-5.00")
    expect(page.locator("#hits li").first).to_be_visible()
    for details in page.locator("details").all():
        details.evaluate("d => { d.open = true; }")
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "slider", "textbox", "checkbox", "radio", "combobox", "searchbox", "listbox"}
    named = [
        (node["role"]["value"], node["name"]["value"])
        for node in tree
        if not node["ignored"] and node["role"]["value"] in roles
    ]
    assert {role for role, _ in named} >= roles - {"textbox", "searchbox", "listbox"}
    assert [role for role, name in named if not name.strip()] == []
    names = [name for role, name in named if role == "button"]
    assert {"Play answer 1", "Search from here, answer 1", "Copy link", "Zoom in"} <= set(names)


def test_all_is_reached_by_the_keyboard(open_page: OpenPage) -> None:
    page = open_page()
    expect(page.locator("#hits li")).to_have_count(10)
    wanted = page.evaluate(
        "[...document.querySelectorAll('button:enabled, [role=slider], summary, select')]"
        ".filter((e) => e.checkVisibility()).length"
    )
    page.evaluate("() => { window.reached = new Set(); }")
    for _ in range(160):
        page.keyboard.press("Tab")
        page.evaluate("() => { window.reached.add(document.activeElement); }")
    reached = page.evaluate(
        "[...reached].filter((e) => e.matches('button, [role=slider], summary, select')).length"
    )
    assert reached == wanted
    page.locator("#skip").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "answers"
    page.get_by_role("button", name="Play answer 3").evaluate("(b) => { b.old = true; b.focus(); }")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => !document.querySelectorAll('.play')[2].old")
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused == "Play answer 3"


CONTRASTS = """(selector) => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility()).map((e) => {
    const [one, other] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    return [ratio, e.outerHTML.slice(0, 70)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast_and_a_phone_shows_all(open_page: OpenPage, scheme: str) -> None:
    page = open_page(
        "#recording=r0&start=5&end=10&wish=tempo:0.5&like=general:1,tempo:0.5&b=r2@0.00-5.00",
        color_scheme=scheme, viewport={"width": 390, "height": 844}, has_touch=True,
    )  # fmt: skip
    expect(page.locator("#hits li").first).to_be_visible()
    for details in page.locator("details:not(#curves-menu)").all():
        details.evaluate("d => { d.open = true; }")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    found = page.evaluate(CONTRASTS, TEXTS)
    assert len(found) > 60
    expect(page.locator("#compare")).to_be_visible()
    assert page.locator("#compare").bounding_box()["height"] < 50
    side = page.locator("#side-b")
    side.evaluate("b => b.setAttribute('aria-pressed', 'true')")
    side.hover()
    found += page.evaluate(CONTRASTS, "#side-b")
    assert [entry for entry in found if entry[0] < 4.5] == []
