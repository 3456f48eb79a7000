import pytest

from babelscope import Site
from babelscope.errors import SiteError


@pytest.mark.parametrize("text", ["12.mlp_gate", "0.resid_in", "embed", "logits"])
def test_a_site_prints_as_it_is_read(text):
    assert str(Site.parse(text)) == text


@pytest.mark.parametrize("text", ["mlp_gate", "3.embed", "3.mlp", "-1.resid_out", "3.", "", "3.mlp_gate "])
def test_what_is_no_place_is_refused(text):
    with pytest.raises(SiteError, match="expected|0 or more"):
        Site.parse(text)


def test_negative_layers_are_refused():
    with pytest.raises(SiteError, match="count from 0"):
        Site(-1, "resid_out")
