from .corpus import evaluate as evaluate
from .geometry import learn_from as learn_from
from .judges import (
    Figure as Figure,
    Rows as Rows,
    cosine as cosine,
    like_not as like_not,
    more as more,
    same_passage as same_passage,
    within_works as within_works,
)
from .judgments import (
    Judgment as Judgment,
    Passage as Passage,
    alpha as alpha,
    counted as counted,
    gather as gather,
    judge_files as judge_files,
    judge_people as judge_people,
    read_judgments as read_judgments,
    read_ratings as read_ratings,
)
from .spaces import Space as Space, apart as apart, search_of as search_of, spaces_of as spaces_of
from .study import make_study as make_study
