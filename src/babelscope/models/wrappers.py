"""Text models inside multimodal wrappers, such as the 4B to 27B Gemma 3: opened, or taken out, without the rest."""

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from babelscope.errors import PrerequisiteError, SiteError, first_line
from babelscope.models.device_placement import quantised_parameters
from babelscope.models.families import FAMILIES, family_of
from babelscope.upstream.config import config_value, revision_of
from babelscope.upstream.devices import empty_weights
from babelscope.upstream.forward import run_model
from babelscope.upstream.generation import copy_generation
from babelscope.upstream.names import NAMES, attribute, imported

WRAPPERS = (
    "gemma3",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "mistral3",
    "llava",
    "llava_next",
    "llava_onevision",
    "aya_vision",
    "cohere2_vision",
    "internvl",
)
"""Wrappers whose text part was compared with them on text, bit for bit; by `config.model_type`."""
PLAIN_TEXT = {"qwen2_vl_text": "qwen2", "qwen2_5_vl_text": "qwen2", "qwen3_vl_text": "qwen3"}
"""Text parts that have no causal model of their own → the model that they are on text alone.

Their positions have three axes, time, height and width, which for text are the same number.
"""
RENAMED = {
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
    r"^model\.language_model\.": "model.",
}
"""Weights of a wrapper's checkpoint → names in the text model."""


class TextModel(NamedTuple):
    """How to open the text part of a wrapper's checkpoint."""

    config: PretrainedConfig
    """Of the text model alone."""
    names: Mapping[str, str]
    """Patterns of the checkpoint's names → the text model's, for `from_pretrained(key_mapping=…)`."""


def text_model_of(config: PretrainedConfig) -> TextModel | None:
    """The text model in a wrapper's configuration; None for an ordinary model.

    Raises SiteError for a wrapper that was not compared with its text part, and for one, such as CLIP, of which
    transformers has no model that writes text, neither of the whole nor of its text part.
    """
    if config.model_type in FAMILIES or not _wraps(config):
        return None
    if config.model_type not in WRAPPERS:
        _refuse_silent(config)
        raise SiteError(
            f"a {config.model_type} came, a wrapper that babelscope has not compared with its text part; expected one "
            f"of {', '.join(WRAPPERS)}; open it with transformers and call bs.text_part(model), which compares them"
        )
    return TextModel(_text_config(config), RENAMED)


@contextmanager
def quiet_loading(quiet: bool) -> Iterator[None]:
    """While open, transformers does not list the weights of images, which a text model leaves unread."""
    log = logging.getLogger("transformers.modeling_utils")
    before = log.level
    try:
        if quiet:
            log.setLevel(logging.ERROR)
        yield
    finally:
        log.setLevel(before)


def forget_renamings(model: PreTrainedModel) -> None:
    """Let a text model that was opened from a wrapper's checkpoint be saved under its own names.

    transformers saves a checkpoint under the names that it was read from.
    """
    attribute(model, "model.renamings")
    (name,) = NAMES["model.renamings"]
    delattr(model, name)


def text_part(model: PreTrainedModel) -> PreTrainedModel:
    """The text model inside a multimodal wrapper in memory, as a causal model that shares its weights.

    For every function of this library: the wrapper and its text part give the same logits for text, bit for bit, which
    is tried here on a few tokens. What is trained or edited in one changes the other; images need the wrapper.
    Raises SiteError for a model that is no wrapper or whose text part computes something else, PrerequisiteError for
    weights that are quantised or spread over devices, for which `open_model` opens the checkpoint's text part.
    """
    wrapper: Any = model
    if not _wraps(wrapper.config):
        raise SiteError(f"a {type(model).__name__} came; expected a multimodal wrapper; use the model as it is")
    if quantised_parameters(model) or any(part.is_meta for part in model.parameters()):
        raise PrerequisiteError(
            "the wrapper's weights are quantised, or not in memory; expected plain ones; open its folder with "
            "bs.open_model(…, dtype='int8') or device='map', which reads the text part alone"
        )
    body: nn.Module = attribute(wrapper, "model.decoder")()
    part = _around(body, attribute(wrapper, "model.head")(), _text_config(wrapper.config))
    copy_generation(wrapper, part)
    _compare(wrapper, part)
    return part


def refuse_wrapper(model: nn.Module) -> None:
    """Raise SiteError, with the way out, for a wrapper, and for a body without its head."""
    wrapper: Any = model
    name = type(model).__name__
    if config_value(wrapper.config, "type") not in FAMILIES and _wraps(wrapper.config):
        raise SiteError(
            f"a model of class {name} came, a wrapper of images and text; expected the text model inside it; take "
            "bs.text_part(model), which shares its weights, or open its folder with bs.open_model"
        )
    if attribute(wrapper, "model.head")() is None:
        raise SiteError(
            f"a model of class {name} came, which has no head; expected the causal model around it (…ForCausalLM); "
            "pass that, or bs.text_part(wrapper) if it is a multimodal wrapper's"
        )


def _wraps(config: PretrainedConfig) -> bool:
    try:
        return attribute(config, "config.text")() is not config
    except ValueError as err:  # Of several text parts.
        raise SiteError(
            f"a {config.model_type} came, which has several text parts ({first_line(err)}); expected a causal language "
            "model; open the part that writes text as a checkpoint of its own"
        ) from err


