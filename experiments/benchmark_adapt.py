"""What does a training step of a subnetwork cost beside stock methods, and beside a step that trains nothing?

Variants run interleaved in one process, on copies of one model, on the same rows, with the same loss code. The floor is
a step that trains nothing: a gradient at the embeddings, no parameter gradient, no optimizer. Time is CPU time of one
thread (process_time), ratios are medians over rounds with a bootstrap interval; bytes and FLOPs are counted, not timed.
Bytes: what autograd saves for the backward pass (storages once, weights left out), gradients, and optimizer state.
oneDNN's products, which torch does not take for float32, are most of what the fused form gains on the CPU: a variant of
its own goes without them.
Against the method: a ratio to the floor above 1.08, or any stock method as fast.
"""

import copy
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from babelscope_kernels.onednn import torch_only
from random_models import random_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from babelscope import NeuronSet, layout_of, open_model, origin_of
from babelscope.adapters.peft_training import PeftStudent
from babelscope.files.writing import write_text
from babelscope.languages import Language
from babelscope.models import Layout
from babelscope.runs import Run, environment, run_experiment
from babelscope.subnetworks import (
    Bank,
    Dense,
    JointStudent,
    Rows,
    Subnetwork,
    TokenRows,
    ffn_names,
    parameter_names,
    rows_loss,
)


@dataclass(frozen=True)
class Config:
    model: Literal["llama", "reference", "llama-8b"] = "llama"
    """"llama": 8 layers, d 512, ff 1408, vocabulary 4096, random; "reference": the bundled model; "llama-8b": the
    shapes of Llama-3.1-8B, random bfloat16, for a GPU."""
    device: Literal["cpu", "cuda"] = "cpu"
    """On "cuda" one model is shared, variants run one after another, and time is wall time after a synchronisation."""
    in_turn: bool = False
    """On the CPU too, as on a GPU."""
    rows: int = 4
    length: int = 128
    share: float = 0.01
    """Of each layer's neurons that train."""
    tokens: float = 0.05
    """Share of the vocabulary, its last entries, whose rows are trained as those of an extension are."""
    rounds: int = 11
    seed: int = 0
    out: str = ""
    """Folder for adapt-<model>.jsonl; empty: the run's own results only."""


def build_model(config: Config):
    if config.model == "reference":
        return open_model("reference", device="cpu")[0]
    if config.model == "llama-8b":
        return random_model("llama-8b", device=config.device, dtype=torch.bfloat16, seed=config.seed)
    return random_model("llama-25m", device=config.device, seed=config.seed)


def random_set(model, share: float, seed: int) -> NeuronSet:
    layout = layout_of(model)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(1, layout.n_layers, layout.width("mlp_gate"), dtype=torch.bool)
    count = round(share * mask.shape[2])
    for layer in range(layout.n_layers):
        mask[0, layer, torch.randperm(mask.shape[2], generator=generator)[:count]] = True
    return NeuronSet.from_mask(
        mask,
        torch.zeros(mask.shape),
        origin=origin_of(model, None),
        languages=(Language("und"),),
        at="mlp_gate",
        method="random",
        parameters={},
    )


def random_rows(config: Config, vocabulary: int, seed: int) -> Rows:
    ids = torch.randint(3, vocabulary, (config.rows, config.length), generator=torch.Generator().manual_seed(seed))
    scored = torch.ones_like(ids, dtype=torch.bool)
    scored[:, 0] = False
    return Rows(ids, torch.arange(config.length).expand_as(ids), scored, torch.ones_like(scored))


@dataclass
class Variant:
    name: str
    student: Any
    """Whatever trains, or None."""
    layout: Layout
    weights: set[int]
    """Storages that are no activation."""

    def products(self) -> AbstractContextManager[None]:
        """oneDNN's where they suit, but for the variant that shows what they give."""
        return torch_only() if self.name.endswith("torch's products") else nullcontext()

    @contextmanager
    def installed(self) -> Iterator[None]:
        with ExitStack() as stack:
            with self.products():
                stack.enter_context(nullcontext() if self.student is None else self.student.installed())
            yield

    def step(self, rows: Rows) -> float:
        with self.products():
            return self.whole_step(rows)

    def whole_step(self, rows: Rows) -> float:
        scale = 1 / int(rows.scored.sum())
        if self.student is None:
            embeds = (
                self.layout.model.get_input_embeddings()(rows.input_ids.to(self.layout.model.device))
                .detach()
                .requires_grad_()
            )
            loss = rows_loss(self.layout, rows, scale, embeds=embeds)
            loss.backward()
            return float(loss.detach())
        self.student.zero_grad()
        loss = rows_loss(self.layout, rows, scale)
        loss.backward()
        norm = float(self.student.grad_norm())
        self.student.step(1e-4, min(1.0, 1.0 / norm))
        return float(loss.detach())

    def optimizer_bytes(self) -> int:
        """Of gradients, optimizer state, and what a method keeps beside the weights to train them."""
        if self.student is None:
            return 0
        state = sum(tensor.nbytes for name, tensor in self.student.state().items() if not name.startswith("value/"))
        return state + self.student.grad_bytes()


