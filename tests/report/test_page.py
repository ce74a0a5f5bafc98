"""The report's pages: what is planted appears, escaped, and nothing comes from elsewhere."""

import argparse
import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from mess_core.cli import search as cli_search
from mess_core.files import write_json
from mess_core.index.fitting import fit_projection
from mess_core.index.index import Index, build_index
from mess_core.layout import ANSWERS, PAGES, Layout
from mess_core.probing.pictures import save_figure
from mess_core.recordings import Recording, read_problems, write_recordings
from mess_core.report.examples import HITS, Excerpt, ask_examples, choose_examples
from mess_core.report.findings import Findings, rule_costs
from mess_core.report.page import render_pages
from mess_core.search.query import command
from tests.planted import ASPECT_MAP, HOP_S, WINDOW_S, Corpus, clip_rows, recording_rows
from tests.probing.toy import recording

pytestmark = pytest.mark.unit

EVIL = "<script>alert('x')</script> & \"<img src=x onerror=y>\""
SOUND = "data:audio/mpeg;base64,SUQz"
RECORDINGS, WINDOWS = 9, 21

ASPECT = {
    "resolved": True, "layer": 3, "r2": 0.4321, "confidence": "low", "interval": [0.31, 0.55],
    "baselines": {"untrained": 0.12}, "validated": True, "finding": "probed", "missing": [],
    "sources": ["probed"], "agreement": {"probed": {"r2": 0.4321, "distances": 0.234}},
    "targets": {"tempo": {"layer": 3, "r2": 0.44, "confidence": "low"}}, "reason": None,
}  # fmt: skip
UNKNOWN = {
    **ASPECT, "resolved": False, "layer": None, "r2": None, "interval": None, "baselines": {},
    "validated": False, "targets": {}, "missing": ["rubato"], "finding": "no result for rubato",
    "sources": [], "agreement": {},
}  # fmt: skip
LAYER = {
    "target": "tempo", "category": "rhythm", "best_layer": "3", "best_layers": "3,4",
    "measure": "r2_within", "r2": "0.7", "r2_within": "0.8123", "r2_lo": "0.7", "r2_hi": "0.9",
    "p": "0.005", "untrained": "0.1", "descriptors": "", "caution": "", "reason": "",
}  # fmt: skip
NOT_PROBED = {**dict.fromkeys(LAYER, ""), "target": "rubato", "reason": "too few rows"}
VALIDITY = {
    "target": "tempo", "category": "rhythm", "source": "audio", "n_rows": "45", "defined": "0.97",
    "within_works": "0.61", "midi": "performed_tempo_level", "midi_r": "0.7654", "midi_lo": "0.5",
    "midi_hi": "0.9", "midi_works": "3", "own": "tempo", "of_tempo": "0.876",
}  # fmt: skip


