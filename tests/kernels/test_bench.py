"""The benchmark's plumbing, with a clock of our own: no machine here has a GPU."""

import csv
import json
import math

import pytest
import torch
from babelscope_kernels import KernelError, bench, timing
from babelscope_kernels.bench import Ceilings, ceilings, main, rows_of
from babelscope_kernels.checking import Outcome
from babelscope_kernels.names import NAMES
from babelscope_kernels.results import append, measured
from babelscope_kernels.timing import Deadline, Spread, Timing, on_cpu, spread, timings_of

FACTS = {"gpu": "none", "torch": "1", "triton": "2", "commit": "abc", "date": "today"}
BEST = Ceilings(copy_gbps=100.0, matmul_tflops=2.0)
CPU = torch.device("cpu")


def clock(**milliseconds):
    """A timer that runs each form once and answers what it was told."""

    def timer(forms):
        for form in forms.values():
            form()
        return {name: Spread(milliseconds[name], 0.9 * milliseconds[name], 2.0) for name in forms}

    return timer


def fail():
    raise RuntimeError("no compiler\nand a long trace")


def one(**forms):
    return Timing("forward", "8x8", "bfloat16", forms, bytes=10**8, flops=10**9)


def test_shares_and_ratios_by_hand():
    rows = rows_of("k", one(ours=int, eager=int), clock(ours=2.0, eager=5.0), BEST, FACTS).rows
    # 10⁸ B at 100 GB/s take 1 ms; 10⁹ operations at 2 TFLOP/s take 0.5 ms; the longer one is the limit.
    assert [(row.form, row.roofline_share, row.times_ours) for row in rows] == [("ours", 0.5, 1.0), ("eager", 0.2, 2.5)]
    assert (rows[0].median, rows[0].p20, rows[0].gbps, rows[0].tflops) == (2.0, 1.8, 50.0, 0.5)


def test_a_baseline_that_can_not_run_is_left_out_and_named(caplog):
    rows = rows_of("k", one(ours=int, compiled=fail), clock(ours=2.0, compiled=1.0), BEST, FACTS).rows
    assert [row.form for row in rows] == ["ours"]
    assert [record.getMessage() for record in caplog.records] == ["forward: form compiled left out: no compiler"]


def test_our_own_form_must_run():
    with pytest.raises(RuntimeError, match="no compiler"):
        rows_of("k", one(ours=fail, eager=int), clock(ours=1.0, eager=1.0), BEST, FACTS)


def test_no_number_is_given_on_a_red_case(monkeypatch):
    red = Outcome("odd", "hidden", 0.5, 1e-6, True, "")
    monkeypatch.setattr(bench, "check", lambda *words: [red])
    monkeypatch.setattr(bench, "timings_of", lambda *words, **more: pytest.fail("timed all the same"))
    with pytest.raises(KernelError, match="swiglu: 1 outcomes are red, so nothing is timed"):
        bench.bench("swiglu", CPU, clock(), BEST, FACTS)


def test_ceilings_count_both_ways_of_a_copy():
    best = ceilings(CPU, clock(copy=1.0, matmul=2.0), n_copy=1000, n_matmul=10)
    assert best == Ceilings(copy_gbps=8000 / 1e6, matmul_tflops=2000 / 2e9)


def test_rows_are_added_and_never_edited(tmp_path):
    rows = rows_of("k", one(ours=int), clock(ours=2.0), BEST, FACTS).rows
    append(tmp_path, rows)
    before = (tmp_path / "k.csv").read_text()
    append(tmp_path, rows)
    assert (tmp_path / "k.csv").read_text().startswith(before)
    read = list(csv.DictReader((tmp_path / "k.csv").read_text().splitlines()))
    assert len(read) == 2 and read[0] == read[1] and read[0]["gpu"] == "none" and float(read[0]["median"]) == 2.0


