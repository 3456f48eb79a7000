"""The embedding tables of a model, and which of their entries a measure takes."""

from typing import Literal

import torch

from babelscope.axes import Float64, Int64, Tensor
from babelscope.models import layout_of
from babelscope.models.plain import CausalModel
from babelscope.probes.word_lists import LanguageTokens

Table = Literal["input", "output"]
NO_SCRIPT = ("mixed", "no letter", "part of a character", "special")


def embedding_tables(model: CausalModel) -> dict[Table, Float64[Tensor, "vocab hidden"]]:
    """Both tables, or one where they are the same tensor."""
    layout = layout_of(model)
    inside, outside = (module.get_parameter("weight").detach() for module in (layout.embedding, layout.head))
    tables: dict[Table, Tensor] = {"input": inside.double().cpu()}
    if outside.data_ptr() != inside.data_ptr():
        tables["output"] = outside.double().cpu()
    return tables


def same_script_entries(tokens: LanguageTokens, scripts: list[str], fewest: int) -> dict[str, list[int]]:
    """Entries by language within the script in which most languages have enough of them."""
    by_script: dict[str, dict[str, list[int]]] = {}
    for tag, own in zip(tokens.languages, tokens.member, strict=True):
        for token in own.nonzero()[:, 0].tolist():
            if token < len(scripts) and scripts[token] not in NO_SCRIPT:
                by_script.setdefault(scripts[token], {}).setdefault(tag, []).append(token)
    enough = [{tag: own for tag, own in found.items() if len(own) >= fewest} for found in by_script.values()]
    return max(enough, key=len, default={})


def random_part(members: list[int], most: int, generator: torch.Generator) -> Int64[Tensor, " entry"]:
    """All, or a random part where there are more."""
    return torch.tensor(members)[torch.randperm(len(members), generator=generator)[:most]]
