"""What `babelscope doctor` tries on a model: counts, steering and training, each against plain torch."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from babelscope.artifacts import Gate, NeuronSet, Operation
from babelscope.axes import Int64, Tensor
from babelscope.corpus import Document, TokenDocument, tokenize_documents
from babelscope.errors import MeasurementError
from babelscope.languages import parse_languages
from babelscope.models import layout_of, origin_of, read_site, weights_hash
from babelscope.models.plain import CausalModel
from babelscope.recording import observe
from babelscope.sites import Site
from babelscope.steering import steer
from babelscope.subnetworks import train_subnetwork
from babelscope.upstream.forward import run_model
from babelscope.upstream.names import attribute

TEXTS = {
    "en": ["The door of the old house was open, and rain came in.", "Rain again, said the teacher of our village."],
    "fi": ["Vanhan talon ovi oli auki, ja vettä tuli sisään.", "Taas sataa, sanoi kylämme opettaja hiljaa."],
}
NEW_TOKENS = 6


def check_observe(model: CausalModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Counts in two batch sizes are equal, and those of a plain hook over single documents."""
    single, together = (
        observe(model, tokenizer, TEXTS, sites=["mlp_gate"], batch_size=size, tokens_per_language=None).active
        for size in (1, 2)
    )
    # float32 rounds otherwise in another batch, and the sign of a value near zero may turn: one in a million at most.
    tokens = sum(len(d.tokens) for lines in TEXTS.values() for d in _tokens(tokenizer, lines))
    bound = 1e-6 * tokens * single[..., 0].numel()
    if (single - together).abs().sum() > bound:
        raise MeasurementError("counts depend on the batch")
    layout, counts = layout_of(model), torch.zeros_like(single[0])
    for index, lines in enumerate(TEXTS.values()):
        for line in lines:
            (document,) = _tokens(tokenizer, [line])
            signs: list[Tensor] = []
            handle = layout.act(0).register_forward_hook(lambda _, args, output, signs=signs: signs.append(args[0] > 0))
            try:
                with torch.no_grad():
                    run_model(model, torch.tensor([document.tokens]).to(model.device))
            finally:
                handle.remove()
            fired = signs[0].reshape(len(document.tokens), -1).cpu()
            counts[:, index] += fired[torch.tensor(document.counted)].sum(dim=0)
    if (counts - single[0]).abs().sum() > bound:
        raise MeasurementError("counts of layer 0 are not those of a plain hook")


def _tokens(tokenizer: PreTrainedTokenizerBase, lines: list[str]) -> list[TokenDocument]:
    documents = [Document(str(number), line) for number, line in enumerate(lines)]
    return tokenize_documents(tokenizer, documents, 0, max_length=512)


def check_steering(model: CausalModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """A left-padded batch steered at generated tokens answers as a plain hook makes it answer without a cache."""
    layout, (short, long) = layout_of(model), (TEXTS["fi"][1], TEXTS["en"][0])
    rows = [document.tokens for document in _tokens(tokenizer, [short, long])]
    width = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    ids, mask = ids.to(model.device), mask.to(model.device)
    site = Site(layout.n_layers // 2, "resid_out")
    vector = torch.randn(layout.d_hidden, generator=torch.Generator().manual_seed(0))
    strength = _row_length(model, ids, mask, site)
    operation = Operation(site, "add", vector, strength=strength, unit="unit", gate=Gate(phase="generated"))
    plain = _greedy(model, ids, mask)
    with steer(model, operation) as receipt:
        steered: Tensor = model.generate(  # pyright: ignore[reportCallIssue]
            ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False
        )[:, width:]
    push = (strength * vector.double() / vector.double().norm()).to(model.device)
    witness = _greedy(model, ids, mask, layout.layer(site.layer or 0), push)
    if torch.equal(witness, plain):
        raise MeasurementError("the push changed no word, so that nothing was tried")
    if not torch.equal(steered, witness):
        raise MeasurementError("steered tokens are not those of a plain hook in a loop without a cache")
    receipt.check_answers(len(rows) * (NEW_TOKENS - 1))


def _row_length(model: CausalModel, ids: Tensor, mask: Tensor, site: Site) -> float:
    return float(read_site(model, ids, site, attention_mask=mask)[:, -1].float().norm(dim=-1).mean())


def _ends(model: CausalModel) -> list[int]:
    """Ids that `generate` does not draw before the least length is reached."""
    end_ids: Any = attribute(model, "model.generation").eos_token_id
    return [] if end_ids is None else [end_ids] if isinstance(end_ids, int) else list(end_ids)


@torch.no_grad()
def _greedy(
    model: CausalModel, ids: Tensor, mask: Tensor, layer: nn.Module | None = None, push: Tensor | None = None
) -> Int64[Tensor, "row token"]:
    """The likeliest tokens, all columns anew at each step; `push` is added to what the layer gives after the prompt."""
    start, ends = ids.shape[1], _ends(model)

    def add(_: nn.Module, args: tuple, output: Any) -> Any:
        first = (output[0] if isinstance(output, tuple) else output).clone()
        wide = first[:, start:].double()
        first[:, start:] = (wide + (0 if push is None else push)).to(first.dtype)
        return (first, *output[1:]) if isinstance(output, tuple) else first

    handle = None if layer is None else layer.register_forward_hook(add)
    try:
        for _ in range(NEW_TOKENS):
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
            scores = run_model(model, ids, mask=mask, positions=positions)[:, -1]
            scores[:, ends] = -torch.inf
            words = scores.argmax(dim=-1, keepdim=True)
            ids, mask = torch.cat([ids, words], dim=1), torch.cat([mask, torch.ones_like(words)], dim=1)
    finally:
        if handle is not None:
            handle.remove()
    return ids[:, start:]


def check_training(model: CausalModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """One step moves the chosen neurons, in the direction that lowers the loss, and leaves the model as it was."""
    layout, before = layout_of(model), weights_hash(model)
    chosen = torch.zeros(1, layout.n_layers, layout.width("mlp_gate"), dtype=torch.bool)
    chosen[:, :, :8] = True
    neurons = NeuronSet.from_mask(
        chosen,
        chosen.float(),
        origin=origin_of(model, tokenizer),
        languages=parse_languages(["fi"]),
        at="mlp_gate",
        method="doctor",
        parameters={},
    )
    delta = train_subnetwork(
        model, tokenizer, neurons, TEXTS["fi"] * 4, steps=1, tokens_per_step=32, max_length=16, warmup=0.0
    )
    largest_move = {name: float(rows.abs().max()) for name, rows in delta.rows.items()}
    if not all(0 < size < float("inf") for size in largest_move.values()):
        raise MeasurementError(f"a step moved the chosen rows by {largest_move}; expected all of them to move")
    if weights_hash(model) != before:
        raise MeasurementError("training left the model changed")


CHECKS: dict[str, Callable[[CausalModel, PreTrainedTokenizerBase], None]] = {
    "observe": check_observe,
    "steering": check_steering,
    "training": check_training,
}
"""By the key under which `doctor` reports them."""


def outcome(check: Callable[[CausalModel, PreTrainedTokenizerBase], None], *model_and_tokenizer: Any) -> str:
    """ "passed", or what went wrong in one line."""
    try:
        check(*model_and_tokenizer)
    # A release that does not fit fails in ways nobody listed; the doctor's job is to say so and go on.
    except Exception as err:
        lines = str(err).strip().splitlines()
        return f"FAILED: {type(err).__name__}: {lines[0] if lines else ''}"
    return "passed"
