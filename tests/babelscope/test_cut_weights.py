"""A model whose weights are cut over processes (FSDP2): peft's tuner trains there, all that reads weights says so."""

import json

import pytest
import torch
from conftest import tiny_model
from rank_launches import launched
from torch import distributed
from torch.distributed.fsdp import fully_shard
from training_cases import some_neurons

from babelscope import Delta, observe, open_model, origin_of, steer
from babelscope.errors import PrerequisiteError
from babelscope.upstream.cut_weights import gathered, is_cut

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from torch import distributed
from torch.distributed.fsdp import fully_shard
from peft import get_peft_model
from babelscope import NeuronSet, open_model
from babelscope.adapters.peft_neurons import LanguageNeurons, delta_of

place, world = Path(sys.argv[1]), int(sys.argv[2])
rank = 0
model, tokenizer = open_model(place / "model", device="cpu", dtype="float32")
model = get_peft_model(model, LanguageNeurons(NeuronSet.load(place / "neurons")))
if world > 1:
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    for layer in model.get_base_model().model.layers:
        fully_shard(layer)
    fully_shard(model)
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
generator, losses = torch.Generator().manual_seed(0), []
for _ in range(6):
    ids = torch.randint(8, 60, (4, 16), generator=generator)[rank::world]
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    mean = loss.detach().clone()
    if world > 1:
        distributed.all_reduce(mean)
    losses.append(float(mean) / world)
delta = delta_of(model)
if rank == 0:
    delta.save(place / f"delta {world}")
    print(json.dumps(losses))
if world > 1:
    distributed.destroy_process_group()
"""


def test_two_processes_that_cut_the_model_train_the_values_of_one(tmp_path, tokenizer):
    model = tiny_model("llama")
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    model, tokenizer = open_model(tmp_path / "model", device="cpu")
    some_neurons(model).save(tmp_path / "neurons")
    (tmp_path / "run.py").write_text(SCRIPT)
    losses = []
    for world in (1, 2):
        codes, outputs = launched([tmp_path / "run.py", tmp_path, world], world)
        assert codes == [0] * world, outputs
        losses.append(json.loads(outputs[0][0].splitlines()[-1]))
    assert losses[1] == pytest.approx(losses[0], abs=1e-5) and losses[0][-1] != losses[0][0]
    one, two = (Delta.load(tmp_path / f"delta {world}") for world in (1, 2))
    for name in ("gate", "up", "down"):
        assert getattr(one, name).abs().max() > 1e-2
        torch.testing.assert_close(getattr(two, name), getattr(one, name), rtol=0, atol=1e-5)


@pytest.fixture
def cut(tmp_path):
    """A model that is cut over a group of one."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        yield fully_shard(tiny_model("llama"))
    finally:
        distributed.destroy_process_group()


def test_what_reads_weights_refuses_cut_ones_in_one_line(cut, tokenizer):
    line = r"^model\.embed_tokens\.weight is cut over processes \(FSDP or tensor parallel\); expected .* train its n"
    with pytest.raises(PrerequisiteError, match=line):
        observe(cut, tokenizer, {"en": ["a b c"]})
    with pytest.raises(PrerequisiteError, match=line), steer(cut, ()):
        pass
    with pytest.raises(PrerequisiteError, match=line):
        origin_of(cut, tokenizer)
    whole = tiny_model("llama")
    for name, weight in cut.named_parameters():
        assert is_cut(weight) and not is_cut(gathered(weight))
        assert torch.equal(gathered(weight), whole.get_parameter(name))
