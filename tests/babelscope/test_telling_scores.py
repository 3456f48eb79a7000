"""What `knowledge`, `priming`, `edit`, `transfer` and `adapt` say to a person, by hand."""

from pathlib import Path

from babelscope.cli.telling_scores import (
    adapt_lines,
    edit_lines,
    knowledge_lines,
    or_dash,
    priming_lines,
    transfer_lines,
    with_sign,
)
from babelscope.languages import Language
from babelscope.probes.priming import PrimingEffect

OUT = Path("out")
NAN = float("nan")


def cells(line):
    """The cells of a line of a table, which stand two spaces apart."""
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_numbers_have_signs_and_what_is_not_known_has_a_dash():
    assert [with_sign(value, 2) for value in (0.004, -0.004, 0.0)] == ["0.00"] * 3
    assert [with_sign(0.25), with_sign(-0.25, 2), with_sign(None), with_sign(NAN)] == ["+0.2500", "−0.25", "–", "–"]
    assert [or_dash(0.256), or_dash(None), or_dash(NAN)] == ["26 %", "–", "–"]


def test_facts_are_told_by_language_beside_chance_and_shuffled_answers():
    fields = {
        "facts": 72,
        "precision": {"en": 0.9, "fi": 0.29},
        "chance": {"en": 0.08, "fi": 0.09},
        "shuffled": {"en": 0.1, "fi": 0.11},
        "agreement": {"fi": 0.28},
        "home_bias": {"en": [NAN, 0.0], "fi": [0.5, NAN]},
        "pooled_votes": 0.61,
        "barrier": {"base": 1.0, "mixup": 0.5},
        "language_by_cluster": {"right": 0.9, "first_language": 0.8, "shuffled": 0.7},
    }
    told = knowledge_lines(fields, "en", OUT)
    assert told[0].startswith("facts: 72; everything is in out")
    assert cells(told[1]) == [
        "language", "right", "by chance", "answers shuffled", "same answer as en", "home", "elsewhere"
    ]  # fmt: skip
    assert cells(told[2]) == ["en", "90 %", "8 %", "10 %", "–", "–", "0 %"]
    assert cells(told[3]) == ["fi", "29 %", "9 %", "11 %", "28 %", "50 %", "–"]
    assert told[5:] == [
        "right by a vote of all languages: 61 %",
        "multiple choice of 4 options (25 % by chance), right by what is in another language: base 100 %, mixup 50 %",
        "each cluster in its own language: 90 % right; all in one: 80 %; right shuffled: 70 %",
    ]
    without = {**fields, "barrier": {}, "language_by_cluster": None}
    assert knowledge_lines(without, "en", OUT) == told[:6]


def test_priming_is_told_beside_shuffled_words():
    en, de = Language("en"), Language("de")
    rest = {name: 0.0 for name in PrimingEffect._fields[6:]}
    effects = [
        PrimingEffect(en, de, "structure", 4, 0.066, 0.011, **{**rest, "high": 0.153, "q": 0.479}),
        PrimingEffect(en, de, "shuffled words", 4, 0.02, 0.0, **rest),
        PrimingEffect(de, en, "structure", 4, -0.5, -0.6, **rest),
    ]
    fields = {"structures": ["active", "passive"], "first_checkpoint_above_zero": {"en:de": "step 8", "de:en": None}}
    told = priming_lines(fields, effects, OUT)
    assert told[0].startswith("structures: active and passive; everything is in out")
    assert cells(told[2]) == ["en:de", "4", "+0.066", "+0.011 to +0.153", "+0.020", "0.48"]
    assert cells(told[3]) == ["de:en", "4", "−0.500", "−0.600 to 0.000", "–", "< 0.001"]
    assert told[5] == "en:de: interval above zero from checkpoint step 8 on"
    assert told[6] == "de:en: interval above zero from checkpoint – on"


