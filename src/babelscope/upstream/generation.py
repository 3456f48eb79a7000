"""What `generate` is given, and the keywords that this library adds to it."""

import copy
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, NamedTuple

from torch import nn
from transformers import LogitsProcessorList

from babelscope.axes import Tensor
from babelscope.upstream.forward import ForwardInputs, ForwardNames, read_inputs
from babelscope.upstream.names import NAMES, attribute, imported, missing_name


def generate_inputs(names: ForwardNames, inputs: Tensor | None, kwargs: Mapping[str, Any]) -> ForwardInputs:
    """What a call of `generate` was given; its first argument is the ids, and the rest has the forward's names."""
    return read_inputs(names, (), kwargs if inputs is None else {**kwargs, names.ids: inputs})


def uncompiled(model: nn.Module) -> dict[str, Any]:
    """Keyword that keeps `generate` from compiling: a graph compiled for a static cache would not see hooks.

    Raises PrerequisiteError where this release has no such setting of a generation.
    """
    (name,) = NAMES["generate.disable_compile"]
    config: Any = model.generation_config  # pyright: ignore[reportAttributeAccessIssue]
    if config is not None and name not in vars(type(config)()):
        raise missing_name("generate.disable_compile", type(config).__name__)
    return {name: True}


def is_paged(cache: Any) -> bool:
    """Whether a forward's cache is that of `generate_batch`, which packs texts into one row and has no length."""
    (length,) = NAMES["cache.length"]
    if cache is None or hasattr(cache, length):
        return False
    return isinstance(cache, imported("transformers.generation.continuous_batching", "cache.paged"))


def chosen_by(model: nn.Module, processor: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Any]:
    """Keyword that has `generate` pass ids so far and scores through a function before it takes the largest score.

    Raises PrerequisiteError where `generate` of this release has no such argument.
    """
    (name,) = NAMES["generate.processors"]
    if name not in signature(type(model).generate).parameters:  # pyright: ignore[reportAttributeAccessIssue]
        raise missing_name("generate.processors", f"{type(model).__name__}.generate")
    return {name: LogitsProcessorList([processor])}  # pyright: ignore[reportArgumentType]


def copy_generation(source: nn.Module, target: nn.Module) -> None:
    """Give a model the generation settings of another."""
    (name,) = NAMES["model.generation"]
    setattr(target, name, copy.deepcopy(attribute(source, "model.generation")))


NEUTRAL: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "min_length": 0,
    "length_penalty": 1.0,
    "early_stopping": False,
    "diversity_penalty": 0.0,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "use_cache": True,
    "return_dict_in_generate": False,
}
"""Values under which a setting changes nothing; of every other setting that is None, as in a config just made."""
TOKEN_IDS = frozenset({"pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"})
"""Settings that stay the checkpoint's: they say which tokens are which."""


class PinnedGeneration(NamedTuple):
    """Keywords under which `generate` draws the same whatever settings the checkpoint came with."""

    keywords: dict[str, Any]
    set_aside: dict[str, Any]
    """The checkpoint's settings that these keywords overrule, with their values there."""


def pin_generation(model: nn.Module, requested: Mapping[str, Any]) -> PinnedGeneration:
    """What was asked, and the neutral value of every other setting of the model's generation config that is not.

    Every setting that the installed release knows counts, so that one which a later release adds is pinned too. The
    ids of special tokens stay the checkpoint's, and settings which this release does not know are not read by it.
    """
    config: Any = model.generation_config
    keywords, displaced = dict(requested), {}
    if config is None:
        return PinnedGeneration(keywords, displaced)
    fresh, values = vars(type(config)()), vars(config)
    for name in sorted(values.keys() & fresh.keys()):
        value = values[name]
        neutral = NEUTRAL.get(name, fresh[name])
        if name.startswith("_") or name in TOKEN_IDS or name == "transformers_version" or value is None:
            continue
        used = requested.get(name, neutral)
        if value == used or (used is None and (value is False or value == [])):
            continue
        keywords[name] = used
        displaced[name] = value
    return PinnedGeneration(keywords, displaced)