def _refuse_silent(config: PretrainedConfig) -> None:
    """Raise SiteError for parts of which none writes text from left to right, by transformers' own tables."""
    tables = ("transformers.writers", "transformers.writing_wrappers")
    writers, wrappers = (imported("transformers.models.auto.modeling_auto", key) for key in tables)
    kind, text = config.model_type, attribute(config, "config.text")().model_type
    if kind in writers or kind in wrappers or text in writers:
        return
    raise SiteError(
        f"a {kind} came, whose text part ({text}) reads text and writes none; expected a causal language model; open "
        "one that writes text from left to right"
    )


def _text_config(config: Any) -> PretrainedConfig:
    """The text part's configuration as that of a model of its own, computing what the wrapper does."""
    text: Any = attribute(config, "config.text")()
    plain = PLAIN_TEXT.get(text.model_type)
    inner: Any = copy.deepcopy(text) if plain is None else _as_plain(text, plain)
    if inner.model_type not in FAMILIES:
        raise SiteError(
            f"the text part of this {config.model_type} is of type {inner.model_type!r}, which has no table; expected "
            f"one of {', '.join(sorted(FAMILIES))}; give it one with bs.add_family"
        )
    _set(inner, "tied", config_value(config, "tied"))
    family = family_of(inner)
    # The wrappers' own heads neither scale nor cap.
    for name, neutral in ((family.softcap, None), (family.logits_times, 1.0), (family.logits_over, 1.0)):
        if name:
            setattr(inner, name, neutral)
    _set(inner, "name", config_value(config, "name"))
    _set(inner, "commit", revision_of(config) or None)
    _set(inner, "architectures", None)
    if config_value(inner, "dtype") is None:
        _set(inner, "dtype", config_value(config, "dtype"))
    return inner


def _set(config: Any, key: str, value: Any) -> None:
    """Set a field of a configuration that is there under one of a key's names."""
    if key != "commit":
        config_value(config, key)
    name = next(name for name in NAMES[f"config.{key}"] if key == "commit" or hasattr(config, name))
    setattr(config, name, value)


def _as_plain(text: Any, kind: str) -> PretrainedConfig:
    """The same sizes and settings as a configuration of another type, its positions on one axis."""
    plain = CONFIG_MAPPING[kind]()
    left_out = {"model_type", "transformers_version", "architectures"}
    values = {key: value for key, value in text.to_dict().items() if hasattr(plain, key) and key not in left_out}
    return CONFIG_MAPPING[kind](**{key: _one_axis(value) for key, value in values.items()})


def _one_axis(value: Any) -> Any:
    """A setting without what it says of three axes, as the one of rotary positions does."""
    if not isinstance(value, dict):
        return value
    return {key: entry for key, entry in value.items() if not str(key).startswith("mrope_")}


def _around(body: nn.Module, head: nn.Module, config: Any) -> PreTrainedModel:
    """A causal model of this configuration whose parameters are those of a body and a head."""
    with empty_weights(buffers=False):
        part: Any = AutoModelForCausalLM.from_config(config, dtype=next(body.parameters()).dtype)
    prefix = family_of(config).body
    weights = {f"{prefix}.{name}": value for name, value in body.state_dict(keep_vars=True).items()}
    own_head = attribute(part, "model.head")()
    name = next(name for name, module in part.named_modules() if module is own_head)
    weights |= {f"{name}.{key}": value for key, value in head.state_dict(keep_vars=True).items()}
    try:
        part.load_state_dict(weights, assign=True, strict=True)
    except RuntimeError as err:
        reason = " ".join(str(err).split())
        raise SiteError(
            f"the text part of this wrapper is no {type(part).__name__} ({reason[:200]}); expected the same modules; "
            "write a causal model around it with transformers"
        ) from err
    for buffer in part.buffers():
        buffer.data = buffer.to(next(body.parameters()).device)
    return part.eval()


@torch.no_grad()
def _compare(wrapper: Any, part: Any) -> None:
    """Raise SiteError unless wrapper and text part give the same logits for a few tokens."""
    rows = attribute(part, "model.embedding")().weight.shape[0]
    ids = torch.randint(rows, (2, 7), generator=torch.Generator().manual_seed(0))
    special = torch.tensor(_image_tokens(wrapper.config))
    ids = torch.where(torch.isin(ids, special), (ids + 1) % rows, ids).to(next(part.parameters()).device)
    training = wrapper.training
    wrapper.eval()
    try:
        # Not every wrapper's own forward takes use_cache.
        expected, actual = attribute(wrapper(**{NAMES["forward.ids"][0]: ids}), "output.logits"), run_model(part, ids)
    finally:
        wrapper.train(training)
    if not torch.equal(expected, actual):
        difference = float((expected.double() - actual.double()).abs().max())
        raise SiteError(
            f"the text part of this {wrapper.config.model_type} gives other logits than the wrapper (largest "
            f"difference {difference:.3g}); expected the same; give the wrapper's logits yourself, or open a text "
            "checkpoint"
        )


def _image_tokens(config: Any) -> list[int]:
    """Ids that a wrapper's configuration names for something other than text."""
    values = config.to_dict().items()
    return [value for key, value in values if key.endswith(("token_id", "token_index")) and isinstance(value, int)]
