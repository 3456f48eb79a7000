"""Open a Hugging Face model, and read and write at a Site of it with plain hooks.

The one ugly file: what differs between model families is in the table FAMILIES and nowhere else.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from einops import rearrange
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from babelscope.artifacts.storage import Origin
from babelscope.axes import Float, Float64, Int, Tensor
from babelscope.errors import ArtifactError, PrerequisiteError, SiteError
from babelscope.reference import MODEL as REFERENCE_MODEL
from babelscope.sites import NEURON_SITES, At, Site

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Family:
    """Module names of one model family; layer modules are relative to the layer."""

    body: str
    """The model without its head."""
    layers: str
    embed: str
    attn: str
    heads_out: str
    """Output projection of the attention; its input is `attn_heads`."""
    mid: str
    """Norm whose input is `resid_mid`."""
    mlp: str
    act: str
    down: str
    """Down projection; empty where experts are fused into one module."""
    experts: str = ""
    router: str = ""


_LLAMA = Family(
    body="model",
    layers="model.layers",
    embed="model.embed_tokens",
    attn="self_attn",
    heads_out="self_attn.o_proj",
    mid="post_attention_layernorm",
    mlp="mlp",
    act="mlp.act_fn",
    down="mlp.down_proj",
)
_GEMMA = Family(**{**vars(_LLAMA), "mid": "pre_feedforward_layernorm"})
_MOE = Family(
    **{**vars(_LLAMA), "act": "mlp.experts.act_fn", "down": "", "experts": "mlp.experts", "router": "mlp.gate"}
)
FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "mixtral": _MOE,
    "qwen3_moe": _MOE,
    "olmoe": _MOE,
    "gpt2": Family(
        body="transformer",
        layers="transformer.h",
        embed="transformer.wte",
        attn="attn",
        heads_out="attn.c_proj",
        mid="ln_2",
        mlp="mlp",
        act="mlp.act",
        down="mlp.c_proj",
    ),
}
"""By `config.model_type`."""

READ_ONLY = ("resid_mid", "router")
"""Sites that can be seen but not replaced: the residual branch, or the chosen experts, are already fixed there."""

See = Callable[[Tensor, Tensor, Tensor | None], None]
"""Called with the value, the tensor whose sign says active, and an MoE's chosen experts `[batch, token, top_k]`."""
Edit = Callable[[Tensor], Tensor | None]
"""Called with the value; what it returns replaces it, None leaves it untouched."""
RoutedEdit = Callable[[Tensor, Tensor | None], Tensor | None]
"""The same, called with the value and the chosen experts `[batch, token, top_k]`, None in a dense model."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the sites of one opened model are; built by `layout_of`, which proves that every module exists."""

    model: PreTrainedModel
    family: Family
    n_layers: int
    d_hidden: int
    d_neuron: int
    """Width of one MLP, or of one expert."""
    n_heads: int
    n_experts: int
    """0 in a dense model."""

    @property
    def body(self) -> nn.Module:
        """The model without its head."""
        return self.model.get_submodule(self.family.body)

    def layer(self, index: int) -> nn.Module:
        """One transformer block."""
        return self.model.get_submodule(f"{self.family.layers}.{index}")

    def device_of(self, site: Site) -> torch.device:
        """Device of the weights around a site."""
        module = self.body if site.layer is None else self.layer(site.layer)
        return next(module.parameters()).device

    def width(self, at: At) -> int:
        """Units at a site; heads are counted flat, experts' neurons expert-major."""
        if at in NEURON_SITES:
            return self.d_neuron * max(1, self.n_experts)
        if at == "attn_heads":
            projection = self.layer(0).get_submodule(self.family.heads_out)
            return projection.weight.shape[0 if _is_conv1d(projection) else 1]
        if at == "router":
            return self.n_experts
        return self.model.config.vocab_size if at == "logits" else self.d_hidden

    def check(self, site: Site) -> None:
        """Raise SiteError unless the model has this site."""
        if site.layer is not None and site.layer >= self.n_layers:
            raise SiteError(
                f"site '{site}': {self.model.config.model_type} has layers 0–{self.n_layers - 1}; "
                "give a layer in that range"
            )
        if site.at == "router" and not self.n_experts:
            raise SiteError(f"site '{site}': {self.model.config.model_type} is dense; expected a model with experts")
        if site.at == "mlp_inner" and self.n_experts:
            raise SiteError(
                f"site '{site}': the experts of {self.model.config.model_type} are fused and have no module there; "
                "use mlp_gate"
            )

    def down_weight(self, layer: int) -> Float[Tensor, "hidden neuron"]:
        """Down projection of a layer, one column a neuron; experts side by side."""
        if self.n_experts:
            experts = self.layer(layer).get_submodule(self.family.experts)
            return rearrange(experts.down_proj, "expert hidden neuron -> hidden (expert neuron)")
        projection = self.layer(layer).get_submodule(self.family.down)
        return projection.weight.T if _is_conv1d(projection) else projection.weight

    def down_norm(self, layer: int) -> Float64[Tensor, " neuron"]:
        """Euclidean length of each neuron's column of the down projection."""
        return self.down_weight(layer).detach().double().norm(dim=0)

    def logits(self, hidden: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows vocab"]:
        """The head's logits for rows of the body's output, soft-capped where the model does so."""
        scores = self.model.get_output_embeddings()(hidden)
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return torch.tanh(scores / cap) * cap if cap else scores

    def watch(self, site: Site, see: See) -> AbstractContextManager[None]:
        """While open, `see` gets the value at a site on every forward pass; nothing is changed."""

        def edit(value: Tensor, sign: Tensor, routes: Tensor | None) -> None:
            see(value, sign, routes)

        return self._hooked(site, edit)

    def edit(self, site: Site, change: Edit) -> AbstractContextManager[None]:
        """While open, what `change` returns replaces the value at a site.

        Values are [batch, token, unit]; [batch, token, head, d_head] at `attn_heads`;
        [batch, token, top_k, d_expert] at an MoE's `mlp_gate`.
        Raises SiteError where a site can only be read.
        """
        return self.edit_routed(site, lambda value, routes: change(value))

    def edit_routed(self, site: Site, change: RoutedEdit) -> AbstractContextManager[None]:
        """`edit` for a change that must know which expert each row of an MoE's `mlp_gate` belongs to."""
        if site.at in READ_ONLY:
            raise SiteError(f"site '{site}' can be read, not written; edit attn_out or resid_out instead")
        return self._hooked(site, lambda value, sign, routes: change(value, routes))

    @contextmanager
    def _hooked(self, site: Site, call: Callable[[Tensor, Tensor, Tensor | None], Tensor | None]) -> Iterator[None]:
        self.check(site)
        with ExitStack() as stack:
            if site.at in NEURON_SITES and self.n_experts:
                self._hook_experts(stack, site, call)
            else:
                self._hook_plain(stack, site, call)
            yield

    def _hook_plain(self, stack: ExitStack, site: Site, call: Callable) -> None:
        module, side = self._place(site)
        heads = self.n_heads if site.at == "attn_heads" else 0
        mlp = self.layer(site.layer or 0).get_submodule(self.family.mlp)
        shape = _shape_of(stack, mlp) if site.at == "router" else []

        def before(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            value = args[0] if args else kwargs["hidden_states"]
            shaped = rearrange(value, "b t (h d) -> b t h d", h=heads) if heads else value
            new = call(shaped, shaped, None)
            if new is None:
                return None
            new = rearrange(new, "b t h d -> b t (h d)") if heads else new
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

        def after(_: nn.Module, args: tuple, output: Any) -> Any:
            value = output[0] if isinstance(output, tuple) else output
            shaped = value.unflatten(0, shape[:2]) if shape else value
            new = call(shaped, args[0] if site.at == "mlp_gate" else shaped, None)
            if new is None:
                return None
            return (new, *output[1:]) if isinstance(output, tuple) else new

        if side == "input":
            handle = module.register_forward_pre_hook(before, with_kwargs=True)
        else:
            handle = module.register_forward_hook(after)
        stack.callback(handle.remove)

    def _place(self, site: Site) -> tuple[nn.Module, Literal["input", "output"]]:
        names = self.family
        if site.layer is None:
            head = self.model.get_output_embeddings()
            return (self.model.get_submodule(names.embed) if site.at == "embed" else head), "output"
        layer = self.layer(site.layer)
        table: dict[str, tuple[str, Literal["input", "output"]]] = {
            "resid_in": ("", "input"),
            "attn_heads": (names.heads_out, "input"),
            "attn_out": (names.attn, "output"),
            "resid_mid": (names.mid, "input"),
            "mlp_gate": (names.act, "output"),
            "mlp_inner": (names.down, "input"),
            "mlp_out": (names.mlp, "output"),
            "resid_out": ("", "output"),
            "router": (names.router, "output"),
        }
        path, side = table[site.at]
        return layer.get_submodule(path), side

    def _hook_experts(self, stack: ExitStack, site: Site, call: Callable) -> None:
        """Experts run on (token, expert) pairs; put them in the order of tokens for `call`."""
        layer = self.layer(site.layer or 0)
        shape = _shape_of(stack, layer.get_submodule(self.family.mlp))
        config = self.model.config
        routes: list[Tensor] = []

        def remember(_: nn.Module, args: tuple, kwargs: dict) -> None:
            routes[:] = [args[1] if len(args) > 1 else kwargs["top_k_index"]]

        def after(_: nn.Module, args: tuple, output: Tensor) -> Tensor | None:
            chosen = routes[0]
            pairs = torch.arange(chosen.numel(), device=chosen.device)
            # Decoding on a GPU, generate swaps the grouped form (sorted by expert) for the batched one (unsorted).
            batched = config._experts_implementation == "batched_mm"
            order = pairs if batched else torch.sort(chosen.reshape(-1))[1]
            inverse = torch.empty_like(order)
            inverse[order] = pairs
            sizes = {"b": shape[0], "t": shape[1], "k": chosen.shape[-1]}
            value, sign = (rearrange(rows[inverse], "(b t k) d -> b t k d", **sizes) for rows in (output, args[0]))
            new = call(value, sign, rearrange(chosen, "(b t) k -> b t k", b=shape[0], t=shape[1]))
            return None if new is None else rearrange(new, "b t k d -> (b t k) d")[order]

        stack.enter_context(_grouped_experts(self.model))
        experts = layer.get_submodule(self.family.experts)
        handles = [
            experts.register_forward_pre_hook(remember, with_kwargs=True),
            layer.get_submodule(self.family.act).register_forward_hook(after),
        ]
        for handle in handles:
            stack.callback(handle.remove)


def _is_conv1d(module: nn.Module) -> bool:
    """GPT-2 stores its projections transposed."""
    return type(module).__name__ == "Conv1D"


def _shape_of(stack: ExitStack, module: nn.Module) -> list[int]:
    """A list that holds the shape of the module's last input."""
    shape: list[int] = []

    def remember(_: nn.Module, args: tuple, kwargs: dict) -> None:
        shape[:] = (args[0] if args else kwargs["hidden_states"]).shape

    stack.callback(module.register_forward_pre_hook(remember, with_kwargs=True).remove)
    return shape


_GROUPED: WeakKeyDictionary[nn.Module, list[str | None]] = WeakKeyDictionary()
"""For each model with open hooks on its experts, the implementations met on entry; the first is the user's choice."""


@contextmanager
def _grouped_experts(model: PreTrainedModel) -> Iterator[None]:
    """Run experts in transformers' grouped form, whose row order is known; the last to leave restores the choice."""
    users = _GROUPED.setdefault(model, [])
    users.append(model.config._experts_implementation)
    try:
        if users[-1] != "grouped_mm":
            model.set_experts_implementation("grouped_mm")
        yield
    finally:
        last = users.pop()
        if not users and last != "grouped_mm":
            model.set_experts_implementation(last)


def layout_of(model: PreTrainedModel) -> Layout:
    """Find a model's sites, and prove that each exists; raises SiteError for a family without a table."""
    config = model.config
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise SiteError(
            f"model type {config.model_type!r} is unknown; expected one of {', '.join(FAMILIES)}; "
            f"modules seen: {_module_summary(model)}"
        )
    n_layers = config.num_hidden_layers
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    layout = Layout(
        model=model,
        family=family,
        n_layers=n_layers,
        d_hidden=config.hidden_size,
        d_neuron=0,
        n_heads=config.num_attention_heads,
        n_experts=int(experts or 0) if family.experts else 0,
    )
    needed = [family.attn, family.heads_out, family.mid, family.mlp, family.act, family.down or family.experts]
    try:
        for index in range(n_layers):
            for name in [*needed, *([family.router] if family.router else [])]:
                layout.layer(index).get_submodule(name)
        model.get_submodule(family.embed)
    except AttributeError as err:
        raise SiteError(
            f"model type {config.model_type!r} lacks a module ({err}); expected {needed} in every layer; "
            f"modules seen: {_module_summary(model)}"
        ) from err
    acts = {id(layout.layer(index).get_submodule(family.act)) for index in range(n_layers)}
    if len(acts) != n_layers:
        raise SiteError(f"model type {config.model_type!r}: layers share an activation module; it can not be hooked")
    return replace(layout, d_neuron=layout.down_weight(0).shape[1] // max(1, layout.n_experts))


def _module_summary(model: nn.Module) -> str:
    """Module names with layer numbers folded, for an error a person can act on."""
    names = {".".join("*" if part.isdigit() else part for part in name.split(".")) for name, _ in model.named_modules()}
    return ", ".join(sorted(name for name in names if name)[:40])


def open_model(
    name: str, *, device: str = "auto", dtype: str = "auto", revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a causal language model and its tokenizer, ready for evaluation.

    name: folder, Hugging Face id, or "reference" for the bundled model.
    device: "auto" (a GPU if there is one, else the CPU), "map" (spread over all devices by accelerate), or a device.
    dtype: "auto" (float32 on the CPU, the stored dtype elsewhere), or "float32", "bfloat16", "float16", "float64".
    Weights are read from safetensors only, and no code of the model's own is run.
    Raises PrerequisiteError if a file is missing, SiteError if the family is unknown.
    """
    path = str(REFERENCE_MODEL) if name == "reference" else name
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    kind = ("float32" if where == "cpu" else "auto") if dtype == "auto" else dtype
    if kind != "auto" and not isinstance(getattr(torch, kind, None), torch.dtype):
        raise PrerequisiteError(f"dtype {dtype!r} is unknown; expected auto, float32, bfloat16, float16 or float64")
    try:
        config = AutoConfig.from_pretrained(path, revision=revision)
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    except (OSError, ValueError, KeyError) as err:
        reason = str(err).strip().splitlines()[0]
        raise PrerequisiteError(
            f"model {name!r}: config or tokenizer could not be read ({reason}); expected a folder or hub id with "
            "config.json, safetensors and a tokenizer; check the name, or save the tokenizer beside the model"
        ) from err
    if config.model_type not in FAMILIES:
        raise SiteError(f"model {name!r} is of type {config.model_type!r}; expected one of {', '.join(FAMILIES)}")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            revision=revision,
            dtype=kind if kind == "auto" else getattr(torch, kind),
            use_safetensors=True,
            **({"device_map": "auto"} if where == "map" else {}),
        )
    except (OSError, ValueError) as err:
        reason = str(err).strip().splitlines()[0]
        raise PrerequisiteError(f"model {name!r}: weights could not be read ({reason}); expected safetensors") from err
    if where != "map":
        model = model.to(torch.device(where))
    return model.eval(), tokenizer


def origin_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> Origin:
    """Names and hashes that every artifact made from this model carries; without a tokenizer its hash is empty."""
    volatile = ("_name_or_path", "transformers_version", "dtype", "torch_dtype", "_attn_implementation")
    config = {key: value for key, value in model.config.to_dict().items() if key not in volatile}
    name = str(model.config._name_or_path) or type(model).__name__
    if Path(name) == REFERENCE_MODEL:
        name = "reference"
    return Origin(
        model=name,
        revision=getattr(model.config, "_commit_hash", None) or "",
        model_hash=_hash_json(config),
        tokenizer_hash="" if tokenizer is None else _hash_json(_tokenizer_state(tokenizer)),
    )


def _tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer.get_vocab()
    state = json.loads(backend.to_str())
    return {key: value for key, value in state.items() if key not in ("padding", "truncation")}


def _hash_json(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def check_made_for(
    origin: Origin, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, what: str
) -> None:
    """Raise ArtifactError unless an artifact was made with this model, and with this tokenizer where one is given."""
    mine = origin_of(model, tokenizer)
    for field in ("model_hash",) if tokenizer is None else ("model_hash", "tokenizer_hash"):
        if getattr(origin, field) != getattr(mine, field):
            raise ArtifactError(
                f"{what}: made for {origin.model!r} ({field} {getattr(origin, field)}), came with {mine.model!r} "
                f"({getattr(mine, field)}); expected the same model and tokenizer; open the one it was made with"
            )


@torch.no_grad()
def read_site(
    model: PreTrainedModel, input_ids: Int[Tensor, "batch token"], site: Site, *, attention_mask: Tensor | None = None
) -> Tensor:
    """The tensor at one site for these tokens, for looking; shapes as in `Layout.edit`.

    Raises SiteError if the model has no such site.
    """
    layout, seen = layout_of(model), []
    with layout.watch(site, lambda value, sign, routes: seen.append(value.clone())):
        model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    return seen[0]
