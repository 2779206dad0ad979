import math
import re
import xml.dom.minidom

import pytest

from evaluation.report.charts import (
    Axis,
    Scale,
    Series,
    histogram,
    line_chart,
    smoothed,
    spell,
    thinned,
)


def svg_of(figure):
    return xml.dom.minidom.parseString(re.search(r"<svg.*</svg>", figure, re.S).group(0))


def points_of(figure):
    lines = svg_of(figure).getElementsByTagName("polyline")
    return [
        [tuple(map(float, p.split(","))) for p in one.getAttribute("points").split()]
        for one in lines
    ]


def test_a_line_runs_from_corner_to_corner_of_its_range():
    figure = line_chart([Series("a", [0, 5, 10], [0, 1, 2])], "t", y_axis=Axis(range=(0, 2)))
    (line,) = points_of(figure)
    assert line == [(46.0, 198.0), (217.0, 105.0), (388.0, 12.0)]


def test_a_larger_error_scale_value_has_tenfold_fewer_errors_a_step():
    scale = Scale(0.0, 0.999, 0, 300, "error")
    assert [scale(value) for value in (0.0, 0.9, 0.99, 0.999)] == [0, 100, 200, 300]


def test_a_log_scale_has_decades_for_ticks():
    assert Scale(1e-4, 1.0, 0, 1, "log").ticks() == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1.0])


@pytest.mark.parametrize("low, high", [(0, 1), (0.013, 0.021), (-5, 2000), (3, 3)])
def test_linear_ticks_are_few_and_inside(low, high):
    scale = Scale(low, high, 0, 1)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 7
    assert all(scale.low - 1e-9 <= tick <= scale.high + 1e-9 for tick in ticks)


def test_what_is_not_finite_is_left_out():
    series = Series("a", [0, 1, 2, 3], [1.0, math.nan, None, 2.0])
    assert len(points_of(line_chart([series], "t"))[0]) == 2


def test_nothing_to_draw_says_so():
    assert "Nothing logged yet" in line_chart([Series("a", [], [])], "t")
    assert "Nothing logged yet" in line_chart([Series("a", [1], [math.inf])], "t")


def test_a_thinned_line_keeps_its_spikes_and_its_ends():
    y = [0.0] * 5000
    y[2357] = 99.0
    thin = thinned(Series("a", list(range(5000)), y))
    assert len(thin.x) <= 242
    assert 99.0 in thin.y and thin.x[0] == 0 and thin.x[-1] == 4999


def test_a_mark_keeps_its_point_when_others_are_dropped():
    series = Series("a", [0, 1, 2], [math.nan, 0.5, 0.7], mark=2, mark_text="best")
    assert "best" in line_chart([series], "t")


def test_labels_of_marks_in_one_place_do_not_meet():
    series = [Series(str(i), [0, 9], [0.1, 0.9], f"c{i}", mark=1, mark_text="90 %") for i in (0, 1)]
    texts = [
        text
        for text in svg_of(line_chart(series, "t")).getElementsByTagName("text")
        if text.getAttribute("class").startswith("note")
    ]
    heights = [float(text.getAttribute("y")) for text in texts]
    assert abs(heights[0] - heights[1]) > 10


def test_a_title_cannot_break_the_page():
    assert "<script>" not in line_chart([Series("<script>", [0, 1], [0, 1])] * 2, "<script>")


def test_histogram_fills_only_the_wrong_side():
    figure = histogram([0.7, 0.8, 0.2], [0.1, 0.0, 0.6], 0.5, "t")
    wrong = [
        (rect.getAttribute("class"), float(rect.getAttribute("x")))
        for rect in svg_of(figure).getElementsByTagName("rect")
    ]
    assert sorted(kind for kind, _ in wrong) == ["wrong diff", "wrong same"]


def test_smoothed_values_of_a_constant_are_the_constant():
    assert smoothed([2.0] * 90) == pytest.approx([2.0] * 90)


@pytest.mark.parametrize(
    "value, form, text",
    [
        (0.9967, "percent", "99.67 %"),
        (0.5, "percent", "50 %"),
        (1500, "number", "1,500"),
        (0.00001, "number", "1e-5"),
        (0, "number", "0"),
        (0.25, "number", "0.25"),
    ],
)
def test_numbers_are_written_as_people_write_them(value, form, text):
    assert spell(value, form) == text
