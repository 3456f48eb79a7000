"""Row 3: neurons of MLPs and attentions by what the model loses without each."""

from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM

import babelscope as bs
from babelscope.models import layout_of
from babelscope.models.attention import attention_by
from babelscope.probes import ablate_structures, structure_votes
from babelscope.probes.units.attention_removal import attend_plainly, attention_effects, output_rows
from babelscope.probes.units.structure_ablation import PARTS
from babelscope.reference import MODEL
from rows.experts_removed import routed_planted, routed_witness
from rows.neuron_witnesses import LETTERS, planted_model, planted_texts, recall_and_precision
from rows.result import Headline, Inputs, Planted, RowResult, Witness

FOUR = ("en", "de", "fi", "ru")


def removal(inputs: Inputs) -> RowResult:
    """Row 3: exact effects, the paper's parallel form, planted neurons, and harm by layer block and structure."""
    model, tokenizer = bs.open_model("reference", device="cpu", dtype="float32")
    chosen_on = bs.load_corpus("reference", FOUR, split="valid").head(40)
    held_out = bs.load_corpus("reference", FOUR, split="test").head(20)
    votes = structure_votes(model, tokenizer, chosen_on, top_rate=0.1, tokens_per_language=400, max_length=48)
    sets = votes.specific(vote=0.6)
    harm = ablate_structures(model, tokenizer, sets, votes.languages, held_out, draws=3, max_tokens=250)
    parts = []
    for part in PARTS:
        cells = [cell for cell in harm.cells if cell.structure == part]
        wins = sum(cell.own_harm > max(cell.other_harm, *cell.control_harms) for cell in cells)
        means = [(cell.own_harm, cell.other_harm, float(np.mean(cell.control_harms))) for cell in cells]
        own, others, drawn = 100 * np.array(means).mean(axis=0)
        parts.append((part, len(cells), wins, own, others, drawn))
    removed = sum(int(mask.sum()) for mask in sets.values())
    share = removed / sum(mask.numel() for mask in sets.values())
    most = sum(wins for _, _, wins, *_ in parts) / sum(count for _, count, *_ in parts)
    return RowResult(
        witnesses=[*brute_force(), routed_witness()],
        planted=[*planted(), routed_planted()],
        headlines=[
            Headline(
                paper="without .13 % of the neurons, those of one language, its text suffers and English hardly "
                "(Vicuna 7B, Mistral 7B; by three blocks of layers, FFN and attention)",
                ours=f"without {100 * share:.2f} % of the neurons, mean over languages and blocks: "
                + "; ".join(
                    f"{part} own text {own:.2f} %, other texts {others:.2f} %" for part, _, _, own, others, _ in parts
                )
                + f"; own text is hurt more than others' mean and all random sets in {100 * most:.0f} % of cells",
                control="random sets of as many neurons in each layer and structure: "
                + "; ".join(f"{part} {drawn:.2f} %" for part, *_, drawn in parts),
                model="the bundled model, four languages",
                verdict="in shape" if most > 0.5 else "not",
            )
        ],
        absent=[
            "the paper's tasks (XQuAD, MGSM, X-CSQA, XLSum): the harm here is loss on held-out text",
        ],
    )


def brute_force() -> list[Witness]:
    """A random OPT, whose queries, keys and values are rows of projections: each row at zero, in float64."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL))
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        word_embed_proj_dim=32,
        max_position_embeddings=64,
    )
    model: Any = OPTForCausalLM(config).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3)
    attention, layout = model.model.decoder.layers[1].self_attn, layout_of(model)
    ids = torch.tensor([tokenizer("Neurons of attention, one after the other.")["input_ids"][:16]])
    counted = torch.ones(ids.shape, dtype=torch.bool)

    def outputs(module) -> torch.Tensor:
        seen = []
        handle = module.register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
        with torch.no_grad():
            model(ids)
        handle.remove()
        return seen[0]

    found = {}

    def attend(inputs):
        if inputs.layer == 1:
            found["effects"] = attention_effects(inputs, counted, output_rows(layout, 1))
        return attend_plainly(inputs)

    with torch.no_grad(), attention_by(model, attend):
        model(ids)
    whole, differences = outputs(attention.out_proj), []
    for name, projection in (("query", attention.q_proj), ("key", attention.k_proj), ("value", attention.v_proj)):
        for unit in range(0, 32, 5):
            with torch.no_grad():
                before = projection.weight[unit].clone(), projection.bias[unit].clone()
                projection.weight[unit], projection.bias[unit] = 0, 0
                change = whole - outputs(attention.out_proj)
                projection.weight[unit], projection.bias[unit] = before
            brute = change.square().sum(dim=-1).mean().sqrt()
            differences.append(abs(float(found["effects"].exact[name][0, unit] / brute) - 1))
    query, key = (outputs(projection)[0].view(-1, 4, 8).numpy() for projection in (attention.q_proj, attention.k_proj))
    parallel = []
    for head in range(4):
        scores = query[:, head] @ key[:, head].T / np.sqrt(8)
        for d in range(8):
            without = scores - np.outer(query[:, head, d], key[:, head, d]) / np.sqrt(8)
            change = masked_softmax(without) - masked_softmax(scores)
            parallel.append(float(np.sqrt((change**2).sum(axis=1).mean())))
    ours = found["effects"].parallel["query"][0].numpy()
    return [
        Witness(
            what=f"effects of {len(differences)} rows of query, key and value projections at zero in a random OPT, "
            "relative",
            difference=max(differences),
            bar=1e-6,
        ),
        Witness(
            what="softmax(A) − softmax(A − q_d k_dᵀ/√d) in numpy, 32 coordinates",
            difference=float(np.abs(np.array(parallel) - ours).max()),
            bar=1e-9,
        ),
    ]


def masked_softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax of each row over what comes before and the token itself."""
    masked = np.where(np.tri(len(scores), dtype=bool), scores, -np.inf)
    weights = np.exp(masked - masked.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def planted() -> list[Planted]:
    """Neurons of MLPs and coordinates of values that one language's letters alone drive, and nothing else writes."""
    model, tokenizer, places = planted_model(str(MODEL), ("specific",) * 2)
    with torch.no_grad():
        for number, layer in enumerate(model.model.layers):
            for at, neuron in places["specific"]:
                if at == number:
                    layer.mlp.down_proj.weight[:, neuron] = 0.01
                    layer.mlp.up_proj.weight[neuron] = layer.mlp.gate_proj.weight[neuron]
            for axis in range(3):
                layer.self_attn.v_proj.weight[axis] = 0
                layer.self_attn.v_proj.weight[axis, axis] = 1
                layer.self_attn.o_proj.weight[:, axis] = 0.01
    votes = structure_votes(model, tokenizer, planted_texts(), top_rate=2 / 96, max_length=40)
    sets = votes.specific(vote=0.9)
    true = {
        "ffn": {(list(LETTERS).index(tag), *place) for tag in LETTERS for place in places[tag]},
        "value": {(axis, layer, axis) for axis in range(3) for layer in range(2)},
    }
    rows = []
    for name, cells in true.items():
        recall, precision = recall_and_precision({tuple(cell) for cell in sets[name].nonzero().tolist()}, cells)
        rows.append(Planted(what=f"{len(cells)} neurons of {name}", recall=recall, precision=precision))
    return rows
