"""The HTTP API over the published indices of one dataset.

| address | answer |
|---|---|
| ``POST /search`` | the answer to a `Query`, in its JSON form |
| ``POST /words`` | how a phrase is understood: ``{"text": ...}`` |
| ``GET /aspects`` | what can be searched by, and how well it is known |
| ``GET /recordings``, ``/recordings/{id}`` | recordings; one, with its windows and their values |
| ``GET /recordings/{id}/curves`` | waveform, loudness, tempo and brightness, where data is here |
| ``GET /passages/{id}`` | the same bars in other performances |
| ``GET /audio/{id}`` | its sound, as WAV |
| ``GET /healthz``, ``/readyz``, ``/version`` | for those who run it |

Errors are problem details (RFC 9457, ``application/problem+json``): ``title``, ``status`` and, in
``detail``, what the library says.
"""

__all__ = ["create_app"]

import asyncio
import hashlib
import logging
import os
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version as installed
from pathlib import Path
from typing import Annotated, Any

import fastapi_offline
from fastapi import FastAPI, HTTPException, Query as Parameter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import TypeAdapter
from starlette.exceptions import HTTPException as RoutingError
from starlette.requests import ClientDisconnect

from mess_core.errors import MessError, SearchError, nearest
from mess_core.index.index import Index
from mess_core.layout import Layout
from mess_core.search.query import Query
from mess_core.search.search import Answer, Searcher, search
from mess_core.service.audio import Sounds, envelope, open_wav, parse_range
from mess_core.service.catalogue import (
    Listing,
    curves,
    describe_aspects,
    list_recordings,
    windows,
)
from mess_core.service.command import command_of
from mess_core.service.guard import Guard, Turns, problem, read_body

_PAGE = Path(__file__).parent / "page"
_LARGEST_K = 200
#: Policy of ``/docs``; its one script inside the page is named by its hash.
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self' 'sha256-{}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)

Seconds = Annotated[float, Parameter(ge=0, allow_inf_nan=False)]
From = Annotated[float, Parameter(alias="from", ge=0, allow_inf_nan=False, description="seconds")]
To = Annotated[float | None, Parameter(alias="to", ge=0, allow_inf_nan=False)]

_log = logging.getLogger("mess.service")


def create_app(
    searchers: Mapping[str, Searcher],
    layout: Layout | None = None,
    *,
    refresh_s: float = 0.0,
    hosts: Iterable[str] = (),
    command: str = "mess search",
) -> FastAPI:
    """Return the application.

    Parameters
    ----------
    searchers : mapping of str to Searcher
        By kind of index, ``recordings`` and ``clips``, or one of them.
    layout : Layout, optional
        Where the dataset's audio and targets are, if they are here.
    refresh_s : float
        How often to look for newer indices, s; 0 never.
    hosts : iterable of str
        By which names it may be asked, beside those of this machine.
    command : str
        What answers with a command begin it with.
    """
    sounds = Sounds(layout.table if layout else None)
    failed: dict[str, str] = {}
    app = FastAPI(
        title="MESS",
        version=installed("mess-core"),
        summary="Find music that sounds and is played alike.",
        docs_url=None,
        redoc_url=None,
        lifespan=_refreshing(searchers, sounds, refresh_s, failed),
    )
    app.add_middleware(Guard, hosts=hosts)
    _add_errors(app)
    turns = Turns(len(os.sched_getaffinity(0)))

    def index_of(kind: str) -> Index:
        if kind in searchers:
            return searchers[kind].index
        raise SearchError(f"no index of {kind} is published, only of {', '.join(searchers)}")

    def some_index(first: str) -> Index:
        return searchers[first if first in searchers else next(iter(searchers))].index

    def listing() -> Listing:
        return list_recordings(some_index("recordings"))

    def known(recording_id: str) -> dict[str, Any]:
        number = some_index("recordings").rows.numbers.get(recording_id)
        if number is None:
            names = some_index("recordings").rows.numbers
            raise HTTPException(
                404, f"recording {recording_id!r} is unknown: {nearest(recording_id, names)}"
            )
        return _with_audio(listing().facts[number])

    def _with_audio(facts: dict[str, Any]) -> dict[str, Any]:
        return {**facts, "audio": facts["recording_id"] in sounds}

    def answered(body: bytes) -> Response:
        query = Query.from_json(body)
        if query.k > _LARGEST_K:
            raise HTTPException(413, f"k is {query.k}; here it is at most {_LARGEST_K}")
        whole = query.recording_id is not None and query.start_s is None
        index = index_of("recordings" if whole else "clips")
        content = _content(search(index, query))
        content |= {"kind": index.kind, "version": index.version_id}
        return JSONResponse({**content, "command": command_of(query, command)})

    @app.post("/search", openapi_extra=_takes(TypeAdapter(Query).json_schema()))
    async def search_(request: Request) -> Response:
        return await turns(answered, await read_body(request))

    @app.post("/words")
    async def words() -> Response:
        return problem(501, "words are not understood yet")

    @app.get("/aspects")
    def aspects() -> Response:
        return JSONResponse({"aspects": describe_aspects(some_index("clips"))})

    @app.get("/recordings")
    def recordings(
        q: Annotated[str, Parameter(max_length=1000)] = "",
        composer: str | None = None,
        performer: str | None = None,
        work_id: str | None = None,
        offset: Annotated[int, Parameter(ge=0)] = 0,
        limit: Annotated[int, Parameter(ge=1, le=200)] = 50,
    ) -> Response:
        found = listing().find(q, composer=composer, performer=performer, work_id=work_id)
        page = [_with_audio(facts) for facts in found[offset : offset + limit]]
        return JSONResponse({"total": len(found), "offset": offset, "recordings": page})

    @app.get("/recordings/{recording_id}")
    def recording(recording_id: str) -> Response:
        facts, index = known(recording_id), some_index("clips")
        others = listing().find("", work_id=facts["work_id"] or None) if facts["work_id"] else []
        names = [each["recording_id"] for each in others if each["recording_id"] != recording_id]
        inside = windows(index, recording_id) if recording_id in index.rows.numbers else {}
        return JSONResponse({**facts, **inside, "performances": names})

    @app.get("/recordings/{recording_id}/curves")
    async def curves_(
        recording_id: str, points: Annotated[int, Parameter(ge=1, le=5000)] = 1000
    ) -> Response:
        known(recording_id)

        def drawn() -> dict[str, Any]:
            waveform, found = None, {}
            if recording_id in sounds:
                path = sounds.path(recording_id)
                waveform = envelope(path, points, path.stat().st_mtime_ns)
            index = searchers["clips"].index if "clips" in searchers else None
            if layout and index and recording_id in index.rows.numbers:
                found = curves(layout, index, recording_id, points)
            return {"waveform": waveform, "curves": found}

        return JSONResponse(await turns(drawn))

    @app.get("/passages/{recording_id}")
    async def passages(recording_id: str, start_s: From, end_s: To = None) -> Response:
        known(recording_id)
        query = Query(recording_id, start_s, end_s, same_passage=True, k=_LARGEST_K)
        answer = _content(await turns(search, index_of("clips"), query))
        place = {"recording_id": recording_id, "start_s": start_s, "end_s": end_s}
        return JSONResponse({**place, "passages": answer["hits"], "notes": answer["notes"]})

    @app.api_route("/audio/{recording_id}", methods=["GET", "HEAD"])
    async def audio(
        request: Request, recording_id: str, start_s: From = 0.0, end_s: To = None
    ) -> Response:
        known(recording_id)
        path = await turns(sounds.path, recording_id)
        wav = await turns(open_wav, path, start_s, end_s)
        asked = request.headers.get("range") if request.method == "GET" else None
        found = parse_range(asked, wav.size)
        start, stop = found or (0, wav.size)
        headers = {"Accept-Ranges": "bytes", "Content-Length": str(stop - start)}
        if found:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{wav.size}"
        content = () if request.method == "HEAD" else wav.read(start, stop)
        return StreamingResponse(content, 206 if found else 200, headers, "audio/wav")

    @app.get("/healthz")
    async def healthz() -> Response:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz")
    async def readyz() -> Response:
        return JSONResponse({"status": "ready", "refresh_errors": failed})

    @app.get("/version")
    async def version() -> Response:
        facts = some_index("clips").facts
        return JSONResponse(
            {
                "mess": app.version,
                "dataset": facts.get("dataset"),
                "encoder": facts.get("encoder"),
                "versions": {kind: each.index.version_id for kind, each in searchers.items()},
            }
        )

    _add_docs(app)
    app.mount("/", StaticFiles(directory=_PAGE, html=True))
    return app


