"""The tables of a model that have one row per token: exchanged for others, and put back as they were."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from babelscope.artifacts.model_settings import VOCABULARY_MARK, vocabulary_mark
from babelscope.axes import Float32, Int64, Tensor
from babelscope.errors import ArtifactError, MeasurementError, PrerequisiteError
from babelscope.models import layout_of
from babelscope.models.origin import EDITORS
from babelscope.models.plain import CausalModel, plain_weight
from babelscope.upstream.config import config_value
from babelscope.upstream.names import NAMES, attribute

ID_SETTING = re.compile(r".*_token_ids?|.*_token_index|(begin_)?suppress_tokens|bad_words_ids")
"""Names of settings, of a model or of its generation, that are ids of tokens, or lists of ids."""
OTHER_TABLES = re.compile(r"vocab_size_\w+|\w+_vocab_size")
"""Names of settings for further tables by token, such as Gemma 3n's embeddings of each layer."""


class TokenTables(NamedTuple):
    """The modules of an opened model that have a row per token."""

    embedding: nn.Embedding
    head: nn.Module
    tied: bool
    """Whether the head multiplies by the embeddings themselves."""

    @property
    def rows(self) -> int:
        """Rows of the embeddings: at least as many as the tokenizer has entries."""
        return self.embedding.weight.shape[0]

    @property
    def bias(self) -> Tensor | None:
        """The head's bias."""
        return self.head._parameters.get("bias")


def token_tables(model: CausalModel) -> TokenTables:
    """The tables of a model.

    Raises PrerequisiteError where they are quantised, wrapped, adapted or offloaded, have other numbers of rows, or
    are not the only ones.
    """
    layout_of(model)
    embedding, head = (attribute(model, f"model.{part}")() for part in ("embedding", "head"))
    weights = [plain_weight(embedding, what="the embeddings"), plain_weight(head, what="the head")]
    if any(weight.is_meta for weight in weights):
        raise PrerequisiteError("the embeddings are offloaded; expected them on a device; open without offload")
    if len(weights[0]) != len(weights[1]):
        raise PrerequisiteError(
            f"embeddings of {len(weights[0])} rows and a head of {len(weights[1])} came; expected as many in both"
        )
    further = [name for config in configs_of(model) for name in vars(config) if OTHER_TABLES.fullmatch(name)]
    if further:
        raise PrerequisiteError(
            f"the model's configuration has {further[0]!r}: it has another table by token, which surgery would leave "
            "as it is; expected embeddings and a head only; choose another model"
        )
    return TokenTables(embedding, head, tied=weights[0] is weights[1])


def configs_of(model: CausalModel) -> list[Any]:
    """The model's configuration and that of its text part, where it is another."""
    config: Any = model.config
    text = attribute(config, "config.text")()
    return [config] if text is config else [config, text]


@dataclass
class Exchange:
    """Attributes of a model's parts with the values that they get; nothing is written while it is worked out."""

    digest: str
    """Of the pack that is being applied."""
    title: str
    values: list[tuple[Any, str, Any]] = field(default_factory=list)
    """Owner, name of the attribute, new value."""
    before: list[tuple[Any, str, Any]] = field(default_factory=list)
    """The same with what was there; ABSENT where nothing was."""

    def write(self) -> None:
        """Set all attributes; an interruption puts back those that were set."""
        complete = False
        try:
            for owner, name, value in self.values:
                self.before.append((owner, name, _value_of(owner, name)))
                setattr(owner, name, value)
            complete = True
        finally:
            if not complete:
                self.undo()

    def undo(self) -> None:
        """Put back what was there, in the opposite order."""
        while self.before:
            owner, name, value = self.before[-1]
            if value is not ABSENT:
                setattr(owner, name, value)
            elif name in vars(owner):  # an interruption may have come before it was set
                delattr(owner, name)
            self.before.pop()


ABSENT = object()


def _value_of(owner: Any, name: str) -> Any:
    if isinstance(owner, nn.Module) and name in owner._parameters:
        return owner._parameters[name]
    return vars(owner).get(name, ABSENT)


_APPLIED: WeakKeyDictionary[nn.Module, Exchange] = WeakKeyDictionary()


def check_none_applied(model: CausalModel, title: str) -> None:
    """Raise ArtifactError where a model holds another vocabulary, or a change of its tables that can be taken out."""
    if model in _APPLIED:
        raise ArtifactError(
            f"{title}: the model holds the {_APPLIED[model].title} now; expected its own vocabulary; revert that first"
        )
    tables = token_tables(model)
    edited = {address for editor in EDITORS for address in editor(model)}
    table_storage = {part.untyped_storage().data_ptr() for module in tables[:2] for part in module.parameters()}
    if edited & table_storage:
        raise ArtifactError(
            f"{title}: a change is applied to the model's embeddings or head; expected them as they were; revert it"
        )


