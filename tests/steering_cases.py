"""Prompts, pushes and answers that the tests of steering share."""

import torch

from babelscope import (
    Gate,
    Operation,
    Schedule,
    Site,
    layout_of,
    steer,
)

STEPS = 4
MIDDLE, STEADY = Site(1, "resid_out"), Schedule()
PHASES = ("prompt", "generated", "both")
MASK = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])


def vector(seed=0, width=32):
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def push(seed=0, strength=8.0, *, site=MIDDLE, schedule=STEADY, **gate):
    return Operation(site, "add", vector(seed), strength=strength, unit="unit", gate=Gate(**gate), schedule=schedule)


def answer(model, ids, mask=None, **options):
    whole = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, **options}
    mask = torch.ones_like(ids) if mask is None else mask
    return model.generate(ids, attention_mask=mask, **whole)[:, ids.shape[1] :]


def scored(model, ids, mask=None, **options):
    """Logits of every step of an answer; they show what equal words would hide."""
    mask = torch.ones_like(ids) if mask is None else mask
    whole = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, **options}
    result = model.generate(ids, attention_mask=mask, return_dict_in_generate=True, output_logits=True, **whole)
    return torch.stack(result.logits, dim=1)


def close(left, right):
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


def logits(model, ids, **options):
    with torch.no_grad():
        return model(input_ids=ids, **options).logits


def padded(ids):
    return ids * MASK


def shift(model, ids, operations, tokenizer=None, **options):
    """How far steering moves each token at its own site, in one plain pass."""
    seen = []
    layout = layout_of(model)
    for steered in (operations, ()):
        with (
            steer(model, steered, tokenizer=tokenizer),
            layout.watch(MIDDLE, lambda value, *_: seen.append(value.clone())),
        ):
            logits(model, ids, **options)
    return seen[0] - seen[1]