def test_a_missing_folder_of_results_is_one_clear_line(tmp_path):
    with pytest.raises(KernelError, match="does not exist; make it, or give another with --results"):
        append(tmp_path / "none", [])


def test_a_write_that_fails_leaves_the_old_rows(tmp_path, monkeypatch):
    rows = rows_of("k", one(ours=int), clock(ours=2.0), BEST, FACTS).rows
    append(tmp_path, rows)
    before = (tmp_path / "k.csv").read_bytes()

    def ended(path, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(tmp_path), "replace", ended)
    with pytest.raises(KeyboardInterrupt):
        append(tmp_path, rows)
    assert (tmp_path / "k.csv").read_bytes() == before


def test_parts_of_what_is_left_by_hand():
    time = [100.0]
    deadline = Deadline(160.0, lambda: time[0])
    assert deadline.left() == 60 and deadline.part(4).left() == 15
    time[0] = 155.0
    assert deadline.part(5).left() == 1 and deadline.part(4).end == 156.25


def at(seconds):
    return Deadline(seconds, lambda: 10.0)


def test_after_the_deadline_baselines_are_left_out_and_named_but_ours_is_timed():
    found = rows_of("k", one(ours=int, eager=fail), clock(ours=2.0), BEST, FACTS, at(10.0))
    assert [row.form for row in found.rows] == ["ours"] and found.left_out == ["forward 8x8 bfloat16: eager"]
    found = rows_of("k", one(ours=int, eager=int), clock(ours=2.0, eager=1.0), BEST, FACTS, at(10.5))
    assert [row.form for row in found.rows] == ["ours", "eager"] and found.left_out == []


def three(monkeypatch, *sizes, forms=("ours", "eager")):
    """A kernel of three timings, the work of whose forms takes the given seconds of a clock, and that clock."""
    time = [0.0]

    def work(seconds):
        time[0] += seconds

    def timings(kernel, device, small):
        for number, seconds in enumerate(sizes):
            yield Timing("forward", f"{number}", "float32", dict.fromkeys(forms, lambda s=seconds: work(s)), 1, 1)

    monkeypatch.setattr(bench, "check", lambda *words: [])
    monkeypatch.setattr(bench, "timings_of", timings)
    return time


def test_rows_are_kept_as_they_come_and_what_no_time_was_left_for_is_named(monkeypatch):
    time, kept = three(monkeypatch, 5, 20, 5, 1), []
    found = bench.bench(
        "k",
        CPU,
        clock(ours=1.0, eager=1.0),
        BEST,
        FACTS,
        deadline=Deadline(60.0, lambda: time[0]),
        keep=lambda rows: kept.append([(row.shape, row.form) for row in rows]),
    )
    # The clock's timer runs each form once more. First: 5 for eager's trial, 10 timed, 15 in all. Second: a half of 45
    # is left, 20 for the trial, 40 timed: at 75 the time is over.
    assert kept == [[("0", "ours"), ("0", "eager")], [("1", "ours"), ("1", "eager")]]
    assert found.left_out == ["forward 2 float32", "forward 3 float32"]


def test_rows_before_a_fault_are_kept(monkeypatch, tmp_path):
    three(monkeypatch, 1, 1, 1)
    calls = iter([clock(ours=1.0, eager=1.0), lambda forms: fail()])
    with pytest.raises(RuntimeError, match="no compiler"):
        bench.bench("k", CPU, lambda forms: next(calls)(forms), BEST, FACTS, keep=lambda rows: append(tmp_path, rows))
    assert len((tmp_path / "k.csv").read_text().splitlines()) == 3


