"""The benchmark's plumbing, with a clock of our own: no machine here has a GPU."""

import csv
import json
import math

import pytest
import torch
from babelscope_kernels import KernelError, bench, timing
from babelscope_kernels.bench import Ceilings, append, ceilings, main, rows_of
from babelscope_kernels.checking import Outcome
from babelscope_kernels.names import NAMES
from babelscope_kernels.timing import Spread, Timing, on_cpu, spread, timings_of

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
    rows = rows_of("k", one(ours=int, eager=int), clock(ours=2.0, eager=5.0), BEST, FACTS)
    # 10⁸ B at 100 GB/s take 1 ms; 10⁹ operations at 2 TFLOP/s take 0.5 ms; the longer one is the limit.
    assert [(row.form, row.roofline_share, row.times_ours) for row in rows] == [("ours", 0.5, 1.0), ("eager", 0.2, 2.5)]
    assert (rows[0].median, rows[0].p20, rows[0].gbps, rows[0].tflops) == (2.0, 1.8, 50.0, 0.5)


def test_a_baseline_that_can_not_run_is_left_out_and_named(caplog):
    rows = rows_of("k", one(ours=int, compiled=fail), clock(ours=2.0, compiled=1.0), BEST, FACTS)
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
    rows = rows_of("k", one(ours=int), clock(ours=2.0), BEST, FACTS)
    append(tmp_path, rows)
    before = (tmp_path / "k.csv").read_text()
    append(tmp_path, rows)
    assert (tmp_path / "k.csv").read_text().startswith(before)
    read = list(csv.DictReader((tmp_path / "k.csv").read_text().splitlines()))
    assert len(read) == 2 and read[0] == read[1] and read[0]["gpu"] == "none" and float(read[0]["median"]) == 2.0


def test_a_missing_folder_of_results_is_one_clear_line(tmp_path):
    with pytest.raises(KernelError, match="does not exist; make it, or give another with --results"):
        append(tmp_path / "none", [])


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
    assert {row["timing"] for row in rows} == {"counts", "sums"} and "ours" in {row["form"] for row in rows}
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
