"""Train late experts on text of language families: each family has an expert, to which its tokens are drawn."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedTokenizerBase

from babelscope.adaptation.expert_conversion import is_shared, mixture_parameters
from babelscope.axes import Float, Int, Int64, Tensor
from babelscope.corpus import Corpus
from babelscope.errors import LanguageError
from babelscope.languages import Language
from babelscope.languages.lineage import lineage_of
from babelscope.models import Layout
from babelscope.subnetworks import Dense, LearningRate, Mixture, PackedText, Plan, Rows, Training, train

Families = Mapping[str, tuple[Language, ...]]
"""By name of a family, its languages; the i-th family has the i-th expert."""


def language_families(languages: Sequence[str], *, by: str = "family") -> dict[str, tuple[Language, ...]]:
    """Languages by the family, or with by="branch" by the branch, that historical linguistics puts them in.

    Raises LanguageError where the lineage of a language is not known, and for fewer than two families.
    """
    families: dict[str, tuple[Language, ...]] = {}
    for tag, lineage in lineage_of(languages).items():
        name = lineage.branch if by == "branch" else lineage.family
        families[name] = (*families.get(name, ()), tag)
    check_families(families)
    return families


def check_families(families: Families) -> None:
    """Raise LanguageError for fewer than two families, one without a language, and a language of two."""
    tags = [tag for members in families.values() for tag in members]
    if len(families) < 2 or len(set(tags)) < len(tags) or not all(families.values()):
        text = "; ".join(f"{name}: {', '.join(members)}" for name, members in families.items())
        raise LanguageError(
            f"families {text or 'none'} came; expected two or more, with a language each and no language twice; give "
            "text of more families, or group by branch"
        )


def random_families(families: Families, seed: int) -> dict[str, tuple[Language, ...]]:
    """As many groups of the same sizes, with languages in random places; never the families themselves.

    Raises LanguageError where every family is one language: then any groups are the same.
    """
    tags, sizes = [tag for members in families.values() for tag in members], list(map(len, families.values()))
    if max(sizes) == 1:
        raise LanguageError(
            f"each of {len(sizes)} families has one language; expected one of two or more, to draw random families "
            "beside them; give text of related languages"
        )
    generator, real = torch.Generator().manual_seed(seed), {frozenset(members) for members in families.values()}
    while True:
        shuffled = [tags[place] for place in torch.randperm(len(tags), generator=generator).tolist()]
        groups = [tuple(part.tolist()) for part in torch.arange(len(tags)).split(sizes)]
        drawn_groups = {f"random {number}": tuple(shuffled[i] for i in places) for number, places in enumerate(groups)}
        if {frozenset(members) for members in drawn_groups.values()} != real:
            return drawn_groups


class FamilyText(Mixture):
    """Rows of one family after the other, and of its languages in turn, so that every family gets as many."""

    def __init__(
        self, texts: Mapping[Language, PackedText], families: Families, groups: Families | None = None
    ) -> None:
        """groups: whose i-th languages are to have the i-th expert; None takes the families."""
        self.packed, self.families = texts, families
        self.texts = tuple(texts.values())
        super().__init__(self.texts[0], (), 0.0)
        place = {tag: number for number, tag in enumerate(texts)}
        self.members = [[place[tag] for tag in members] for members in families.values()]
        self.expert_of = {
            tag: number for number, members in enumerate((groups or families).values()) for tag in members
        }
        self.experts: Int64[Tensor, " row"] = torch.zeros(0, dtype=torch.int64)
        """The expert of each row that was last read."""

    def grouped(self, groups: Families) -> "FamilyText":
        """The same rows in the same order, for other groups of the languages."""
        return FamilyText(self.packed, self.families, groups)

    def row(self, number: int) -> tuple[Language, Rows]:
        """Language and row of the number-th row since the start of training."""
        turn, family = divmod(number, len(self.members))
        passes, place = divmod(turn, len(self.members[family]))
        source = self.members[family][place]
        text = self.texts[source]
        epoch, index = divmod(passes, text.rows_per_epoch)
        if self._held.get(source, (-1, None))[0] != epoch:
            self._held[source] = (epoch, text.epoch(epoch))
        return text.language, Rows(*(part[index : index + 1] for part in self._held[source][1]))

    def rows(self, start: int, count: int) -> Rows:
        """Consecutive rows."""
        parts = [self.row(number) for number in range(start, start + count)]
        self.experts = torch.tensor([self.expert_of[tag] for tag, _ in parts])
        return Rows(*(torch.cat(columns) for columns in zip(*(rows for _, rows in parts), strict=True)))


def family_text(
    tokenizer: PreTrainedTokenizerBase, texts: Corpus, families: Families, *, length: int, seed: int
) -> FamilyText:
    """Text of every language of the families, packed; raises LanguageError where one has none."""
    missing = [tag for members in families.values() for tag in members if tag not in texts]
    if missing:
        raise LanguageError(f"no text of {', '.join(missing)}; expected text of every language of the families; add it")
    tags = [tag for members in families.values() for tag in members]
    packed = {
        tag: PackedText.of(tokenizer, tag, texts[tag], length=length, seed=seed + 7919 * number)
        for number, tag in enumerate(sorted(tags))
    }
    return FamilyText(packed, families)


def router_loss(
    scores: Float[Tensor, "token expert"],
    chosen: Int[Tensor, "token k"],
    targets: Int[Tensor, " token"],
    *,
    guide: float,
    balance: float,
) -> Float[Tensor, ""]:
    """guide · mean −log p(expert of the token's family) + balance · E Σ_x f_x p̄_x, over the tokens of a step.

    p is the softmax of the scores, f_x how many of a token's choices fall on expert x on average, p̄_x the mean of p.
    Source of the second part: Fedus et al. 2021, arXiv:2101.03961, as transformers takes it for several choices.
    """
    n_experts = scores.shape[1]
    share = F.one_hot(chosen, n_experts).sum(dim=1).to(scores.dtype).mean(dim=0)
    even = n_experts * (share * scores.softmax(dim=-1).mean(dim=0)).sum()
    return guide * F.cross_entropy(scores, targets) + balance * even


@contextmanager
def routers_taught(layout: Layout, text: FamilyText, *, guide: float, balance: float) -> Iterator[None]:
    """While open, the gradient of `router_loss`, mean over layers, is added to that of the text in every router."""
    routers = [layout.layer(layer).get_submodule(layout.family.router) for layer in layout.routed_layers]

    def after(_: nn.Module, args: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
        scores, chosen = output[0], output[2]
        if not scores.requires_grad:
            return
        leaf = scores.detach().float().requires_grad_()
        targets = text.experts.to(leaf.device).repeat_interleave(len(leaf) // len(text.experts))
        loss = router_loss(leaf, chosen, targets, guide=guide, balance=balance) / len(routers)
        (towards,) = torch.autograd.grad(loss, leaf)
        scores.register_hook(lambda gradient: gradient + towards.to(gradient.dtype))

    with ExitStack() as stack:
        for router in routers:
            stack.callback(router.register_forward_hook(after).remove)
        yield


def train_layers(
    layout: Layout,
    layers: Sequence[int],
    text: FamilyText,
    *,
    rate: LearningRate,
    rows_per_step: int,
    guide: float = 0.0,
    balance: float = 0.0,
    progress: bool = False,
    at_end: Callable[[], Any] = lambda: None,
) -> Training:
    """Train the MLPs of some layers, with their routers and experts where there are some, and nothing else.

    at_end: called while the model runs with the trained values; afterwards it is as before, bit for bit.
    """
    names = tuple(
        name for layer in layers for name, _ in mixture_parameters(layout, layer) if not is_shared(layout, name)
    )
    run = Training(layout, Dense(layout, names), text, Plan(rate, rows_per_step))
    with ExitStack() as stack:
        if layout.n_experts:
            stack.enter_context(routers_taught(layout, text, guide=guide, balance=balance))
        train(layout.model, run, progress=progress, at_end=at_end)
    return run


def train_families(
    layout: Layout,
    text: FamilyText,
    *,
    rate: LearningRate,
    rows_per_step: int,
    guide: float,
    balance: float,
    progress: bool = False,
) -> Training:
    """Train routers and experts of a mixture in place: it stays trained.

    guide: how strongly a family's tokens are drawn to its expert; 0 leaves the routers to the text. balance: how
    strongly uneven use is held against them. Both only in training: afterwards no label of a language is needed.
    Source: Zheng et al. 2025, arXiv:2410.10626, which puts a family's expert among the chosen ones by its label
    (Hybrid-k); here the router learns to choose it, so that transformers runs the model as it is.
    """
    trained: dict[str, Tensor] = {}

    def keep_values() -> None:
        for layer in layout.routed_layers:
            trained.update({name: part.detach().clone() for name, part in mixture_parameters(layout, layer)})

    run = train_layers(
        layout,
        layout.routed_layers,
        text,
        rate=rate,
        rows_per_step=rows_per_step,
        guide=guide,
        balance=balance,
        progress=progress,
        at_end=keep_values,
    )
    with torch.no_grad():
        for name, value in trained.items():
            layout.model.get_parameter(name).copy_(value)
    return run
