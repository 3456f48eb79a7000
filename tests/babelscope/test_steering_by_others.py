"""Steering while another library makes the passes: virtual tokens of peft, proposed tokens, packed texts; and twice."""

import pytest
import torch
from conftest import tiny_model
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from steering_cases import answer, cache_name, push
from transformers.generation.continuous_batching import PagedAttentionCache

from babelscope import steer
from babelscope.errors import SteeringError
from babelscope.steering.columns import begins_with_prompt
from babelscope.steering.context import SteeringContext
from babelscope.steering.frame import Frame, PromptShape
from babelscope.steering.sweeps.beside import changed
from babelscope.upstream.forward import ForwardInputs

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Both .past_key_values. and .cache. are set:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Position ids are not supported for parameter efficient tuning"),
]
VIRTUAL = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 4}


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(
    "config",
    [PromptTuningConfig(**VIRTUAL), PromptEncoderConfig(**VIRTUAL, encoder_hidden_size=32)],
    ids=["own", "mlp"],
)
def test_virtual_tokens_before_the_prompt_are_refused_not_taken_for_an_answer(config, masked):
    base = tiny_model("llama")
    peft_model, ids = get_peft_model(base, config), torch.arange(3, 13).view(2, 5)
    words = {"attention_mask": torch.ones_like(ids)} if masked else {}
    with (
        steer(base, push()) as receipt,
        pytest.raises(SteeringError, match="9 columns came for a prompt of 5 as the first pass"),
    ):
        peft_model.generate(input_ids=ids, max_new_tokens=3, **words)
    assert not receipt.edited(), "nothing was steered"


def test_virtual_tokens_handed_over_as_embeddings_are_prompt():
    """The way out that the refusal names."""
    base = tiny_model("llama")
    peft_model = get_peft_model(base, PromptTuningConfig(**VIRTUAL))
    ids = torch.arange(3, 13).view(2, 5)
    whole = torch.cat([peft_model.get_prompt(2), base.get_input_embeddings()(ids)], dim=1).detach()
    with steer(base, push()) as receipt:
        base.generate(inputs_embeds=whole, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert (receipt.edited(phase="prompt"), receipt.edited(phase="generated")) == (18, 4)


def test_the_virtual_tokens_of_prefix_tuning_are_no_columns():
    base = tiny_model("llama")
    peft_model, ids = get_peft_model(base, PrefixTuningConfig(**VIRTUAL)), torch.arange(3, 13).view(2, 5)
    with steer(base, push()) as receipt:
        peft_model.generate(input_ids=ids, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert (receipt.edited(phase="prompt"), receipt.edited(phase="generated")) == (10, 4)


@pytest.mark.parametrize("options", [{"prompt_lookup_num_tokens": 3}, {"assistant": True}], ids=["lookup", "assisted"])
def test_proposed_tokens_behind_the_prompt_are_no_fault(options):
    model, ids = tiny_model("llama"), torch.tensor([[5, 6, 7, 5, 6, 7, 5, 6]])
    if options.pop("assistant", False):
        options = {"assistant_model": tiny_model("llama")}
    with steer(model, push(phase="generated")):
        assert torch.equal(answer(model, ids, **options)[:, :4], answer(model, ids))


def test_a_first_pass_longer_than_the_prompt_must_begin_with_it():
    ids = torch.arange(6).view(1, 6)

    def begins(passed, prompt, length=4):
        frame = Frame(ForwardInputs(passed, None, None, None, None), PromptShape(1, length, None, prompt))
        return begins_with_prompt(frame)

    assert begins(ids, ids[:, :4]) and begins(ids.repeat(2, 1), ids[:, :4])
    assert not begins(ids.flip(1), ids[:, :4]) and not begins(ids, None)
    assert begins(ids[:, :3], None), "a part of the prompt"
    assert begins(ids, None, length=6), "the prompt itself, as embeddings"


def test_texts_packed_into_one_row_are_refused():
    model = tiny_model("llama")
    paged = {cache_name(model): PagedAttentionCache.__new__(PagedAttentionCache)}
    with steer(model, push()), pytest.raises(SteeringError, match="generate_batch ran .*packs texts into one row"):
        model(input_ids=torch.arange(3, 8)[None], **paged)


def test_a_steering_is_entered_once_and_decorates_as_often_as_it_is_called():
    model, ids = tiny_model("llama"), torch.arange(3, 8)[None]
    steering = steer(model, push())
    assert isinstance(steering, SteeringContext)
    with steering, pytest.raises(SteeringError, match="entered before"), steering:
        pass
    with pytest.raises(SteeringError, match="entered before"), steering:
        pass
    decorated = steer(model, push())(answer)
    with steer(model, push()):
        expected = answer(model, ids)
    assert torch.equal(decorated(model, ids), expected) and torch.equal(decorated(model, ids), expected)
    assert "generate" not in vars(model)


def test_one_operation_is_a_steering_as_a_list_of_it_is():
    model, operation = tiny_model("llama"), push()
    for way in (operation, [operation], (operation,)):
        with changed(model, way, 1.0) as steerer:
            assert steerer("fi", "en") == [operation]
