"""Prompts, pushes and answers that the tests of steering share."""

import torch

from babelscope import (
    Condition,
    Gate,
    Operation,
    Schedule,
    Site,
    layout_of,
    read_site,
    steer,
)
from babelscope.artifacts import FeatureMap
from babelscope.upstream.forward import forward_names
from babelscope.upstream.names import attribute

STEPS = 4
MIDDLE, STEADY = Site(1, "resid_out"), Schedule()
PHASES = ("prompt", "generated", "both")
GATES = [
    *({"phase": phase} for phase in PHASES),
    {"positions": (-2, None)},
    {"positions": (1, -1)},
    {"phase": "both", "schedule": Schedule.first(3)},
    {"phase": "generated", "schedule": Schedule.every(2)},
    {"phase": "both", "schedule": Schedule.ramp(4, start=0.2, end=1.0)},
]
MASK = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])

WAYS = [
    {"use_cache": False},
    {"prefill_chunk_size": 1},
    {"prefill_chunk_size": 2},
    {"prefill_chunk_size": 3},
    {"cache_implementation": "static"},
]


def vector(seed=0, width=32):
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def cache_name(model):
    """What this release calls the cache that a forward pass is given."""
    return forward_names(model).cache


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


def basis(rank=3, width=32, seed=0):
    """Orthonormal rows."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, rank, generator=generator)).Q.T.contiguous()


def features(top_k=None, width=32, seed=0):
    """Three features of an autoencoder of ten, or all ten where the largest are asked for."""
    generator = torch.Generator().manual_seed(seed)
    n = 3 if top_k is None else 10
    return FeatureMap(
        encoder=torch.randn(n, width, generator=generator),
        bias=torch.randn(n, generator=generator),
        threshold=torch.rand(n, generator=generator),
        decoder=torch.randn(3, width, generator=generator),
        chosen=torch.arange(3) if top_k is None else torch.tensor([7, 0, 4]),
        top_k=top_k,
    )


def kinds(model, strength=1.0, **gate):
    """One operation of every newer kind that the model has a place for, strong enough to change words."""
    experts = layout_of(model).n_experts
    where = Gate(**gate)
    wide = {"gate": where, "strength": strength}
    square = torch.randn(32, 32, generator=torch.Generator().manual_seed(5)) / 6
    found = {
        "subspace": Operation(MIDDLE, "subspace", vector(1) * 9, matrix=basis(), **wide),
        "affine": Operation(MIDDLE, "affine", vector(2), matrix=square, **wide),
        "clamp": Operation(MIDDLE, "clamp_features", torch.tensor([9.0, 0.0, 4.0]), features=features(), **wide),
        "scale": Operation(MIDDLE, "scale_features", torch.tensor([0.0, 9.0, -4.0]), features=features(4), **wide),
    }
    if experts:
        found["promote"] = Operation(
            Site(1, "router"), "promote", torch.tensor([3.0, -3.0]), indices=torch.tensor([2, 0]), **wide
        )
        found["force"] = Operation(Site(1, "router"), "force", torch.tensor([0.0, 0.0, 0.1, -0.1]), **wide)
    return found


def threshold_between(model, ids):
    """A threshold that some of these rows' prompts reach."""
    values = read_site(model, ids, Site(0, "resid_out")).double().mean(dim=1)
    scores = torch.nn.functional.cosine_similarity(values, vector(4)[None].double(), dim=1)
    ordered = scores.sort().values
    return float(ordered[:2].mean())


def conditional(model, strength=8.0, threshold=0.0, above=True, **gate):
    asked = Condition(Site(0, "resid_out"), vector(4), threshold, above)
    return push(strength=strength, condition=asked, **gate)


def pasted(model, layer=1, strength=1.0, **gate):
    square = torch.randn(32, 32, generator=torch.Generator().manual_seed(6)) / 3
    where = Gate("prompt", positions=(-1, None))
    site = Site(layer, "mlp_out")
    return Operation(site, "affine", vector(3), strength=strength, matrix=square, gate=where, clean=True)


@torch.no_grad()
def by_hand(model, ids, mask, steps=STEPS):
    """Logits of every step of a greedy answer, token by token, as people write it."""
    given, rows, cache = ids, [], {}
    for _ in range(steps):
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -given.shape[1] :]
        out = model(input_ids=given, attention_mask=mask, position_ids=places, use_cache=True, **cache)
        rows.append(out.logits[:, -1])
        given, cache = rows[-1].argmax(dim=1, keepdim=True), {cache_name(model): attribute(out, "output.cache")}
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return torch.stack(rows, dim=1)
