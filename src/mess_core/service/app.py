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

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from mess_core.errors import MessError, SearchError
from mess_core.index.index import FIELDS
from mess_core.probing.aspects import ASPECT_REGISTRY
from mess_core.recordings import read_recordings
from mess_core.search.query import Query
from mess_core.search.search import Searcher, directed

_PAGE = Path(__file__).parent / "page"


def create_app(searchers: dict[str, Searcher], table: Path) -> FastAPI:
    """Return the application that answers from a searcher of each kind of index."""
    app = FastAPI(title="MESS")
    clips = searchers["clips"]
    listed = read_recordings(table)

    @app.exception_handler(MessError)
    def problem(_: Request, error: Exception) -> JSONResponse:
        content = {"title": "Bad request", "status": 400, "detail": str(error)}
        return JSONResponse(content, 400, media_type="application/problem+json")

    @app.post("/search")
    def search(question: dict[str, Any]) -> dict[str, Any]:
        query = Query.from_dict(question)
        passage = query.start_s is not None or query.clip is not None
        searcher = searchers["clips" if passage else "recordings"]
        index = searcher.index
        answer = asdict(searcher.search(query))
        return {**answer, "kind": index.kind, "version": index.version_id}

    @app.get("/aspects")
    def aspects() -> dict[str, Any]:
        index = clips.index
        steered = directed(index)
        keys = ("resolved", "r2", "interval", "finding", "reason")
        told = [
            {
                "name": name,
                "description": ASPECT_REGISTRY[name].description,
                "directed": name in steered,
                **{key: entry.get(key) for key in keys},
            }
            for name, entry in index.aspects["aspects"].items()
        ]
        return {"aspects": told}

    @app.get("/recordings")
    def recordings(q: str = "", offset: int = 0, limit: int = 50) -> dict[str, Any]:
        rows = searchers["recordings"].index.rows
        found = [
            row
            for row in rows
            if all(w in " ".join(_facts(row).values()).lower() for w in q.lower().split())
        ]
        page = [_recording(row) for row in found[offset : offset + limit]]
        return {"total": len(found), "offset": offset, "recordings": page}

    @app.get("/recordings/{recording_id}")
    def recording(recording_id: str) -> dict[str, Any]:
        index = clips.index
        if recording_id not in index.rows.numbers:
            raise SearchError(f"recording {recording_id!r} is not in the index")
        positions = index.rows.positions(recording_id)
        table = index.rows.table[positions]
        whole = searchers["recordings"].index
        row = whole.rows[int(whole.rows.positions(recording_id)[0])]
        work = index.rows.recordings["work_id"]
        others = [
            n for n, w in zip(index.rows.numbers, work, strict=True) if w == row.work_id and w
        ]
        values = {
            name: [_number(v) for v in index.predicted[a.number, positions].tolist()]
            for name, a in index.projection.aspects.items()
            if name in directed(index)
        }
        times = ("start_s", "end_s", "work_start_s", "work_end_s")
        windows = {name: [_number(v) for v in table[name].tolist()] for name in times}
        performances = [n for n in others if n != recording_id]
        return {
            **_recording(row),
            "windows": windows,
            "aspects": values,
            "performances": performances,
        }

    @app.get("/audio/{recording_id}")
    def audio(recording_id: str) -> FileResponse:
        return FileResponse(next(r.audio for r in listed if r.recording_id == recording_id))

    @app.get("/version")
    def version() -> dict[str, Any]:
        versions = {kind: s.index.version_id for kind, s in searchers.items()}
        facts = clips.index.facts
        return {"dataset": facts["dataset"], "encoder": facts["encoder"], "versions": versions}

    app.mount("/", StaticFiles(directory=_PAGE, html=True))
    return app


def _facts(row: Any) -> dict[str, str]:
    return {name: getattr(row, name) for name in FIELDS}


def _recording(row: Any) -> dict[str, Any]:
    return {**_facts(row), "duration_s": row.end_s, "audio": True}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
