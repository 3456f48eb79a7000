"""Structural priming: items, the score by hand, and two-language grammars whose production is shared or is not."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import ttest_1samp

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

from rows.planted_grammar import NOUNS, grammar_model, write_grammar  # noqa: E402

from babelscope.cli import main  # noqa: E402
from babelscope.errors import CorpusError, LanguageError, MeasurementError  # noqa: E402
from babelscope.languages import Language  # noqa: E402
from babelscope.models import layout_of  # noqa: E402
from babelscope.probes.priming import (  # noqa: E402
    PrimingFindings,
    PrimingPlan,
    priming_rows,
    read_stimuli,
    structural_priming,
    track_priming,
    usual_directions,
)
from babelscope.probes.priming.primed_structures import primed_target, reorder_words, sign_flip_p, token_overlap  # noqa: E402
from babelscope.probes.priming.stimuli import word_stems  # noqa: E402

FORTH, BACK = ("en", "fi"), ("fi", "en")
SMALL = PrimingPlan(items=8, resamples=200, signs=999)


@pytest.fixture(scope="module")
def stimuli(tmp_path_factory):
    return read_stimuli(write_grammar(tmp_path_factory.mktemp("grammar") / "grammar.tsv"))


@pytest.fixture(scope="module")
def shared_grammar():
    return grammar_model(shared=True)


def test_a_shared_production_primes_across_languages_and_one_of_each_language_does_not(stimuli, shared_grammar):
    by_grammar = {
        name: {
            (effect.prime, effect.target, effect.condition): effect
            for effect in structural_priming(*models_, stimuli, directions=[FORTH, BACK, ("en", "en")], plan=SMALL)
        }
        for name, models_ in (("shared", shared_grammar), ("apart", grammar_model(shared=False)))
    }
    for pair in (FORTH, BACK):
        shared, apart = (by_grammar[name][*pair, "structure"] for name in ("shared", "apart"))
        assert shared.low > 0.5 and shared.q < 0.05 and abs(apart.effect) < 0.2
        assert abs(by_grammar["shared"][*pair, "unrelated"].effect) < 0.2
    assert usual_directions(stimuli) == [FORTH, BACK, ("en", "en"), ("fi", "fi")]
    for effects in by_grammar.values():
        assert effects["en", "en", "structure"].low > 0.5


@torch.no_grad()
def test_the_effect_is_that_of_plain_passes(stimuli, shared_grammar):
    model, tokenizer = shared_grammar
    (effect,) = structural_priming(
        model, tokenizer, stimuli, directions=[("en", "fi")], plan=PrimingPlan(controls=False, resamples=200, signs=99)
    )

    def score(context, target):
        ids = [0, *tokenizer(f"{context} {target}", add_special_tokens=False).input_ids]
        logits = model(torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
        return float(sum(logits[at - 1, ids[at]] for at in range(len(ids) - 3, len(ids))))

    differences = []
    for pair in stimuli.pairs("en", "fi"):
        x, y = (stimuli.sentences[pair.target][order]["fi"] for order in ("X", "Y"))
        shares = []
        for order in ("X", "Y"):
            context = stimuli.sentences[pair.prime][order]["en"]
            shares.append(1 / (1 + math.exp(score(context, y) - score(context, x))))
        differences.append(shares[0] - shares[1])
    assert effect.effect == pytest.approx(np.mean(differences), abs=1e-5) and effect.items == NOUNS
    assert effect.t == pytest.approx(ttest_1samp(differences, 0).statistic, rel=1e-4)
    assert effect.d == pytest.approx(np.mean(differences) / np.std(differences, ddof=1), rel=1e-4)
    assert effect.low < effect.effect < effect.high and effect.first > effect.second


def test_primes_and_targets_share_no_content_word(stimuli):
    for prime, target in (("en", "en"), ("en", "fi"), ("fi", "en")):
        pairs = stimuli.pairs(prime, target)
        assert len(pairs) == len({pair.target for pair in pairs}) == NOUNS
        for pair in pairs:
            words = [{*stimuli.sentences[item]["X"][target].split()} for item in pair]
            assert not words[0] & words[1]
    with pytest.raises(LanguageError, match="de came"):
        stimuli.pairs("de", "en")


def test_the_bundled_items_pair_up_in_all_directions():
    bundled = read_stimuli("reference")
    assert bundled.structures == ("active", "passive") and len(bundled.neutral) == 8
    for prime in bundled.languages:
        for target in bundled.languages:
            assert len(bundled.pairs(prime, target)) == 40
    # Forms of one word are one; articles and auxiliaries are no content.
    assert {"studen", "wurde"}.isdisjoint(bundled.stems(Language.parse("de"))["12"])
    assert "stude" in bundled.stems(Language.parse("de"))["12"]


TABLE = ["item\tstructure\ttarget\ten", "1\tX\t2\tdog bites cat", "1\tY\t\tcat dog bites", "2\tX\t1\tman sees sun",
         "2\tY\t\tsun man sees"]  # fmt: skip


@pytest.mark.parametrize(
    ("tag", "sentence", "stems"),
    [
        ("en", "The students see it.", {"the", "stude", "see", "it"}),
        ("hi", "लड़की पढ़ती", {"लड़की", "पढ़ती"}),
        ("zh", "猫喝水。", {"猫", "喝", "水"}),
        ("ja", "学生がカメラを", {"学", "生", "がカメ", "カメラ", "メラを"}),
        ("ja", "猫は", {"猫", "は"}),
        ("th", "แมวกินปลา", {"แมว", "มวกิ", "วกิน", "กินป", "นปล", "ปลา"}),
    ],
)
def test_the_stems_of_a_sentence(tag, sentence, stems):
    assert word_stems(sentence, Language.parse(tag)) == stems


UNSPACED_TEXTS = {
    "zh": "学生吃苹果 老师吃苹果 猫追狗 孩子读书 农民种树 医生救人 歌手唱歌 司机开车 画家作画 "
    "厨师做饭 士兵守门 律师写信",
    "th": "นักเรียนกินแอปเปิล ครูซื้อแอปเปิล แมวไล่หมา เด็กอ่านหนังสือ หมอช่วยคน ชาวนาปลูกข้าว คนขับซ่อมรถ "
    "พ่อครัวทำอาหาร ทหารเฝ้าประตู ช่างทาสีบ้าน นายกล่าวสุนทรพจน์ แม่เย็บเสื้อ",
}
"""Sentences; the first two have the apple in common."""


@pytest.mark.parametrize("tag", [*UNSPACED_TEXTS])
def test_sentences_without_spaces_that_share_a_word_are_no_pair(tag, tmp_path):
    """Items 0 and 1 have the apple in common, which no space sets apart; a whole sentence was one word before."""
    lines = [f"item\tstructure\t{tag}"]
    for number, text in enumerate(UNSPACED_TEXTS[tag].split()):
        lines += [f"{number}\tX\t{text}", f"{number}\tY\t{text}"]
    (tmp_path / "items.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    stimuli = read_stimuli(tmp_path / "items.tsv")
    stems = stimuli.stems(Language.parse(tag))
    assert stems["0"] & stems["1"] and not stems["0"] & stems["2"]
    for seed in range(20):
        pairs = stimuli.pairs(tag, tag, seed=seed)
        assert len(pairs) >= 10 and ("0", "1") not in pairs and ("1", "0") not in pairs


def test_targets_that_the_table_names_are_taken(tmp_path):
    file = tmp_path / "items.tsv"
    file.write_text("\n".join(TABLE) + "\n")
    assert read_stimuli(file).pairs("en", "en") == [("1", "2"), ("2", "1")]
    # Common words are those of a fifth of the sentences: here they are none, so a shared word is refused.
    more = [f"{n}\t{order}\t\tw{n} u{n}" for n in range(3, 20) for order in "XY"]
    file.write_text(
        "\n".join([*TABLE, *more]).replace("man sees sun", "dogs see sun").replace("dog bites", "dogs bite")
    )
    with pytest.raises(CorpusError, match="prime 1 and target 2 share a content word"):
        read_stimuli(file).pairs("en", "en")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["item\tsentence\ten"], "expected item, structure"),
        (["item\tstructure"], "expected item, structure"),
        ([*TABLE[:2], "1\tX\t\tagain"], "X of item 1 came before"),
        ([*TABLE[:2], "1\tY"], "line 3: 2 cells; expected 4"),
        (TABLE[:2], "structures X; expected two"),
        ([*TABLE, "3\tZ\t\ta b"], "structures X, Y, Z; expected two"),
        ([TABLE[0], "1\tX\t7\ta", "1\tY\t\tb"], "target 7 is no item"),
    ],
)
def test_a_bad_table_is_one_line(lines, says, tmp_path):
    (tmp_path / "items.tsv").write_text("\n".join(lines) + "\n")
    with pytest.raises(CorpusError, match=says) as caught:
        read_stimuli(tmp_path / "items.tsv")
    assert "\n" not in str(caught.value)


def test_directions_without_sentences_are_left_out(tmp_path):
    rows = ["item\tstructure\ttarget\ten\tde", *(f"p{n}\t{o}\tt{n}\t\ta{n} b{n}" for n in (1, 2) for o in "XY")]
    rows += [f"t{n}\t{o}\t\tc{n} d{n}\t" for n in (1, 2) for o in "XY"]
    (tmp_path / "items.tsv").write_text("\n".join(rows) + "\n")
    assert usual_directions(read_stimuli(tmp_path / "items.tsv")) == [("de", "en")]
    (tmp_path / "items.tsv").write_text("\n".join(rows[:5]).replace("t1", "").replace("t2", "") + "\n")
    alone = read_stimuli(tmp_path / "items.tsv")
    assert usual_directions(alone) == [("de", "de")]
    (tmp_path / "items.tsv").write_text("\n".join(rows[:3]).replace("t1", "") + "\n")
    with pytest.raises(CorpusError, match="no language has items for primes and targets"):
        usual_directions(read_stimuli(tmp_path / "items.tsv"))
    with pytest.raises(MeasurementError, match="1 pair came; expected at least two"):
        PrimingPlan(items=1)


def test_two_items_that_share_all_words_have_no_pair(tmp_path):
    (tmp_path / "items.tsv").write_text("item\tstructure\ten\n1\tX\ta b\n1\tY\tb a\n")
    with pytest.raises(CorpusError, match="0 primes in en have a target in en"):
        read_stimuli(tmp_path / "items.tsv").pairs("en", "en")


def test_the_parts_are_those_by_hand(shared_grammar):
    model, tokenizer = shared_grammar
    rng = np.random.default_rng(0)
    assert sign_flip_p(np.ones(3), 9_999, rng) == pytest.approx(2 / 8, abs=0.02)
    assert sign_flip_p(np.array([1.0, -1.0]), 99, rng) == 1
    german, chinese, thai = (Language(tag) for tag in ("de", "zh", "th"))
    assert sorted(reorder_words("Der Arzt fand ihn.", german, rng)[:-1].split()) == ["Arzt", "Der", "fand", "ihn"]
    assert reorder_words("a b.", german, rng).endswith(".")
    # Without spaces a sentence would be one word, and its own control.
    shuffled = {reorder_words("医生看见了病人。", chinese, np.random.default_rng(seed)) for seed in range(9)}
    assert len(shuffled) > 5 and {"".join(sorted(text[:-1])) for text in shuffled} == {
        "".join(sorted("医生看见了病人"))
    }
    assert all(text.endswith("。") and " " not in text for text in shuffled)
    # A vowel sign stays with its letter.
    assert all("ที่" in reorder_words("ที่กข", thai, np.random.default_rng(seed)) for seed in range(9))
    assert token_overlap(tokenizer, "enn1 env1", "enn1 enn2") == 1 / 3
    item = primed_target(tokenizer, "enn1 env1 enn2", ("fin1 fiv1 fin2", "fin1 fin2 fiv1"), " ")
    assert (len(item.prompt), [len(ids) for ids in item.following]) == (4, [3, 3])
    assert layout_of(model).n_layers == 2


def test_checkpoints_are_followed(stimuli, shared_grammar):
    first = grammar_model(shared=True, steps=0)
    opened = {"step-0": first, "step-130": shared_grammar}
    earlier = track_priming([*opened], opened.__getitem__, stimuli, directions=[("en", "fi")], plan=SMALL)
    assert [abs(effects[0].effect) < 0.1 for effects in earlier.values()] == [True, False]
    effects = structural_priming(*shared_grammar, stimuli, directions=[("en", "fi")], plan=SMALL)
    findings = PrimingFindings(stimuli, effects, earlier, SMALL)
    assert findings.summary()["first_checkpoint_above_zero"] == {"en:fi": "step-130"}
    rows = findings.rows()
    assert [row.claim for row in rows[:4]] == [row.claim for row in priming_rows(effects, SMALL)]
    assert rows[-1].claim == "priming, structure, checkpoint step-130" and len(rows) == 4 + 2


def test_priming_is_measured_into_a_folder(stimuli, tmp_path, capsys):
    words = ["--json", "priming", "reference", "--items", stimuli.name, "--out", str(tmp_path / "out"), "--count", "4"]
    assert main([*words, "--directions", "en:fi", "--resamples", "50"]) == 0, capsys.readouterr().err
    printed = json.loads(capsys.readouterr().out)
    assert printed["effects"]["en:fi"]["items"] == 4 and (tmp_path / "out" / "priming.html").is_file()
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["claim"].removeprefix("priming, ") for row in rows] == [
        "structure", "shuffled words", "unrelated", "language"
    ]  # fmt: skip
    for flags, says in (
        (["--directions", "enfi"], "expected PRIME:TARGET"),
        (["--directions", "en:ru"], "ru came"),
        (["--items", "none.tsv"], "none.tsv: no such file"),
    ):
        arguments = [words[1], str(tmp_path), *([] if "--items" in flags else ["--items", stimuli.name])]
        assert main([*arguments, "--out", str(tmp_path / "new"), *flags]) in (1, 2)
        assert says in capsys.readouterr().err
