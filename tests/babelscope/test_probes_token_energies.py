"""Token energy against the authors' formula in numpy, and on latents of known energy."""

import numpy as np
import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from babelscope.errors import MeasurementError
from babelscope.models import layout_of
from babelscope.probes.lens.token_energies import TokenEnergy, norm_gain, token_energy
from babelscope.sites import Site

PROMPTS = ["a cat sat", "the dog", "rain"]


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_energy_is_the_authors_formula(family):
    model, tokenizer = tiny_model(family), tiny_tokenizer()
    norm = model.transformer.ln_f if family == "gpt2" else model.model.norm
    with torch.no_grad():
        norm.weight.copy_(torch.rand(32, generator=torch.Generator().manual_seed(0)) + 0.5)
    gain = norm.weight.detach().double().numpy() + (1 if family == "gemma3_text" else 0)
    u = model.lm_head.weight.detach().double().numpy() * gain
    u /= np.maximum(np.linalg.norm(u, axis=1, keepdims=True), 1e-300)  # the row of the pad is 0
    average = np.sqrt(((u @ u.T) ** 2).mean())
    found = token_energy(model, tokenizer, PROMPTS)
    for at, prompt in enumerate(PROMPTS):
        ids = torch.tensor([tokenizer(prompt).input_ids])
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states[:-1]
        for depth, state in enumerate(states):
            h = state[0, -1].double().numpy()
            h = h - h.mean() if family == "gpt2" else h
            by_hand = np.sqrt(((u @ (h / np.linalg.norm(h))) ** 2).mean()) / average
            assert float(found.energy[at, depth]) == pytest.approx(by_hand, rel=1e-4)
    assert found.null == pytest.approx(np.sqrt((u**2).sum() / len(u) / 32) / average, rel=1e-5)
    assert norm_gain(layout_of(model))[1] == (family == "gpt2")


def test_a_latent_that_is_an_entry_has_more_energy_than_a_random_one():
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight[:, 16:] *= 0.05  # entries lie in half of the space
        model.model.embed_tokens.weight.copy_(model.lm_head.weight)
    found = token_energy(model, tiny_tokenizer(), PROMPTS)
    assert (found.energy[:, 0] > 1.2 * found.null).all()


def test_rows_have_a_depth_each_and_nothing_is_refused():
    energy = torch.tensor([[0.5, 1.0], [0.7, 1.2]], dtype=torch.float64)
    rows = TokenEnergy((Site(0, "resid_in"), Site(0, "resid_out")), energy, 0.4, 0).rows()
    assert [row.estimate for row in rows] == pytest.approx([0.6, 1.1]) and rows[0].null == 0.4
    assert all(row.low <= row.estimate <= row.high for row in rows)
    with pytest.raises(MeasurementError, match="no prompt came"):
        token_energy(tiny_model("llama"), tiny_tokenizer(), [])
