from .features import load_features as load_features
from .query import Query as Query
from .search import (
    Answer as Answer,
    Hit as Hit,
    Searcher as Searcher,
    search_features as search_features,
)
from .shortcuts import (
    find_similar as find_similar,
    search_by_aspect as search_by_aspect,
    search_by_aspects as search_by_aspects,
    search_by_clip as search_by_clip,
    search_by_vector as search_by_vector,
)
