"""A vocabulary whose rows were trained on a base model, carried to a model that was tuned from it, without training."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.axes import Float, Float32, Float64, Int64, Tensor
from babelscope.errors import ArtifactError, MeasurementError
from babelscope.models import check_made_for, origin_of
from babelscope.models.plain import CausalModel, plain_weight
from babelscope.vocabulary.initial_rows import entry_leaves, mixture_of, rows_of
from babelscope.vocabulary.pack import VocabularyPack
from babelscope.vocabulary.token_tables import check_none_applied, token_tables
from babelscope.vocabulary.tokenizer_form import TokenizerForm

CARRIES = ("swap", "overlap", "conversion", "shift")
"""Ways to carry rows; see `carry_vocabulary`."""
TENTH = 10
"""Each tenth row that a map is fitted on tells, left out, how much of the change such a map explains."""
PART = 1 << 15
"""Rows that are taken in float64 at a time."""
UNSEEN = 1e-12
"""Directions whose share of the squares of the rows is below this part of the largest are left as they are."""


class RowMap(NamedTuple):
    """A linear map of rows, and how well it says what tuning did to them."""

    change: Float64[Tensor, "hidden hidden"]
    """D − 1: a row e becomes e + e (D − 1)."""
    moved: float
    """Root mean square of what tuning changed in the rows, in parts of theirs."""
    explained: float | None
    """Share of the squares of that change, in each tenth row, that a map of the others gives; None without change."""


def carry_vocabulary(
    pack: VocabularyPack,
    base: CausalModel,
    tokenizer: PreTrainedTokenizerBase,
    tuned: CausalModel,
    tuned_tokenizer: PreTrainedTokenizerBase,
    *,
    way: str = "swap",
    shuffled: bool = False,
    seed: int = 0,
) -> VocabularyPack:
    """The same vocabulary for a model that was tuned from the base, such as by instructions, without training.

    Entries that the model has get its own rows, bit for bit; a new row e of the pack becomes
    - "swap": e.
    - "overlap": e D with D = argmin Σ_t ‖b_t D − a_t‖² over the entries t that both vocabularies have; b_t is the row
      of the base, a_t that of the tuned model.
    - "conversion": the same, the sum being over all entries of the new vocabulary: of a new one, b_t and a_t are the
      means of its sub-words' rows in each of the models.
    - "shift": e + a − b, these being the means of its own sub-words; not of the paper.
    Each table has a map of its own. Where rows leave out a direction, D is the identity there, so that rows of equal
    models stay bit for bit. Elements of a head's bias are carried as they are. The chat template, special tokens, and
    what is put around a text are those of the tuned model's tokenizer. Neither model is changed.

    `parameters["carried"]` has what tuning moved in each table, and how much of it the map explains in rows that it was
    not fitted on; for "swap" and "shift" the map of "overlap" is said.
    shuffled: the control; each entry is paired with another one's row in the tuned model, drawn with the seed.
    Raises MeasurementError for an unknown way; ArtifactError for a pack of another base or tokenizer, a tuned model of
    other shapes or source vocabulary, and a model that holds another vocabulary; PrerequisiteError for tables that are
    quantised, wrapped or offloaded.
    Source: Tikhomirov and Chernyshev 2024, arXiv:2412.21140, learned embedding propagation, equations 8 to 14.
    """
    if way not in CARRIES:
        raise MeasurementError(f"way {way!r} came; expected one of {', '.join(CARRIES)}")
    for model in (base, tuned):
        check_none_applied(model, f"{pack.title}, to be carried")
    check_made_for(pack.origin, base, tokenizer, pack.title)
    pack.check(base)
    check_same_shapes(base, tuned)
    form, tuned_form, successor = map(TokenizerForm.of, (tokenizer, tuned_tokenizer, pack.tokenizer))
    check_same_source(form, tuned_form)
    entries = torch.tensor(sorted(successor.entries))
    shared, new = pack.source[entries], (pack.source < 0).nonzero()[:, 0].tolist()
    shared = shared[shared >= 0]
    leaves = [mixture_of(entry_leaves(tokenizer, successor.entries[index])) for index in new]
    generator = torch.Generator().manual_seed(seed)
    partners, new_partners = (
        _circle(size, generator) if shuffled else torch.arange(size) for size in (len(shared), len(new))
    )
    rows, facts = dict[str, Tensor](), dict[str, Any]()
    tables = [token_tables(model) for model in (base, tuned)]
    for name, part in {"rows": "embedding", "head_rows": "head"}.items():
        trained = getattr(pack, name)
        if trained is None:
            continue
        before, after = (plain_weight(getattr(model_tables, part)) for model_tables in tables)
        means = rows_of(before, leaves, generator), rows_of(after, leaves, generator)[new_partners]
        pairs = chain(_parts(before, after, shared, shared[partners]), [means] if way == "conversion" else [])
        row_map = fit_row_map(pairs, trained.shape[1])
        rows[name] = carried(trained, way, row_map, means)
        facts[part] = {"moved": row_map.moved, "explained": row_map.explained}
    account = {"way": way, "shuffled": shuffled, "seed": seed, "base": pack.origin.names, "tables": facts}
    return replace(
        pack,
        origin=origin_of(tuned, tuned_tokenizer),
        tokenizer=_with_settings_of(tuned_form, successor).open("carried tokenizer"),
        parameters={**pack.parameters, "carried": account},
        **rows,
    )


def carried(
    rows: Float32[Tensor, "new hidden"],
    way: str,
    row_map: RowMap,
    means: tuple[Float32[Tensor, "new hidden"], Float32[Tensor, "new hidden"]],
) -> Float32[Tensor, "new hidden"]:
    """Trained rows in one of the ways; means: of the sub-words of each new entry, in the base and the tuned model."""
    exact = rows.double()
    if way == "shift":
        return (exact + (means[1].double() - means[0].double())).float()
    return rows.clone() if way == "swap" else (exact + exact @ row_map.change).float()


@dataclass
class RowSums:
    """Sums over pairs of rows b and b + Δ."""

    gram: Float64[Tensor, "hidden hidden"]
    """Σ bᵀb."""
    product: Float64[Tensor, "hidden hidden"]
    """Σ bᵀΔ."""
    squares: float = 0.0
    changed: float = 0.0
    """Σ ‖b‖² and Σ ‖Δ‖²."""

    @classmethod
    def of(cls, width: int) -> "RowSums":
        """Before any pair; width: of a row."""
        return cls(torch.zeros(width, width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64))

    def add(self, before: Float64[Tensor, "row hidden"], after: Float64[Tensor, "row hidden"]) -> None:
        """Count further pairs."""
        change = after - before
        self.gram += before.T @ before
        self.product += before.T @ change
        self.squares += float(before.square().sum())
        self.changed += float(change.square().sum())

    def fitted(self) -> Float64[Tensor, "hidden hidden"]:
        """(Σ bᵀb)⁺ Σ bᵀΔ, the smallest of all matrices that fit as well."""
        values, vectors = torch.linalg.eigh(self.gram)
        basis, values = vectors[:, values > UNSEEN * values.max()], values[values > UNSEEN * values.max()]
        return basis @ ((basis.T @ self.product) / values[:, None])


@torch.no_grad()
def fit_row_map(
    pairs: Iterable[tuple[Float[Tensor, "_row hidden"], Float[Tensor, "_row hidden"]]], width: int
) -> RowMap:
    """The linear map with the least squares from rows to rows, by its normal equations in float64.

    pairs: rows before and after, some at a time. width: of a row.
    """
    fitted_on, left_out = (RowSums.of(width) for _ in range(2))
    for before, after in pairs:
        tenth = torch.arange(len(before), device=before.device) % TENTH == TENTH - 1
        for sums, chosen in ((fitted_on, ~tenth), (left_out, tenth)):
            sums.add(before[chosen].cpu().double(), after[chosen].cpu().double())
    explained = None
    if left_out.changed:
        guess = fitted_on.fitted()
        gained = 2 * (guess * left_out.product).sum() - (guess * (left_out.gram @ guess)).sum()
        explained = float(gained) / left_out.changed
    total = RowSums(fitted_on.gram + left_out.gram, fitted_on.product + left_out.product)
    squares, changed = (getattr(fitted_on, name) + getattr(left_out, name) for name in ("squares", "changed"))
    return RowMap(total.fitted(), (changed / squares) ** 0.5 if squares else 0.0, explained)


def _parts(
    before: Tensor, after: Tensor, ids: Int64[Tensor, " row"], partners: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of rows, some at a time: a table in float64 may be larger than the memory."""
    for start in range(0, len(ids), PART):
        places = [rows[start : start + PART] for rows in (ids, partners)]
        yield before.detach()[places[0].to(before.device)], after.detach()[places[1].to(after.device)]


