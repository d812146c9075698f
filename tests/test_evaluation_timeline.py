"""The timeline of a video: probabilities of its windows, and how they are written down."""

import numpy as np
import pytest

from autodrive.evaluation.timeline import Timeline, mean_probabilities
from autodrive.schema import Question


def test_probabilities_average_the_option_orders():
    orders = [("normal", "event"), ("event", "normal")]
    questions = [Question(task="mcq", question="?", options=order) for order in orders]
    letters_only = [(np.log(0.3), np.log(0.1))] * 2  # prefers the first letter, whatever it stands for
    probabilities = mean_probabilities(questions, letters_only, ("normal", "event"))
    np.testing.assert_allclose(probabilities, [0.5, 0.5])
    words = [(np.log(0.3), np.log(0.1)), (np.log(0.1), np.log(0.3))]
    np.testing.assert_allclose(mean_probabilities(questions, words, ("normal", "event")), [0.75, 0.25])


def test_every_option_order_has_its_own_probabilities():
    questions = [Question(task="mcq", question="?", options=("normal", "event"))] * 2
    with pytest.raises(ValueError, match="shorter"):
        mean_probabilities(questions, [(0.0, 0.0)], ("normal", "event"))


def test_the_record_holds_every_window_and_the_best_one():
    probabilities = np.array([[0.75, 0.25], [1 / 3, 2 / 3]])
    timeline = Timeline(("normal", "event"), np.array([(0.0, 2.0), (0.50049, 2.1239)]), probabilities, best=1)
    second = {"start_s": 0.5, "end_s": 2.124, "probabilities": {"normal": 0.333333, "event": 0.666667}}
    assert timeline.record() == {
        "best_window": second,
        "windows": [{"start_s": 0.0, "end_s": 2.0, "probabilities": {"normal": 0.75, "event": 0.25}}, second],
    }


def test_windows_and_classes_must_all_be_there():
    windows_s, probabilities = np.array([(0.0, 2.0), (1.0, 3.0)]), np.array([[0.75, 0.25], [0.5, 0.5]])
    for timeline in (
        Timeline(("normal", "event"), windows_s[:1], probabilities, 0),
        Timeline(("normal", "near", "event"), windows_s, probabilities, 0),
    ):
        with pytest.raises(ValueError, match=r"shorter|longer"):
            timeline.record()
