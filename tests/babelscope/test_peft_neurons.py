"""A language's neurons as a tuner of peft: other loops train the same values, and the way out is exact."""

import copy
import json
import logging

import pytest
import torch
from accelerate import Accelerator
from conftest import CONFIGS, tiny_model
from datasets import Dataset as HuggingFaceDataset
from delta_cases import bits, same_bits
from peft import LoraConfig, PeftModel, get_peft_model
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Dataset
from training_cases import TEXT, some_neurons
from transformers import Trainer, TrainingArguments, default_data_collator
from trl import SFTConfig, SFTTrainer

from babelscope import layout_of, train_subnetwork
from babelscope.adapters.peft_linear import NeuronLinear
from babelscope.adapters.peft_neurons import LanguageNeurons, delta_of
from babelscope.errors import ArtifactError, PrerequisiteError, SelectionError
from babelscope.languages import Language
from babelscope.subnetworks import LearningRate
from babelscope.subnetworks.packing import mix_texts

# peft 0.21 asks a model for a property that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
DENSE = [family for family in CONFIGS if family not in ("mixtral", "qwen3_moe", "olmoe")]
STEPS, ROWS, LENGTH, RATE = 20, 4, 32, 1e-3


def moved(model, size=0.1, seed=0):
    """The model with random changes of the neurons in its adapter."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, NeuronLinear):
            for change in module.changes.values():
                change.data = size * torch.randn(change.shape, generator=generator)
    return model


def wrapped(family, **settings):
    model = tiny_model(family)
    return get_peft_model(model, LanguageNeurons(some_neurons(model), **settings))


class Packed(Dataset):
    """The rows that our own trainer takes, as a Dataset of rows with labels."""

    def __init__(self, tokenizer):
        mixture = mix_texts(tokenizer, Language("eu"), TEXT, None, share=0.0, length=LENGTH, seed=0)
        rows = mixture.rows(0, STEPS * ROWS)
        labels = torch.where(rows.scored, rows.input_ids, -100)
        self.tokenizer = tokenizer
        self.columns = {"input_ids": rows.input_ids, "position_ids": rows.position_ids, "labels": labels}

    def __len__(self):
        return STEPS * ROWS

    def __getitem__(self, index):
        return {name: column[index] for name, column in self.columns.items()}


def ours(model, tokenizer):
    """The Delta of our own trainer, without warm-up or decay of the rate."""
    return train_subnetwork(
        model, tokenizer, some_neurons(model, counts=(3,) * model.config.num_hidden_layers), TEXT, steps=STEPS,
        learning_rate=RATE, tokens_per_step=ROWS * LENGTH, max_length=LENGTH, final=0.1, form="split",
    )  # fmt: skip


def optimizer_of(model):
    rate = LearningRate(RATE, STEPS)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    return optimizer, LambdaLR(optimizer, lambda step: rate.at(min(step, STEPS - 1)) / RATE)


def by_trainer(model, data, folder):
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=ROWS, max_steps=STEPS, max_grad_norm=1.0, report_to=[],
        save_strategy="no", disable_tqdm=True, use_cpu=True, train_sampling_strategy="sequential",
    )  # fmt: skip
    Trainer(model, arguments, train_dataset=data, optimizers=optimizer_of(model)).train()


def by_accelerate(model, data, folder):
    accelerator = Accelerator(cpu=True)
    optimizer, schedule = optimizer_of(model)
    loader = torch.utils.data.DataLoader(data, batch_size=ROWS)
    model, optimizer, loader, schedule = accelerator.prepare(model, optimizer, loader, schedule)
    for batch in loader:
        optimizer.zero_grad()
        accelerator.backward(model(**batch).loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def by_sft_trainer(model, data, folder):
    """TRL's, on rows that are tokenized already: its own preparation of text is not what is compared."""
    arguments = SFTConfig(
        output_dir=str(folder), per_device_train_batch_size=ROWS, max_steps=STEPS, max_grad_norm=1.0, report_to=[],
        save_strategy="no", disable_tqdm=True, use_cpu=True, train_sampling_strategy="sequential", bf16=False,
        gradient_checkpointing=False, max_length=None, dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
    )  # fmt: skip
    rows = HuggingFaceDataset.from_dict({name: column.tolist() for name, column in data.columns.items()})
    SFTTrainer(
        model, arguments, train_dataset=rows, data_collator=default_data_collator, processing_class=data.tokenizer,
        optimizers=optimizer_of(model),
    ).train()  # fmt: skip


