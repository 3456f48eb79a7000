"""What a study and a sweep say to a person."""

from pathlib import Path

from babelscope.cli.studying import study_summary
from babelscope.cli.telling_steering import study_lines

RESULTS = {
    "neurons": {"fi": 1200, "ru": 7, "eu": 0},
    "top_rate": 0.05,
    "ablation": {"own_hurt_most": {"fi": True, "ru": False}},
    "steering": {
        "layer": 9,
        "strength": 1.0,
        "edge": ["layer 9, the last of 4 tried"],
        "macro": {"steered": [0.875, 0.84, 0.917], "native": [0.92, 0.886, 0.951], "random": [0.0, 0.0, 0.0]},
    },
    "seconds": {"open": 1.0, "total": 2880.0},
}


def test_a_study_says_what_holds_for_each_language_and_each_kind_of_answers():
    lines = study_lines(RESULTS, Path("out/report.html"))
    assert [line.split() for line in lines[1:4]] == [["fi", "1,200", "yes"], ["ru", "7", "no"], ["eu", "0", "–"]]
    assert lines[4].startswith("1 of 2 sets, at top_rate 0.05, hurt their own")
    assert lines[5].startswith("steering at layer 9, strength 1, in multiples")
    assert [" ".join(line.split()) for line in lines[7:10]] == [
        "steered 88 % 84 % to 92 %",
        "native text, the ceiling 92 % 89 % to 95 %",
        "random directions 0 % 0 % to 0 %",
    ]
    assert (
        lines[10] == "at the edge of what was tried: layer 9, the last of 4 tried; widen it by --layers or --strengths"
    )
    assert lines[11] == "took 48 min; intervals, controls and what does not hold: out/report.html"


def test_machines_get_the_fields_that_they_had_and_no_steering_where_none_was_asked_for():
    told = study_summary(Path("out"), RESULTS)
    assert list(told) == [
        "report",
        "neurons",
        "top_rate",
        "own_hurt_most",
        "steering_macro",
        "steering_edge",
        "seconds",
    ]
    assert told["own_hurt_most"] == 1 and told["report"] == "out/report.html"
    without = study_summary(Path("out"), {**RESULTS, "steering": None})
    assert "steering_macro" not in without and len(without.lines) == 6
