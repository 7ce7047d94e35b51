from __future__ import annotations

import re

import numpy as np
import pytest

from qmmlmm.runs.report.line_figure import BOTTOM, HEIGHT, LEFT, MOST_POINTS, RIGHT, TOP, WIDTH, Curve, line_figure
from tests.html_pages import Page

X_LABEL, Y_LABEL = "time (ps)", "energy (kJ/mol)"


def drawn(*curves: Curve) -> Page:
    return Page(line_figure(curves, X_LABEL, Y_LABEL))


def points(page: Page, kind: str = "polyline") -> list[np.ndarray]:
    return [
        np.array([[float(x) for x in pair.split(",")] for pair in element["points"].split()])
        for element in page.elements(kind)
    ]


def test_points_are_where_the_numbers_on_the_axes_say():
    page = drawn(Curve("a", np.array([0.0, 5.0, 10.0]), np.array([-1.0, 0.0, 1.0]), "#000"))
    (found,) = points(page)
    np.testing.assert_allclose(found[:, 0], [LEFT, 0.5 * (LEFT + WIDTH - RIGHT), WIDTH - RIGHT], atol=0.06)
    assert found[1, 1] == pytest.approx(0.5 * (TOP + HEIGHT - BOTTOM), abs=0.06)
    assert found[0, 1] > found[1, 1] > found[2, 1]
    assert X_LABEL in page.text
    assert Y_LABEL in page.text
    assert "-1.0 -0.5 0.0 0.5 1.0 0 2 4 6 8 10" in page.text


def test_many_rows_become_means_with_the_range_around_them():
    x = np.arange(10 * MOST_POINTS, dtype=float)
    y = np.where(np.arange(len(x)) % 2, 1.0, -1.0)
    page = drawn(Curve("noise", x, y, "#000"))
    (means,), (around,) = points(page), points(page, "polygon")
    assert len(means) == MOST_POINTS
    assert np.ptp(means[:, 1]) < 1.0
    assert np.ptp(around[:, 1]) > 0.85 * (HEIGHT - TOP - BOTTOM)


def test_what_is_not_finite_is_left_out():
    page = drawn(Curve("a", np.arange(4.0), np.array([0.0, np.nan, np.inf, 1.0]), "#000"))
    assert len(points(page)[0]) == 2
    assert "nan" not in page.text


@pytest.mark.parametrize("value", [0.0, -1.5e6, 1e-12])
def test_a_constant_has_a_frame_around_it(value):
    (found,) = points(drawn(Curve("a", np.array([1.0]), np.array([value]), "#000")))
    assert (found[:, 1] > TOP).all()
    assert (found[:, 1] < HEIGHT - BOTTOM).all()


def test_a_curve_without_points_says_so():
    assert drawn(Curve("a", np.zeros(0), np.zeros(0), "#000")).text == "No rows yet."


def test_names_are_escaped_and_in_the_key():
    text = line_figure([Curve("<i>x</i>", np.arange(2.0), np.arange(2.0), "#123456")], X_LABEL, "<y>")
    assert "&lt;i&gt;x&lt;/i&gt;" in text
    assert not re.search("<y>", text)
    assert "background:#123456" in text