def test_a_second_call_goes_on_where_the_first_ended(monkeypatch, tmp_path):
    time = three(monkeypatch, 1, 1, 1)
    options = {"keep": lambda rows: append(tmp_path, rows)}
    timer = clock(ours=1.0, eager=1.0)
    bench.bench("k", CPU, timer, BEST, FACTS, deadline=Deadline(4.0, lambda: time[0]), **options)
    done = measured(tmp_path, "k", FACTS)
    assert done == {("forward", shape, "float32", form) for shape in "01" for form in ("ours", "eager")}
    rest = bench.bench("k", CPU, timer, BEST, FACTS, done=done, **options)
    assert [(row.shape, row.form) for row in rest.rows] == [("2", "ours"), ("2", "eager")]
    monkeypatch.setattr(bench, "check", lambda *words: pytest.fail("checked with nothing to time"))
    done = measured(tmp_path, "k", {**FACTS, "date": "tomorrow"})
    assert bench.bench("k", CPU, timer, BEST, FACTS, done=done, **options).rows == []


def test_rows_of_another_state_are_not_this_ones(tmp_path):
    append(tmp_path, rows_of("k", one(ours=int), clock(ours=2.0), BEST, FACTS).rows)
    assert measured(tmp_path, "k", FACTS) and not measured(tmp_path, "other", FACTS)
    assert not measured(tmp_path, "k", {**FACTS, "gpu": "another"})
    changed = {**FACTS, "commit": "abc+"}
    append(tmp_path, rows_of("j", one(ours=int), clock(ours=2.0), BEST, changed).rows)
    assert not measured(tmp_path, "j", changed)


def children(monkeypatch, seconds):
    """Processes that take so long, on a clock of our own; the first line of each that is begun."""
    time, begun = [0.0], []

    def run(command, timeout):
        kernel, part = command[3], float(command[command.index("--budget") + 1])
        begun.append((kernel, round(part, 6), round(timeout, 6)))
        time[0] += min(seconds[kernel], timeout)
        if seconds[kernel] > timeout:
            row = {"timing": "forward", "shape": "8", "dtype": "float32"}
            with open(command[command.index("--json") + 1], "w") as file:
                json.dump([row], file)
            raise bench.subprocess.TimeoutExpired(command, timeout)
        return bench.subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(bench.subprocess, "run", run)
    monkeypatch.setattr(bench.time, "monotonic", lambda: time[0])
    monkeypatch.setattr(bench, "Deadline", lambda end: Deadline(end, lambda: time[0]))
    monkeypatch.setattr(bench, "NAMES", tuple(seconds))
    return time, begun


def test_all_shares_its_budget_and_what_one_leaves_the_next_have(monkeypatch, tmp_path):
    time, begun = children(monkeypatch, {"a": 4, "b": 9, "c": 1})
    assert main(["all", "--cpu", "--budget", "30", "--results", str(tmp_path)], [].append) == 0
    assert begun == [("a", 10, 20), ("b", 13, 26), ("c", 17, 17)] and time[0] < 30


def test_all_ends_within_its_budget_whatever_its_kernels_do(monkeypatch, tmp_path):
    time, begun = children(monkeypatch, {"a": 10**6, "b": 10**6, "c": 10**6})
    said, file = [], tmp_path / "rows.json"
    assert main(["all", "--cpu", "--budget", "30", "--json", str(file)], said.append) == 1
    assert begun == [("a", 10, 20), ("b", 5, 10)] and time[0] == 30
    assert said == [
        "a: ended after 20 s, left out for time: all timings but forward 8 float32\n",
        "b: ended after 10 s, left out for time: all timings but forward 8 float32\n",
        "c: left out for time: not begun\n",
    ]
    assert len(json.loads(file.read_text())) == 2


def test_a_call_without_time_names_every_timing_and_ends_with_one(monkeypatch, tmp_path):
    three(monkeypatch, 1, 1)
    monkeypatch.setattr(bench, "on_cpu", lambda forms: {name: Spread(1.0, 1.0, 1.0) for name in forms})
    said = []
    assert main(["swiglu", "--cpu", "--budget", "0"], said.append) == 1
    assert said[1] == "swiglu: left out for time: forward 0 float32; forward 1 float32\n"


