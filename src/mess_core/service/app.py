"""The HTTP API over the published indices of one dataset; docs/service.md lists it."""

__all__ = ["create_app"]

import asyncio
import logging
import os
import shlex
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated, Any, TypeVar

import fastapi_offline
from fastapi import Depends, FastAPI, HTTPException, Path as Place, Query as Parameter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from starlette.exceptions import HTTPException as Refusal
from starlette.requests import ClientDisconnect

from mess_core.errors import MessError, SearchError
from mess_core.index.index import Index
from mess_core.layout import Layout
from mess_core.recordings import Recording, read_recordings
from mess_core.search.query import Query, command
from mess_core.search.search import Searcher, search
from mess_core.search.words import plain, understand
from mess_core.service.audio import Wav, check_listed, envelope, parse_range
from mess_core.service.catalogue import curves, describe_aspects, list_recordings, windows
from mess_core.service.server import by_names, problem, read_body
from mess_core.service.upload import Upload, Uploads

_PAGE, _SWAGGER = Path(__file__).parent / "page", Path(fastapi_offline.__file__).parent / "static"
_LARGEST_K = 200
#: How long a question waits for its turn, s.
_PATIENCE_S = 3.0
_WRONG = MessError, ClientDisconnect
_OBJECT, _BYTES = {"schema": {"type": "object"}}, {"schema": {"type": "string", "format": "binary"}}
_ERROR = {"description": "Problem details", "content": {"application/problem+json": _OBJECT}}
_JSON: dict[int | str, Any] = {200: {"content": {"application/json": _OBJECT}}, "default": _ERROR}
_WAV: dict[int | str, Any] = {200: {"description": "16 bits", "content": {"audio/wav": _BYTES}}}
_UPLOAD = {"requestBody": {"content": {"application/octet-stream": _BYTES}}}

Result = TypeVar("Result")
Id = Annotated[str, Place(alias="recording_id")]
Points = Annotated[int, Parameter(ge=1, le=5000)]
From = Annotated[float, Parameter(alias="from", ge=0, allow_inf_nan=False, description="s")]
Start = Annotated[float | None, Parameter(alias="from", ge=0, allow_inf_nan=False, description="s")]
To = Annotated[float | None, Parameter(alias="to", ge=0, allow_inf_nan=False, description="s")]


@dataclass(config={"extra": "forbid", "strict": True})
class Phrase:
    """What ``/words`` takes: ``start`` says whether a question would start from something."""

    text: str
    start: bool = True


