"""Open sparse autoencoders: the bundled ones, a sae-lens folder, Gemma Scope's params.npz, or a published release."""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from babelscope.artifacts.identity import Origin
from babelscope.artifacts.sae import LoadedSAE
from babelscope.axes import Tensor
from babelscope.errors import ArtifactError, PrerequisiteError, SiteError
from babelscope.features.arrays import read_arrays
from babelscope.features.units import Stored, check_types, plain_form
from babelscope.files.strict_json import read_json
from babelscope.files.tensor_files import SUMS, check_header, check_sums
from babelscope.models import Layout, layout_of, model_difference
from babelscope.models.plain import CausalModel
from babelscope.reference import SAE, SAE_COARSE
from babelscope.sites import Site

BUNDLED = {"reference": SAE, "reference-coarse": SAE_COARSE}
"""Autoencoders that come with the package, by the name they are opened by."""
log = logging.getLogger(__name__)
CONFIG, WEIGHTS, PARAMS = "cfg.json", "sae_weights.safetensors", "params.npz"


def load_sae(
    source: str | Path,
    sae_id: str | None = None,
    *,
    model: CausalModel | None = None,
    site: Site | str | None = None,
    average_norm: float | None = None,
) -> LoadedSAE:
    """Open a sparse autoencoder in the plain form of `LoadedSAE`.

    source: "reference" or "reference-coarse" for the bundled ones; a folder of sae-lens (cfg.json,
    sae_weights.safetensors); a Gemma Scope params.npz or its folder; or, with `sae_id`, a release that sae-lens knows,
    such as ("gemma-scope-2b-pt-res-canonical", "layer_20/width_16k/canonical"), fetched unless it is here already.
    model: where given, the autoencoder must fit it: width, layer range, the module's path or the model's hash where
    the files have them.
    site: where it belongs, if the files do not say; one that differs from what they say is refused.
    average_norm: mean length of the training activations, for files that need it and do not have it folded in.
    Raises ArtifactError for files that are damaged or do not fit, PrerequisiteError where something is missing here.
    """
    family = None if model is None else str(model.config.model_type)
    path = BUNDLED.get(str(source), Path(source))
    if sae_id is not None:
        stored, hook = read_release(str(source), sae_id)
    elif path.suffix == ".npz" or os.path.isfile(path / PARAMS):
        stored, hook = read_params(path if path.suffix == ".npz" else path / PARAMS)
    else:
        stored, hook = read_folder(path)
        stored = stored._replace(id=str(source)) if str(source) in BUNDLED else stored
    sae = plain_form(stored, decide_site(stored.id, hook, site, family), average_norm=average_norm)
    if model is not None:
        check_module(stored.id, hook, model)
        check_fits(sae, model)
    return sae


def decide_site(name: str, hook: str, site: Site | str | None, family: str | None) -> Site:
    """The place, from the files or the caller; raises ArtifactError where they differ, SiteError where neither says."""
    caller_site = Site.parse(site) if isinstance(site, str) else site
    if not hook:
        if caller_site is None:
            raise SiteError(f"SAE {name!r} names no place in the model; expected one; pass site='20.resid_out'")
        return caller_site
    file_site = Site.from_hook_name(hook, family)
    if caller_site is not None and caller_site != file_site:
        raise ArtifactError(
            f"SAE {name!r} was trained at '{file_site}' ({hook}), came with site '{caller_site}'; drop one"
        )
    return file_site


def check_module(name: str, hook: str, model: CausalModel) -> None:
    """Raise ArtifactError where the files name a module by its path, not a hook, and the model has none there."""
    if not hook or "hook" in hook:
        return
    try:
        model.get_submodule(hook)
    except AttributeError as err:
        raise ArtifactError(
            f"SAE {name!r} was trained at the module {hook!r}, and this {model.config.model_type} has none of that "
            "name; expected the model it was trained on; open that one"
        ) from err


def check_fits(sae: LoadedSAE, model: CausalModel | Layout) -> None:
    """Raise unless the autoencoder's place is in the model, as wide as it, and made for this model where it says so.

    SiteError for a layer that the model lacks, ArtifactError for another width or another model's hash.
    """
    layout = model if isinstance(model, Layout) else layout_of(model)
    layout.check(sae.site)
    width = layout.width(sae.site.at)
    if width != sae.d_hidden:
        raise ArtifactError(
            f"SAE {sae.id!r} reads {sae.d_hidden} values at '{sae.site}', where the model has {width}; expected the "
            f"same; it was trained on {sae.model or 'another model'}"
        )
    if not sae.model_hash:
        return
    difference, name = model_difference(Origin(sae.model, "", sae.model_hash, ""), layout.model, None)
    if difference:
        raise ArtifactError(
            f"SAE {sae.id!r} was trained on {sae.model!r}, came with {name!r}: {difference}; expected the same model; "
            "open the one it was trained on"
        )


