"""Every loop over text measures in eval mode, and each document as if it were alone in a model just opened."""

import ast
import copy
import dataclasses
import logging
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, tiny_model, tiny_tokenizer
from feature_cases import made_sae
from training_cases import TEXT, some_neurons
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config

import babelscope as bs
from babelscope.ablation import ablation_matrix
from babelscope.adaptation import Material, adapt
from babelscope.adaptation.representations import sentence_means
from babelscope.corpus import Corpus, Document, as_corpus
from babelscope.evaluation import HeldOut, answer_losses, bits_per_byte, document_losses
from babelscope.evaluation.similarity import sentence_vectors
from babelscope.features import observe_features
from babelscope.features.quality import measure_sae
from babelscope.languages import Language
from babelscope.models import batch_positions, eval_mode, layout_of
from babelscope.models.positions import document_lengths
from babelscope.probes.circuits.answer_patching import patch_effects
from babelscope.probes.circuits.prompt_pairs import PatchPair
from babelscope.probes.geometry.sentences import record_sentences
from babelscope.probes.lens.logit_lens import layer_logits
from babelscope.probes.lens.tuned_lens import fit_translators
from babelscope.probes.units.head_ablation import ablate_heads
from babelscope.probes.units.heads import record_heads
from babelscope.probes.units.removal import removal_votes
from babelscope.probes.units.routing import routing_use
from babelscope.steering.sweeps import Decoding, generate_answers, make_prompts
from babelscope.steering.sweeps.baselines import random_directions
from babelscope.steering.sweeps.side_effects import untouched_prompts

SOURCE = Path(bs.__file__).parent
TEXTS = {"en": [f"the house {i} is big" for i in range(8)], "eu": [f"etxe {i} handia da" for i in range(8)]}
SAME = {Language(tag): tuple(Document(str(i), text) for i, text in enumerate(TEXTS[tag])) for tag in TEXTS}
"""Eight sentences that are translations of each other, as their ids say."""
IDS = torch.randint(3, 300, (2, 9), generator=torch.Generator().manual_seed(1))
ALL = {"tokens_per_language": None}
SITE = bs.Site(1, "resid_out")


def answers(model, texts=TEXTS, **more):
    requests = [(prompt, Language("eu")) for prompt in make_prompts(as_corpus(texts), per_language=3)]
    return [one.ids for one in generate_answers(model, tiny_tokenizer(), requests, decoding=Decoding(6, 0.0, **more))]


def adapted(model):
    material = Material.prepare(
        model, tiny_tokenizer(), language="eu", documents=TEXT, dev=TEXT[:4], test=TEXTS, max_length=32
    )
    result = adapt(material, "ffn", steps=2, learning_rate=1e-4, tokens_per_step=64, evaluate_every=1)
    return result.before, result.after, [point.loss for point in result.history]


def trained(model):
    return bs.train_subnetwork(
        model, tiny_tokenizer(), some_neurons(model), TEXT, steps=2, tokens_per_step=64, max_length=32
    ).rows


PAIRS = [PatchPair("the cat is", "the dog is", "x", "y"), PatchPair("one cow was", "one pig was", "a", "b")]


