"""Is a set about its language or about its script? Each set in parts, by the languages that a neuron belongs to."""

from collections.abc import Mapping

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.ablation.ablation_table import AblationTable
from babelscope.ablation.matrix import ablation_matrix
from babelscope.ablation.scored_text import ScoredText
from babelscope.artifacts import NeuronSet
from babelscope.axes import Bool, Tensor
from babelscope.languages import Language
from babelscope.languages.lineage import LINEAGE
from babelscope.models.plain import CausalModel

PARTS = ("exclusive", "script_and_family", "script", "family", "further")
"""Names of the parts, in the order in which a neuron is given to the first that fits it."""


def set_parts(sets: NeuronSet) -> dict[str, NeuronSet]:
    """Each language's set in disjoint parts, by the other languages that have the neuron; together they are the set.

    exclusive: no other language has it. script_and_family: all others write the same script and are of the same family
    (`babelscope.probes.LINEAGE`; a language that it lacks is a family of its own). script, family: all others share the
    one, but not the other. further: some other language shares neither. A neuron of Russian, Ukrainian and Bulgarian
    cannot tell script from family and is in script_and_family; one of Russian and Tatar is in script.
    """
    mask = sets.mask()
    script = alike([tag.script for tag in sets.languages])
    family = alike([lineage_family(tag) for tag in sets.languages])
    left, parts = mask.clone(), {}
    for name, allowed in zip(
        PARTS,
        (torch.eye(len(mask), dtype=torch.bool), script & family, script, family, torch.ones_like(script)),
        strict=True,
    ):
        outside = torch.einsum("km,mlj->klj", (~allowed).double(), mask.double()) > 0
        chosen = left & ~outside
        left &= outside
        parts[name] = part_of(sets, chosen)
    return parts


def lineage_family(tag: Language) -> str:
    """Family of a language, or its own tag where the table lacks it."""
    known = {Language(name).iso639_3: lineage.family for name, lineage in LINEAGE.items()}
    return known.get(tag.iso639_3, str(tag))


def alike(names: list[str]) -> Bool[Tensor, "language language"]:
    """Which languages have the same name of something."""
    return torch.tensor([[one == other for other in names] for one in names])


def part_of(sets: NeuronSet, mask: Bool[Tensor, "language layer neuron"]) -> NeuronSet:
    """Some of the neurons, with their scores."""
    score = torch.zeros(mask.shape)
    for k in range(len(sets.languages)):
        for layer in range(sets.n_layers):
            row = slice(int(sets.offsets[k, layer]), int(sets.offsets[k, layer + 1]))
            score[k, layer, sets.indices[row].long()] = sets.score[row].float()
    return NeuronSet.from_mask(
        mask,
        score,
        origin=sets.origin,
        languages=sets.languages,
        at=sets.at,
        method=sets.method,
        parameters=sets.parameters,
    )


def part_tables(
    model: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    sets: NeuronSet,
    texts: ScoredText,
    *,
    draws: int = 19,
    seed: int = 0,
    progress: bool = False,
) -> dict[str, AblationTable]:
    """Every part switched off by itself on every text, beside random sets of its own size in each layer.

    The random sets are of neurons that no language has at all, so that no part is the control of another. A part that
    every language lacks is left out. The harms of parts do not add up to the harm of the set, which is measured whole.
    """
    parts: Mapping[str, NeuronSet] = {name: part for name, part in set_parts(sets).items() if len(part.indices)}
    return {
        name: ablation_matrix(
            model,
            tokenizer,
            part,
            texts,
            controls=("layer_matched",),
            draws=draws,
            barred=sets,
            seed=seed,
            progress=progress,
        )
        for name, part in parts.items()
    }
