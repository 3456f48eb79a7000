"""Open a Hugging Face model, and read and write at a Site of it with plain hooks.

Here: opening, families, sites, hooks, devices; what text does on its way through is in `recording`.
Imports: artifacts, files, reference, sites, upstream.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from babelscope.models.device_placement import quantised_parameters
    from babelscope.models.encoder import Encoder, encoder_of
    from babelscope.models.families import FAMILIES, add_family, family_of
    from babelscope.models.family import Family, ModuleSide
    from babelscope.models.family_check import Identity, check_family, layout_of
    from babelscope.models.hooks import Edit, RoutedEdit, See
    from babelscope.models.layout import Layout
    from babelscope.models.measuring import measured, run_pass
    from babelscope.models.modes import eval_mode
    from babelscope.models.opening import open_model, stored_dtype
    from babelscope.models.origin import check_made_for, model_difference, origin_of, weights_hash
    from babelscope.models.positions import batch_positions, positions_note
    from babelscope.models.site_reading import read_site
    from babelscope.models.wrappers import text_part

__all__ = [
    "FAMILIES",
    "Edit",
    "Encoder",
    "Family",
    "Identity",
    "Layout",
    "ModuleSide",
    "RoutedEdit",
    "See",
    "add_family",
    "check_family",
    "batch_positions",
    "check_made_for",
    "encoder_of",
    "eval_mode",
    "family_of",
    "layout_of",
    "measured",
    "model_difference",
    "open_model",
    "origin_of",
    "positions_note",
    "quantised_parameters",
    "read_site",
    "run_pass",
    "stored_dtype",
    "text_part",
    "weights_hash",
]

__getattr__, __dir__ = lazy_names(__name__)