def loud(model):
    """Matrices times four: small random models hardly tell two prompts apart."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


READERS = {
    "observe": lambda m: bs.observe(m, tiny_tokenizer(), TEXTS, sites=["mlp_gate", "logits"], shards=2)["mlp_gate"].sum,
    "read_site": lambda m: bs.read_site(m, IDS, SITE),
    "bits_per_byte": lambda m: bits_per_byte(m, tiny_tokenizer(), TEXTS),
    "answer_losses": lambda m: answer_losses(m, (1,), [(5, 6, 7, 8), (9, 10, 11)])[0].tolist(),
    "sentence_vectors": lambda m: sentence_vectors(m, tiny_tokenizer(), TEXTS["en"], 1),
    "layer_logits": lambda m: layer_logits(m, IDS),
    "fit_translators": lambda m: fit_translators(m, tiny_tokenizer(), TEXTS).weight,
    "record_heads": lambda m: record_heads(m, tiny_tokenizer(), TEXTS, shards=4).sums.by_shard.total,
    "ablate_heads": lambda m: [
        one.harm
        for one in ablate_heads(m, tiny_tokenizer(), {Language("eu"): ((1, 0),)}, TEXTS, draws=1, resamples=5).languages
    ],
    "record_sentences": lambda m: record_sentences(m, tiny_tokenizer(), Corpus(SAME, "same"), sentences=6).vectors,
    "removal_votes": lambda m: removal_votes(m, tiny_tokenizer(), TEXTS, shards=4).effect,
    "sentence_means": lambda m: sentence_means(layout_of(m), HeldOut.prepare(tiny_tokenizer(), TEXTS)[0]),
    "document_means": lambda m: bs.document_means(m, tiny_tokenizer(), TEXTS, [SITE])[SITE].value,
    "random_directions": lambda m: random_directions(m, tiny_tokenizer(), TEXTS, SITE, draws=2),
    "observe_features": lambda m: (
        observe_features(
            m, tiny_tokenizer(), TEXTS, made_sae(), shards=4, random_sequences=4, random_length=8, **ALL
        ).present
    ),
    "measure_sae": lambda m: measure_sae(m, tiny_tokenizer(), made_sae(), TEXTS).spliced,
    "ablation_matrix": lambda m: (
        ablation_matrix(
            m,
            tiny_tokenizer(),
            dataclasses.replace(some_neurons(m), origin=bs.origin_of(m, tiny_tokenizer())),
            TEXTS,
            draws=1,
            resamples=5,
        ).base
    ),
    "generate_answers": answers,
    "untouched_prompts": lambda m: untouched_prompts(
        m, tiny_tokenizer(), [bs.Operation(SITE, "add", torch.ones(32))], ["abc", "de"]
    ),
    "train_subnetwork": trained,
    "adapt": adapted,
}
"""Every public reader: a model to something that dropout would change."""


def dropping(family="gpt2"):
    """A model of a family with as much dropout as its config knows, all of it in eval mode."""
    config = copy.deepcopy(CONFIGS[family])
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "attention_dropout"):
        if hasattr(config, name):
            setattr(config, name, 0.5)
    torch.manual_seed(0)
    return loud(AutoModelForCausalLM.from_config(config)).eval()


def mixed(model):
    """Train mode with some modules in eval mode, as people freeze parts."""
    model.train()
    layout_of(model).layer(1).eval()
    return model


def same(one, other):
    if torch.is_tensor(one):
        return torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if dataclasses.is_dataclass(one):
        return same(vars(one), vars(other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other or (one != one and other != other)


@pytest.mark.parametrize("name", READERS)
def test_a_model_in_train_mode_is_measured_in_eval_mode_and_gets_its_flags_back(name):
    model = dropping()
    expected = READERS[name](copy.deepcopy(model))
    mixed(model)
    flags = [module.training for module in model.modules()]
    assert same(READERS[name](model), expected)
    assert [module.training for module in model.modules()] == flags and {True, False} == set(flags)


@pytest.mark.parametrize("name", READERS)
def test_an_autocast_around_a_measurement_changes_nothing(name):
    model = dropping()
    expected = READERS[name](copy.deepcopy(model))
    with torch.autocast("cpu", torch.bfloat16):
        assert same(READERS[name](model), expected)
        assert torch.is_autocast_enabled("cpu")


def test_an_autocast_would_have_changed_them():
    model = dropping()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model(IDS).logits.dtype == torch.bfloat16


def test_dropout_would_have_changed_them():
    model = dropping()
    with torch.no_grad():
        plain = model(IDS).logits
        assert not torch.equal(mixed(model)(IDS).logits, plain)


def test_patching_is_read_in_eval_mode():
    model = tiny_model("llama")
    expected = [effect.effect for effect in patch_effects(model, tiny_tokenizer(), PAIRS, resamples=5).effects]
    dropper = torch.nn.Dropout(0.5)
    model.model.layers[1].mlp.register_forward_hook(lambda _, args, output: dropper(output))
    model.model.layers[1].mlp.dropper = dropper
    found = [effect.effect for effect in patch_effects(mixed(model), tiny_tokenizer(), PAIRS, resamples=5).effects]
    assert same(found, expected)


def test_routing_is_read_in_eval_mode():
    model = dropping("mixtral")
    expected = routing_use(model, tiny_tokenizer(), TEXTS, shards=4).sums.by_shard.total
    assert torch.equal(routing_use(mixed(model), tiny_tokenizer(), TEXTS, shards=4).sums.by_shard.total, expected)


def test_flags_come_back_after_an_interruption():
    model = mixed(dropping())
    flags = [module.training for module in model.modules()]
    with pytest.raises(KeyboardInterrupt):
        bs.observe(model, tiny_tokenizer(), TEXTS, stop=lambda: True)
    assert [module.training for module in model.modules()] == flags


def test_modes_nest_and_the_last_to_leave_gives_the_flags_back():
    model = mixed(dropping())
    flags = [module.training for module in model.modules()]
    outer, inner = eval_mode(model), eval_mode(model)
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    assert not any(module.training for module in model.modules())
    inner.__exit__(None, None, None)
    assert [module.training for module in model.modules()] == flags


SEAMS = ("run_body", "run_model", "run_pass")


def callers(*ends):
    """Files of the library that call a function or method of one of these names."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        if any(ast.unparse(call).endswith(ends) for call in calls):
            found.add(str(path.relative_to(SOURCE)))
    return found


