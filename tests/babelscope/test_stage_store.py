"""Stages of an interrupted run: read back, never measured twice, and of this run alone."""

import math

import pytest

from babelscope.errors import ArtifactError
from babelscope.study.stage_store import PLAN, STAGES, StageStore, check_free, read_kept


def opened(folder, **plan):
    store = StageStore(folder)
    store.check_plan(plan)
    return store


def never():
    raise AssertionError("measured again")


def test_a_stage_is_measured_once_and_read_back_with_its_seconds(tmp_path):
    store = opened(tmp_path, model="a")
    assert not store.resumed
    assert store.stage("first", lambda: {"x": math.nan, "pair": (1, 2)}) == {"x": None, "pair": [1, 2]}
    again = opened(tmp_path, model="a")
    assert again.resumed
    assert again.stage("first", never) == {"x": None, "pair": [1, 2]}
    assert (again.seconds, again.peak_mib) == (store.seconds, store.peak_mib) and again.peak_mib["first"] > 0


def test_a_stage_of_another_plan_or_name_is_not_taken(tmp_path):
    opened(tmp_path, model="a").stage("first", lambda: {"x": 1})
    with pytest.raises(ArtifactError, match="a run that differs in model; expected the same"):
        opened(tmp_path, model="b")
    stages = tmp_path / STAGES
    (stages / "first.json").rename(stages / "second.json")
    with pytest.raises(ArtifactError, match="holds another run"):
        opened(tmp_path, model="a").stage("second", never)


def test_a_failed_stage_leaves_nothing_that_is_read_back(tmp_path):
    with pytest.raises(AssertionError, match="measured again"):
        opened(tmp_path, model="a").stage("first", never)
    store = opened(tmp_path, model="a")
    assert store.stage("first", lambda: {"x": 2}) == {"x": 2}


def test_a_refused_run_takes_its_plan_away_and_one_with_a_stage_stays(tmp_path):
    opened(tmp_path / "refused", model="a").abandon()
    assert not any((tmp_path / "refused").iterdir())
    store = opened(tmp_path / "begun", model="a")
    store.stage("first", lambda: {"x": 1})
    store.abandon()
    assert (tmp_path / "begun" / PLAN).is_file() and (tmp_path / "begun" / STAGES).is_dir()
    store.tidy()
    assert [path.name for path in (tmp_path / "begun").iterdir()] == [PLAN]


def test_a_folder_is_free_or_holds_a_run_to_go_on_with(tmp_path):
    check_free(tmp_path / "new", resume=False)
    check_free(tmp_path / "new", resume=True)
    (tmp_path / "file").write_text("a")
    with pytest.raises(ArtifactError, match="is a file"):
        check_free(tmp_path / "file", resume=True)
    with pytest.raises(ArtifactError, match=f"no run to go on with, {PLAN} is missing"):
        check_free(tmp_path, resume=True)
    opened(tmp_path, model="a")
    check_free(tmp_path, resume=True)
    with pytest.raises(ArtifactError, match="already there"):
        check_free(tmp_path, resume=False)


def test_what_a_run_wrote_has_all_its_keys(tmp_path):
    file = tmp_path / "kept.json"
    file.write_text('{"seconds": 1}')
    assert read_kept(file, ("seconds",), "remove it") == {"seconds": 1}
    with pytest.raises(ArtifactError, match="has no found; expected what a run wrote; remove it"):
        read_kept(file, ("seconds", "found"), "remove it")
    file.write_text("[1]")
    with pytest.raises(ArtifactError, match="is no object"):
        read_kept(file, (), "remove it")
