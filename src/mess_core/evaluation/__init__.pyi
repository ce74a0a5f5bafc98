from .corpus import evaluate as evaluate
from .judges import (
    Figure as Figure,
    Rows as Rows,
    cosine as cosine,
    like_not as like_not,
    more as more,
    same_passage as same_passage,
    within_works as within_works,
)