def test_text_goes_through_a_model_by_the_walk_alone():
    """A loop of one's own over text would lack its eval mode, its batches, and its way out of a full memory."""
    # A few tokens once, for looking: one site, the stream at every depth, the next token of a prompt, heads of keys.
    looking = {"models/site_reading.py", "probes/streams.py", "serving/playground/side_by_side.py"}
    looking |= {"probes/units/structure_removal.py"}
    # Passes that are compared with each other, and so must be of the same rows: patched, and beside steered rows.
    compared = {"probes/circuits/patching.py", "probes/circuits/unit_patching.py", "steering/sweeps/side_effects.py"}
    compared |= {"probes/circuits/information_routes.py"}
    # Training's losses and answers open `measured` around it; the pass before steering is as the user's own pass is.
    others = {"subnetworks/loss.py", "subnetworks/translation_pairs.py"}
    others |= {"adaptation/editing/edit_objective.py", "vocabulary/distilled_rows.py"}
    others |= {"steering/clean.py", "steering/sweeps/steered_answers.py"}
    # Passes that a walk is given, of influence and of linear maps' inputs; and requests of a server, which answers as
    # its client asks.
    others |= {"probes/influence/mlp_projections.py", "recording/linear_inputs.py", "serving/steered_models.py"}
    # Checks of a family, of a wrapper's text part, of a conversion and of this machine, on models that they opened or
    # set to eval.
    checks = {"models/family_check.py", "models/wrappers.py", "cli/doctor_checks.py"}
    checks |= {"adaptation/expert_conversion.py"}
    seam = {"models/layout.py", "models/measuring.py"}
    expected = {"recording/walk.py", *looking, *compared, *others, *checks, *seam}
    assert callers(*SEAMS, "layout.run", ".generate") == expected


def test_batches_of_documents_are_cut_by_the_walk_alone():
    """Who cuts batches is about to write a loop."""
    assert callers("batch_documents", "make_batch") == {"corpus/batches.py", "recording/walk.py"}


LONG = {"en": ["short", "a little longer", "x" * 100 + " past the length that it was trained on"], "eu": ["y" * 80]}


def rope_model(kind):
    """Random models whose rotary frequencies follow the longest row of a batch."""
    small = {
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if kind == "dynamic":
        rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
        config = LlamaConfig(**small, max_position_embeddings=64, rope_parameters=rope)
    else:
        rope = {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0] * 4,
            "long_factor": [4.0, 3.0, 2.0, 6.0],
            "original_max_position_embeddings": 64,
            "factor": 8.0,
        }
        config = Phi3Config(**small, max_position_embeddings=512, sliding_window=None, rope_parameters=rope)
        config.original_max_position_embeddings = 64
    torch.manual_seed(0)
    return loud(AutoModelForCausalLM.from_config(config)).eval().double()


