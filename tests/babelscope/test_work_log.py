"""The log of a long run's work: what is taken from it is bit for bit what was computed, and nothing else is taken."""

import json
import time
from typing import NamedTuple

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from babelscope import load_corpus
from babelscope.artifacts import Direction
from babelscope.errors import ArtifactError, PrerequisiteError
from babelscope.evaluation import bits_per_byte
from babelscope.files.work_log import hash_of, pack, piece_of_work, unpack, work_log
from babelscope.languages import Language
from babelscope.models import layout_of, origin_of
from babelscope.probes import PROBES, ProbeJob, probe_findings
from babelscope.probes.lens.logit_lens import LensAddend
from babelscope.sites import Site
from babelscope.steering import steer
from babelscope.steering.sweeps import Decoding
from babelscope.steering.sweeps.steered_answers import generate_answers
from babelscope.steering.sweeps.steering_prompts import Prompt

TEXTS = {"en": ["the cat sat", "on a mat", "hello"], "fi": ["kissa istui", "matolla", "hiljaa"]}


class Foreign(NamedTuple):
    x: int


def numbers(folder, values, computed, stop_at=None, **given):
    """A run of some pieces, and which it computed."""
    with work_log(folder, "run", seconds=0.0, **given):
        out = []
        for value in values:
            if len(out) == stop_at:
                raise KeyboardInterrupt
            out.append(piece_of_work(lambda v=value: hash_of(str(v)), lambda v=value: computed.append(v) or v * 2))
        return out


def test_an_interrupted_run_computes_nothing_again_and_gives_the_same(tmp_path):
    first, second = [], []
    with pytest.raises(KeyboardInterrupt):
        numbers(tmp_path / "log", range(10), first, stop_at=6)
    assert numbers(tmp_path / "log", range(10), second) == [2 * value for value in range(10)]
    assert first == [0, 1, 2, 3, 4, 5] and second == [6, 7, 8, 9]


def test_the_seconds_of_interrupted_runs_are_kept(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), work_log(tmp_path / "log", "run", seconds=0.0) as work:
            piece_of_work(lambda: "a", lambda: 1)
            piece_of_work(lambda: f"{work.spent}", lambda: time.sleep(0.2))
            raise KeyboardInterrupt
    with work_log(tmp_path / "log", "run") as work:
        assert 0.4 <= work.spent < 60


def test_other_work_than_was_logged_is_computed_and_never_taken_from_the_log(tmp_path):
    numbers(tmp_path / "log", [1, 2, 3, 4], [])
    computed = []
    assert numbers(tmp_path / "log", [1, 2, 7, 4, 5], computed) == [2, 4, 14, 8, 10]
    assert computed == [7, 4, 5]


def test_a_piece_that_fails_stays_next_in_the_log(tmp_path):
    def halved(folder):
        with work_log(folder, "run", seconds=0.0):
            with pytest.raises(MemoryError):
                piece_of_work(lambda: "whole", lambda: (_ for _ in ()).throw(MemoryError))
            return [piece_of_work(lambda k=k: k, lambda k=k: computed.append(k) or k) for k in ("half", "other half")]

    computed = []
    assert halved(tmp_path / "log") == halved(tmp_path / "log") == ["half", "other half"]
    assert computed == ["half", "other half"]


def test_the_log_of_another_run_a_damaged_one_and_one_in_use_are_refused(tmp_path):
    numbers(tmp_path / "log", [1, 2], [])
    with pytest.raises(ArtifactError, match="another run"), work_log(tmp_path / "log", "other"):
        piece_of_work(lambda: "key", lambda: 1)
    with work_log(tmp_path / "log", "run"), pytest.raises(PrerequisiteError, match="another run is using it"):
        numbers(tmp_path / "log", [1], [])
    for file in (tmp_path / "log").iterdir():
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    with pytest.raises(ArtifactError, match="damaged|no JSON"):
        numbers(tmp_path / "log", [1, 2], [])


def test_what_is_larger_than_its_time_allows_is_computed_again(tmp_path):
    computed = []
    for _ in range(2):
        with work_log(tmp_path / "log", "run", seconds=0.0):
            piece_of_work(lambda: "large", lambda: computed.append(1) or torch.zeros(1 << 22))
            assert piece_of_work(lambda: "next", lambda: computed.append(2) or 3) == 3
    assert computed == [1, 2, 1]


