"""Row 13: experts of translations in a mixture, by layer, and late layers of a dense model as experts of families."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.spatial.distance import jensenshannon
from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

import babelscope as bs
from babelscope.probes.units.parallel_routing import SharedRouting, shared_routing
from babelscope.probes.units.sentence_routes import ParallelRouting, record_routing
from babelscope.reference import MODEL
from rows.late_experts import conversion, conversion_witness, planted_experts
from rows.neuron_witnesses import recall_and_precision
from rows.plain import largest, opened
from rows.result import Headline, Inputs, Planted, RowResult, Witness

LETTERS = {"en": ("abcdef", "uvwxyz"), "fi": ("ABCDEF", "UVWXYZ")}
"""Of two contents in two planted languages."""
LAYERS, MIDDLE = 12, range(3, 9)
BAR = 0.005
"""The least p that 199 draws can give."""
STEPS, ROWS, LENGTH = 60, 8, 128
"""Training of the mixture made of the bundled model."""


def measure(inputs: Inputs) -> RowResult:
    """Plain transformers' router logits, a planted middle, and the bundled model made into a mixture."""
    converted, shares = conversion()
    return RowResult(
        witnesses=[*witnesses(), conversion_witness(), shares],
        planted=[*planted(), planted_experts()],
        headlines=[headline(), converted],
        absent=["a mixture of experts trained at scale, as the papers' are: none fits here"],
    )