def alone(kind, ids):
    """Last hidden states of one document in a model that was just made: plain transformers."""
    with torch.no_grad():
        return rope_model(kind).model(input_ids=ids[None]).last_hidden_state[0]


def padded(lengths, side):
    """Rows of these lengths, and their mask."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(3, 300, (len(lengths), max(lengths)), generator=generator)
    places = torch.arange(max(lengths))[None]
    real = torch.tensor(lengths)[:, None]
    return ids, (places < real if side == "right" else places >= max(lengths) - real).long()


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_each_row_is_read_as_if_alone_in_a_new_model(kind, side):
    model = rope_model(kind)
    ids, mask = padded((100, 9, 64, 65, 80), side)
    for _ in range(2):
        # The second time the model has read a long batch already.
        found = bs.read_site(model, ids, bs.Site(2, "resid_out"), attention_mask=mask)
        for row in range(len(ids)):
            real = mask[row].bool()
            norm = model.model.norm(found[row][real])
            torch.testing.assert_close(norm, alone(kind, ids[row][real]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_batches_never_change_a_count_or_a_loss(kind, monkeypatch):
    model, tokenizer = rope_model(kind), tiny_tokenizer()
    sites = ["mlp_gate", "resid_out"]
    one, many = (bs.observe(model, tokenizer, LONG, sites=sites, shards=2, batch_size=size) for size in (1, 4))
    assert torch.equal(one.active, many.active)
    torch.testing.assert_close(one["resid_out"].sum, many["resid_out"].sum, rtol=1e-9, atol=1e-9)
    held = HeldOut.prepare(tokenizer, LONG)
    wide = [document_losses(model, part).nats for part in held]
    monkeypatch.setattr("babelscope.recording.walk.CPU_TOKENS", 1)
    for part, nats in zip(held, wide, strict=True):
        torch.testing.assert_close(document_losses(model, part).nats, nats, rtol=1e-9, atol=1e-9)
    assert "pinned to each document" in many.settings["positions"]


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_answers_do_not_depend_on_their_neighbours(kind):
    texts = {"en": ["a" * 20, "b" * 118, "c" * 130], "eu": ["d" * 9]}
    assert answers(rope_model(kind), texts) == answers(rope_model(kind), texts, batch_size=1)


def test_steered_generation_of_a_padded_batch_is_that_of_each_row_alone():
    ids, mask = padded((80, 7), "left")
    operation = bs.Operation(SITE, "add", torch.ones(32) * 0.5)
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    model = rope_model("dynamic")
    with bs.steer(model, operation):
        both = model.generate(input_ids=ids, attention_mask=mask, **settings)[:, ids.shape[1] :]
    for row in range(2):
        own, new = ids[row][mask[row].bool()][None], rope_model("dynamic")
        with bs.steer(new, operation):
            found = new.generate(input_ids=own, attention_mask=torch.ones_like(own), **settings)[:, own.shape[1] :]
        assert torch.equal(both[row], found[0])


def test_the_models_own_positions_are_left_as_they_were(caplog):
    model = rope_model("dynamic")
    rotary = model.model.rotary_emb
    before, forward = rotary.inv_freq.clone(), vars(rotary).get("forward")
    with caplog.at_level(logging.WARNING):
        bs.observe(model, tiny_tokenizer(), LONG, shards=2)
    assert torch.equal(rotary.inv_freq, before) and vars(rotary).get("forward") is forward
    assert rotary.max_seq_len_cached == 64
    assert caplog.text.count("dynamic positions follow the longest text of a batch") == 1
    assert not model.model._forward_pre_hooks


def test_other_models_have_no_such_positions():
    assert all(not batch_positions(tiny_model(family)) for family in CONFIGS)


def test_lengths_of_packed_documents():
    rows = torch.tensor([[0, 1, 2, 0, 1, 0], [5, 6, 0, 1, 2, 2], [0, 0, 0, 1, 2, 3]])
    assert document_lengths(rows).tolist() == [[3, 3, 3, 2, 2, 1], [7, 7, 3, 3, 3, 3], [1, 1, 4, 4, 4, 4]]
