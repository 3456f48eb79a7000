"""Rows padded on the left, on the right and by themselves are read alike by every public reader."""

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from babelscope import Gate, Operation, Site, origin_of, read_site, steer
from babelscope.corpus import pad_rows, tokenize_prompts
from babelscope.languages import Language
from babelscope.models import layout_of, run_pass
from babelscope.steering.sweeps import Decoding, Prompt, generate_answers

TEXTS = ["a", "rain again", "the cat sat on the mat"]
FAMILIES = ("llama", "gpt2", "opt", "bloom", "gemma3_text", "reference")


@pytest.fixture(params=FAMILIES)
def parts(request):
    if request.param == "reference":
        return request.getfixturevalue("reference")
    return tiny_model(request.param), tiny_tokenizer()


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_site_and_the_logits_do_not_see_pads(parts, side):
    model, tokenizer = parts
    rows = tokenize_prompts(tokenizer, TEXTS)
    ids, mask = pad_rows(rows, 0, side=side)
    layout = layout_of(model)
    readers = {
        "first": lambda i, m: read_site(model, i, Site(0, "resid_out"), attention_mask=m),
        "last": lambda i, m: read_site(model, i, Site(layout.n_layers - 1, "mlp_gate"), attention_mask=m),
        "body": lambda i, m: run_pass(layout, i, m),
        "head": lambda i, m: run_pass(layout, i, m, head=True),
    }
    for name, read in readers.items():
        together = read(ids, mask)
        for row, own in enumerate(rows):
            alone = read(torch.tensor([own]), None)[0]
            torch.testing.assert_close(
                together[row][mask[row].bool()], alone, rtol=1e-3, atol=2e-4 * float(alone.abs().max()), msg=name
            )


def test_positions_matter_to_these_families_so_that_the_comparison_can_fail():
    model = tiny_model("gpt2")
    ids = torch.tensor([[5, 6, 7]])
    shifted = model(input_ids=ids, position_ids=torch.tensor([[3, 4, 5]])).logits
    assert not torch.allclose(shifted, model(input_ids=ids).logits, atol=1e-2)


def test_steered_answers_of_a_batch_are_those_of_each_prompt_alone(parts):
    model, tokenizer = parts
    origin, width = origin_of(model, tokenizer), layout_of(model).d_hidden
    vector = torch.randn(width, generator=torch.Generator().manual_seed(0))
    operation = Operation(
        Site(1, "resid_out"), "add", vector, strength=3.0, gate=Gate(phase="generated"), origin=origin
    )
    requests = [(Prompt(str(i), Language("en"), text), Language("fi")) for i, text in enumerate(TEXTS)]
    decoding = Decoding(new_tokens=5, temperature=0.0)

    def answers(asked):
        return generate_answers(model, tokenizer, asked, lambda target, source: [operation], decoding=decoding)

    together = [answer.ids for answer in answers(requests)]
    assert together == [answers([request])[0].ids for request in requests]


def test_a_steered_pass_is_the_same_with_pads_before_it():
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    vector = torch.ones(layout_of(model).d_hidden)
    operation = Operation(
        Site(0, "resid_out"),
        "add",
        vector,
        strength=2.0,
        gate=Gate(positions=(1, 3)),
        origin=origin_of(model, tokenizer),
    )
    rows = tokenize_prompts(tokenizer, TEXTS)
    ids, mask = pad_rows(rows, 0)
    with steer(model, [operation]):
        together = run_pass(layout_of(model), ids, mask)
        for row, own in enumerate(rows):
            alone = run_pass(layout_of(model), torch.tensor([own]), torch.ones(1, len(own), dtype=torch.int64))[0]
            torch.testing.assert_close(together[row][mask[row].bool()], alone, rtol=1e-3, atol=1e-3)