def witnesses() -> list[Witness]:
    """A random Qwen3-MoE: everything from output_router_logits in numpy."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL))
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        moe_intermediate_size=24,
        num_hidden_layers=6,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,  # pyright: ignore[reportCallIssue]
        num_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=512,
    )
    model: Any = Qwen3MoeForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    texts = bs.load_corpus("reference", ["en", "de", "ru"], split="valid").head(12)
    record = record_routing(model, tokenizer, texts)
    shared = shared_routing(record, draws=19, resamples=19)
    weights, picks, entropy, consistency = by_logits(model, tokenizer, texts, experts=8, top_k=2)
    divergence, overlap, contrasts = [], [], []
    for k, tag in enumerate(texts):
        distance = jensenshannon(weights[0], weights[k], base=2, axis=-1)  # pyright: ignore[reportCallIssue]
        js = (distance**2).mean(axis=1)
        divergence.append(js)
        overlap.append(np.minimum(picks[0], picks[k]).sum(axis=-1).mean(axis=1))
        if tag != "en":
            contrasts.append(js[[0, 5]].mean() - js[1:5].mean() - shared.contrasts[tag].estimate)
    return [
        Witness(
            what="weights, picks, entropy, consistency of 36 sentences in 6 layers, transformers' router logits",
            difference=max(
                largest(record.weights, weights),
                largest(record.picks, picks),
                largest(record.entropy, entropy),
                largest(record.consistency, consistency),
            ),
            bar=1e-5,
        ),
        Witness(
            what="divergence of translations by scipy on those",
            difference=largest(shared.mean["divergence"][1:], np.array(divergence)[1:]),
            bar=1e-5,
        ),
        Witness(
            what="overlap of picks in numpy on those",
            difference=largest(shared.mean["overlap"][1:], np.array(overlap)[1:]),
            bar=1e-9,
        ),
        Witness(
            what="outer layers less the middle by hand, 2 languages",
            difference=float(np.abs(contrasts).max()),
            bar=1e-5,
        ),
    ]


@torch.no_grad()
def by_logits(model, tokenizer, texts, *, experts: int, top_k: int) -> tuple[np.ndarray, ...]:
    """Mean weights and picks [language, layer, sentence, expert], entropy and consistency, one sentence at a time."""
    cells = {}
    for k, documents in enumerate(texts.values()):
        for i, document in enumerate(documents):
            ids = torch.tensor([tokenizer(document.text)["input_ids"]])
            for layer, scores in enumerate(model(ids, output_router_logits=True).router_logits):
                score = scores.double().numpy()[1:]  # without BOS
                share = np.exp(score - score.max(axis=1, keepdims=True))
                share /= share.sum(axis=1, keepdims=True)
                sets = [set(np.argsort(-row)[:top_k].tolist()) for row in score]
                common = [len(a & b) / top_k for x, a in enumerate(sets) for y, b in enumerate(sets) if x != y]
                met = np.bincount([expert for chosen in sets for expert in chosen], minlength=experts)
                entropy = -(share * np.log(share)).sum(axis=1).mean() / np.log(experts)
                cells[k, layer, i] = share.mean(axis=0), met / met.sum(), entropy, np.mean(common)
    shape = tuple(np.array(list(cells)).max(axis=0) + 1)
    return tuple(
        np.array([cells[place][part] for place in np.ndindex(shape)]).reshape(*shape, -1).squeeze() for part in range(4)
    )


def planted() -> list[Planted]:
    """Twelve layers whose routers split two languages in the outer ones and two contents in the middle six."""
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL))
    config = MixtralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=4,
        num_experts_per_tok=2,
    )
    torch.manual_seed(0)
    model: Any = MixtralForCausalLM(config).eval()
    with torch.no_grad():
        table = model.model.embed_tokens.weight
        table[:, :2] = 0
        for language, contents in enumerate(LETTERS.values()):
            for content, letters in enumerate(contents):
                for letter in letters:
                    for text in (letter, f" {letter}"):
                        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                        table[ids, 0], table[ids, 1] = 2.0 * language - 1, 2.0 * content - 1
        for number, layer in enumerate(model.model.layers):
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.experts.down_proj.zero_()
            layer.mlp.gate.weight.zero_()
            layer.mlp.gate.weight[:, int(number in MIDDLE)] = torch.tensor([-1.0, -0.9, 0.9, 1.0])
    rng = np.random.default_rng(0)
    content = rng.integers(0, 2, 40)
    texts = {tag: [" ".join(rng.choice(list(parts[kind]), 12)) for kind in content] for tag, parts in LETTERS.items()}
    record = record_routing(model, tokenizer, texts)
    shared = shared_routing(record, resamples=50)
    sharing = {layer for layer in range(LAYERS) if shared.p["overlap"][1, layer] <= BAR}
    contrast, tag = shared.contrasts[shared.languages[1]], shared.languages[1]
    shuffled = []
    for _ in range(20):
        order = torch.from_numpy(rng.permutation(40))
        weights, picks = (torch.stack([part[0], part[1][:, order]]) for part in (record.weights, record.picks))
        unrelated = shared_routing(replace(record, weights=weights, picks=picks), resamples=2)
        shuffled.append(unrelated.contrasts[tag].p_pairs <= BAR)
    true = contrast.p_layers <= BAR and contrast.p_pairs <= BAR
    recall, precision = recall_and_precision(sharing, set(MIDDLE))
    return [
        Planted(
            what=f"{len(MIDDLE)} of {LAYERS} layers that route by content, by p ≤ {BAR} of overlap",
            recall=recall,
            precision=precision,
        ),
        Planted(
            what=f"a middle that translations share, by p ≤ {BAR} over layers and over pairs, among {len(shuffled)} "
            "texts whose sentences are shuffled",
            recall=float(true),
            precision=true / (true + sum(shuffled)) if true else 0.0,
        ),
    ]


def mixture() -> tuple[Any, Any, float, list[float]]:
    """The bundled model with four copies of each MLP as experts, two a token, trained for some steps.

    Also the largest difference of its logits from the bundled model's before training, and losses.
    """
    dense, tokenizer = opened(str(MODEL))
    source = dense.config
    config = MixtralConfig(
        vocab_size=source.vocab_size,
        hidden_size=source.hidden_size,
        intermediate_size=source.intermediate_size,
        num_hidden_layers=source.num_hidden_layers,
        num_attention_heads=source.num_attention_heads,
        num_key_value_heads=source.num_key_value_heads,
        head_dim=source.head_dim,
        rms_norm_eps=source.rms_norm_eps,
        rope_parameters=source.rope_parameters,
        max_position_embeddings=source.max_position_embeddings,
        tie_word_embeddings=True,
        num_local_experts=4,
        num_experts_per_tok=2,
        output_router_logits=True,
        router_aux_loss_coef=0.02,
    )
    torch.manual_seed(0)
    model: Any = MixtralForCausalLM(config)
    with torch.no_grad():
        weights = dict(dense.named_parameters())
        for name, parameter in model.named_parameters():
            layer = name.split(".mlp.")[0]
            if name.endswith("experts.gate_up_proj"):
                both = torch.cat([weights[f"{layer}.mlp.{part}_proj.weight"] for part in ("gate", "up")])
                parameter.copy_(both.expand_as(parameter))
            elif name.endswith("experts.down_proj"):
                parameter.copy_(weights[f"{layer}.mlp.down_proj.weight"].expand_as(parameter))
            elif name not in weights:
                parameter.normal_(0, 0.1)  # A router.
            else:
                parameter.copy_(weights[name])
        ids = torch.tensor([tokenizer("The children walked to the house.")["input_ids"]])
        difference = largest(model.eval()(ids).logits, dense(ids).logits)
    lines = [document.text for part in bs.load_corpus("reference", split="train").values() for document in part]
    np.random.default_rng(0).shuffle(lines)
    stream = torch.tensor([token for line in lines for token in tokenizer(line)["input_ids"]])
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), []
    for step in range(STEPS):
        batch = stream[step * ROWS * LENGTH : (step + 1) * ROWS * LENGTH].view(ROWS, LENGTH)
        loss = model(batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return model.eval(), tokenizer, difference, losses


def headline() -> Headline:
    """The contrast of a mixture that was the bundled model."""
    model, tokenizer, difference, losses = mixture()
    texts = bs.load_corpus("reference", ["en", "de", "fr", "fi", "ru", "hi", "zh"], split="test")
    record: ParallelRouting = record_routing(model, tokenizer, texts, sentences=100)
    shared: SharedRouting = shared_routing(record)
    rows = shared.contrasts.values()
    clear = [row for row in rows if row.low > 0 and row.p_layers <= 0.05]
    meaning = [row for row in rows if row.p_pairs <= 0.05]
    by_layer, entropy, consistency = (
        " ".join(f"{value:.2f}" for value in values)
        for values in (
            shared.mean["divergence"][1:].mean(dim=0).tolist(),
            shared.entropy.mean(dim=0).tolist(),
            shared.consistency.mean(dim=0).tolist(),
        )
    )
    contrast, layers, pairs = (
        float(np.mean([getattr(row, name) for row in rows])) for name in ("estimate", "null_layers", "null_pairs")
    )
    return Headline(
        paper="experts are language-specific in early and late layers and shared in the middle (Qwen3, OLMoE, others)",
        ours=f"outer layers less the middle {contrast:+.3f} bits, above 0 and p ≤ .05 over layers in {len(clear)} of "
        f"{len(rows)} languages; more than of unrelated sentences (p ≤ .05) in {len(meaning)}; divergence by layer "
        f"{by_layer}; entropy {entropy}; consistency {consistency}",
        control=f"layers in random order {layers:+.3f}, sentences paired at random {pairs:+.3f}",
        model=f"the bundled model with four copies of each MLP as experts (logits differ by {difference:.0e}), trained "
        f"for {STEPS} steps of {ROWS * LENGTH:,} tokens (loss {losses[0]:.2f} to {losses[-1]:.2f})",
        verdict="in shape" if len(clear) > len(rows) / 2 else "not",
    )