def create_app(
    searchers: Mapping[str, Searcher],
    layout: Layout,
    *,
    refresh_s: float = 0.0,
    hosts: Iterable[str] = (),
    artifacts: str = "",
    uploads: Uploads | None = None,
) -> FastAPI:
    """Return the application.

    ``searchers`` are those of both kinds of index, or of one; ``layout`` is where audio and targets
    are, if they are here. Every ``refresh_s`` seconds newer ones are looked for (0: never).
    ``hosts`` are names by which it may be asked, beside those of loopback; ``artifacts`` is where
    `mess search` finds the indices, if not where it looks by itself. ``uploads`` take audio.
    """
    place = f" --artifacts {shlex.quote(artifacts)}" if artifacts else ""
    question = uploads.question if uploads else lambda body, _: (Query.from_json(body), None)
    listed, failed = dict[str, Recording](), dict[str, str]()
    row = (searchers.get("clips") or searchers["recordings"]).index.rows[0]
    example = {"recording_id": row.recording_id, "start_s": row.start_s, "end_s": row.end_s}
    turns = asyncio.Semaphore(len(os.sched_getaffinity(0)))

    def read_table() -> None:
        nonlocal listed
        rows = read_recordings(layout.table) if layout.table.exists() else ()
        listed = {row.recording_id: row for row in rows}

    async def refresh() -> None:
        tasks = {kind: searcher.refresh for kind, searcher in searchers.items()}
        while refresh_s:
            await asyncio.sleep(refresh_s)
            for name, task in {**tasks, "recording table": read_table}.items():
                try:
                    await asyncio.to_thread(task)
                    failed.pop(name, None)
                except Exception as error:
                    logging.warning("refreshing %s failed: %s", name, error)
                    failed[name] = str(error)

    @asynccontextmanager
    async def alive(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(refresh())
        yield
        task.cancel()

    read_table()
    app = FastAPI(
        title="MESS", version=installed("mess-core"), docs_url=None, redoc_url=None, lifespan=alive,
        dependencies=[Depends(_check_site)], responses=_JSON, redirect_slashes=False,
    )  # fmt: skip
    app.add_middleware(by_names, names={"localhost", "127.0.0.1", "[::1]", *map(str.lower, hosts)})
    for kind in (RequestValidationError, ValidationError, *_WRONG, Refusal, Exception):
        app.add_exception_handler(kind, _explain)

    async def in_turn(answer: Callable[[], Result]) -> Result:
        try:
            await asyncio.wait_for(turns.acquire(), _PATIENCE_S)
        except TimeoutError:
            raise HTTPException(503, "too many questions at once", {"Retry-After": "2"}) from None
        try:
            return await asyncio.to_thread(answer)
        finally:
            turns.release()

    def some_index(kind: str) -> Index:
        return searchers[kind if kind in searchers else next(iter(searchers))].index

    def has_audio(name: str) -> bool:
        return name in listed and Path(listed[name].audio).is_file()

    def known(name: str) -> dict[str, Any]:
        found = list_recordings(some_index("recordings"))
        if name not in found:
            raise HTTPException(404, f"recording {name!r} is not in the index")
        return found[name][0] | {"audio": has_audio(name)}

    def answered(query: Query, upload: Upload | None = None) -> dict[str, Any]:
        if query.k > _LARGEST_K:
            raise HTTPException(413, f"k is {query.k}, and at most {_LARGEST_K} here")
        whole = query.recording_id is not None and query.start_s is None
        whole |= upload is not None and upload.whole
        kind = "recordings" if whole else "clips"
        if kind not in searchers:
            raise SearchError(f"only {', '.join(searchers)} are published, and it asks for {kind}")
        index, clip = searchers[kind].index, query.clip or ""
        name = query.recording_id or clip.rpartition("@")[0]
        if name and name not in index.rows.numbers:
            raise HTTPException(404, f"recording {name!r} is not in the index of {kind}")
        answer = upload.ask(index, query=query) if upload else search(index, query)
        hits = [{name: getattr(hit, name) for name in hit.__slots__} for hit in answer.hits]
        told = {"hits": hits, "notes": answer.notes, "predicted": answer.predicted, "kind": kind}
        line = command(query, layout.dataset) + place + (upload.options if upload else "")
        return {**told, "version": index.version_id, "command": line}

    @app.post("/search", summary="Find what is alike", openapi_extra=_body_of(Query, example))
    async def search_(request: Request) -> Response:
        body, facts = await read_body(request), some_index("clips").facts
        return JSONResponse(await in_turn(lambda: answered(*question(body, facts))))

    if uploads:

        @app.post("/embed", summary="Take audio to search with", openapi_extra=_UPLOAD)
        async def embed(request: Request, start_s: Start = None, end_s: To = None) -> Response:
            facts = some_index("clips").facts
            return JSONResponse(await uploads.take(request, start_s, end_s, facts))

    @app.post("/words", summary="Read words", openapi_extra=_body_of(Phrase, {"text": "slow"}))
    async def words(request: Request) -> Response:
        said = TypeAdapter(Phrase).validate_json(await read_body(request))
        found = await in_turn(lambda: understand(said.text, some_index("clips"), start=said.start))
        return JSONResponse(found.to_dict())

    @app.get("/aspects", summary="What can be searched by, and how well it is known")
    def aspects() -> Response:
        index = some_index("clips")
        spaces = list(index.projection.spaces)
        return JSONResponse({"aspects": describe_aspects(index), "spaces": spaces})

    @app.get("/recordings", summary="Find recordings by words and columns")
    def recordings(
        q: Annotated[str, Parameter(max_length=200)] = "",
        composer: str | None = None,
        performer: str | None = None,
        work_id: str | None = None,
        offset: Annotated[int, Parameter(ge=0)] = 0,
        limit: Annotated[int, Parameter(ge=1, le=200)] = 50,
    ) -> Response:
        given = {"composer": composer, "performer": performer, "work_id": work_id}
        wanted, asked = {k: v for k, v in given.items() if v is not None}, {*plain(q).split()}
        rows = list_recordings(some_index("recordings")).values()
        found = [r for r, t in rows if wanted.items() <= r.items() and all(w in t for w in asked)]
        page = [r | {"audio": has_audio(r["recording_id"])} for r in found[offset : offset + limit]]
        return JSONResponse({"total": len(found), "offset": offset, "recordings": page})

    @app.get("/recordings/{recording_id}", summary="One recording, its windows and their values")
    def recording(name: Id) -> Response:
        row, clips = known(name), some_index("clips")
        rows = [each for each, _ in list_recordings(some_index("recordings")).values()]
        same = [r["recording_id"] for r in rows if r["work_id"] == row["work_id"] != ""]
        inside = windows(clips, name) if name in clips.rows.numbers else {}
        return JSONResponse(row | inside | {"performances": [n for n in same if n != name]})

    @app.get("/recordings/{recording_id}/curves", summary="Waveform, tempo, loudness, brightness")
    async def curves_(name: Id, points: Points = 1000) -> Response:
        def drawn() -> dict[str, Any]:
            clips, waveform = some_index("clips"), None
            if known(name)["audio"]:
                path = check_listed(listed[name])
                waveform = envelope(path, points, path.stat().st_mtime_ns)
            here = name in clips.rows.numbers
            found = curves(layout.targets(name), clips, name, points) if here else {}
            return {"waveform": waveform, "curves": found}

        return JSONResponse(await in_turn(drawn))

    @app.get("/passages/{recording_id}", summary="The same bars in other performances")
    async def passages(name: Id, start_s: From, end_s: To = None) -> Response:
        query = Query(name, start_s, end_s, same_passage=True, k=_LARGEST_K)
        found = await in_turn(lambda: answered(query))
        about = {"recording_id": name, "start_s": start_s, "end_s": end_s}
        return JSONResponse({**about, "passages": found["hits"], "notes": found["notes"]})

    @app.head("/audio/{recording_id}", include_in_schema=False)
    @app.get("/audio/{recording_id}", summary="WAV audio", responses=_WAV, response_class=Response)
    async def audio(request: Request, name: Id, start_s: From = 0.0, end_s: To = None) -> Response:
        def opened() -> Wav:
            if not known(name)["audio"]:
                raise HTTPException(404, f"the audio of {name} is not on this machine")
            return Wav(check_listed(listed[name]), start_s, end_s)

        wav = await in_turn(opened)
        # There is no validator that If-Range could name.
        ranged = request.method == "GET" and "if-range" not in request.headers
        part = parse_range(request.headers.get("range", ""), wav.size) if ranged else None
        start, stop = part or (0, wav.size)
        headers = {"Accept-Ranges": "bytes", "Content-Length": str(stop - start)}
        headers |= {"Content-Range": f"bytes {start}-{stop - 1}/{wav.size}"} if part else {}
        content = wav.read(start, stop) if request.method == "GET" else ()
        return StreamingResponse(content, 206 if part else 200, headers, "audio/wav")

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", summary="Whether it runs")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", summary="What failed when it last looked for newer versions")
    async def readyz() -> Response:
        return JSONResponse({"status": "ready", "refresh_errors": failed})

    @app.get("/version", summary="Versions of mess and the indices, and the encoder")
    async def version() -> Response:
        facts = {key: some_index("clips").facts.get(key) for key in ("dataset", "encoder")}
        versions = {kind: searcher.index.version_id for kind, searcher in searchers.items()}
        return JSONResponse({"mess": app.version, **facts, "versions": versions})

    app.add_route("/", lambda _: FileResponse(_PAGE / "index.html"))
    app.add_route("/docs", lambda _: FileResponse(_PAGE / "docs.html"))
    app.mount("/docs-files", StaticFiles(directory=_SWAGGER))
    app.mount("/page", StaticFiles(directory=_PAGE))
    return app


def _check_site(request: Request) -> None:
    # Pages elsewhere cannot read answers, but could keep the service busy.
    if request.headers.get("sec-fetch-site") == "cross-site":
        raise HTTPException(403, "a page of another site asks; only its own may")


def _body_of(kind: type, example: Mapping[str, Any]) -> dict[str, Any]:
    content = {"schema": TypeAdapter(kind).json_schema(), "example": example}
    return {"requestBody": {"content": {"application/json": content}}}


def _explain(_: Request, error: Exception) -> Response:
    if isinstance(error, Refusal):
        return problem(error.status_code, error.detail, error.headers)
    if isinstance(error, RequestValidationError | ValidationError):
        told = [": ".join([*map(str, e["loc"][-1:]), e["msg"]]) for e in error.errors()]
        return problem(400 if isinstance(error, ValidationError) else 422, "; ".join(told))
    if isinstance(error, _WRONG):
        return problem(400, str(error))
    return problem(500, "an error of the service; its log has more")
