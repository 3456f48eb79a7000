"""The benchmarks of kernels on the CPU run on something small, and say what they must of memory and equality."""

import importlib.util
import sys
from pathlib import Path

import torch

from babelscope.runs import Run

FOLDER = Path(__file__).parents[2] / "experiments"


def rows(name, tmp_path, **settings):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run = Run(tmp_path)
    module.run(module.Config(rounds=2, threads=torch.get_num_threads(), **settings), run)
    return run.results()


def test_sae_counts_are_equal_and_hold_two_chunks_of_many(tmp_path):
    found = rows("benchmark_sae_counts", tmp_path, tokens=64, hidden=16, features=8192, languages=3)
    assert [(row["base"], row["clock"]) for row in found] == [
        (base, clock) for base in ("encode then sum", "products alone") for clock in ("wall", "process")
    ]
    # 64 × 512 scores in float32 against 64 × 8192; counts are 3 × 8192 in int64
    assert {row["largest_tensor_share"] for row in found} == {0.09375}
    assert all(row["counts_equal"] and row["low"] <= row["times_faster"] <= row["high"] for row in found)


def test_attention_statistics_hold_a_small_part_of_what_patterns_hold(tmp_path):
    found = rows("benchmark_attention_stats", tmp_path, tokens=512, shapes=("8,4,8",))
    assert len(found) == 4 and all(row["entropy_gap_nats"] < 1e-5 for row in found)
    assert all(row["memory_share"] < 0.2 for row in found if row["base"] == "eager patterns")
    assert all(0 < row["low"] <= row["times_faster"] <= row["high"] for row in found)


def test_a_head_in_parts_gives_the_losses_of_the_whole_one(tmp_path):
    found = rows("benchmark_head", tmp_path, entries=(5000, 40_000), hidden=16, rows=8)
    assert [(row["entries"], row["dtype"]) for row in found] == [
        (entries, dtype) for entries in (5000, 40_000) for dtype in ("float32", "bfloat16")
    ]
    assert [row["read_in_parts"] for row in found] == [False, False, True, True]
    assert all(
        row["largest_difference_nats"] < 1e-5 and row["low"] <= row["times_faster"] <= row["high"] for row in found
    )


def test_tokens_drawn_by_one_number_a_row_fit_their_probabilities(tmp_path):
    found = rows("benchmark_drawing", tmp_path, entries=(700, 33_000), rows=512)
    assert [(row["entries"], row["drawn_so"]) for row in found] == [(700, False), (33_000, True)]
    assert all(row["low"] <= row["times_faster"] <= row["high"] for row in found)
    assert all(min(row["p_of_fit"], row["p_of_fit_multinomial"]) > 1e-3 for row in found)
