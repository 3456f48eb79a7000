import pickle

import pytest
import torch

from babelscope.adapters.masks import import_mask
from babelscope.errors import ArtifactError, LanguageError

EMPTY = torch.tensor([], dtype=torch.int64)


def save(tmp_path, lists):
    torch.save(lists, tmp_path / "mask.pth")
    return tmp_path / "mask.pth"


def test_a_published_mask_becomes_a_set(tmp_path):
    lists = [[torch.tensor([4, 6]), EMPTY], [EMPTY, torch.tensor([0])], [EMPTY, EMPTY]]
    sets = import_mask(save(tmp_path, lists), languages=["en", "zh", "fr"], n_neurons=8)
    assert sets.as_dict() == {"en": [(0, 4), (0, 6)], "zh": [(1, 0)], "fr": []}


def test_union_is_the_rounded_rate(tmp_path):
    """With filter equal to bar the union is round(top_rate · L · J): checked on a mask made by that rule."""
    from babelscope.neurons import lape_mask

    generator = torch.Generator().manual_seed(0)
    active = torch.randint(0, 1000, (4, 100, 5), generator=generator)
    mask = lape_mask(active, torch.full((5,), 1000), top_rate=0.05, filter_rate=0.9, bar_rate=0.9, min_count=0).mask
    lists = [[row.nonzero().flatten() for row in layers] for layers in mask]
    sets = import_mask(save(tmp_path, lists), languages=["en", "zh", "fr", "fi", "eu"], n_neurons=100)
    assert sets.parameters["union"] == round(0.05 * 4 * 100)
    assert torch.equal(sets.mask(), mask)


@pytest.mark.parametrize(
    ("lists", "languages", "word"),
    [
        ([[EMPTY]], ["en", "zh"], "1 languages in it, 2 named"),
        ([[torch.tensor([9])]], ["en"], "neuron 9 in layer 0; expected 0–7"),
        ([[torch.tensor([-1])]], ["en"], "for another model"),
        ([[torch.tensor([0.5])]], ["en"], "not list"),
        ([[EMPTY], [EMPTY, EMPTY]], ["en", "zh"], "not list"),
        ({"en": [EMPTY]}, ["en"], "not list"),
        ([], ["en"], "not list"),
        (torch.zeros(3), ["en"], "not list"),
    ],
)
def test_other_forms_are_refused(tmp_path, lists, languages, word):
    with pytest.raises(ArtifactError, match=word) as caught:
        import_mask(save(tmp_path, lists), languages=languages, n_neurons=8)
    assert "\n" not in str(caught.value)


class Trap:
    """A pickle that would write a file if its code were run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_the_file_is_not_run(tmp_path):
    for name, write in (("a.pth", lambda f: torch.save([Trap(tmp_path / "run")], f)), ("b.pth", None)):
        if write is None:
            (tmp_path / name).write_bytes(pickle.dumps([Trap(tmp_path / "run")], protocol=2))
        else:
            write(tmp_path / name)
        with pytest.raises(ArtifactError, match="no safe torch file"):
            import_mask(tmp_path / name, languages=["en"], n_neurons=8)
    assert not (tmp_path / "run").exists()


def test_languages_are_required_and_known(tmp_path):
    with pytest.raises(LanguageError):
        import_mask(save(tmp_path, [[EMPTY]]), languages=["xx"], n_neurons=8)