def test_a_value_that_is_changed_before_it_is_written_is_logged_as_it_was(tmp_path):
    with work_log(tmp_path / "log", "run", seconds=1_000.0):
        value = piece_of_work(lambda: "key", lambda: time.sleep(0.01) or torch.zeros(3))
        value += 1
    with work_log(tmp_path / "log", "run"):
        assert piece_of_work(lambda: "key", lambda: None).tolist() == [0, 0, 0]


def test_values_come_back_with_their_types_and_nothing_foreign_is_packed_or_called():
    value = {
        Site(2, "resid_out"): (torch.tensor([1.5, -0.0]), [True, None, "x", 3]),
        "nan": float("nan"),
        4: LensAddend(*(torch.full((2, 2), float(number)) for number in range(len(LensAddend._fields)))),
    }
    tensors = {}
    packed = json.loads(json.dumps(pack(value, tensors, "0/"), allow_nan=False))
    back = unpack(packed, tensors)
    assert list(back) == list(value) and type(back[4]) is LensAddend
    assert torch.equal(
        back[Site(2, "resid_out")][0].view(torch.int32), value[Site(2, "resid_out")][0].view(torch.int32)
    )
    assert back["nan"] != back["nan"] and back[Site(2, "resid_out")][1] == [True, None, "x", 3]
    with pytest.raises(TypeError, match="Foreign"):
        pack(Foreign(1), {}, "")
    for name in ("os:system", "babelscope.files.writing:discard", "subprocess:Popen", "babelscope.no:Thing"):
        with pytest.raises(ArtifactError, match="expected a record of this library"):
            unpack({"class": name, "parts": ["x"]}, {})


def test_passes_and_drawn_answers_of_an_interrupted_run_are_not_made_again(tmp_path, monkeypatch):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    requests = [(Prompt(str(i), Language("en"), text), Language("fi")) for i, text in enumerate(TEXTS["en"])]
    push = [direction_of(model).add(2.0)]

    def work():
        torch.manual_seed(3)
        drawn = generate_answers(
            model, tokenizer, requests, lambda *_: push, decoding=Decoding(new_tokens=5, seed=4, batch_size=2)
        )
        return [(a.ids, a.text, a.receipt and a.receipt.rows) for a in drawn], bits_per_byte(model, tokenizer, TEXTS)

    plain = work()
    with work_log(tmp_path / "log", "run", seconds=0.0):
        logged = work()
    calls = []
    model.register_forward_pre_hook(lambda *_: calls.append(1))
    model.model.register_forward_pre_hook(lambda *_: calls.append(1))
    with work_log(tmp_path / "log", "run"):
        again = work()
    assert plain == logged == again and not calls
    assert work() == plain and calls


def direction_of(model):
    vector = torch.randn(layout_of(model).d_hidden, generator=torch.Generator().manual_seed(1))
    origin = origin_of(model, tiny_tokenizer())
    return Direction(vector, Site(1, "resid_out"), "fi", ("en",), 3.5, origin, {"method": "mean"}, median_norm=2.0)


@pytest.mark.parametrize(
    "name", [name for name in PROBES if name not in ("checkpoints", "circuits", "routing", "trees", "values")]
)
def test_a_probe_on_the_work_of_an_interrupted_one_finds_the_same(name, reference, tmp_path):
    languages = ("en", "fi", "de", "ru") if name == "specialization" else ("en", "fi")
    texts, others = (load_corpus("reference", languages, split=split) for split in ("valid", "train"))
    texts, rows = texts.head(8), []
    for _ in range(2):
        with work_log(tmp_path / "log", "run", seconds=0.0):
            job = ProbeJob(reference[0], reference[1], texts, others, "en", 8, 0)
            rows.append(probe_findings(name, job).rows)
    assert repr(rows[0]) == repr(rows[1])


def test_steering_that_is_replayed_leaves_no_hook(tmp_path):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    requests = [(Prompt("0", Language("en"), "the cat"), Language("fi"))]
    for _ in range(2):
        with work_log(tmp_path / "log", "run", seconds=0.0):
            generate_answers(model, tokenizer, requests, lambda *_: [direction_of(model).add(1.0)],
                             decoding=Decoding(new_tokens=3))  # fmt: skip
    assert not any(module._forward_hooks for module in model.modules())
    with steer(model, direction_of(model).add(1.0)):
        assert any(module._forward_hooks for module in model.modules())
