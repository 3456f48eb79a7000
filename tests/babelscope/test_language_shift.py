"""Training with the shift in place: the edits, their gradient, strength 0, rows by language, and use as trained."""

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer
from training_cases import OTHERS, material, random_rows, some_neurons, state_of

from babelscope import SteeringRecipe, layout_of, observe, steer
from babelscope.adaptation import adapt
from babelscope.adaptation.language_shift import LanguageShift
from babelscope.corpus import as_corpus
from babelscope.errors import LanguageError, MeasurementError
from babelscope.evaluation import bits_per_byte
from babelscope.languages import Language
from babelscope.sites import Site
from babelscope.steering.directions import language_mean
from babelscope.subnetworks import Bank, Contrast, ContrastSteps, ParallelPairs, Subnetwork, contrastive_loss, rows_loss
from babelscope.subnetworks.row_steering import RowSteering, rows_with
from babelscope.subnetworks.translation_pairs import mean_states

LINES = {
    "en": [f"the house {i} is big" for i in range(24)],
    "eu": [f"etxe {i} handia da" for i in range(24)],
    "fi": [f"talo {i} on iso" for i in range(24)],
}
PARALLEL = as_corpus(LINES, parallel=True)
AREA = (0, 2)
EN, EU, FI = (Language(tag) for tag in ("en", "eu", "fi"))
SETTINGS = {"steps": 6, "learning_rate": 1e-2, "tokens_per_step": 64, "evaluate_every": 3}


def shift_of(model, **options):
    return LanguageShift.of(model, tiny_tokenizer(), PARALLEL, layers=AREA, **options)


def pairs_of(layer=1):
    return ContrastSteps(Contrast(layer, size=6), ParallelPairs.of(tiny_tokenizer(), PARALLEL))


def by_plain_hooks(model, vectors):
    """Open hooks of plain torch that add a vector to the output of some layers."""
    stack = ExitStack()
    for layer, vector in vectors.items():

        def add(module, args, output, step=vector):
            value = output[0] if isinstance(output, tuple) else output
            moved = value + step.to(value.dtype)
            return (moved, *output[1:]) if isinstance(output, tuple) else moved

        stack.callback(model.model.layers[layer].register_forward_hook(add).remove)
    return stack


def steps_by_hand(model, source=EU, pivot=EN):
    """μ_pivot - μ_source at the first layer and the way back at the last, from an observation."""
    sites = [Site(layer, "resid_out") for layer in AREA]
    seen = observe(model, tiny_tokenizer(), PARALLEL, sites=sites, shards=0)
    means = [[language_mean(seen, tag, site) for tag in (source, pivot)] for site in sites]
    return {AREA[0]: means[0][1] - means[0][0], AREA[1]: means[1][0] - means[1][1]}


def test_the_edits_are_the_differences_of_means_by_plain_hooks():
    model = tiny_model("llama").double()
    shift, ids = shift_of(model), random_rows().input_ids
    assert isinstance(shift, RowSteering) and shift.facts()["languages"] == ["eu", "fi"]
    with torch.no_grad():
        plain = model(ids).logits
        with shift.over((EU,)):
            ours = model(ids).logits
        with by_plain_hooks(model, steps_by_hand(model)):
            expected = model(ids).logits
    assert torch.allclose(ours, expected, atol=1e-6) and not torch.allclose(ours, plain, atol=1e-3)
    with shift.over((EN,)), torch.no_grad():
        assert torch.equal(model(ids).logits, plain)


@pytest.mark.parametrize("form", ["fused", "split"])
def test_the_gradient_of_trained_rows_is_that_of_finite_differences(form):
    """Of a loss by plain hooks and transformers alone, in float64 but for float32 norms, so that steps are .01."""
    small, model = tiny_model("llama").requires_grad_(False), tiny_model("llama").double()
    layout, rows = layout_of(small), random_rows(batch=2, length=12)
    student = Subnetwork(Bank.of(layout, some_neurons(small, (2, 3, 2))), form=form)
    with student.installed():
        student.zero_grad()
        with shift_of(small).over((EU,) * 2):
            rows_loss(layout, rows, 1 / 22).backward()
        gradient = student.bank.grad.clone()
    hooks = steps_by_hand(model)

    def loss():
        with torch.no_grad(), by_plain_hooks(model, hooks):
            logits = model(rows.input_ids).logits
        return float(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), rows.input_ids[:, 1:].flatten()))

    for part in (part for part in student.bank.parts if part.role == "down"):
        weight = model.model.layers[part.layer].mlp.down_proj.weight.data
        for row, neuron in zip(gradient[part.rows], part.neuron.tolist(), strict=True):
            for unit in (0, 7):
                ends = []
                for sign in (1, -1):
                    weight[unit, neuron] += sign * 1e-2
                    ends.append(loss())
                    weight[unit, neuron] -= sign * 1e-2
                assert float(row[unit]) == pytest.approx((ends[0] - ends[1]) / 2e-2, abs=1e-5)
    assert float(gradient.norm()) > 1e-3


