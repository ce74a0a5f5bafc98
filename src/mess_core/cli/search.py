"""``mess search``: ask a published index, and print the hits as a table or as JSON."""

__all__ = [
    *("DEFAULT_LOCATION", "add_parser", "add_passage", "datasets_at", "only_dataset"),
    *("open_index", "run"),
]

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mess_core.cli.printing import seconds, table
from mess_core.errors import SearchError
from mess_core.layout import Layout
from mess_core.progress import clock
from mess_core.search.query import EXCLUDES, FILTERS, GENERAL, RELATIVES, SPACES, Query

if TYPE_CHECKING:
    from mess_core.cli.embed import Embedded
    from mess_core.index.index import Index
    from mess_core.search.search import Answer, Hit

#: Characters of the column "work" of the table.
_WORK_WIDTH = 48
DEFAULT_LOCATION = "data/published"
_WEAK = "Among performances of one piece such a model was found weak (docs/words.md)"

#: Options that a question in JSON leaves no room for.
_WITHOUT_QUERY = (
    *("like", "aspect", "aspects", "unlike", "more", "less", "ignore"),
    *("k", "exclude", "where", "dedupe", "same_passage", "relative", "encoder", "words", "wish"),
    "space",
)

_EXAMPLES = """examples:
  mess search --recording R --aspect dynamics
  mess search --recording R --from 1:05 --to 1:10 --like phrasing=1 --like dynamics=0.5 \\
      --ignore tempo --more articulation --exclude work -k 10 --explain
  mess search --recording R --from 40 --to 45 --same-passage --like rubato
  mess search --audio take.wav --from 12 --to 17 --where composer="Erik Satie"
  mess search --query question.json --json
  mess search --words "slow and soft, but bright" --where composer="Erik Satie"
  mess search --recording R --from 40 --to 45 --words "more legato, same phrasing"
"""


def add_parser(subparsers: Any) -> None:
    """Add ``search`` to the command line."""
    parser = subparsers.add_parser(
        "search",
        help="find recordings or passages that sound like one",
        description="Find recordings like a recording, or passages like a passage (--from).",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_start(parser.add_argument_group("where it starts from"))
    _add_respects(parser.add_argument_group("in which respects"))
    _add_hits(parser.add_argument_group("which hits"))
    parser.add_argument("--json", action="store_true", help="print only a JSON list of hits")
    parser.add_argument(
        "--explain", action="store_true", help="print what each aspect adds to the scores"
    )
    fit = "put first the hits whose audio fits a text best, by --audio-text (docs/search.md)"
    parser.add_argument("--describe", metavar="TEXT", help=fit)
    parser.add_argument("--audio-text", type=Path, metavar="FOLDER", help="a CLAP model")
    parser.add_argument("--dataset", help="needed where several are published")
    landmark = "climaxes like the one nearest to --from, by --like build_up or release"
    parser.add_argument("--landmark", choices=("climax",), help=landmark)
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="for --landmark, --describe (%(default)s)"
    )
    parser.add_argument(
        "--artifacts",
        default=DEFAULT_LOCATION,
        metavar="LOCATION",
        help=f"where indexes are published: a folder or s3://... (default: {DEFAULT_LOCATION})",
    )
    parser.set_defaults(run=run)


def _add_start(group: Any) -> None:
    start = group.add_mutually_exclusive_group()
    start.add_argument("--recording", "--track", metavar="ID", help="a recording in the index")
    start.add_argument("--clip", metavar="ID@START", help="a stored clip, as hits name it")
    start.add_argument(
        "--audio", type=Path, metavar="FILE", help="an audio file; needs the index's encoder here"
    )
    start.add_argument(
        "--features", type=Path, metavar="FILE.npz", help="what `mess embed` has written"
    )
    start.add_argument(
        "--query",
        metavar="FILE.json",
        help="the whole question as JSON (docs/search.md); - reads it",
    )
    add_passage(group, "--start", "--end")
    group.add_argument("--encoder", metavar="FOLDER", help="where the encoder for --audio is")


def add_passage(group: Any, start: str = "--from", end: str = "--to") -> None:
    """Add the options of a passage, with other names for them."""
    for option, other, name, meaning in (
        ("--from", start, "start", "start of a passage: seconds, or as in 1:05.5"),
        ("--to", end, "end", "its end (default: a window later)"),
    ):
        names = dict.fromkeys((option, other))
        group.add_argument(*names, dest=name, type=seconds, metavar="TIME", help=meaning)