class Flops(TorchDispatchMode):
    """Matrix products and attention as torch's registry counts them, and what it leaves out: oneDNN's, and in place.

    FlopCounterMode forbids autograd.grad inside.
    """

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket is torch.ops.mkldnn._linear_pointwise:
            self.total += 2 * args[0].shape.numel() * len(args[1])
        packet = torch.ops.aten.addmm if func._overloadpacket is torch.ops.aten.addmm_ else func._overloadpacket
        if packet in flop_registry:
            self.total += flop_registry[packet](*with_equal_heads(args), **(kwargs or {}), out_val=out)
        return out


def with_equal_heads(args: tuple) -> tuple:
    """Arguments of attention with as many heads of keys as of queries, in shape: some releases count no others."""
    heads = [arg.shape[1] for arg in args if isinstance(arg, torch.Tensor) and arg.ndim == 4]
    if len(set(heads)) < 2:
        return args
    return tuple(
        torch.empty((arg.shape[0], max(heads), *arg.shape[2:]), device="meta")
        if isinstance(arg, torch.Tensor) and arg.ndim == 4
        else arg
        for arg in args
    )


@contextmanager
def saved_bytes(weights: set[int]) -> Iterator[Callable[[], int]]:
    """Bytes that autograd keeps for the backward pass, each storage once, weights left out."""
    held: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        for part in (tensor._indices(), tensor._values()) if tensor.is_sparse else (tensor,):
            storage = part.untyped_storage()
            if storage.data_ptr() not in weights:
                held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield lambda: sum(held.values())


NAMES = (
    "floor",
    "fused",
    "fused, torch's products",
    "fused, recompute",
    "split",
    "rows of tokens",
    "fused and rows of tokens",
    "lora r8 mlp",
    "shira",
    "ffn mask",
    "full",
    "lt-sft",
)
ON_GPU = ("floor", "fused", "fused, recompute", "split", "lora r8 mlp", "ffn mask")


def build_variant(name: str, model, config: Config) -> Variant:
    layout = layout_of(model)
    neurons = random_set(model, config.share, config.seed)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    student = None
    if name.startswith("fused") or name == "split":
        student = Subnetwork(
            Bank.of(layout, neurons),
            form="split" if name == "split" else "fused",
            recompute="mlp" if "recompute" in name else "nothing",
            below="rows" in name,
        )
    if name.endswith("rows of tokens"):
        count = round(config.tokens * model.config.vocab_size)
        ids = torch.arange(model.config.vocab_size - count, model.config.vocab_size)
        token_rows = TokenRows(layout, ids, alone=student is None)
        student = token_rows if student is None else JointStudent((student, token_rows), (1.0, 1.0))
    if name.startswith("lora"):
        student = PeftStudent.lora(layout, rank=8, where="mlp")
    elif name == "shira":
        student = PeftStudent.shira(layout, rank=4, where="mlp", seed=config.seed)
    elif name == "ffn mask":
        names = ffn_names(layout)
        student = Dense(layout, names, masks=neuron_masks(layout, names, neurons), masters=config.device == "cpu")
    elif name == "full":
        student = Dense(layout, parameter_names(layout))
    elif name == "lt-sft":
        names = parameter_names(layout)
        generator = torch.Generator().manual_seed(config.seed)
        shapes = dict(model.named_parameters())
        masks = {n: torch.rand(shapes[n].shape, generator=generator) < config.share for n in names}
        student = Dense(layout, names, masks=masks)
    return Variant(name, student, layout, storages(model, student))


def storages(model, student) -> set[int]:
    """Of weights and buffers."""
    found = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    for part in student.parts if isinstance(student, JointStudent) else [student]:
        if isinstance(part, Subnetwork):
            found.add(part.bank.master.untyped_storage().data_ptr())
        elif isinstance(part, TokenRows):
            found.add(part.master.untyped_storage().data_ptr())
    return found


def neuron_masks(layout, names, neurons) -> dict[str, torch.Tensor]:
    """The set's weights as masks of whole matrices."""
    held = dict(layout.model.named_parameters())
    backup = {name: held[name].detach().clone() for name in names}
    with torch.no_grad():
        for name in names:
            held[name].zero_()
        for layer in range(layout.n_layers):
            for rows in layout.neuron_rows(layer).values():
                rows[0, neurons.layer_of(0, layer).long()] = 1
        masks = {name: held[name].bool().clone() for name in names}
        for name in names:
            held[name].copy_(backup[name])
    return masks


