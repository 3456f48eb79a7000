"""The embedding tables of a model, and which of their entries a measure takes."""

from typing import Literal

import torch
from torch import nn

from babelscope.axes import Float64, Int64, Tensor
from babelscope.errors import SiteError
from babelscope.models import layout_of
from babelscope.models.families import family_of
from babelscope.models.plain import CausalModel, check_model, plain_weight
from babelscope.probes.lens.word_lists import LanguageTokens
from babelscope.upstream.devices import fetched
from babelscope.upstream.names import attribute

EmbeddingTable = Literal["input", "output"]
NO_SCRIPT = ("mixed", "no letter", "part of a character", "special")


def embedding_tables(model: CausalModel) -> dict[EmbeddingTable, Float64[Tensor, "vocab hidden"]]:
    """Both tables, or the input one alone where their rows are equal, as those of tied ones are, or there is no head.

    model: a causal model, or another one of transformers that has embeddings, such as an encoder or mT5.
    The rows are the stored ones: a factor by which a model multiplies all of its input embeddings (Gemma: the root of
    the hidden width) is left out, and so is the bias of a head.
    Raises PrerequisiteError where something stands in the place of a table or changes what it gives: an adapter, a
    wrapper, a parametrisation, packed weights, hooks of others.
    """
    embedding, head = embeddings_and_head(model)
    tables: dict[EmbeddingTable, Tensor] = {"input": _stored(embedding, "the input embedding")}
    output_table = tables["input"] if head is None else _stored(head, "the head")
    if not torch.equal(output_table, tables["input"]):
        tables["output"] = output_table
    return tables


def embeddings_and_head(model: CausalModel) -> tuple[nn.Module, nn.Module | None]:
    """The modules of both tables: of a known family by its layout, of another model as transformers names them."""
    check_model(model)
    try:
        family_of(model.config)
    except SiteError:
        return attribute(model, "model.embedding")(), attribute(model, "model.head")()
    layout = layout_of(model)
    return layout.embedding, layout.head


def _stored(module: nn.Module, what: str) -> Float64[Tensor, "vocab hidden"]:
    with fetched(module):
        return plain_weight(module, what=what).detach().double().cpu()


def same_script_entries(tokens: LanguageTokens, scripts: list[str], fewest: int) -> dict[str, list[int]]:
    """Entries by language within the script in which most languages have enough of them."""
    by_script: dict[str, dict[str, list[int]]] = {}
    for tag, is_member in zip(tokens.languages, tokens.member, strict=True):
        for token in is_member.nonzero()[:, 0].tolist():
            if token < len(scripts) and scripts[token] not in NO_SCRIPT:
                by_script.setdefault(scripts[token], {}).setdefault(tag, []).append(token)
    large_enough = [
        {tag: entries for tag, entries in by_language.items() if len(entries) >= fewest}
        for by_language in by_script.values()
    ]
    return max(large_enough, key=len, default={})


def random_part(members: list[int], most: int, generator: torch.Generator) -> Int64[Tensor, " entry"]:
    """All, or a random part where there are more."""
    return torch.tensor(members)[torch.randperm(len(members), generator=generator)[:most]]
