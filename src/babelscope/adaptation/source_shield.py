"""Source-shielded updates: what a little source text uses most is held still, and the rest is trained."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from einops import rearrange
from torch import nn
from transformers import PreTrainedTokenizerBase

from babelscope.adaptation.lottery_ticket import ticket_names
from babelscope.artifacts.shown import shown_by
from babelscope.axes import Bool, Tensor
from babelscope.corpus import Texts, as_corpus, special_ids
from babelscope.errors import ArtifactError, SelectionError
from babelscope.evaluation import HeldOut
from babelscope.languages import Language
from babelscope.models import Layout, layout_of
from babelscope.models.plain import CausalModel
from babelscope.models.weights import inputs_of
from babelscope.recording.linear_inputs import linear_maps, mean_squares
from babelscope.upstream.kinds import conv1d

SHIELDED = 0.5
"""Share of each matrix's columns that stays as it is, the paper's."""
SOURCE_TOKENS = 20_000
"""Of source text, over all its languages: the scores are means, which so many tokens settle."""


@dataclass(frozen=True, eq=False)
class SourceShield:
    """The columns of each linear map that source text uses most, which training leaves as they are.

    The score of column j of a weight W is |W[:, j]| · mean x_j², over the source text's tokens that count: the length
    of the column times the mean square of what it multiplies, as the authors' code has it. In each map the share of
    columns with the highest scores stays. Tables of tokens are trained but for the rows of control tokens, which a chat
    template needs; biases and the gains of norms stay.
    Source: Yamaguchi et al. 2025, arXiv:2512.04844, and its code (gucci-j/ssu). Differs: their code counts pads and
    control tokens in the means, and trains half of the values of vectors.
    """

    __repr__ = shown_by()

    columns: Mapping[str, Bool[Tensor, " into"]]
    """By the name of a map's weight: True where a column stays."""
    special: frozenset[int] = field(repr=False)
    """Ids of control tokens, whose rows stay."""
    share: float
    languages: tuple[Language, ...]
    """Of the source text."""
    tokens: int
    """Of the source text, counted."""

    @classmethod
    def of(
        cls,
        model: CausalModel,
        tokenizer: PreTrainedTokenizerBase,
        source: Texts,
        *,
        share: float = SHIELDED,
        tokens: int = SOURCE_TOKENS,
        max_length: int = 256,
    ) -> "SourceShield":
        """Read source text once and choose what stays.

        source: text by language of what the model should keep, in equal parts; tokens: of it, at most, over all.
        share: of each map's columns, rounded down. Raises SelectionError for a share outside 0 to 1, LanguageError for
        no language, CorpusError for text without a token, SiteError for a mixture of experts.
        """
        if not 0 <= share <= 1 or tokens < 1:
            raise SelectionError(
                f"share {share} and {tokens} tokens came; expected a share of 0 to 1, and a token or more; correct them"
            )
        layout = layout_of(model)
        maps = linear_maps(layout)
        corpus = as_corpus(source)
        each = max(1, tokens // len(corpus))
        parts = HeldOut.prepare(tokenizer, corpus, max_length=max_length, max_tokens=each)
        documents = [document for part in parts for document in part.documents]
        squares = mean_squares(layout, documents, pad=parts[0].pad)
        columns = {name: highest(scores_of(maps[name], squares[name]), share) for name in maps}
        return cls(
            columns,
            special_ids(tokenizer),
            share,
            tuple(part.language for part in parts),
            sum(document.n_counted for document in documents),
        )

    def masks(self, layout: Layout) -> dict[str, Bool[Tensor, "..."]]:
        """By parameter of a model, True where it may move.

        Raises ArtifactError for another model than the one that the columns are of.
        """
        maps, live = linear_maps(layout), dict(layout.model.named_parameters())
        sizes = {name: inputs_of(module) for name, module in maps.items()}
        if sizes != {name: len(stays) for name, stays in self.columns.items()}:
            raise ArtifactError(
                f"a shield of {len(self.columns)} linear maps came for a model of {len(maps)}, or of another width; "
                "expected one made on this model; make it anew"
            )
        masks: dict[str, Bool[Tensor, ...]] = {}
        for name, module in maps.items():
            moves = ~self.columns[name].to(live[name].device)
            # GPT-2's Conv1D stores its weight as [in, out].
            moves = rearrange(moves, "into -> into 1") if isinstance(module, conv1d()) else moves
            masks[name] = moves.expand(live[name].shape).clone()
        of_tokens = {id(module.weight) for module in (layout.embedding, layout.head)}
        for name in ticket_names(layout, ("embeddings",)):
            if live[name].ndim > 1:  # the head's bias stays, as all vectors do
                masks[name] = torch.ones_like(live[name], dtype=torch.bool)
            if id(live[name]) in of_tokens:  # a table of positions has no rows of tokens
                masks[name][sorted(self.special)] = False
        return masks

    def facts(self) -> dict[str, Any]:
        """What a result says of it."""
        return {"share": self.share, "languages": list(self.languages), "tokens": self.tokens}


def scores_of(module: nn.Module, squares: Tensor) -> Tensor:
    """Length of each column times the mean square of its input."""
    weight: Any = module.weight
    lengths = weight.detach().double().norm(dim=1 if isinstance(module, conv1d()) else 0).cpu()
    return lengths * squares


def highest(scores: Tensor, share: float) -> Bool[Tensor, " into"]:
    """True for that share of the values, rounded down, the highest first, ties by index."""
    stays = torch.zeros(len(scores), dtype=torch.bool)
    stays[torch.argsort(-scores, stable=True)[: int(len(scores) * share)]] = True
    return stays
