"""Names that other libraries have for sites lead to places that there are."""

from typing import get_args

import pytest

from babelscope.hook_names import _LENS_LAYER, _MODULE_LAYER, LENS_FAMILIES, hook_meaning
from babelscope.sites import At

NAMES = [f"blocks.3.{name}" for name in _LENS_LAYER] + [f"transformer.h.3.{name}" for name in _MODULE_LAYER if name]


@pytest.mark.parametrize("name", [*NAMES, "hook_embed", "lm_head"])
def test_a_name_means_places_that_there_are(name):
    layer, meaning = hook_meaning(name)
    assert meaning is not None and layer in (3, None)
    usual, by_family = meaning
    assert {usual, *by_family.values()} - {None} <= set(get_args(At))


def test_a_name_that_no_table_has_means_nothing():
    assert hook_meaning("blocks.3.hook_nothing") == (3, None)
    assert len(set(LENS_FAMILIES)) == len(LENS_FAMILIES)
