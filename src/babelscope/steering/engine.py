"""Interventions while a model runs: installed whole or not at all, gone on any exit."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Operation, SteeringRecipe
from babelscope.artifacts.recipe_hashes import operations_hash
from babelscope.axes import Bool, Tensor
from babelscope.corpus import special_ids
from babelscope.errors import ArtifactError, SteeringError
from babelscope.models import Layout, RoutedEdit, layout_of
from babelscope.models.modes import named_steering
from babelscope.models.plain import CausalModel
from babelscope.models.positions import pinned_positions
from babelscope.sites import Site
from babelscope.steering.checking import check_operations
from babelscope.steering.compiled import fresh_graphs
from babelscope.steering.context import SteeringContext
from babelscope.steering.ready_operation import ReadyOperation
from babelscope.steering.receipt import Receipt
from babelscope.steering.session import Session, check_finite, follow_calls

Operations = Operation | SteeringRecipe | Sequence[Operation | SteeringRecipe]
"""One operation, a recipe, or several of them, applied in order."""


def steer(
    model: CausalModel,
    operations: Operations = (),
    *,
    rows: Sequence[Operations | None] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> AbstractContextManager[Receipt]:
    """While open, these operations act on every forward pass of the model, in `generate` and outside it.

    operations: for all rows; those at one site act in the order given.
    rows: one entry per row of the batch, each its own steering, or None for an untouched row; they act after
    `operations`, and batches must have as many rows. Beams and return sequences follow the row they come from.
    tokenizer: if given, its special tokens are left alone, but by gates with `skip_special=False`.
    Pads are never touched; they are known by the attention mask, and without one no token is taken for a pad.
    Outside `generate` a pass without a cache is prompt, which ends where the pass ends, and what goes on from its cache
    is generated, as in a loop that decodes by hand. Contexts nest, the outer one's operations first, and may close in
    any order; each model has its own state. Nothing is left on the model afterwards.
    What it gives is a receipt: which tokens each operation met, changed and left alone so far, and why.
    Conditions and clean values are read in one more pass over the prompt, in which no context's operations act.

    Raises ArtifactError for operations of another model or width and for batches whose rows do not fit, SiteError for
    sites the model lacks, PrerequisiteError for a compiled or wrapped model; SteeringError for a model that another
    thread steers, and, while it runs, for NaN and infinity and for passes of `generate` that do not follow each other.
    The model stays in the mode, train or eval, that it is in. Rotary positions that follow the longest row of a batch
    (dynamic NTK, longrope) follow each row by itself.
    Functions compiled around the model are compiled anew on entry and after exit; static caches run uncompiled.
    """
    return SteeringContext(partial(_steered, model, operations, rows, tokenizer))


@contextmanager
def _steered(
    model: CausalModel,
    operations: Operations,
    rows: Sequence[Operations | None] | None,
    tokenizer: PreTrainedTokenizerBase | None,
) -> Iterator[Receipt]:
    if rows is not None and not rows:
        raise ArtifactError("rows came empty; expected one entry per row of the batch, None for an untouched one")
    layout = layout_of(model)
    all_operations = [
        *flat_operations(operations),
        *(operation for row in rows or () for operation in flat_operations(row)),
    ]
    check_operations(layout, all_operations)
    ordinary = ordinary_tokens(layout, all_operations, tokenizer)
    by_row = "" if rows is None else str([len(flat_operations(row)) for row in rows])
    with fresh_graphs(), ExitStack() as stack:
        if any(operation.strength != 0 for operation in all_operations):  # else the model stays the plain one
            stack.enter_context(named_steering(model, partial(operations_hash, all_operations, by_row)))
        session = stack.enter_context(follow_calls(layout))
        ready_by_site = _make_ready(layout, operations, rows)
        for site in _clean_sites(ready_by_site):
            stack.enter_context(_reader(layout, site, session))
        if ready_by_site:
            stack.enter_context(pinned_positions(model, layout.body))
        receipt = stack.enter_context(session.counting(ready_by_site))
        for site, ready in ready_by_site.items():
            change = _change(site, ready, session, ordinary, receipt)
            stack.enter_context(layout.edit_routed(site, change, threads="any"))
        yield receipt


def _clean_sites(ready_by_site: dict[Site, list[ReadyOperation]]) -> list[Site]:
    """Sites to be read before the prompt is steered."""
    sites = []
    for ready_operation in chain.from_iterable(ready_by_site.values()):
        condition = ready_operation.operation.gate.condition
        sites += [ready_operation.operation.site] if ready_operation.operation.clean else []
        sites += [] if condition is None else [condition.site]
    return sorted(set(sites), key=str)


@contextmanager
def _reader(layout: Layout, site: Site, session: Session) -> Iterator[None]:
    see: Any = torch.compiler.disable(lambda value, sign, routes: session.record(site, value))
    with layout.watch(site, see, threads="any"), session.expecting():
        yield


def flat_operations(steering: Operations | None) -> list[Operation]:
    """Operations one after another, those of recipes among them; raises SteeringError for anything else."""
    if steering is None:
        return []
    if isinstance(steering, Operation):
        return [steering]
    if not isinstance(steering, Sequence | SteeringRecipe) or isinstance(steering, str):
        raise SteeringError(
            f"a {type(steering).__name__} came; expected operations, a recipe, or a list of them; load a folder with "
            "SteeringRecipe.load, take direction.add(…) of a Direction"
        )
    return [operation for entry in steering for operation in flat_operations(entry)]


def ordinary_tokens(
    layout: Layout, operations: Sequence[Operation], tokenizer: PreTrainedTokenizerBase | None
) -> Bool[Tensor, " vocab"] | None:
    """By id, False for special tokens; None where no gate asks. Raises ArtifactError if one does with no tokenizer."""
    if tokenizer is None:
        if any(operation.gate.skip_special for operation in operations):
            raise ArtifactError("a gate skips special tokens, no tokenizer came; pass steer(…, tokenizer=…)")
        return None
    if all(operation.gate.skip_special is False for operation in operations):
        return None
    ordinary = torch.ones(layout.width("logits"), dtype=torch.bool)
    ordinary[[index for index in special_ids(tokenizer) if index < len(ordinary)]] = False
    return ordinary.to(layout.device_of(Site(None, "embed")))


def _make_ready(
    layout: Layout, operations: Operations, rows: Sequence[Operations | None] | None
) -> dict[Site, list[ReadyOperation]]:
    """What to do at each site, in order; what would do nothing is left out, so that no hook stands for it."""
    ready_by_site: dict[Site, list[ReadyOperation]] = {}
    batch_rows = None if rows is None else len(rows)
    for operation in flat_operations(operations):
        ready_operation = ReadyOperation.of(operation, layout.width(operation.site.at), batch_rows)
        ready_by_site.setdefault(operation.site, []).append(ready_operation)
    for site, ready in _make_rows_ready(layout, rows or ()).items():
        ready_by_site.setdefault(site, []).extend(ready)
    busy: dict[Site, list[ReadyOperation]] = {}
    settings: dict[Any, Any] = {}
    for site, ready in ready_by_site.items():
        for ready_operation in ready:
            if not ready_operation.idle:
                ready_operation.share(settings)
                busy.setdefault(site, []).append(ready_operation)
    return busy


def _make_rows_ready(layout: Layout, rows: Sequence[Operations | None]) -> dict[Site, list[ReadyOperation]]:
    """Each row's operations, those that stand at the same place in different rows joined where they can be."""
    places: dict[tuple[Site, int], list[ReadyOperation]] = {}
    for row, steering in enumerate(rows):
        times_at_site: dict[Site, int] = {}
        for operation in flat_operations(steering):
            if operation.gate.rows is not None:
                raise ArtifactError(f"row {row}: its operation's gate names rows too; expected one of the two")
            times_at_site[operation.site] = times_at_site.get(operation.site, 0) + 1
            row_operation = replace(operation, gate=replace(operation.gate, rows=(row,)))
            ready_operation = ReadyOperation.of(row_operation, layout.width(operation.site.at), len(rows))
            _join_or_add(places.setdefault((operation.site, times_at_site[operation.site]), []), ready_operation)
    ordered: dict[Site, list[ReadyOperation]] = {}
    for site, place in sorted(places, key=lambda key: key[1]):
        ordered.setdefault(site, []).extend(places[site, place])
    return ordered


def _join_or_add(ready: list[ReadyOperation], ready_operation: ReadyOperation) -> None:
    for index, earlier in enumerate(ready):
        joined = earlier.join(ready_operation)
        if joined is not None:
            ready[index] = joined
            return
    ready.append(ready_operation)


def _change(
    site: Site, ready: list[ReadyOperation], session: Session, ordinary: Tensor | None, receipt: Receipt
) -> RoutedEdit:
    def change(value: Tensor, routes: Tensor | None) -> Tensor | None:
        if session.reading is not None:
            return None
        frame = session.frame
        if frame is None or value.shape[0] != frame.batch:
            raise ArtifactError(
                f"site '{site}' ran by itself; steering needs passes of the whole model; call the model"
            )
        new = value
        for ready_operation in ready:
            new = ready_operation.apply(new, routes, frame, ordinary, receipt)
        if new is value:
            return None
        if site.at == "logits":
            check_finite(new.detach(), session.sites)
        return new

    # A graph made around the model breaks here, instead of tracing what changes from pass to pass.
    outside_graphs: Any = torch.compiler.disable(change)
    return outside_graphs