def test_without_a_gpu_it_says_so_and_ends_with_one():
    said = []
    assert main(["all"], said.append) == 1
    assert said == ["no CUDA device was found, and the kernels are timed on one; give --cpu for the torch forms\n"]


def test_the_cpu_run_writes_json_and_adds_no_row(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "check", lambda *words: [])
    monkeypatch.setattr(bench, "on_cpu", lambda forms: {name: Spread(1.0, 1.0, 1.0) for name in forms})
    said, file = [], tmp_path / "rows.json"
    assert main(["active_counts", "--cpu", "--json", str(file), "--results", str(tmp_path)], said.append) == 0
    rows = json.loads(file.read_text())
    assert {row["timing"] for row in rows} == {"counts", "column sums"}
    assert "ours" in {row["form"] for row in rows}
    assert rows[0]["gpu"].startswith("cpu") and not list(tmp_path.glob("*.csv")) and "of limit" in said[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_kernel_has_timings_whose_forms_run(name):
    names = []
    for entry in timings_of(name, CPU, small=True):
        assert entry.bytes > 0 and entry.flops >= 0 and timing.OURS in entry.forms and len(entry.forms) > 1
        for form in entry.forms.values():
            form()
        names.append((entry.name, entry.shape))
    assert names and len(set(names)) == len(names)


def test_forms_take_turns_and_the_first_round_is_not_counted():
    calls = []
    found = on_cpu({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    assert calls == ["a", "b"] * 4 and set(found) == {"a", "b"}


def test_spread_by_hand():
    assert spread([5.0, 1.0, 2.0, 3.0, 4.0, 6.0]) == Spread(3.5, 2.0, 5.0)
    assert math.isclose(spread([2.0, 2.0]).p80, 2.0)


def test_a_kernel_without_timings_is_refused(monkeypatch):
    from babelscope_kernels.swiglu import cases

    monkeypatch.delattr(cases, "timings")
    with pytest.raises(KernelError, match="swiglu: its cases.py has no `timings`"):
        timings_of("swiglu", CPU, small=True)


def test_check_prints_every_red_outcome_and_times_nothing(monkeypatch, tmp_path):
    red = [Outcome("odd", "hidden", 0.5, 1e-6, True, ""), Outcome("one", "counts", 0.0, 0.0, False, "")]
    good = Outcome("fine", "hidden", 0.0, 1e-6, True, "")
    monkeypatch.setattr(bench, "check", lambda *words: [red[0], good, red[1]])
    monkeypatch.setattr(bench, "timings_of", lambda *words, **more: pytest.fail("timed all the same"))
    said = []
    assert main(["swiglu", "--check", "--cpu"], said.append) == 1
    assert "".join(said).splitlines() == [
        "swiglu: 2 outcomes are red, of 3:",
        "  odd: hidden: error 0.5, at most 1e-06",
        "  one: counts: error 0, at most 0, other bits on a repeat",
    ]
    monkeypatch.setattr(bench, "check", lambda *words: [good])
    said.clear()
    assert main(["swiglu", "--check", "--cpu"], said.append) == 0
    assert "".join(said) == "swiglu: 1 outcomes are good\n"


def test_without_git_the_commit_is_unknown(monkeypatch):
    def no_git(*words, **more):
        raise FileNotFoundError("git")

    monkeypatch.setattr(bench.subprocess, "run", no_git)
    assert bench.facts_of(CPU, "")["commit"] == "unknown"


def test_what_was_checked_is_timed_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "check", lambda *words: pytest.fail("checked again"))
    monkeypatch.setattr(bench, "timings_of", lambda *words, **more: iter([one(ours=int)]))
    monkeypatch.setattr(bench, "ceilings", lambda *words, **more: BEST)
    monkeypatch.setattr(bench, "on_cpu", clock(ours=2.0))
    assert main(["swiglu", "--checked", "--cpu", "--json", str(tmp_path / "rows.json")], lambda text: None) == 0
    assert len(json.loads((tmp_path / "rows.json").read_text())) == 1