def exchange_tables(
    model: CausalModel,
    *,
    digest: str,
    title: str,
    source: Int64[Tensor, " entry"],
    rows: Float32[Tensor, "new hidden"],
    head_rows: Float32[Tensor, "new hidden"] | None,
    head_bias: Float32[Tensor, " new"] | None,
    mark: Mapping[str, Any],
) -> None:
    """Give a model one row per entry: row `source` of its own tables, bit for bit, or the next new row where it is −1.

    New rows are cast to the tables' dtype. Ids in the configurations of the model and of its generation go to the
    places of the rows that they name. All or nothing.
    """
    tables, config = token_tables(model), configs_of(model)
    old, size = tables.rows, len(source)
    change = Exchange(digest, title)
    weight = _new_table(tables.embedding.weight, source, rows, title)
    change.values += [(tables.embedding, "weight", weight), (tables.embedding, "num_embeddings", size)]
    if tables.tied:
        change.values.append((tables.head, "weight", weight))
    else:
        change.values.append((tables.head, "weight", _new_table(plain_weight(tables.head), source, head_rows, title)))
    if tables.bias is not None:
        change.values.append((tables.head, "bias", _new_table(tables.bias, source, head_bias, title)))
    change.values.append((tables.head, "out_features", size))
    new_ids = {int(row): entry for entry, row in enumerate(source.tolist()) if row >= 0}
    name = NAMES["config.vocabulary"][0]
    for module in model.modules():
        if module is not tables.head and vars(module).get(name) == old:
            change.values.append((module, name, size))
        by_token = module is tables.embedding or name in vars(module)
        if by_token and isinstance(vars(module).get("padding_idx"), int):
            change.values.append((module, "padding_idx", moved_ids(vars(module)["padding_idx"], new_ids, old, title)))
    for part in config:
        if vars(part).get(name) is not None:
            change.values.append((part, name, size))
    for part, key, value in id_settings(model):
        change.values.append((part, key, moved_ids(value, new_ids, old, key)))
    earlier = vocabulary_mark(model.config) or {"settings": {name: config_value(model.config, "vocabulary")}}
    change.values.append((model.config, VOCABULARY_MARK, {**mark, **earlier, "after": mark["after"]}))
    change.write()
    _APPLIED[model] = change


def rows_now(
    model: CausalModel, digest: str, title: str, source: Int64[Tensor, " entry"]
) -> list[Float32[Tensor, "new ..."]]:
    """The new rows as a model has them now: of the embeddings, of an untied head, and of the head's bias.

    Raises ArtifactError if the model does not hold this vocabulary, MeasurementError where other rows were changed.
    """
    tables, new_rows, new = token_tables(model), [], source < 0
    for owner, name, base in _applied(model, digest, title).before:
        is_tied_head = tables.tied and owner is tables.head and name == "weight"
        if is_tied_head or not isinstance(base, nn.Parameter):
            continue
        live = getattr(owner, name).detach()
        if not torch.equal(live[~new], base.detach().index_select(0, source[~new].to(base.device))):
            raise MeasurementError(
                f"{title}: rows of the model's own entries were changed while it was applied; expected new rows to be "
                "trained alone; mask the gradients of the others, and leave out weight decay"
            )
        new_rows.append(live[new].float().cpu())
    return new_rows


def _applied(model: CausalModel, digest: str, title: str) -> Exchange:
    change = _APPLIED.get(model)
    if change is None or change.digest != digest:
        raise ArtifactError(
            f"{title} is not applied to this model; expected an applied one; apply it first (a copy of a model, or a "
            "saved one, knows nothing of what was applied)"
        )
    return change


def restore_tables(model: CausalModel, digest: str, title: str) -> None:
    """Take a vocabulary out again: the model's own tables come back, the very same ones.

    Raises ArtifactError if the model does not hold it.
    """
    _applied(model, digest, title).undo()
    del _APPLIED[model]


@torch.no_grad()
def _new_table(table: Tensor, source: Int64[Tensor, " entry"], rows: Tensor | None, title: str) -> nn.Parameter:
    """Rows of a table, or elements of a bias, in the order of the entries."""
    where = source.to(table.device)
    values = table.detach().index_select(0, where.clamp(min=0))
    new = where < 0
    if bool(new.any()):
        cast = torch.zeros(int(new.sum()), *table.shape[1:]) if rows is None else rows
        cast = cast.to(table.device, table.dtype)
        if not bool(torch.isfinite(cast).all()):
            raise MeasurementError(f"{title}: new rows leave the range of {table.dtype}; open the model in float32")
        values[new] = cast
    return nn.Parameter(values, requires_grad=table.requires_grad)


def id_settings(model: CausalModel) -> Iterator[tuple[Any, str, Any]]:
    """The settings of a model and of its generation that are ids: whose they are, their names and values."""
    generation = attribute(model, "model.generation")
    for part in (*configs_of(model), *([] if generation is None else [generation])):
        for name, value in vars(part).items():
            if ID_SETTING.fullmatch(name) and value is not None:
                yield part, name, value


def ids_named_by(model: CausalModel) -> set[int]:
    """Ids that the configurations of a model and of its generation name, and that have a row."""
    rows = token_tables(model).rows
    named_ids = {index for _, _, value in id_settings(model) for index in _flat(value)}
    return {index for index in named_ids if 0 <= index < rows}


def _flat(value: Any) -> Iterator[int]:
    if isinstance(value, list | tuple):
        for part in value:
            yield from _flat(part)
    elif isinstance(value, int):
        yield value


def moved_ids(value: Any, new_ids: Mapping[int, int], rows: int, what: str) -> Any:
    """An id, or ids in lists, by the rows that they name; what has no row, such as −1 for none, stays as it is."""
    if isinstance(value, list | tuple):
        return [moved_ids(part, new_ids, rows, what) for part in value]
    if not isinstance(value, int) or not 0 <= value < rows:
        return value
    if value not in new_ids:
        raise ArtifactError(
            f"{what}: id {value}, which the model's settings name, is in the vocabulary no more; expected all that "
            "they name; make the pack from the model as it is set now"
        )
    return new_ids[value]