def _add_respects(group: Any) -> None:
    words = 'as in "slow and soft, but bright": says how it is understood; needs no start'
    group.add_argument("--words", metavar="TEXT", action="append", help=words)
    wish = "hits are to be high in this; groups (several --wish) must all be; needs no start"
    _add_list(group, "--wish", "ASPECT=WEIGHT,...", wish)
    liked = group.add_mutually_exclusive_group()
    alike = f"alike in this, or in {GENERAL!r} (the default); may be repeated"
    _add_list(liked, "--like", "ASPECT[=WEIGHT]", alike)
    liked.add_argument("--aspect", metavar="A", help="the same as --like A, for a single aspect")
    liked.add_argument(
        "--aspects", metavar="A=W,B=W", help='the same as several --like: "rubato=0.7,tempo=0.3"'
    )
    _add_list(group, "--unlike", "ASPECT[=WEIGHT]", "different in this")
    more = "hits must have more of this, by 1 step (docs/search.md)"
    _add_list(group, "--more", "ASPECT[=STEPS]", more)
    _add_list(group, "--less", "ASPECT[=STEPS]", "hits must have less of this")
    _add_list(group, "--ignore", "ASPECT", "this must not matter")
    relative = "compare by what each differs in from the other recordings of its work"
    group.add_argument("--relative", choices=RELATIVES, help=relative)
    space = f"what {GENERAL!r} compares: everything, or what an index has learned (docs/search.md)"
    group.add_argument("--space", choices=SPACES, help=space)


def _add_list(group: Any, option: str, metavar: str, meaning: str) -> None:
    group.add_argument(option, action="append", default=[], metavar=metavar, help=meaning)


def _add_hits(group: Any) -> None:
    group.add_argument("-k", type=int, help="how many hits (default: 10)")
    group.add_argument(
        "--exclude",
        choices=EXCLUDES,
        help="leave out the query's passage wherever it is played, its recording or its work "
        "(default: recording; for a passage none)",
    )
    same = "only the passage itself, in all other recordings of its work"
    group.add_argument("--same-passage", action="store_true", default=None, help=same)
    where = (
        f"only hits with this value; columns: {', '.join(FILTERS)}. May be repeated: several "
        "values of one column are alternatives"
    )
    _add_list(group, "--where", "COLUMN=VALUE", where)
    group.add_argument(
        "--dedupe",
        type=seconds,
        metavar="SECONDS",
        help="leave out hits that start less than this from a better one of the same recording",
    )


def run(args: argparse.Namespace) -> int:
    """Answer one question and print the hits."""
    if args.landmark:
        from mess_core.cli.landmarks import search_climaxes

        return search_climaxes(args)
    from mess_core.search.search import search, search_features

    query = _read_query(args) if args.query else _query(args)
    k = query.k
    if bool(args.describe) != bool(args.audio_text):
        raise SearchError("give a text with --describe and a model's folder with --audio-text")
    if args.describe:
        query = replace(query, k=max(k, min(5 * k, 100)))
    file = args.audio or args.features
    started = bool(file) or not query.from_nothing
    if not (started or query.wish or args.words):
        raise SearchError(
            "nothing says what to search: give --recording, --clip, --audio, --features, --query, "
            "--words or --wish"
        )
    kind = "clips" if not started or _of_passage(args, query) else "recordings"
    index = open_index(args.artifacts, args.dataset, kind)
    if args.words is not None:
        from mess_core.search.words import understand

        understood = understand("; ".join(args.words), index, start=started)
        print(understood.told, file=sys.stderr if args.json else sys.stdout)
        query = understood.put_into(query)
    if args.audio or args.features:
        features, measured = _embedded(args, index)
        answer = search_features(index, features, query, measured)
    else:
        answer = search(index, query)
    trust = _trust(index, dict.fromkeys(query.aspects + query.wished))
    heading = "\n".join([_question(args, query, index.kind), *trust])
    answer, fits = _by_text(args, index, answer, k) if args.describe else (answer, [])
    _show(index, answer, heading, fits, args)
    return 0


