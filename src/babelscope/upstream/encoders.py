"""Encoders of transformers: which part of a model reads, and the states that its layers give."""

import inspect
from typing import Any

from torch import nn

from babelscope.axes import Float, Int, Tensor
from babelscope.errors import SiteError
from babelscope.upstream.config import config_value
from babelscope.upstream.names import NAMES, attribute, imported, missing_name, parameter_name


def reading_part(model: nn.Module) -> nn.Module:
    """The encoder of a model that has a decoder too, or an encoder without the head that fills its gaps.

    Raises SiteError for a model that is neither.
    """
    config: Any = model.config
    if config_value(config, "encoder_decoder"):
        return attribute(model, "model.encoder")()
    kind = config_value(config, "type")
    gap_fillers, decoders, text_encoders = map(known_types, ("encoders", "writers", "text_encoders"))
    if kind not in gap_fillers and (kind in decoders or kind not in text_encoders):
        raise SiteError(
            f"a model of type {kind!r} came; expected a decoder whose family has a table, an encoder, or an "
            "encoder–decoder; add a decoder's table with bs.add_family, or take such a model"
        )
    return attribute(model, "model.body")


def known_types(registry: str) -> Any:
    """The model types of one of transformers' own lists."""
    return imported("transformers.models.auto.modeling_auto", f"transformers.{registry}")


def run_encoder(
    encoder: nn.Module, ids: Int[Tensor, "batch token"], mask: Int[Tensor, "batch token"]
) -> tuple[Float[Tensor, "batch token hidden"], ...]:
    """What the embeddings give, and then each layer, as transformers hands it out.

    Raises PrerequisiteError where nothing comes under the name that is asked for.
    """
    parameters, owner = inspect.signature(type(encoder).forward).parameters, f"{type(encoder).__name__}.forward"
    inputs = {
        parameter_name(parameters, f"forward.{name}", owner): part for name, part in (("ids", ids), ("mask", mask))
    }
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        parameter_name(parameters, "encoder.states", owner)
    output = encoder(**inputs, **dict.fromkeys(NAMES["encoder.states"], True))
    states = attribute(output, "output.states")
    if states is None:
        raise missing_name("encoder.states", owner)
    return tuple(states)
