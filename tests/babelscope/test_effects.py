"""Side effects, the strength limit and the one score of a recipe, on tiny models and made points."""

import math

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from steering_cases import push

from babelscope import Gate, Language, Operation, Site, SteeringRecipe, mean_direction, observe, origin_of, steer
from babelscope.errors import MeasurementError, SteeringError
from babelscope.evaluation import Guess, HeldOut, bits_per_byte, document_losses
from babelscope.figures import side_effect_lines
from babelscope.figures.side_effect_figure import OTHERS, OWN
from babelscope.steering.sweeps import (
    CurvePoint,
    Decoding,
    Dose,
    Prompt,
    by_layer,
    evaluate_steering,
    language_effects,
    score_language,
    side_effect_curve,
    strength_limit,
    untouched_prompts,
)
from babelscope.steering.sweeps.answer_scores import Macro
from babelscope.steering.sweeps.effect_curve import COPIED_TEXT

TEXTS = {"en": ["the cat sat on a mat", "rain", "we walk home now"], "fi": ["kissa istui", "sataa taas"]}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_effects_are_the_loss_with_the_recipe_on(family, tokenizer):
    model, recipe = tiny_model(family), [push(strength=3.0)]
    found = language_effects(model, tokenizer, recipe, TEXTS, resamples=50)
    plain = bits_per_byte(model, tokenizer, TEXTS)
    with steer(model, recipe, tokenizer=tokenizer):
        on = bits_per_byte(model, tokenizer, TEXTS)
    for tag, effect in found.items():
        assert (effect.off, effect.on) == (plain[tag], on[tag])
        assert effect.change.estimate == pytest.approx(on[tag] - plain[tag])
        nats = math.log(2) * effect.change.estimate
        assert effect.perplexity_ratio.estimate == pytest.approx(math.exp(nats))
        assert effect.change.low <= effect.change.estimate <= effect.change.high and effect.change.estimate != 0


def test_strength_zero_has_no_effect_at_all(tokenizer):
    found = language_effects(tiny_model("llama"), tokenizer, [push(strength=0.0)], TEXTS, resamples=20)
    assert all(effect.on == effect.off and effect.change[:3] == (0, 0, 0) for effect in found.values())


def test_a_curve_of_side_effects_is_the_loss_under_a_plain_hook_at_each_strength(tokenizer):
    model = tiny_model("llama")
    observed = observe(model, tokenizer, TEXTS, sites=("resid_out",))
    direction = mean_direction(observed, target="fi", layer=0)
    still, moved = side_effect_curve(model, tokenizer, {direction.target: direction}, [0.0, 2.0], TEXTS, resamples=5)
    assert {*still.effects} == {"en", "fi", *COPIED_TEXT} and still.untouched.after == moved.untouched.after == 1.0
    assert all(row["change"] == 0 and row["on"] == row["off"] for row in still.rows())
    assert still.untouched.steered_difference == 0 < moved.untouched.steered_difference

    def add(module, inputs, output):
        first = output[0] if isinstance(output, tuple) else output
        changed = first + 2 * direction.vector * (torch.arange(first.shape[1]) > 0)[:, None]  # BOS is left as it is
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    lines = COPIED_TEXT["en-x-names"]
    plain = bits_per_byte(model, tokenizer, {"en": lines})["en"]
    with model.model.layers[0].register_forward_hook(add):
        hooked = bits_per_byte(model, tokenizer, {"en": lines})["en"]
    effect = moved.effects[Language("en-x-names")]
    assert (effect.off, effect.on) == pytest.approx((plain, hooked), rel=1e-6) and hooked != plain
    figure = side_effect_lines(
        points=[{"layer": at, "strength": s, "success": (at + s) / 4} for at in (0, 1) for s in (0.0, 2.0)],
        effects=still.rows() + moved.rows(),
        layer=0,
    )
    lines_of = {trace.name: list(trace.y) for trace in figure.data}
    assert {*lines_of} == {"success at layer 0", OWN, OTHERS, "numbers", "names", "code"}
    assert lines_of["success at layer 0"] == [0, 50], "the layer of the effects, not the one of most success"
    assert lines_of["names"] == pytest.approx([0, effect.change.estimate])


def test_operations_for_generated_tokens_meet_text_too_and_rows_are_refused(tokenizer):
    model = tiny_model("llama")
    later, whole = (
        language_effects(model, tokenizer, [push(phase=phase)], TEXTS, resamples=5)["fi"].on
        for phase in ("generated", "both")
    )
    assert later == whole
    with pytest.raises(MeasurementError, match="gated to rows"):
        language_effects(model, tokenizer, [push(rows=(0,))], TEXTS)


def test_prompts_without_steering_keep_every_bit(tokenizer):
    for family in ("llama", "gpt2"):
        found = untouched_prompts(tiny_model(family), tokenizer, [push()], ["the cat", "sat on a mat"])
        assert (found.n, found.beside, found.after, found.largest_difference) == (2, 1, 1, 0)
        assert found.steered_difference > 1e-3