# TRL 1.16 names a setting as transformers 5.23 did.
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("loop", [by_trainer, by_accelerate, by_sft_trainer])
def test_other_loops_train_the_values_of_our_trainer(loop, reference, tmp_path):
    model, tokenizer = reference
    before, expected = bits(model), ours(model, tokenizer)
    neurons = some_neurons(model, counts=(3,) * model.config.num_hidden_layers)
    tuned = get_peft_model(model, LanguageNeurons(neurons))
    loop(tuned, Packed(tokenizer), tmp_path)
    found = delta_of(tuned)
    model = tuned.unload()
    assert same_bits(before, model) and not model.training or model.eval()
    assert torch.equal(found.offsets, expected.offsets) and torch.equal(found.indices, expected.indices)
    for role, rows in expected.rows.items():
        assert rows.abs().max() > 5 * RATE
        torch.testing.assert_close(found.rows[role], rows, rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("family", DENSE)
def test_the_tuner_computes_what_its_delta_does_and_leaves_no_trace(family, ids):
    model = tiny_model(family)
    before, plain = bits(model), model(ids).logits
    tuned = get_peft_model(model, LanguageNeurons(some_neurons(model)))
    assert torch.equal(tuned(ids).logits, plain)
    found = moved(tuned)(ids).logits
    assert (found - plain).abs().max() > 1e-2
    with tuned.disable_adapter():
        assert torch.equal(tuned(ids).logits, plain)
    tuned.merge_adapter()
    torch.testing.assert_close(tuned(ids).logits, found, rtol=1e-4, atol=1e-4)
    tuned.unmerge_adapter()
    delta = delta_of(tuned)
    model = tuned.unload()
    assert same_bits(before, model)
    with delta.applied(model):
        torch.testing.assert_close(model(ids).logits, found, rtol=1e-4, atol=1e-4)
        merged = bits(model)
    again = moved(get_peft_model(model, LanguageNeurons(some_neurons(model)))).merge_and_unload()
    assert same_bits(merged, again) and not any(isinstance(module, NeuronLinear) for module in again.modules())


def test_only_the_neurons_are_trained():
    model = wrapped("llama")
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert all("NEURONS_change" in name and value.dtype == torch.float32 for name, value in trained.items())
    assert sum(value.numel() for value in trained.values()) == 3 * 7 * 32


def test_an_adapter_comes_back_and_names_its_neurons(tmp_path, ids):
    model = moved(wrapped("llama"))
    expected = model(ids).logits
    model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["peft_type"] == "LANGUAGE_NEURONS" and config["languages"] == ["eu"]
    assert {layer: len(row) for layer, row in config["neurons"].items()} == {"0": 2, "2": 5}
    back = PeftModel.from_pretrained(tiny_model("llama"), str(tmp_path))
    assert torch.equal(back(ids).logits, expected) and not any(p.requires_grad for p in back.parameters())
    again = PeftModel.from_pretrained(tiny_model("llama"), str(tmp_path), is_trainable=True)
    assert sum(p.numel() for p in again.parameters() if p.requires_grad) == 3 * 7 * 32


def test_two_languages_are_added_and_told_apart(ids):
    model = tiny_model("llama")
    finnish = some_neurons(model, counts=(3, 1, 0), language="fi", seed=1)
    tuned = get_peft_model(model, LanguageNeurons(some_neurons(model)), adapter_name="eu")
    tuned.add_adapter("fi", LanguageNeurons(finnish))
    moved(tuned)
    tuned.base_model.set_adapter(["eu", "fi"])
    found, both = tuned(ids).logits, delta_of(tuned, "eu") + delta_of(tuned, "fi")
    assert both.languages == ("eu", "fi")
    model = tuned.unload()
    with both.applied(model):
        torch.testing.assert_close(model(ids).logits, found, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:You are trying to modify a model with PEFT for a second time")
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute in the model")
@torch.no_grad()
@pytest.mark.parametrize("modules", [["q_proj"], ["q_proj", "down_proj"]])
def test_neurons_over_a_lora_give_save_and_merge_both(modules, ids, tmp_path):
    model = tiny_model("llama")
    lora = LoraConfig(r=2, target_modules=modules, init_lora_weights=False, task_type="CAUSAL_LM")
    under = get_peft_model(copy.deepcopy(model), lora)
    alone = under(ids).logits
    tuned = moved(get_peft_model(under.get_base_model(), LanguageNeurons(some_neurons(model)), adapter_name="eu"))
    both = tuned(ids).logits
    delta = delta_of(tuned, "eu")
    assert (both - alone).abs().max() > 1e-2
    parts = [name for name, value in tuned.named_parameters() if value.requires_grad]
    assert any("lora_A" in name for name in parts) and any("NEURONS_change" in name for name in parts)
    if len(modules) == 1:
        tuned.save_pretrained(tmp_path)
        back = PeftModel.from_pretrained(model, str(tmp_path)).get_base_model()
        back = PeftModel.from_pretrained(back, str(tmp_path / "eu"), adapter_name="eu")
        torch.testing.assert_close(back(ids).logits, both, rtol=1e-5, atol=1e-5)
    merged = tuned.merge_and_unload()
    torch.testing.assert_close(merged(ids).logits, both, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, NeuronLinear) for module in merged.modules())
    assert delta.n_values == 3 * 7 * 32


def test_what_was_added_after_a_merge_stays_when_it_is_unmerged(caplog):
    tuned = moved(wrapped("llama"))
    tuned.merge_adapter()
    layer = next(module for module in tuned.modules() if isinstance(module, NeuronLinear))
    with torch.no_grad():
        layer.weight.add_(0.25)
    expected = tiny_model("llama").model.layers[0].mlp.gate_proj.weight + 0.25
    with caplog.at_level(logging.WARNING):
        tuned.unmerge_adapter()
    torch.testing.assert_close(layer.weight, expected, rtol=1e-5, atol=1e-6)
    assert "was changed since" in caplog.text


def test_what_does_not_fit_is_one_line(tmp_path):
    model = tiny_model("llama")
    with pytest.raises(ArtifactError, match="made for"):
        get_peft_model(tiny_model("mistral"), LanguageNeurons(some_neurons(model)))
    adapted = get_peft_model(tiny_model("mistral"), LoraConfig(target_modules=["q_proj"])).get_base_model()
    with pytest.raises(ArtifactError, match="this model is another: another kind of model"):
        LanguageNeurons(some_neurons(model)).check(adapted)
    with pytest.raises(SelectionError, match="expected neurons of one language"):
        LanguageNeurons(some_neurons(model, counts=(0, 0, 0)))
    with pytest.raises(PrerequisiteError, match="fused experts"):
        get_peft_model(tiny_model("mixtral"), LanguageNeurons(some_neurons(tiny_model("mixtral"))))
    with pytest.raises(ArtifactError, match="adapter 'other': none of that name"):
        delta_of(wrapped("llama"), "other")
    half = tiny_model("llama", dtype=torch.float16)
    tuned = moved(get_peft_model(half, LanguageNeurons(some_neurons(half))), size=1e6)
    with pytest.raises(Exception, match="leave the range of torch.float16"):
        tuned.merge_adapter()


def test_a_model_with_the_tuner_in_it_is_known_for_an_adapted_one():
    tuned = wrapped("llama")
    with pytest.raises(PrerequisiteError, match="merge_and_unload"):
        layout_of(tuned)
    with pytest.raises(PrerequisiteError, match="adapter .NeuronLinear. stands in its place"):
        layout_of(tuned.get_base_model()).neuron_rows(0)
