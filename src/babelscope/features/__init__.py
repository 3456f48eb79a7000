"""Sparse autoencoders → firing of their features by language → the features of each language.

The only importer of sae_lens, and only for published releases.
"""

from babelscope.artifacts.sae import LoadedSAE
from babelscope.features.loading import check_fits, decoder_direction, load_sae

__all__ = ["LoadedSAE", "check_fits", "decoder_direction", "load_sae"]
