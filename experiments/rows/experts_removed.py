"""Row 3, of a mixture: neurons of experts by what the layer loses without each, as the router weighs them."""

import copy
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, MixtralConfig, MixtralForCausalLM

from babelscope.probes import removal_sets, removal_votes
from babelscope.reference import MODEL
from rows.neuron_witnesses import LETTERS, planted_texts, recall_and_precision
from rows.result import Planted, Witness

KINDS = ("mixtral", "qwen3_moe", "olmoe", "gpt_oss")
NEURONS, EXPERTS = 96, 4


def routed_witness() -> Witness:
    """Random mixtures of four families: a neuron's column of the down projection at zero, in float64."""
    tokenizer, differences = AutoTokenizer.from_pretrained(str(MODEL)), []
    text = {"en": ["Neurons of experts, one after the other."]}
    ids = torch.tensor([tokenizer(text["en"][0])["input_ids"]])
    for kind in KINDS:
        torch.manual_seed(0)
        config = AutoConfig.for_model(
            kind,
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=24,
            moe_intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            num_experts=EXPERTS,
            num_local_experts=EXPERTS,
            num_experts_per_tok=2,
            bos_token_id=tokenizer.bos_token_id,
        )
        model: Any = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.normal_(0, 0.3)
        ours = removal_votes(model, tokenizer, text).effect[0]
        wide = copy.deepcopy(model).double()
        wide.set_experts_implementation("eager")
        for layer, block in enumerate(wide.model.layers):
            down = block.mlp.experts.down_proj
            # gpt-oss stores [expert, neuron, hidden], the others [expert, hidden, neuron].
            columns = down if kind == "gpt_oss" else down.transpose(1, 2)
            whole = output_of(wide, block.mlp, ids)
            for expert in range(EXPERTS):
                for neuron in (0, 13):
                    with torch.no_grad():
                        before = columns[expert, neuron].clone()
                        columns[expert, neuron] = 0
                        change = (whole - output_of(wide, block.mlp, ids))[0, 1:]  # without BOS
                        columns[expert, neuron] = before
                    brute = float(change.square().sum(dim=-1).mean().sqrt())
                    effect = float(ours[layer, expert * 24 + neuron])
                    if brute:
                        differences.append(abs(effect / brute - 1))
                    elif effect:  # an expert that no token met
                        differences.append(float("inf"))
    return Witness(
        what=f"effects of {len(differences)} neurons of experts at zero in random mixtures ({', '.join(KINDS)}), "
        "relative; ours in float32, the weights at zero in float64",
        difference=max(differences),
        bar=1e-4,
    )


def output_of(model: Any, block: Any, ids: torch.Tensor) -> torch.Tensor:
    """What one mixture of experts adds, by a plain hook."""
    seen: list[torch.Tensor] = []

    def keep(module: Any, inputs: Any, output: Any) -> None:
        seen.append((output[0] if isinstance(output, tuple) else output).view(*ids.shape, -1).clone())

    handle = block.register_forward_hook(keep)
    with torch.no_grad():
        model(ids)
    handle.remove()
    return seen[0]


def routed_planted() -> Planted:
    """Two neurons per layer and language in the expert that its letters go to, and decoys in two other experts.

    The decoys read and write the same: those of one expert that the router gives a small weight, those of another that
    it never chooses.
    """
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL))
    config = MixtralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=NEURONS,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=EXPERTS,
        num_experts_per_tok=2,
    )
    generator = torch.Generator().manual_seed(7)
    model: Any = MixtralForCausalLM(config).eval()
    true: set[tuple[int, int, int]] = set()
    with torch.no_grad():
        table = torch.randn(config.vocab_size, 32, generator=generator)
        table[:, :3] = 0
        for axis, letters in enumerate(LETTERS.values()):
            for letter in letters:
                for text in (letter, f" {letter}"):
                    table[tokenizer(text, add_special_tokens=False)["input_ids"], axis] = 5
        model.model.embed_tokens.weight.copy_(table)
        for number, layer in enumerate(model.model.layers):
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.gate.weight.zero_()
            layer.mlp.gate.weight[:3, :3] = 2 * torch.eye(3) - 1
            gate = torch.randn(EXPERTS, NEURONS, 32, generator=generator)
            up, down = torch.randn(gate.shape, generator=generator), torch.zeros(EXPERTS, 32, NEURONS)
            gate[..., :3] = 0
            for axis in range(3):
                for place in torch.randperm(NEURONS, generator=generator)[:2].tolist():
                    for expert in (axis, (axis + 1) % 3, 3):
                        gate[expert, place] = up[expert, place] = 0
                        gate[expert, place, :3] = up[expert, place, :3] = 2 * torch.eye(3)[axis] - 1
                        down[expert, :, place] = 0.01
                    true.add((axis, number, axis * NEURONS + place))
            layer.mlp.experts.gate_up_proj.copy_(torch.cat([gate, up], dim=1))
            layer.mlp.experts.down_proj.copy_(down)
    votes = removal_votes(model, tokenizer, planted_texts(), top_rate=2 / (EXPERTS * NEURONS))
    found = removal_sets(votes, vote=0.9, draws=1).specific.mask().nonzero().tolist()
    recall, precision = recall_and_precision({tuple(cell) for cell in found}, true)
    return Planted(
        what=f"{len(true)} neurons of experts, beside {2 * len(true)} of the same weights in experts that the router "
        "weighs little or does not choose",
        recall=recall,
        precision=precision,
    )