def test_the_limit_is_the_smallest_strength_that_breaks():
    points = [Dose(2.0, 2.0, 0.9), Dose(0.5, 1.1, 1.0), Dose(1.0, 1.5, 0.8), Dose(1.5, 1.4, 0.79)]
    assert strength_limit(points) == (1.5, "repetition", 1.0, (0.5, 1.0, 1.5, 2.0))
    assert strength_limit(points, min_distinct=0.5)[:3] == (2.0, "perplexity", 1.5)
    assert strength_limit([*points, Dose(0.5, float("nan"), 1.0)])[:3] == (0.5, "perplexity", None)
    assert strength_limit([Dose(-1.0, 1.6, 0.5)])[:2] == (1.0, "both")
    # Answers five times as likely as native ones are loops, however many 4-grams are distinct.
    assert strength_limit([Dose(1.0, 0.2, 1.0)])[:2] == (1.0, "repetition")
    assert strength_limit(points[1:3])[:3] == (None, "none", 1.0)
    with pytest.raises(MeasurementError, match="no point"):
        strength_limit([])


def test_a_sweep_has_one_curve_a_layer():
    points = [
        CurvePoint(layer, strength, {}, Macro(0.0, 0.0, 0.0), ratio, 1.0)
        for layer, strength, ratio in ((3, 1.0, 1.0), (5, 1.0, 2.0), (3, 2.0, 2.0))
    ]
    assert {layer: strength_limit(curve).strength for layer, curve in by_layer(points).items()} == {3: 2.0, 5: 1.0}


def by_mark(texts):
    """Finnish if there is a letter a, else English."""
    return [Guess("fi" if "a" in text else "en", 1.0) for text in texts]


def test_language_is_scored_by_answer_and_by_line():
    finnish, english = "talo on pieni ja kaunis kesällä", "the silver river is full of fish"
    answers = [finnish, f"{finnish}\n{english}", english, "", "a"]
    found = score_language(answers, "fi", identifier=by_mark, resamples=50)
    assert found.verdicts == {"empty": 1, "mixed": 1, "other language": 1, "right": 1, "short": 1}
    assert found.success.estimate == 0.2 and found.lines.estimate == pytest.approx((1 + 0.5) / 5)
    # The benchmark scores lines of five words or more: the two empty and short answers have none.
    assert found.published is not None and found.published.coverage == pytest.approx(3 / 5)


def recipe_for(model, tokenizer, strength=4.0):
    origin = origin_of(model, tokenizer)
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    operation = Operation(Site(1, "resid_out"), "add", vector, strength=strength, gate=Gate(), origin=origin)
    return SteeringRecipe((operation,), origin)


PROMPTS = [Prompt(str(i), Language("en"), text) for i, text in enumerate(["the cat sat", "rain at 5", "we walk"])]


def test_a_score_says_how_far_its_answers_are(monkeypatch, capsys):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    monkeypatch.setattr("babelscope.progress.SECONDS", 0.0)
    settings = {"target": "fi", "native_prompts": PROMPTS[:2], "identifier": by_mark, "resamples": 20}
    for progress in (False, True):
        evaluate_steering(
            model,
            tokenizer,
            recipe_for(model, tokenizer),
            PROMPTS,
            decoding=Decoding(new_tokens=4, temperature=0.0, batch_size=2),
            progress=progress,
            **settings,
        )
        lines = [line.split(",")[0] for line in capsys.readouterr().err.splitlines()]
        last = ["steered answers: answer 3 of 3", "unsteered answers: answer 3 of 3", "native answers: answer 2 of 2"]
        assert [line for line in last if line in lines] == (last if progress else [])


def test_one_score_has_every_axis_and_reads_the_unsteered_model():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    decoding = Decoding(new_tokens=24, temperature=0.0)
    references = ["kissa istui", "sade kello 5", "me kuljemme"]
    found = evaluate_steering(
        model,
        tokenizer,
        recipe_for(model, tokenizer),
        PROMPTS,
        target="fi",
        references=references,
        identifier=by_mark,
        decoding=decoding,
        resamples=20,
    )
    assert found.content is not None and found.similarity is not None and found.score is not None
    assert found.beside == "unsteered" and found.kept.number.n == 1 and len(found.rows()) == 3
    assert found.language.success.n == 3 and found.fluency.length_ratio.estimate == 1
    nothing = evaluate_steering(
        model,
        tokenizer,
        recipe_for(model, tokenizer, 0.0),
        PROMPTS,
        target="fi",
        native_prompts=PROMPTS,
        identifier=by_mark,
        decoding=decoding,
        resamples=20,
    )
    assert nothing.content is None and nothing.score is None and nothing.beside == "native"
    assert nothing.language.verdicts == nothing.unsteered.verdicts
    assert nothing.fluency.perplexity_ratio[:3] == pytest.approx((1, 1, 1))


def test_what_does_not_fit_is_one_clear_line():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    recipe = recipe_for(model, tokenizer)
    with pytest.raises(MeasurementError, match="1 references came for 3 prompts"):
        evaluate_steering(model, tokenizer, recipe, PROMPTS, target="fi", references=["a"])
    with pytest.raises(MeasurementError, match="no prompt"):
        evaluate_steering(model, tokenizer, recipe, [], target="fi")
    with pytest.raises(SteeringError, match="open the model it was made with"):
        evaluate_steering(tiny_model("gpt2"), tokenizer, recipe, PROMPTS, target="fi", identifier=by_mark)


def test_losses_are_unchanged_by_an_evaluation(tokenizer):
    model = tiny_model("llama")
    (held, _) = HeldOut.prepare(tokenizer, TEXTS)
    before = document_losses(model, held).nats
    language_effects(model, tokenizer, [push()], TEXTS, resamples=5)
    assert torch.equal(before, document_losses(model, held).nats)
