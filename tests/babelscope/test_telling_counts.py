"""What `observe`, `identify`, `direct` and `ablate` say to a person, by hand."""

from dataclasses import replace
from pathlib import Path

import torch
from conftest import tiny_model, tiny_tokenizer

from babelscope import ablation_matrix, mean_direction, observe, select_top_rate
from babelscope.cli.readable import aligned, result_lines, value_text
from babelscope.cli.telling_counts import (
    ablation_lines,
    direction_lines,
    few_document_lines,
    plan_lines,
    set_lines,
    share_text,
    spread,
    tokens_text,
)
from babelscope.controls import Stability
from babelscope.languages import Language
from babelscope.recording import ObservationPlan

TEXTS = {"en": ["a b c d e f"] * 4, "fi": ["b d f a a a"] * 4}
FI = Language("fi")


def test_figures_stand_in_words():
    assert aligned([["a", "bb"], ["ccc", "d"]]) == ["a    bb", "ccc   d"]
    assert [share_text(0.1234), share_text(-0.5, 0), share_text(float("nan"))] == ["12.3 %", "−50 %", "–"]
    assert [spread([0.5]), spread([0.5, -0.25, float("nan")])] == ["0.50", "0.50 (−0.25 to –)"]
    assert tokens_text({FI: 1234}) == "fi 1,234"
    plan = ObservationPlan(2000, 1_500_000, ("0.mlp_gate", "1.mlp_gate", "logits"))
    assert plan_lines(plan, 1000) == [
        "about 2,000 tokens (1,000 a language, fewer where its text is shorter)",
        "the Observation would take 1.5 MB of disk: mlp_gate of 2 layers, logits",
    ]
    assert "(all text)" in plan_lines(plan, None)[0]


def test_text_of_too_few_documents_for_identify_is_said():
    texts = {"en": [f"a b {i}" for i in range(200)], "fi": ["b d f"]}
    observation = observe(tiny_model("llama"), tiny_tokenizer(), texts, sites=["0.mlp_gate"], shards=32)
    (line,) = few_document_lines(observation, 32)
    assert line.startswith("few documents were read, fi in 1 of 32 shards: ") and "--tokens-per-language" in line
    assert few_document_lines(observation, 4) == []


def test_fields_of_a_result_are_read_without_braces():
    interval = {"estimate": 0.58333, "low": -0.5, "high": None, "n": 12}
    assert value_text(interval) == "0.5833 (−0.5 to –; n 12)"
    assert result_lines("success", interval) == ["success: 0.5833 (−0.5 to –; n 12)"]
    assert result_lines("bits_per_byte", {"en": 1.49843103, "fi": 123456.7}) == ["bits_per_byte: en 1.498, fi 123,457"]
    assert result_lines("left", {}) == ["left: none"] and result_lines("ended", [True, False]) == ["ended: yes, no"]
    rows = [{"off": "none", "answers": {"en": 2}}, {"off": "en", "answers": {"de": 1, "": 10}}]
    table = ["  off         answers", "  none           en 2", "  en    de 1, none 10"]
    assert result_lines("steps", rows) == ["steps:", *table]
    assert result_lines("by", {"fi": {"n": 1}, "en": {"n": 20}}) == ["by:", "       n", "  fi   1", "  en  20"]
    mixed = result_lines("by", {"fi": interval, "a\nb": [1, [2]]})
    assert mixed == ["by:", "  fi: 0.5833 (−0.5 to –; n 12)", "  a\\nb: 1, (2)"]


def test_sets_directions_and_harm_are_told_with_what_they_are_of():
    model, tokenizer, out = tiny_model("llama"), tiny_tokenizer(), Path("out")
    observation = observe(model, tokenizer, TEXTS, sites=["mlp_gate", "mlp_inner", "resid_out"], shards=2)
    sets = select_top_rate(observation, top_rate=0.2)
    row = Stability(0.5, 0.25, 0.75, 0.1, 0.4, 3, 0.3, -0.1, 0.6, ())
    head, names, line, rule = set_lines(sets, {FI: row}, 7, out)
    assert head == f"{sum(sets.sizes.values())} neurons at mlp_gate by {sets.method}, saved in out"
    assert names.split() == ["language", "neurons", "halves", "agree", "by", "chance", "lead"]
    assert line.endswith("0.50 (0.25 to 0.75)       0.10  0.30 (−0.10 to 0.60)") and "of 7 splits" in rule

    direction = mean_direction(observation, target="fi", source="en", layer=1)
    told = direction_lines(direction, observation.stream("resid_out", 1), out)
    norm = float(torch.linalg.vector_norm(direction.vector))
    assert told[0] == "direction from en to fi at 1.resid_out, saved in out"
    assert told[1].startswith(f"length {norm:.4g}: {100 * norm / direction.scale:.0f} % of ")
    assert len(told) == 3 and len(direction_lines(direction, None, out)) == 2
    stream = observation.stream("resid_out", 1)
    for left_out, said in (((), "without first tokens: unit"), ((3,), " and unit 3: "), ((3, 5), " and units 3, 5: ")):
        vector = direction.vector.index_fill(0, torch.tensor(left_out, dtype=torch.int64), 0.0)
        ordinary = replace(direction, vector=vector, form="ordinary", median_norm=1.0, left_out=left_out)
        assert said in direction_lines(ordinary, stream, out)[2]

    table = ablation_matrix(
        model, tokenizer, sets, TEXTS, observation=observation, draws=2, max_tokens=20, same_text=True
    )
    told = ablation_lines(table, out)
    cells = told[2].split()
    assert cells[:4] == [
        "en",
        str(sets.sizes["en"]),
        str(int(table.base[0].tokens.sum())),
        share_text(table.own_harm()[Language("en")]).split()[0],
    ]
    p = max(table.p_values(control)[Language("en")] for control in table.draws)
    assert float(cells[-1]) == float(f"{p:.2g}")
    assert "mean of 2 random sets" in told[-1] and "below 0.33: --draws 19 can reach .05" in told[-1]