def test_edits_are_told_by_method_and_language_beside_both_controls():
    def of(share):
        return {"in context": {"en": share}, "few neurons": {"en": share / 2}}

    fields = {
        "edits": 2,
        "edited_in": "en",
        "places": {"few neurons": [6, 16], "rank one": [3, 0], "memit": [5, 0]},
        "spread": {"memit": {"layers": [3, 4, 5], "weight": 0.5}},
        "size": {"few neurons": 0.9311, "rank one": 0.5, "memit": 0.25},
        "prefers_new": of(1.0),
        "by_edits_of_other_facts": of(0.5),
        "by_control": of(0.25),
        "locality": of(0.75),
    }
    told = edit_lines(fields, OUT)
    assert told[0].startswith("edits: 2, told in en; everything is in out")
    assert cells(told[2]) == ["in context", "en", "100 %", "50 %", "25 %", "75 %"]
    assert cells(told[3])[:3] == ["few neurons", "en", "50 %"]
    assert told[5:] == [
        "few neurons: layer 6, 16 neurons, the change has the Frobenius norm 0.931",
        "rank one: layer 3, the change has the Frobenius norm 0.5",
        "memit: layers 3–5, weight 0.5, 2 edits at once, the change has the Frobenius norm 0.25",
    ]


def test_sources_are_told_by_target_and_by_table():
    choice = {
        "rank correlation": -0.5,
        "p": 0.25,
        "p, corrected for all tables": 0.5,
        "gain of the nearest": 0.1,
        "of any": 0.05,
        "of the best": 0.2,
    }
    fields = {
        "learning_rate": 0.00298145,
        "learnt_nothing": ["cy"],
        "best_source": {"fi": {"source": "et", "gain": 0.1}, "en": "none gains"},
        "choice": {"script": choice},
        "change_of_spaces": {},
    }
    told = transfer_lines(fields, OUT)
    assert told[0].startswith("learning rate 0.00298; everything is in out")
    assert [cells(line) for line in told[2:4]] == [["fi", "et", "+0.1000"], ["en", "none gains", "–"]]
    assert told[4] == "learnt nothing from their own text, and are no source: cy"
    assert cells(told[6]) == ["script", "−0.50", "0.25", "0.50", "+0.1000", "+0.0500", "+0.2000"]
    assert len(transfer_lines({**fields, "learnt_nothing": [], "choice": {}}, OUT)) == 4
    moved = {"change_of_spaces": {"script": {"rank correlation": 0.5, "p": 0.25}}}
    assert [cells(line) for line in transfer_lines({**fields, **moved}, OUT)][-2] == ["script", "+0.50", "0.25"]


def test_a_training_is_told_as_bits_per_byte_of_every_language():
    fields = {
        "language": "eu",
        "trained": 1693440,
        "learning_rate": 0.00088787,
        "learning_rate_is": "given",
        "rates_on_valid": {},
        "gain": 0.5,
        "harm": None,
        "before": {"eu": 3.0, "fi": 2.5},
        "after": {"eu": 2.5, "fi": 2.625},
    }
    told = adapt_lines(fields, OUT)
    assert told[0] == (
        "1,693,440 values trained at learning rate 0.000888 (given); saved in out, with all figures in result.json"
    )
    assert cells(told[2]) == ["eu, trained", "3.0000", "2.5000", "−0.5000"]
    assert cells(told[3]) == ["fi", "2.5000", "2.6250", "+0.1250"]
    assert "gain of eu +0.5000, harm (mean rise of the others) –" in told[4] and len(told) == 5
    cast = {"dtype": "bfloat16", "unmoved": 0.25, "lost": 0.5}
    more = adapt_lines({**fields, "method": "random", "rates_on_valid": {"0.001": 2.5}, "cast": cast}, OUT)
    assert " values trained by random at " in more[0] and "--baseline random" in told[4] and "--baseline" not in more[4]
    again = adapt_lines({**fields, "resumed": "complete"}, OUT)
    assert again == ["complete already: nothing was trained now, and the settings are that run's", *told]
    assert more[5:] == [
        "bits per byte of valid text by learning rate: 0.001: 2.5000",
        "as bfloat16 weights, 25.0 % of the values would not move and 50.0 % of the change's length is lost",
    ]