def _content(answer: Answer) -> dict[str, Any]:
    hits = [{name: getattr(hit, name) for name in hit.__dataclass_fields__} for hit in answer.hits]
    return {"hits": hits, "notes": answer.notes, "predicted": answer.predicted}


def _takes(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


def _refreshing(
    searchers: Mapping[str, Searcher], sounds: Sounds, every_s: float, failed: dict[str, str]
) -> Any:
    """Return a lifespan in which indices and the table are refreshed."""

    async def refresh() -> None:
        tasks = {kind: searcher.refresh for kind, searcher in searchers.items()}
        while True:
            await asyncio.sleep(every_s)
            for name, task in {**tasks, "recording table": sounds.reload}.items():
                try:
                    await asyncio.to_thread(task)
                    failed.pop(name, None)
                except Exception as error:
                    _log.warning("refreshing %s failed: %s", name, error)
                    failed[name] = str(error)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(refresh()) if every_s else None
        yield
        if task:
            task.cancel()

    return lifespan


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(MessError)
    def wrong(_: Request, error: MessError) -> Response:
        return problem(400, str(error))

    @app.exception_handler(RoutingError)
    def refused(_: Request, error: RoutingError) -> Response:
        return problem(error.status_code, error.detail, error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        told = [f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()]
        return problem(422, "; ".join(told))

    @app.exception_handler(ClientDisconnect)
    def gone(_: Request, __: ClientDisconnect) -> Response:
        return problem(400, "the connection ended before the body did")


def _add_docs(app: FastAPI) -> None:
    """Add Swagger UI at ``/docs``, without a foreign host."""
    files = Path(fastapi_offline.__file__).parent / "static"
    app.mount("/docs-files", StaticFiles(directory=files))
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="MESS",
        swagger_js_url="docs-files/swagger-ui-bundle.js",
        swagger_css_url="docs-files/swagger-ui.css",
        swagger_favicon_url="docs-files/favicon.png",
    ).body
    inline = re.findall(rb"<script>(.*?)</script>", bytes(page), re.DOTALL)
    digest = b64encode(hashlib.sha256(inline[0]).digest()).decode()
    policy = {"Content-Security-Policy": _DOCS_POLICY.format(digest)}

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(page, headers=policy)
