"""Audio that a client sends: its features, computed in a process of its own, kept for a while."""

__all__ = ["Upload", "Uploads"]

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from fastapi import HTTPException, Request

from mess_core.errors import MessError
from mess_core.extraction.audio import validate_audio_file
from mess_core.search.query import Query
from mess_core.search.search import Answer, search_features

#: The most bytes and seconds of audio, and how many uploads are kept.
_LARGEST, _LONGEST_S, _KEPT = 50_000_000, 900, 32


class Upload(NamedTuple):
    """What `search_features` needs but index and query, and the options of `mess search`."""

    ask: Callable[..., Answer]
    encoder: Any
    #: Whether it is all of a recording, and no passage.
    whole: bool
    options: str


class Uploads:
    """Takes one upload at a time; ``embed`` is what `mess_core.cli.embed.embed_elsewhere` is."""

    def __init__(self, embed: Callable[..., tuple[Any, Any]]) -> None:
        self._embed, self._turn, self._kept = embed, asyncio.Lock(), dict[str, Upload]()

    def question(self, body: bytes, facts: Mapping[str, Any]) -> tuple[Query, Upload | None]:
        """Return the query in a body, and the upload, for an index, that it starts from, if any."""
        try:
            content = json.loads(body)
            token = str(content.pop("embedded"))
        except (ValueError, RecursionError, AttributeError, LookupError, TypeError):
            return Query.from_json(body), None
        found = self._kept.get(token)
        if not found or found.encoder != facts.get("encoder"):
            raise HTTPException(404, "this audio is not kept any more: send it again")
        return Query.from_dict(content), found

    async def take(
        self, request: Request, start_s: float | None, end_s: float | None, facts: Any
    ) -> dict[str, Any]:
        """Compute the features of a request's body, or of a passage of it, and keep them."""
        if self._turn.locked():
            raise HTTPException(503, "another upload is being read", {"Retry-After": "10"})
        async with self._turn:
            began = time.perf_counter()
            with TemporaryDirectory(prefix="mess-upload-") as folder:
                path = Path(folder) / "audio"
                await _receive(request, path)
                try:
                    info = await asyncio.to_thread(validate_audio_file, path, longest_s=_LONGEST_S)
                    made = await asyncio.to_thread(self._embed, path, start_s, end_s, facts)
                except MessError as error:
                    raise HTTPException(422, str(error).replace(f"{folder}/", "")) from None
        whole = start_s is None and end_s is None
        given = [("audio", "FILE"), ("from", start_s if whole else start_s or 0.0), ("to", end_s)]
        options = "".join(f" --{name} {value}" for name, value in given if value is not None)
        token, took_s = secrets.token_urlsafe(16), time.perf_counter() - began
        ask = partial(search_features, features=made[0], measured=made[1])
        self._kept[token] = Upload(ask, facts.get("encoder"), whole, options)
        if len(self._kept) > _KEPT:
            self._kept.pop(next(iter(self._kept)), None)
        return {"embedded": token, "duration_s": info.duration_s, "seconds": round(took_s, 3)}


async def _receive(request: Request, path: Path) -> None:
    with path.open("wb") as file:
        async for part in request.stream():
            file.write(part)
            if file.tell() > _LARGEST:
                raise HTTPException(413, f"the audio has more than {_LARGEST} bytes")
