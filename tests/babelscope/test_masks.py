import pickle
import random
import zipfile

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
    from babelscope.neurons import Lape, UnitCounts

    generator = torch.Generator().manual_seed(0)
    active = torch.randint(0, 1000, (4, 100, 5), generator=generator)
    rule = Lape(top_rate=0.05, filter_rate=0.9, bar_rate=0.9, min_count=0)
    mask = rule.select(UnitCounts(active, torch.full((5,), 1000))).mask
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
        with pytest.raises(ArtifactError, match="no safe torch file .it names '(io|_io).open'") as caught:
            import_mask(tmp_path / name, languages=["en"], n_neurons=8)
        assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_languages_are_required_and_known(tmp_path):
    with pytest.raises(LanguageError):
        import_mask(save(tmp_path, [[EMPTY]]), languages=["xx"], n_neurons=8)


def attempt(path, content):
    """The neurons of a file, or None where it is refused in one line."""
    path.write_bytes(content)
    try:
        return import_mask(path, languages=["en", "fi"], n_neurons=64).as_dict()
    except ArtifactError as err:
        assert "\n" not in str(err) and "expected" in str(err) and "weights_only" not in str(err)
        return None


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_was_cut_or_changed_is_refused_or_the_same(tmp_path, zipped):
    lists = [[torch.arange(3 * k, 9 + k), torch.arange(k)] for k in (1, 2)]
    path = tmp_path / "mask.pth"
    torch.save(lists, path, _use_new_zipfile_serialization=zipped)
    whole, draw = path.read_bytes(), random.Random(4)
    first = attempt(path, whole)
    assert first == {
        "en": [(0, i) for i in range(3, 10)] + [(1, 0)],
        "fi": [(0, i) for i in range(6, 11)] + [(1, 0), (1, 1)],
    }
    for place in draw.sample(range(len(whole)), 250):
        assert attempt(path, whole[:place]) is None, place
    refused = 0
    for _ in range(400):
        changed = bytearray(whole)
        changed[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        neurons = attempt(path, bytes(changed))
        refused += neurons is None
        assert neurons in (None, first) or not zipped  # the older form has no checksum
    assert refused > 80


def test_an_archive_of_compressed_parts_is_refused_unread(tmp_path):
    torch.save([[EMPTY]], tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "mask.pth", "w") as packed:
        for part in plain.infolist():
            packed.writestr(part.filename, plain.read(part), zipfile.ZIP_DEFLATED)
        packed.writestr("plain/data/9", bytes(1 << 20), zipfile.ZIP_DEFLATED)
    with pytest.raises(ArtifactError, match="is compressed.; expected it as torch wrote it"):
        import_mask(tmp_path / "mask.pth", languages=["en"], n_neurons=8)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(ArtifactError, match="no safe torch file .it is no file"):
        import_mask(tmp_path / "none.pth", languages=["en"], n_neurons=8)