def interval(ratios: list[float], seed: int) -> tuple[float, float, float]:
    rng = random.Random(seed)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), medians[50], medians[1949]


def count(variant: Variant, rows: Rows) -> tuple[int, int, int]:
    """FLOPs, bytes saved for the backward pass, and bytes of gradients and optimizer state, of one step."""
    variant.step(rows)
    with Flops() as flops, saved_bytes(variant.weights) as total:
        variant.step(rows)
    return flops.total, total(), variant.optimizer_bytes()


def time_step(variant: Variant, rows: Rows, device: str) -> float:
    clock = time.process_time if device == "cpu" else time.perf_counter
    if device == "cuda":
        torch.cuda.synchronize()
    start = clock()
    variant.step(rows)
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def measure_interleaved(config: Config) -> tuple[dict, dict, dict]:
    """Every variant on a copy of its own, in turns."""
    torch.set_num_threads(1)
    base = build_model(config)
    with ExitStack() as stack:
        made = [build_variant(name, copy.deepcopy(base), config) for name in NAMES]
        for variant in made:
            stack.enter_context(variant.installed())
            variant.weights |= storages(variant.layout.model, variant.student)
        vocabulary = base.config.vocab_size
        counted = {variant.name: count(variant, random_rows(config, vocabulary, config.seed)) for variant in made}
        times: dict[str, list[float]] = {name: [] for name in NAMES}
        for number in range(config.rounds):
            rows = random_rows(config, vocabulary, config.seed + 1 + number)
            for variant in made[number % len(made) :] + made[: number % len(made)]:
                times[variant.name].append(time_step(variant, rows, config.device))
        trained = {variant.name: 0 if variant.student is None else variant.student.trained for variant in made}
    return counted, times, trained


def measure_in_turn(config: Config, run: Run) -> tuple[dict, dict, dict]:
    """One model, which every student leaves as it was; two passes over the variants, against drift.

    The seconds of each pass are logged as soon as it is done: what a later variant breaks is not lost. A variant that
    does not fit in the memory of the GPU is logged so, and left out.
    """
    model = build_model(config)
    counted, trained = {}, {}
    times: dict[str, list[float]] = {name: [] for name in ON_GPU}
    for half in range(2):
        for name in list(times):
            try:
                counted[name], trained[name], seconds = measure_pass(name, model, config, half)
            except torch.OutOfMemoryError as err:
                del times[name]
                run.log([{"variant": name, "left_out": str(err).splitlines()[0]}])
                torch.cuda.empty_cache()
            else:
                times[name] += seconds
                run.log([{"variant": name, "pass": half, "pass_seconds": seconds, "peak_bytes": peak_bytes(config)}])
    return counted, times, trained


def measure_pass(name: str, model, config: Config, half: int) -> tuple[tuple[int, int, int], int, list[float]]:
    """What a variant's step counts, how many values train, and the seconds of every second round."""
    variant = build_variant(name, model, config)
    with variant.installed():
        variant.weights |= storages(model, variant.student)
        counts = count(variant, random_rows(config, model.config.vocab_size, config.seed))
        rounds = [
            random_rows(config, model.config.vocab_size, config.seed + 1 + number)
            for number in range(half, config.rounds, 2)
        ]
        seconds = [time_step(variant, rows, config.device) for rows in rounds]
    return counts, 0 if variant.student is None else variant.student.trained, seconds


def peak_bytes(config: Config) -> int | None:
    """The most memory of the GPU in use at once since the last call; None without one."""
    if config.device == "cpu":
        return None
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak


def run(config: Config, run: Run) -> None:
    in_turn = config.device == "cuda" or config.in_turn
    counted, times, trained = measure_in_turn(config, run) if in_turn else measure_interleaved(config)
    for name, seconds in times.items():
        row = {
            "variant": name,
            "seconds": statistics.median(seconds),
            "rounds": config.rounds,
            "trained": trained[name],
        }
        row |= dict(zip(("flops", "saved_bytes", "optimizer_bytes"), counted[name], strict=True))
        row["device"] = torch.cuda.get_device_name() if config.device == "cuda" else "one CPU thread"
        for other in ("floor", "fused"):
            middle, low, high = interval([a / b for a, b in zip(seconds, times[other], strict=True)], config.seed)
            row |= {f"to_{other}": middle, f"to_{other}_low": low, f"to_{other}_high": high}
        run.log([row])
    if config.out:
        facts = {"config": {**asdict(config), "out": ""}, "environment": environment()}
        lines = [json.dumps(row, ensure_ascii=False) for row in [facts, *run.results()]]
        write_text(Path(config.out) / f"adapt-{config.model}.jsonl", "\n".join(lines) + "\n")


if __name__ == "__main__":
    run_experiment(Config, run)
