"""Rocchio's rule."""

from __future__ import annotations

import numpy as np
import pytest

from server.gallery.feedback import RIGHT_WEIGHT, WRONG_WEIGHT, reweight

X, Y, Z = np.eye(3, dtype=np.float32)
NONE = np.empty((0, 3), np.float32)


def test_query_moves_towards_the_mean_of_right_and_away_from_wrong() -> None:
    found = reweight(X[None], np.stack([Y, Y]), Z[None])
    expected = np.array([1, RIGHT_WEIGHT, -WRONG_WEIGHT])
    np.testing.assert_allclose(found, [expected / np.linalg.norm(expected)], rtol=1e-6)


def test_each_query_is_moved_and_stays_of_unit_length() -> None:
    found = reweight(np.stack([X, Y]), Z[None], NONE)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    assert found.shape == (2, 3)
    assert (found @ Z > 0.5).all()


def test_no_marks_change_nothing() -> None:
    np.testing.assert_array_equal(reweight(X[None], NONE, NONE), X[None])


def test_marks_that_cancel_the_query_out_are_refused() -> None:
    with pytest.raises(ValueError, match="cancel out"):
        reweight(X[None], -(X[None] / np.float32(RIGHT_WEIGHT)), NONE)
