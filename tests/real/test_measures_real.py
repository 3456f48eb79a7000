"""What is counted and steered on the real models, against plain hooks; what is saved comes back."""

import pytest
import torch
from steering_cases import by_hand

from babelscope import Direction, Gate, Language, Observation, Operation, Schedule, Site, observe, origin_of, steer
from babelscope.corpus import tokenize_prompt
from babelscope.models import check_made_for

pytestmark = pytest.mark.real
TEXTS = {
    "en": ["The children walked home from school.", "It rained.", "So they took the bus, and then the train."],
    "fi": ["Lapset kävelivät koulusta kotiin.", "Satoi, joten he menivät bussilla."],
}
SITE, WORDS = Site(6, "resid_out"), 4
ROUNDING = 1e-4
"""float32 sums in another order move a pre-activation, of about 1, by less."""
PROMPTS = ("The old house by the lake was", "Lapset")


def special(tokenizer, ids):
    return torch.isin(ids, torch.tensor(tokenizer.all_special_ids))


def counted(model, tokenizer, text):
    """By layer and neuron: tokens of one text on which it is active, and those on which that hangs on rounding.

    The text is in a pass of its own, with a hook on what goes into the activation.
    """
    ids = torch.tensor([tokenize_prompt(tokenizer, text)])
    counts = [torch.empty(0)] * len(model.model.layers)
    close = list(counts)
    hooks = []
    for layer, block in enumerate(model.model.layers):

        def count(module, args, output, layer=layer):
            values = output[0][~special(tokenizer, ids[0])]
            counts[layer], close[layer] = (values > 0).sum(dim=0), (values.abs() < ROUNDING).sum(dim=0)

        hooks.append(block.mlp.gate_proj.register_forward_hook(count))
    with torch.no_grad():
        model.model(input_ids=ids, use_cache=False)
    for hook in hooks:
        hook.remove()
    return torch.stack([torch.stack(counts), torch.stack(close)])


def test_counts_are_those_of_each_text_alone(real_model):
    model, tokenizer = real_model
    together = observe(model, tokenizer, TEXTS, shards=0, batch_size=5).active
    single = observe(model, tokenizer, TEXTS, shards=0, batch_size=1).active
    expected, close = torch.stack(
        [sum(counted(model, tokenizer, text) for text in texts) for texts in TEXTS.values()], dim=-1
    )
    assert close.sum() < 1e-3 * expected.sum()
    assert ((single - expected).abs() <= close).all()
    assert ((together - expected).abs() <= close).all()


def test_an_observation_comes_back_whole(real_model, tmp_path):
    model, tokenizer = real_model
    observation = observe(model, tokenizer, TEXTS, sites=["0.mlp_gate", str(SITE)], shards=2)
    observation.save(tmp_path / "observation")
    loaded = Observation.load(tmp_path / "observation")
    assert loaded.origin == observation.origin
    assert torch.equal(loaded["mlp_gate"].active, observation["mlp_gate"].active)
    check_made_for(loaded.origin, model, tokenizer, "the observation")


def test_a_direction_comes_back_whole_and_zero_strength_changes_no_bit(real_model, tmp_path):
    model, tokenizer = real_model
    ids = torch.tensor([tokenizer(PROMPTS[0])["input_ids"]])
    vector = torch.ones(model.config.hidden_size)
    fi, en = Language.parse("fi"), Language.parse("en")
    direction = Direction(vector, SITE, fi, (en,), 1.0, origin_of(model, tokenizer))
    direction.save(tmp_path / "direction")
    loaded = Direction.load(tmp_path / "direction")
    assert torch.equal(loaded.vector, vector) and loaded.origin == direction.origin and loaded.site == SITE
    with torch.no_grad():
        plain = model(input_ids=ids).logits
        with steer(model, loaded.add(0.0, "raw")):
            assert torch.equal(model(input_ids=ids).logits, plain)
        with steer(model, loaded.add(50.0, "raw")):
            assert not torch.equal(model(input_ids=ids).logits, plain)


def padded(tokenizer):
    """Prompts of two lengths, the shorter behind pads."""
    rows = [tokenizer(text)["input_ids"] for text in PROMPTS]
    width = max(map(len, rows))
    pad = tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    return ids, torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])


def hooked_alone(model, tokenizer, text, push):
    """Words and their scores by hand: whole passes of one unpadded row, a vector added to every token's stream."""
    ids, scores = torch.tensor([tokenizer(text)["input_ids"]]), []

    def add(module, args, output):
        return (output[0] + push, *output[1:]) if isinstance(output, tuple) else output + push

    hook = model.model.layers[SITE.layer].register_forward_hook(add)
    with torch.no_grad():
        for _ in range(WORDS):
            logits = model(input_ids=ids, use_cache=False).logits[:, -1]
            scores.append(logits[0])
            ids = torch.cat([ids, logits.argmax(dim=-1, keepdim=True)], dim=1)
    hook.remove()
    return ids[0, -WORDS:].tolist(), torch.stack(scores)


def test_left_padded_steering_is_a_plain_hook_on_each_row_alone(real_model):
    model, tokenizer = real_model
    ids, mask = padded(tokenizer)
    generator = torch.Generator().manual_seed(4)
    push = torch.randn(model.config.hidden_size, generator=generator)
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[SITE.layer + 1]
    push = push / push.norm() * hidden[:, -1].norm(dim=-1).median() / 2
    settings = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    settings |= {"max_new_tokens": WORDS, "min_new_tokens": 0, "eos_token_id": None}
    plain = torch.stack(model.generate(ids, attention_mask=mask, **settings).logits, dim=1)
    with steer(model, Operation(SITE, "add", push)) as receipt:
        out = model.generate(ids, attention_mask=mask, **settings)
    receipt.check()
    receipt.check_answers(len(PROMPTS) * (WORDS - 1))
    assert receipt.edited("generated") == len(PROMPTS) * (WORDS - 1)
    scores = torch.stack(out.logits, dim=1)
    assert (scores - plain).abs().max() > 1
    for row, text in enumerate(PROMPTS):
        words, expected = hooked_alone(model, tokenizer, text, push)
        assert out.sequences[row, -WORDS:].tolist() == words
        torch.testing.assert_close(scores[row], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("gate", "schedule"),
    [(Gate("generated"), Schedule()), (Gate("prompt", positions=(-1, None)), Schedule()), (Gate(), Schedule.first(3))],
    ids=["generated", "last prompt token", "first steps"],
)
def test_a_loop_by_hand_steers_as_generate_does(real_model, gate, schedule):
    model, tokenizer = real_model
    ids, mask = padded(tokenizer)
    push = torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    operation = Operation(SITE, "add", push, strength=30.0, unit="unit", gate=gate, schedule=schedule)
    settings = {"do_sample": False, "return_dict_in_generate": True, "output_logits": True}
    settings |= {"max_new_tokens": WORDS, "min_new_tokens": WORDS}
    with steer(model, operation) as by_generate:
        expected = torch.stack(model.generate(ids, attention_mask=mask, **settings).logits, dim=1)
    with steer(model, operation) as receipt:
        found = by_hand(model, ids, mask, steps=WORDS)
    assert receipt == by_generate and receipt.edited() > 0
    assert torch.equal(found.argmax(dim=-1), expected.argmax(dim=-1))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