def _by_text(
    args: argparse.Namespace, index: "Index", answer: "Answer", k: int
) -> "tuple[Answer, list[float]]":
    """Return the hits whose audio fits a text best, with cosines that another process computes."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    from mess_core.recordings import read_recordings
    from mess_core.search.audio_text import fits

    rows = read_recordings(Layout(args.data, index.facts["dataset"]).table)
    audio = {row.recording_id: Path(row.audio) for row in rows if Path(row.audio).is_file()}
    hits = sorted((h for h in answer.hits if h.recording_id in audio), key=lambda h: h.recording_id)
    passages = [(audio[hit.recording_id], hit.start_s, hit.end_s) for hit in hits]
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        cosines = pool.submit(fits, args.audio_text, args.describe, passages).result()
    best = sorted(zip(cosines, hits, strict=True), key=lambda pair: -pair[0])[:k]
    notes = (*answer.notes, f"fit: of the {len(hits)} best hits whose audio is here. {_WEAK}")
    ranked = replace(answer, hits=tuple(hit for _, hit in best), notes=notes)
    return ranked, [cosine for cosine, _ in best]


def _of_passage(args: argparse.Namespace, query: Query) -> bool:
    """Return whether passages are asked for, rather than recordings."""
    if args.features:
        from mess_core.cli.embed import is_of_passage

        return is_of_passage(args.features)
    return query.clip is not None or (query.start_s if args.query else args.start) is not None


def _read_query(args: argparse.Namespace) -> Query:
    given = [name for name in _WITHOUT_QUERY if getattr(args, name) not in (None, [])]
    others = [f"--{name.replace('_', '-')}" for name in given]
    if args.start is not None or args.end is not None or others:
        raise SearchError(
            f"--query has the whole question: put {', '.join(others) or '--from and --to'} into it"
        )
    try:
        text = sys.stdin.read() if args.query == "-" else Path(args.query).read_text()
    except (OSError, ValueError) as error:
        raise SearchError(f"{args.query} is no query that can be read: {error}") from None
    return Query.from_json(text)


def _query(args: argparse.Namespace) -> Query:
    """Make the query that the options describe."""
    like = _parse_weights(args.like, "--like")
    if args.aspect is not None:
        like = {args.aspect: 1.0}
    if args.aspects is not None:
        like = _parse_weights(args.aspects.split(","), "--aspects", needed=True)
    of_file = args.audio or args.features
    if args.features and args.start is not None:
        raise SearchError("features are of one passage already: give --from and --to to mess embed")
    if args.encoder and not args.audio:
        raise SearchError("--encoder is for --audio: nothing else is computed here")
    if args.end is not None and args.start is None:
        raise SearchError("--to needs --from: a passage has a start and an end")
    whole = args.recording is not None and args.start is None
    numbers = {"k": args.k, "dedupe_s": args.dedupe}
    return Query(
        recording_id=args.recording,
        start_s=None if of_file else args.start,
        end_s=None if of_file else args.end,
        clip=args.clip,
        like=like,
        ignore=tuple(args.ignore),
        unlike=_parse_weights(args.unlike, "--unlike"),
        more=_parse_weights(args.more, "--more"),
        less=_parse_weights(args.less, "--less"),
        exclude=args.exclude or ("recording" if whole else "none"),
        where=_parse_filters(args.where),
        same_passage=bool(args.same_passage),
        relative=args.relative or "",
        space=args.space or GENERAL,
        wish=tuple(_parse_weights(w.split(","), "--wish", needed=True) for w in args.wish),
        **{name: number for name, number in numbers.items() if number is not None},
    )


def _parse_weights(parts: Iterable[str], option: str, *, needed: bool = False) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in parts:
        name, given, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number) if given or needed else 1.0
        except ValueError:
            raise SearchError(
                f"{option} has {part!r}, expected NAME=WEIGHT as in rubato=0.7"
            ) from None
        if name in weights:
            raise SearchError(f"{option} names {name!r} twice")
        weights[name] = weight
    return weights


def _parse_filters(parts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    filters: dict[str, tuple[str, ...]] = {}
    for part in parts:
        column, given, value = part.partition("=")
        if not given:
            raise SearchError(f'--where has {part!r}, expected COLUMN=VALUE as in composer="Satie"')
        filters[column] = (*filters.get(column, ()), value)
    return filters


def _embedded(args: argparse.Namespace, index: "Index") -> "Embedded":
    """Return the features of the file that the question starts from, and what is measured of it."""
    from mess_core.cli.embed import embed_elsewhere, read_embedded

    if args.features:
        return read_embedded(args.features, index.facts)
    if not args.audio.is_file():
        raise SearchError(f"{args.audio} does not exist or is no file; check the path")
    return embed_elsewhere(args.audio, args.start, args.end, index.facts, encoder=args.encoder)


def open_index(location: str, dataset: str | None, kind: str) -> "Index":
    """Load the latest index of a kind from a published location, a folder or ``s3://...``.

    The dataset may be left out where one is published. Raises `SearchError` if no dataset is given
    and the location does not hold exactly one, and `ArtifactError` if nothing usable is published
    there.
    """
    # FAISS and boto3 are imported when a search is run, not by `mess --help`.
    from mess_core.publishing.fetch import default_cache, load_published

    name = dataset or only_dataset(location)
    return load_published(location, name, kind, cache_dir=default_cache())


def datasets_at(location: str) -> list[str]:
    """Return the datasets published at a location; if there are none, that is an error."""
    from mess_core.publishing.publish import published_datasets

    if names := published_datasets(location):
        return names
    raise SearchError(
        f"nothing is published at {location}; run the workflow (`make demo`), or name another "
        "place with --artifacts"
    )


def only_dataset(location: str) -> str:
    """Return the one dataset published at a location; if there are several, that is an error."""
    names = datasets_at(location)
    if len(names) > 1:
        raise SearchError(f"{location} holds several datasets; choose with --dataset: {names}")
    return names[0]


def _question(args: argparse.Namespace, query: Query, kind: str) -> str:
    relative = f", relative to the {query.relative}" if query.relative else ""
    if query.from_nothing and not (args.audio or args.features):
        return f"passages that are {_wished(query)}{relative}"
    start = query.recording_id or query.clip or str(args.audio or args.features)
    from_s = args.start if query.start_s is None else query.start_s
    to_s = args.end if query.end_s is None else query.end_s
    passage = "" if from_s is None else f" from {clock(from_s)}"
    passage += "" if to_s is None else f" to {clock(to_s)}"
    what = "passages" if kind == "clips" else kind
    what = "the same passage as" if query.same_passage else f"{what} like"
    # A wish alone ranks those who play the same passage.
    alone = query.same_passage and query.wish and not (query.like or query.aspects)
    parts = [*([] if alone else [_respects(query)]), *([_wished(query)] if query.wish else [])]
    return f"{what} {start}{passage}, {', and '.join(parts)}{relative}"


def _wished(query: Query) -> str:
    groups = (", ".join(f"{n} {w:+g}" for n, w in group.items()) for group in query.wish)
    return " but ".join(groups)


def _respects(query: Query) -> str:
    steered = {**query.more, **query.less}
    parts = [f"in {query.space} and in all other aspects" if steered else f"in {query.space}"]
    if query.like:
        parts = [f"by {', '.join(_weighed(query.liked))}"]
    parts += [f"ignoring {', '.join(query.ignore)}"] if query.ignore else []
    parts += [f"unlike in {', '.join(_weighed(query.unlike))}"] if query.unlike else []
    for word, asked in (("more", query.more), ("less", query.less)):
        parts += [
            f"{word} {name} (by {n:g} step{'' if n == 1 else 's'})" for name, n in asked.items()
        ]
    return ", ".join(parts)


def _weighed(weights: Mapping[str, float]) -> list[str]:
    only = len(weights) == 1
    return [name if only else f"{name}={weight:g}" for name, weight in weights.items()]


def _trust(index: "Index", aspects: Iterable[str]) -> list[str]:
    """Return a line per aspect on where it comes from, and how far that is to be trusted."""
    known = index.aspects.get("aspects", {})
    return [f"{name}: {known[name]['finding']}" for name in aspects if name in known]


def _show(
    index: "Index", answer: "Answer", question: str, fits: list[float], args: argparse.Namespace
) -> None:
    """Print a heading and a table, or JSON alone with the heading on standard error."""
    encoder = index.facts.get("encoder", {})
    note = " (untrained)" if encoder.get("trained") is False else ""
    heading = [question, f"encoder: {encoder.get('name', 'unknown')}{note}", *answer.notes]
    print("\n".join(heading), file=sys.stderr if args.json else sys.stdout)
    clips = index.kind == "clips"
    if args.json:
        records = [_record(hit, clips=clips) for hit in answer.hits]
        for record, fit in zip(records, fits, strict=False):
            record["fit"] = fit
        print(json.dumps(records, indent=2))
    elif answer.hits:
        rows = [_cells(n, hit, clips=clips) for n, hit in enumerate(answer.hits, 1)]
        for row, fit in zip(rows, fits, strict=False):
            row["fit"] = f"{fit:>6.3f}"
        if args.explain:
            for row, hit in zip(rows, answer.hits, strict=True):
                row |= {name: f"{part:>7.3f}" for name, part in hit.percentiles.items()}
                row |= {name: f"{part:>+7.3f}" for name, part in hit.contributions.items()}
        print("\n".join(table(rows)))
        if args.explain and answer.hits[0].percentiles:
            print("score = the smallest share of rows that it is above, of likeness and wishes")
        elif args.explain:
            print("score = the sum of the columns with a sign")


def _record(hit: "Hit", *, clips: bool) -> dict[str, Any]:
    only = () if clips else ("start_s", "end_s", "clip", "same_passage")
    return {k: v for k, v in asdict(hit).items() if k not in only}


def _cells(rank: int, hit: "Hit", *, clips: bool) -> dict[str, str]:
    surname = hit.composer.split()[-1:]
    work = ": ".join([*surname, hit.title or hit.work_id])
    if len(work) > _WORK_WIDTH:
        work = work[: _WORK_WIDTH - 3] + "..."
    cells = {
        "rank": f"{rank:>4}",
        "score": f"{hit.score:>6.3f}",
        "recording": hit.recording_id,
        "work": work,
        "performer": hit.performer,
    }
    if clips:
        same = " (same)" if hit.same_passage else ""
        cells["times"] = f"{clock(hit.start_s)} - {clock(hit.end_s)}{same}"
    return cells
