"""Figures about features show the numbers they were given."""

import math

import numpy as np
import pytest

from babelscope.errors import MeasurementError
from babelscope.figures.feature_figures import SettingPoint, harm_ratios, setting_sensitivity


def test_settings_have_a_column_each_with_sizes_above_and_agreement_below():
    points = [
        SettingPoint("tau", value, tag, size, jaccard)
        for value, tag, size, jaccard in (
            (0.3, "en", 8, 0.5),
            (0.3, "fi", 4, math.nan),
            (0.5, "en", 6, 1),
            (0.5, "fi", 2, 1),
        )
    ] + [SettingPoint("ratio", "inf", "en", 0, 0.25), SettingPoint("ratio", "inf", "fi", 2, 0.75)]
    figure = setting_sensitivity(points)
    assert len(figure.data) == 2 * 2 * 3
    means = [trace for trace in figure.data if trace.name == "mean over languages"]
    assert [list(trace.y) for trace in means] == [[6, 4], [0.5, 1], [1], [0.5]]
    assert [list(trace.x) for trace in means[:1]] == [["0.3", "0.5"]] and means[2].xaxis != means[0].xaxis
    axes = [figure.layout[name] for name in ("xaxis", "xaxis2", "xaxis3", "xaxis4")]
    assert {axis.type for axis in axes} == {"category"}, "sizes above stand over the same values below"
    numbers = setting_sensitivity([SettingPoint("ratio", value, "en", 1, 1) for value in (3.0, 10.0)])
    assert list(numbers.data[0].x) == ["3", "10"]
    with pytest.raises(MeasurementError, match="no point came"):
        setting_sensitivity([])


def test_harm_ratios_leave_out_what_a_log_axis_can_not_show():
    rows = np.array([[6.0, 4.0, 9.0], [-1.0, -2.0, 0.5]])
    figure = harm_ratios(ratios={"others": rows, "matched": rows + 10}, languages=["en", "fi"])
    first = np.array(figure.data[0].x, dtype=float)
    assert first[0] == 6 and np.isnan(first[1]) and list(figure.data[1].x) == [16, 9]
    assert figure.layout.xaxis.type == "log" and [trace.name for trace in figure.data] == ["others", "matched"]
