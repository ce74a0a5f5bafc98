"""A searcher for services: it holds an index, and takes a newer one while it answers."""

__all__ = ["Searcher"]

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from mess_core.index.index import Index
from mess_core.search.query import Query
from mess_core.search.search import Answer, search, search_features


class Searcher:
    """Answers from the latest index that it has opened; threads may share it.

    Parameters
    ----------
    open_index : callable
        Opens the latest index; called once here, and by `refresh`.
    latest_version : callable, optional
        Tells the latest version's id, or None where that cannot be told, so that `refresh` need not
        open what it has.

    Examples
    --------
    >>> searcher = Searcher.of("s3://bucket/prefix", "demo", "clips", cache_dir=Path("cache"))
    >>> answer = searcher.search(Query("chopin_op28_7_singing", 5.0, 10.0, exclude="work"))
    """

    def __init__(
        self,
        open_index: Callable[[], Index],
        latest_version: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._open = open_index
        self._latest_version = latest_version
        self._refreshing = Lock()
        self._index = open_index()

    @classmethod
    def of(
        cls, location: str, dataset: str, kind: str, *, cache_dir: Path, client: Any = None
    ) -> "Searcher":
        """Open what is published; the parameters are those of `load_published`."""
        from mess_core.publishing import load_published, published_version

        return cls(
            lambda: load_published(location, dataset, kind, cache_dir=cache_dir, client=client),
            lambda: published_version(location, dataset, kind, client=client),
        )

    @property
    def index(self) -> Index:
        """The index that the next question is asked of. A later `refresh` does not change it."""
        return self._index

    def search(self, query: Query) -> Answer:
        """Answer a question; see `mess_core.search.search`."""
        return search(self._index, query)

    def search_features(self, features: npt.NDArray[np.floating[Any]], query: Query) -> Answer:
        """Answer a question about features; see `mess_core.search.search_features`."""
        return search_features(self._index, features, query)

    def refresh(self) -> bool:
        """Take the latest index, without a pause for those who search; say whether it is another.

        Questions that have begun end on the index that they began with. Where opening fails the old
        index stays, and the error of `load_published` is raised.
        """
        with self._refreshing:
            if self._latest_version() == self._index.version_id:
                return False
            latest = self._open()
            changed = latest.version_id != self._index.version_id
            if changed:
                self._index = latest
            return changed
