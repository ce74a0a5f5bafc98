"""The statistics behind the lexicon's measured rows find what was planted."""

from itertools import permutations

import numpy as np
import pytest

from benchmarks.words import (
    DIRECTED,
    SCALES,
    average_precision,
    chance_precision,
    judge,
    learn,
    meaning,
    predict_held_out,
    within,
)
from mess_core.search.words import entries

pytestmark = pytest.mark.unit


def test_average_precision_is_the_mean_precision_where_something_wanted_is() -> None:
    wanted = np.array([False, True, False, True])
    assert average_precision(np.array([1, 0, 2, 3]), wanted) == (1 / 1 + 2 / 4) / 2
    assert average_precision(np.array([1, 3, 0, 2]), wanted) == 1


@pytest.mark.parametrize("right", [1, 2, 5])
def test_chance_is_the_mean_over_all_orders(right: int) -> None:
    wanted = np.arange(5) < right
    orders = [average_precision(np.array(order), wanted) for order in permutations(range(5))]
    assert chance_precision(5, right) == pytest.approx(np.mean(orders))


def test_weights_are_found_within_passages_and_predict_other_works() -> None:
    rng = np.random.default_rng(0)
    passages, works = np.repeat(np.arange(20), 12).astype(str), np.repeat(["a", "b"], 120)
    # Fast pieces are rated as slow: between passages everything is the other way round.
    piece = np.repeat(rng.normal(size=20), 12)
    X = rng.normal(size=(240, len(DIRECTED)))
    tempo, pedal = DIRECTED.index("tempo"), DIRECTED.index("pedal")
    Y = rng.normal(size=(240, len(SCALES)))
    slow = SCALES.index("s12")
    Y[:, slow] += -2 * X[:, tempo] + X[:, pedal] + 20 * piece
    X[:, tempo] += 5 * piece
    X, Y = within(X, passages), within(Y, passages)
    found = meaning(learn(X, Y)[:, slow])
    assert list(found) == ["tempo", "pedal"]
    assert found["tempo"] == -1
    assert found["pedal"] == pytest.approx(0.3, abs=0.1)  # 0.5, shrunk towards what is said: 0
    predicted = predict_held_out(X, Y, works)
    fits = [judge(Y[:, j], predicted[:, j], passages) for j in range(len(SCALES))]
    assert fits[slow].r > 0.85
    assert sum(fit.interval[0] > 0 for fit in fits) <= 3


def test_the_lexicon_has_both_ends_of_a_scale_measured_alike() -> None:
    slow, fast = entries()["slow"], entries()["fast"]
    assert "percepiano-s12" in slow.source.split()
    assert slow.aspects == {name: -weight for name, weight in fast.aspects.items()}
    assert entries()["convincing"].aspects == {}