class Reader(HTMLParser):
    """Collects elements, and fails where one is not closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def of(self, name: str) -> Iterator[dict[str, str | None]]:
        return (attributes for element, attributes in self.elements if element == name)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


#: How good answers are, and what could not be judged, as the table's texts.
JUDGED = {
    **{"judge": "same passage", "asked": "general", "measure": "recall@1", "against": ""},
    **{"source": "", "value": "0.87", "low": "0.8", "high": "0.94", "chance": "0.012"},
    **{"n": "90", "works": "9", "reason": "", "ceiling": ""},
}
# Of an index without tempo or loudness, which are compared with it elsewhere.
PLAYERS = {**JUDGED, "judge": "same player", "value": "0.4", "low": "", "high": ""}
NOT_JUDGED = {
    **dict.fromkeys(JUDGED, ""),
    **{"judge": "like", "asked": "tempo", "reason": "too few players of a work"},
}
RULE = {
    **dict.fromkeys(JUDGED, ""),
    **{"judge": "rule", "asked": "reranking", "measure": "not fired", "reason": "nDCG is high"},
}
PERFORMANCE = {
    **{"work_id": "op1", "recording_id": "slow", "performer": "Ann", "reference": "slow"},
    **{"source": "audio", "share": "0.95", "relative_tempo": "-0.123", "timing_deviation": ""},
    **{"relative_loudness": "1.5", "beats": "aligned from fast"},
}


@pytest.fixture(scope="module")
def indices() -> tuple[Index, Index]:
    recordings = Corpus(RECORDINGS).index(recording_rows(RECORDINGS), "recordings")
    return recordings, Corpus(RECORDINGS * WINDOWS).index(clip_rows(RECORDINGS, WINDOWS))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    save_figure(Figure(figsize=(3, 2)), path)
    return dict.fromkeys(ANSWERS, path)


@pytest.fixture
def findings(indices: tuple[Index, Index], pictures: dict[str, Path]) -> Findings:
    examples = ask_examples(*indices)
    heard: list[Any] = [p for e in examples if e.answer for p in (e.row, *e.answer.hits)]
    places = {(p.recording_id, p.start_s, p.end_s) for p in heard}
    return Findings(
        dataset="toy",
        licence="CC0-1.0",
        made="2026-01-02 03:04 UTC",
        encoder={"name": "small", "trained": True, "weights_sha256": "f00d", "licence": "MIT"},
        aspects={"min_r2": 0.1, "aspects": {"tempo": ASPECT, "rubato": UNKNOWN}},
        layers=[LAYER, NOT_PROBED],
        validity=[VALIDITY],
        evaluation=[JUDGED, PLAYERS, NOT_JUDGED, RULE],
        performances=[PERFORMANCE],
        pictures=pictures,
        examples=examples,
        excerpts={place: Excerpt(place[1], place[2], uri=SOUND) for place in places},
        corpus={"recordings": 1234, "works": 3, "windows": 45, "hours": 1.5},
        problems=(),
        indices=[
            {"kind": "clips", "rows": 45, "factory": "Flat", "exact": True, "width": 70,
             "bytes": 2_500_000, "version": "abcdef0123456789ffff"}
        ],
        changed={},
        stages={"report": 1},
        versions={"numpy": "9.9.9"},
        costs=[{"rule": "probing", "jobs": 43, "seconds": 90.0, "memory_mb": 512.0}],
    )  # fmt: skip


def test_every_page_is_well_formed_and_takes_nothing_from_elsewhere(findings: Findings) -> None:
    pages = render_pages(findings)
    assert tuple(pages) == PAGES
    for page in pages.values():
        reader = Reader(page)
        for name, attributes in reader.elements:
            assert name not in ("script", "link", "iframe", "object", "embed", "base", "form")
            for key, value in attributes.items():
                assert not key.startswith("on")
                if key in ("src", "href", "srcset", "poster", "action", "data"):
                    assert str(value).startswith(("data:image/png;", "data:audio/mpeg;", "#"))
        assert "url(" not in page
        assert "@import" not in page
        (policy,) = [m for m in reader.of("meta") if "http-equiv" in m]
        assert str(policy["content"]).startswith("default-src 'none'")
        assert next(reader.of("html"))["lang"] == "en"


def test_every_picture_player_and_scrolled_part_has_a_name(findings: Findings) -> None:
    reader = Reader(render_pages(findings)["report"])
    images = list(reader.of("img"))
    assert len(images) == len(ANSWERS)
    for image in images:
        assert len(str(image["alt"])) > 30
        # 3 by 2 inches.
        assert (image["width"], image["height"]) == ("288", "192")
    assert all(drawing["aria-label"] for drawing in reader.of("svg"))
    assert all(player["aria-label"] for player in reader.of("audio"))
    assert all(part["aria-label"] for part in reader.of("div") if part.get("role") == "region")


def test_the_table_of_contents_names_every_section(findings: Findings) -> None:
    reader = Reader(render_pages(findings)["report"])
    sections = [str(section["id"]) for section in reader.of("section")]
    assert [str(link["href"]) for link in reader.of("a")] == [f"#{name}" for name in sections]
    ids = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(set(ids)) == len(ids)


def test_what_is_planted_appears(findings: Findings) -> None:
    pages = {name: Reader(page).text for name, page in render_pages(findings).items()}
    assert (
        "1 of 2 aspects are measured, or follow what is measured with an R² of 0.1"
        in pages["report"]
    )
    assert "1,234" in pages["report"]
    assert "high" in pages["report"], "the confidence of 0.81"
    assert "0.70 to 0.90" in pages["report"]
    assert "too few rows" in pages["report"]
    assert "very first answer in 87 of 100" in pages["report"]
    assert "answer from other works in 40 of 100 (by chance in 1.2)." in pages["report"]
    assert "reranking not fired nDCG is high" in pages["report"]
    assert "0.87±0.07 (0.01)" in pages["report"]
    assert "by chance in 1.2" in pages["report"]
    assert "Like, tempo: not judged, too few players of a work." in pages["report"]
    compared = "op1 slow (reference) Ann audio aligned from fast 0.95 -0.12 - 1.50"
    assert compared in pages["report"]
    assert "0.77 0.50 to 0.90 0.88" in pages["report"], "validity: MIDI, interval, parameter"
    for name in ("report", "aspects"):
        assert "0.43 [0.31, 0.55]" in pages[name]
        assert "probed 0.43, 0.23" in pages[name], "the agreement"
        assert "no result for rubato" in pages[name]
    for name in ("report", "facts"):
        assert all(t in pages[name] for t in ("f00d", "abcdef0123456789", "2.5 MB", "9.9.9"))
        assert "probing 43 1 min 30 s 512 MB" in pages[name]
    assert "0.43 [" not in pages["examples"]
    assert "licence of the audio: CC0-1.0" in pages["examples"], "who passes the page on must know"


def test_hits_are_shown_with_scores_contributions_and_sound(findings: Findings) -> None:
    page = render_pages(findings)["examples"]
    reader = Reader(page)
    hits = [hit for e in findings.examples if e.answer for hit in e.answer.hits]
    assert len(hits) == HITS * len(findings.examples)
    assert len(list(reader.of("audio"))) == len(hits) + len(findings.examples)
    for hit in hits:
        assert f"{hit.recording_id} {hit.score:.3f}" in reader.text
    more = findings.examples[-1]
    assert more.answer
    for name, part in more.answer.hits[0].contributions.items():
        assert f"{name} {part:+.3f}" in reader.text


def test_everything_is_escaped(findings: Findings) -> None:
    example = findings.examples[1]
    assert example.answer
    hit = replace(example.answer.hits[0], title=EVIL, composer=EVIL, performer=EVIL, work_id=EVIL)
    answer = replace(example.answer, hits=(hit,), notes=(EVIL,))
    broken = Recording(
        "b", EVIL, EVIL, "", "", "", EVIL, "", "", "", "", "", 0.0, "unreadable", EVIL
    )
    evil = replace(
        findings,
        dataset=EVIL,
        licence=EVIL,
        encoder={"name": EVIL, "trained": False, "weights_sha256": EVIL, "revision": EVIL},
        examples=[replace(example, answer=answer, row=replace(example.row, title=EVIL))],
        layers=[{**LAYER, "caution": EVIL, "target": EVIL}],
        validity=[{**VALIDITY, "target": EVIL}],
        aspects={"min_r2": 0.1, "aspects": {EVIL: {**ASPECT, "finding": EVIL}}},
        problems=(broken,),
        changed={EVIL: EVIL},
        versions={EVIL: EVIL},
        excerpts={key: Excerpt(0, 1, reason=EVIL) for key in findings.excerpts},
    )
    for page in render_pages(evil).values():
        reader = Reader(page)
        assert "script" not in {name for name, _ in reader.elements}
        assert not [a for a in reader.of("img") if a.get("src") == "x"]
        assert EVIL.split()[0] in reader.text


def test_an_untrained_encoder_is_said_loudly_on_every_page(findings: Findings) -> None:
    untrained = replace(findings, encoder={"name": "small", "trained": False})
    for page in render_pages(untrained).values():
        assert "This encoder is untrained." in Reader(page).text
    for page in render_pages(findings).values():
        assert "untrained." not in Reader(page).text.replace("an untrained encoder", "")


def test_audio_that_is_gone_is_said_and_the_rest_stays(findings: Findings) -> None:
    gone = dict(findings.excerpts)
    place = next(iter(gone))
    gone[place] = Excerpt(place[1], place[2], reason="the audio file is no longer there")
    reader = Reader(render_pages(replace(findings, excerpts=gone))["report"])
    assert "Not to be heard here: the audio file is no longer there." in reader.text
    assert len(list(reader.of("audio"))) >= 1


def test_problems_are_listed_up_to_a_limit(findings: Findings) -> None:
    rows = tuple(
        Recording(f"r{n}", "", "", "", "", "", "", "", "", "", "", "", 0.0, "silent", "no sound")
        for n in range(500)
    )
    text = Reader(render_pages(replace(findings, problems=rows))["facts"]).text
    assert "500 recordings had problems; 480 more" in text
    assert text.count("no sound") == 20


def test_recordings_that_failed_are_problems_too(tmp_path: Path) -> None:
    layout = Layout(tmp_path, "toy")
    write_recordings(layout.table, [recording(1), recording(2), recording(3, "silent")])
    write_json(layout.features_manifest, {"failed": {"r02": "it has changed", "gone": "why"}})
    write_json(layout.target_manifest("tempo"), {"failed": {"r01": "a bug"}})
    problems = read_problems(layout, 5.0, "tempo")
    assert [(r.recording_id, r.status, r.reason) for r in problems] == [
        ("r01", "failed", "a bug"),
        ("r02", "failed", "it has changed"),
        ("r03", "silent", "because"),
    ]


def test_nothing_probed_and_nothing_asked_is_a_page_too(findings: Findings) -> None:
    empty = replace(
        findings,
        aspects={"min_r2": 0.5, "aspects": {"rubato": UNKNOWN}},
        layers=[NOT_PROBED],
        validity=[
            {**VALIDITY, **dict.fromkeys(("midi", "midi_r", "midi_lo", "midi_hi", "own"), "")}
        ],
        performances=[],
        examples=[],
        costs=[],
    )
    reader = Reader(render_pages(empty)["report"])
    text = reader.text
    assert "No work has two recordings that can be compared." in text
    assert (
        "0 of 1 aspects are measured, or follow what is measured with an R² of 0.5 within works "
        "(of what differs between passages of one work, the share that is predicted without having "
        "heard the work), and can be searched "
        "by." in text
    )
    assert "none could be probed" in str(
        [i["alt"] for i in Reader(render_pages(empty)["report"]).of("img")]
    )
    assert "No recording has the MIDI to compare with." in text
    assert "No question could be asked." in text
    assert "time and memory are not known" in text


def test_examples_are_chosen_by_the_rule(indices: tuple[Index, Index]) -> None:
    examples = choose_examples(*indices)
    assert [example.kind for example in examples] == ["recordings"] + ["clips"] * 4
    # Steps of a fifth of nine recordings, from the middle of the first step.
    assert [e.query.recording_id for e in examples] == ["r0", "r2", "r4", "r6", "r8"]
    middle = HOP_S * (WINDOWS // 2)
    assert {(e.row.start_s, e.row.end_s) for e in examples[1:]} == {(middle, middle + WINDOW_S)}
    best = sorted(ASPECT_MAP["aspects"], key=lambda a: -(ASPECT_MAP["aspects"][a]["r2"] or 0))
    assert [dict(e.query.like) for e in examples] == [
        {}, {}, {best[0]: 1.0}, {best[1]: 1.0}, {},
    ]  # fmt: skip
    assert dict(examples[4].query.more) == {best[0]: 1.0}
    for example in ask_examples(*indices)[1:]:
        assert example.answer
        assert example.row.work_id not in {hit.work_id for hit in example.answer.hits}


def test_without_a_resolved_aspect_questions_are_general(findings: Findings) -> None:
    corpus = Corpus(12)
    bare = build_index(
        corpus.features,
        [replace(row, work_id="") for row in clip_rows(4, 3)],
        kind="clips",
        projection=fit_projection(lambda layer: corpus.features[:, layer], [0, 1]),
        aspects={},
        facts={},
    )
    examples = choose_examples(bare, bare)
    assert [example.title for example in examples] == [
        "Recordings alike in general", "Passages alike in general",
    ]  # fmt: skip
    # Without a work there is none to leave out.
    assert examples[1].query.exclude == "recording"
    page = Reader(render_pages(replace(findings, examples=findings.examples[:2]))["examples"])
    assert "No aspect is known well enough to be searched by" in page.text


def test_the_command_line_asks_the_same(indices: tuple[Index, Index]) -> None:
    parser = argparse.ArgumentParser()
    cli_search.add_parser(parser.add_subparsers())
    for example in choose_examples(*indices):
        words = shlex.split(command(example.query, "toy"))
        assert words[:2] == ["mess", "search"]
        args = parser.parse_args(words[1:])
        assert cli_search._query(args) == example.query
        assert args.dataset == "toy"


def test_costs_are_added_up_by_rule(tmp_path: Path) -> None:
    heading = "s\th:m:s\tmax_rss\n"
    (tmp_path / "probing").mkdir()
    (tmp_path / "probing" / "a.tsv").write_text(heading + "1.5\t0:00:01\t100\n")
    (tmp_path / "probing" / "b.tsv").write_text(heading + "2.5\t0:00:02\t300\n")
    (tmp_path / "index.tsv").write_text(heading + "9\t0:00:09\t50\n")
    (tmp_path / "odd.tsv").write_text(heading + "NA\tNA\tNA\n")
    (tmp_path / "empty.tsv").write_text("")
    assert rule_costs(tmp_path) == [
        {"rule": "index", "jobs": 1, "seconds": 9.0, "memory_mb": 50.0},
        {"rule": "probing", "jobs": 2, "seconds": 4.0, "memory_mb": 300.0},
    ]
    assert rule_costs(tmp_path / "nowhere") == []


def test_page_text_has_no_forgotten_values(findings: Findings) -> None:
    text = Reader(render_pages(findings)["report"]).text
    assert not re.search(r"\bNone\b|\bnan\b|Row\(|\{\}", text)
    assert "-0.00" not in [word.strip(",;[]") for word in text.split()]
