"""The measurement of a killed study, on a command that writes what a study writes."""

import json
import time
from pathlib import Path

import pytest
from robustness import real_study
from robustness.real_study import Config, measure

STAGES = ("observe", "control")


def like_a_study(words, *, forgets=False):
    """Two stages of a fifth of a second, each of which is written at its end and not done again."""
    out = Path(words[words.index("--out") + 1])
    (out / "stages").mkdir(parents=True, exist_ok=True)
    for name in STAGES:
        if not (out / f"{name}.txt").exists():
            (out / "stages" / f"{name}.work").mkdir(exist_ok=True)
            time.sleep(0.2)
            (out / f"{name}.txt").write_text("--resume" if forgets and "--resume" in words else "")
            (out / "stages" / f"{name}.work").rmdir()
    (out / "results.json").write_text(json.dumps({"seconds": dict.fromkeys(STAGES, 0.2)}))
    return 0


@pytest.mark.parametrize("forgets", [False, True])
def test_a_killed_study_is_compared_with_the_whole_one_and_its_loss_is_timed(forgets, tmp_path, monkeypatch):
    monkeypatch.setattr(real_study, "program", lambda words: like_a_study(words, forgets=forgets))
    monkeypatch.setattr(real_study, "POLL", 0.01)
    config = Config("MODEL", tmp_path / "work", kills=1)
    rows = measure(config)
    last = rows[-1]
    assert last["kills"] and set(last["kills"]) <= set(STAGES) and not last["left"]
    assert last["equal"] is not forgets
    assert 0.0 < last["most_lost"] < last["worst_moment"]["seconds"] + 30
    assert measure(config) == rows  # what is done is not done again