@pytest.mark.parametrize("method", ["subnetwork", "full", "lora"])
def test_strength_zero_is_plain_training_bit_for_bit(method):
    model = tiny_model("llama")
    neurons = some_neurons(model, (9, 9, 0)) if method == "subnetwork" else None
    words = {**SETTINGS, "neurons": neurons, "pairs": pairs_of(), "translations": PARALLEL}
    plain = adapt(material(model), method, **words)
    zero = adapt(material(model), method, shift=shift_of(model, strength=0.0), **words)
    assert zero.history == plain.history and zero.after == plain.after and zero.before == plain.before
    assert torch.equal(zero.aligned_after.mean("mexa"), plain.aligned_after.mean("mexa"))
    whole = adapt(material(model), method, shift=shift_of(model), **words)
    assert whole.history[0].loss != plain.history[0].loss and whole.after["eu"] != plain.after["eu"]
    assert whole.history[-1].loss < whole.history[1].loss  # both are steps of pairs


def test_each_row_of_a_mixture_is_shifted_as_its_language():
    model = tiny_model("llama").double()
    held = material(model, replay=OTHERS, replay_share=0.5)
    shift, layout = shift_of(model), layout_of(model)
    rows, tags = held.mixture.rows(0, 6), held.mixture.languages(0, 6)
    assert set(tags) == {EU, EN, FI} and [held.mixture.row(i)[0] for i in range(6)] == list(tags)
    with torch.no_grad(), rows_with(shift, tags):
        together = layout.run(rows.input_ids, positions=rows.position_ids)
    for row, tag in enumerate(tags):
        with torch.no_grad(), shift.over((tag,)):
            alone = layout.run(rows.input_ids[row][None], positions=rows.position_ids[row][None])
        assert torch.allclose(together[row], alone[0], atol=1e-9)


def test_translations_are_aligned_as_shifted_and_the_other_side_is_left():
    model = tiny_model("llama")
    shift, steps = shift_of(model), pairs_of()
    first, second = steps.pairs.batch(steps.before(1), 6)
    assert set(first.languages) == {EN} and set(second.languages) == {EU, FI}
    with torch.no_grad():
        x = mean_states(layout_of(model), first, 1)
        with shift.over(second.languages):
            y = mean_states(layout_of(model), second, 1)
        unshifted = mean_states(layout_of(model), second, 1)
    loss, tokens = steps.backward(layout_of(model), 1, shift)
    assert loss == pytest.approx(float(contrastive_loss(x, y)), abs=1e-6)
    assert abs(loss - float(contrastive_loss(x, unshifted))) > 1e-3
    assert tokens == sum(int(side.real.sum()) for side in (first, second))


def test_what_is_saved_gives_the_scores_that_were_measured(tmp_path):
    model = tiny_model("llama")
    before, shift = state_of(model), shift_of(model)
    neurons = some_neurons(model, (9, 9, 0))
    result = adapt(material(model), "subnetwork", neurons=neurons, pairs=pairs_of(), shift=shift, **SETTINGS)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    shift.save(tmp_path)
    recipe = SteeringRecipe.load(tmp_path / "eu")
    result.delta.save(tmp_path / "delta")
    assert "steer with them too" in (tmp_path / "delta" / "README.md").read_text()
    assert result.delta.parameters["steering"] == shift.facts()
    assert recipe.parameters["method"] == "shift and shift back"
    texts = as_corpus(
        {part.language: [f"etxe {i} handia da eta berdea" for i in range(5)] for part in material(model).test}
    )
    with result.delta.applied(model):
        shifted = shift.bits_per_byte(texts)
        plain = bits_per_byte(model, tiny_tokenizer(), texts)
        with steer(model, recipe, tokenizer=tiny_tokenizer()):
            again = bits_per_byte(model, tiny_tokenizer(), texts.only([EU]))
        scores = material(model).scores(layout_of(model), shift)
    assert shifted[EU] == again[EU] != plain[EU] and shifted[EN] == plain[EN]
    assert scores == pytest.approx(result.after, rel=1e-6)


def test_the_control_takes_the_means_of_the_next_language():
    shift = shift_of(tiny_model("llama"))
    crossed = shift.crossed()
    assert crossed.recipes[EU] is shift.recipes[FI] and crossed.recipes[FI] is shift.recipes[EU]
    assert crossed.facts()["means_of"] == "the next language" and crossed.facts() != shift.facts()
    with pytest.raises(LanguageError, match="eu is shifted alone"):
        replace(shift, recipes={EU: shift.recipes[EU]}).crossed()


def test_bad_layers_and_languages_are_one_line():
    model = tiny_model("llama")
    for layers in ((1, 1), (2, 1), (0, 3), (-1, 2)):
        with pytest.raises(MeasurementError, match="expected two of 0–2, the first one lower"):
            LanguageShift.of(model, tiny_tokenizer(), PARALLEL, layers=layers)
    with pytest.raises(LanguageError, match="expected de and another language"):
        LanguageShift.of(model, tiny_tokenizer(), PARALLEL, layers=AREA, against="de")
    shift = shift_of(model)
    with pytest.raises(LanguageError, match="cy is not shifted"):
        shift.check(Language("cy"), 1)
    with pytest.raises(MeasurementError, match="layer 2 is to be aligned, and the shift is from layer 0 to 2"):
        shift.check(EU, 2)
    with pytest.raises(MeasurementError, match="layer 2 is to be aligned"):
        adapt(material(model), "full", pairs=pairs_of(2), shift=shift, **SETTINGS)