def read_folder(path: Path) -> tuple[Stored, str]:
    """A folder as sae-lens saves it, and the hook's name in it; sae-lens itself is not needed."""
    for name in (CONFIG, WEIGHTS):
        if not os.path.isfile(path / name):
            raise ArtifactError(
                f"SAE {str(path)!r}: no {name} there; expected 'reference', a sae-lens folder with {CONFIG} and "
                f"{WEIGHTS}, a {PARAMS}, or a release with sae_id=…; check the path"
            )
    check_header(path / WEIGHTS)
    if not check_sums(path, (CONFIG, WEIGHTS), advice="fetch the autoencoder again"):
        log.info("SAE %s: no %s beside its files, so that damage may go unseen", path, SUMS)
    settings = read_json(path / CONFIG, advice="fetch the autoencoder again")
    try:
        tensors = load_file(path / WEIGHTS)
    except (OSError, SafetensorError) as err:
        raise ArtifactError(f"SAE {str(path)!r}: unreadable ({err}); expected whole files; fetch it again") from err
    if not isinstance(settings, dict):
        raise ArtifactError(f"SAE {str(path)!r}: {CONFIG} is no table of settings; fetch it again")
    check_types(str(path), settings)
    drop_unit_scaling(tensors)
    return Stored(path.name, tensors, settings), hook_of(settings)


def drop_unit_scaling(tensors: dict[str, Tensor]) -> None:
    """Take out a fine-tuned scaling that scales nothing, which older files carry."""
    if "scaling_factor" in tensors and bool((tensors["scaling_factor"] == 1).all()):
        del tensors["scaling_factor"]


def hook_of(settings: Mapping[str, Any]) -> str:
    """The hook's name in a config of sae-lens, old or new; empty where there is none."""
    metadata = settings.get("metadata") or {}
    return str(metadata.get("hook_name") or settings.get("hook_name") or settings.get("hook_point") or "")


def read_params(path: Path) -> tuple[Stored, str]:
    """Gemma Scope's params.npz: JumpReLU, raw units, nothing subtracted from the input.

    The layer is read from its path (`layer_20/width_16k/average_l0_71/params.npz`) where a folder above says that it is
    of the residual stream (`…-res`); else the caller has to say the site.
    """
    arrays = read_arrays(path)
    tensors: dict[str, Tensor] = {re.sub("^w_", "W_", name): torch.from_numpy(array) for name, array in arrays.items()}
    drop_unit_scaling(tensors)
    # Not resolved: in the hub's cache the file is a link to a blob, whose path says nothing.
    parts = Path(os.path.abspath(path)).parts
    layer = next((match for part in reversed(parts) if (match := re.fullmatch(r"layer_(\d+)", part))), None)
    residual = any(part.endswith("-res") for part in parts)
    hook = f"blocks.{layer.group(1)}.hook_resid_post" if layer and residual else ""
    settings = {"architecture": "jumprelu", "apply_b_dec_to_input": False}
    return Stored("/".join(parts[-4:-1]) or str(path), tensors, settings), hook


def read_release(release: str, sae_id: str) -> tuple[Stored, str]:
    """A release by sae-lens, which fetches it unless it is in the local cache.

    Its thresholds, and for Llama Scope the input factor, are set by sae-lens's own converters.
    Raises PrerequisiteError where sae-lens is not installed or nothing could be fetched.
    """
    try:
        from sae_lens import SAE
    except ImportError as err:
        raise PrerequisiteError(
            f"SAE release {release!r} needs sae-lens, which is not installed; pip install 'babelscope[sae]'"
        ) from err
    try:
        sae = SAE.from_pretrained(release, sae_id)
    except (OSError, ValueError, KeyError, RuntimeError, UnpicklingError) as err:
        # What torch says of a pickle with more in it than tensors is how to run that.
        pickled = isinstance(err, UnpicklingError)
        reason = "a file with more in it than tensors" if pickled else " ".join(str(err).split())[:200]
        raise PrerequisiteError(
            f"SAE {sae_id!r} of release {release!r} could not be opened ({type(err).__name__}: {reason}); expected a "
            "release that sae-lens knows, in the local cache or over the network; fetch it once online"
        ) from err
    settings = sae.cfg.to_dict()
    tensors = {name: tensor.detach() for name, tensor in sae.state_dict().items()}
    return Stored(f"{release}/{sae_id}", tensors, settings), hook_of(settings)


def decoder_direction(sae: LoadedSAE, feature: int) -> Tensor:
    """What one unit of a feature adds to the residual stream: its row of the decoder, float32 [hidden].

    Raises ArtifactError for a feature that the autoencoder does not have.
    """
    if not 0 <= feature < sae.n_features:
        raise ArtifactError(f"feature {feature}: SAE {sae.id!r} has 0–{sae.n_features - 1}; give one of them")
    return sae.w_dec[feature]
