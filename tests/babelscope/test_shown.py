"""What a notebook shows of artifacts, by hand."""

import importlib
import re
from dataclasses import dataclass, fields, is_dataclass

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from babelscope import Direction, NeuronSet, Operation, Site, mean_direction, observe, select_lape
from babelscope.artifacts.shown import short_text, shown_by
from babelscope.languages import Language

TEXTS = {"en": ["a b c d e f"] * 4, "fi": ["b d f a a a"] * 4}


def test_values_are_shown_in_few_words():
    assert short_text(torch.zeros(2, 3)) == "float32[2, 3]"
    assert short_text({Language("fi"): 3, "a": "b"}) == "{fi: 3, a: 'b'}"
    assert short_text((Site(1, "mlp_gate"), 0.123456)) == "(1.mlp_gate, 0.1235)"
    assert short_text(tuple(range(3, 20))) == "3–19" == short_text(range(3, 20))
    assert short_text([0, 2, 4, 6, 8, 10, 12, 14, 16]) == "(0, 2, 4, 6, 8, 10, 12, 14, … 9 in all)"
    assert short_text(None) == "None"


def test_a_representation_has_the_last_part_of_a_dotted_name():
    class Thing:
        site = Site(0, "resid_out")
        __repr__ = shown_by("site.layer", "site")

    assert repr(Thing()) == "<Thing layer=0, site=0.resid_out>"


def test_artifacts_are_shown_in_one_line():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    observation = observe(model, tokenizer, TEXTS, sites=["mlp_gate", "resid_out"], shards=2)
    tokens = ", ".join(f"{tag}: {count}" for tag, count in observation.tokens.items())
    assert f"tokens={{{tokens}}}, records={{mlp_gate: <SiteRecord layers=(0, " in repr(observation)
    sets = select_lape(observation, top_rate=0.2, min_count=0)
    sizes = ", ".join(f"{tag}: {count}" for tag, count in sets.sizes.items())
    assert repr(sets).endswith(f"at='mlp_gate', sizes={{{sizes}}}, method='lape'>")
    direction = mean_direction(observation, target="fi", source="en", layer=0)
    assert "site=0.resid_out, source=(en), target=fi, norm=" in repr(direction)
    recipe = direction.recipe(1.0, "raw")
    assert f"operations=({recipe.operations[0]!r})" in repr(recipe)
    for artifact in (observation, sets, direction, recipe, direction.origin, *recipe):
        assert len(repr(artifact)) < 300 and "tensor(" not in repr(artifact), artifact
    assert {NeuronSet, Direction, Operation} <= {type(artifact) for artifact in (sets, direction, *recipe)}


@dataclass(frozen=True, eq=False)
class Found:
    """A result as probes give it."""

    __repr__ = shown_by()

    tags: tuple[str, ...]
    share: torch.Tensor
    table: np.ndarray
    parts: tuple[object, ...]
    note: str


@dataclass(frozen=True)
class Cell:
    """A part of a result, of one number or of many."""

    numbers: tuple[int, ...]


def test_a_result_without_names_is_shown_by_all_its_fields():
    cells = (Cell((1,)), Cell(tuple(range(0, 900, 3))))
    result = Found(("en", "fi"), torch.zeros(2, 3), np.zeros((4, 5)), cells, "word " * 40)
    assert repr(result) == (
        "<Found tags=('en', 'fi'), share=float32[2, 3], table=float64[4, 5], parts=(Cell(numbers=(1,)), <Cell>), "
        f"note='{'word ' * 24}…'>"
    )


PLACES = ("probes", "adaptation", "steering.sweeps", "steering.directions", "report.dashboards")


@pytest.mark.parametrize("place", PLACES)
def test_results_with_arrays_are_one_line_in_a_notebook(place):
    module = importlib.import_module(f"babelscope.{place}")
    for name in module.__all__:
        kind = getattr(module, name)
        if isinstance(kind, type) and is_dataclass(kind):
            types = {field.name: str(field.type) for field in fields(kind)}
            arrays = [field for field, kind_of in types.items() if re.search(r"Tensor|Float|Int\d|Bool\[", kind_of)]
            assert not arrays or kind.__repr__.__module__ == "babelscope.artifacts.shown", (name, arrays)