def _circle(size: int, generator: torch.Generator) -> Int64[Tensor, " entry"]:
    """For each entry the next one in a random circle, so that none is its own partner."""
    order = torch.randperm(size, generator=generator)
    partners = torch.empty_like(order)
    partners[order] = order.roll(-1)
    return partners


def check_same_shapes(base: CausalModel, tuned: CausalModel) -> None:
    """Raise ArtifactError unless two models have parameters of the same names and shapes."""
    shapes = [{name: list(value.shape) for name, value in model.named_parameters()} for model in (base, tuned)]
    apart = [name for name in dict.fromkeys(chain(*shapes)) if shapes[0].get(name) != shapes[1].get(name)]
    if apart:
        first, second = (table.get(apart[0], "none") for table in shapes)
        raise ArtifactError(
            f"a base and a tuned model of other shapes came: {len(apart)} parameters differ, {apart[0]} {first} "
            f"against {second} first; expected a model that was tuned from the base; open that one"
        )


def check_same_source(form: TokenizerForm, tuned_form: TokenizerForm) -> None:
    """Raise ArtifactError unless two tokenizers have the same entries at the same ids, and cut text alike."""
    apart = form.ids.items() ^ tuned_form.ids.items()
    parts = [part for part in ("model", "normalizer", "pre_tokenizer") if form.state[part] != tuned_form.state[part]]
    if apart or parts:
        entry = f"{len({entry for entry, _ in apart})} entries differ, " if apart else ""
        raise ArtifactError(
            f"a base and a tuned model with other tokenizers came: {entry}{' and '.join(parts) or 'ids'} differ; "
            "expected the same entries at the same ids, and text cut alike; open the model tuned from this base"
        )


def _with_settings_of(tuned_form: TokenizerForm, successor: TokenizerForm) -> TokenizerForm:
    """The new vocabulary in the files of the tuned model's tokenizer, with its added tokens and post-processor."""
    new_ids = {index: successor.ids[entry] for entry, index in tuned_form.ids.items() if entry in successor.ids}
    added = {token["content"]: token for token in tuned_form.state["added_tokens"]}
    tokens = [{**added.get(token["content"], token), "id": token["id"]} for token in successor.state["added_tokens"]]
    state = {**successor.state, "added_tokens": tokens, "post_processor": tuned_form.state["post_processor"]}
    return tuned_form.with_state(state, new_ids)
