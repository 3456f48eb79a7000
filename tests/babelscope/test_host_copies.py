"""How often a batch's figures are brought to the host, counted where they would be copied from a GPU."""

import pytest
import torch
from conftest import tiny_model

from babelscope import Site, layout_of
from babelscope.corpus import TokenDocument, as_corpus, batch_documents
from babelscope.evaluation import losses
from babelscope.probes import shard_sums
from babelscope.probes.lens.lens_squares import Squares
from babelscope.probes.units import head_sums
from babelscope.recording.host_copies import on_host


@pytest.fixture
def copies(monkeypatch):
    """Every call of `.cpu()`, with the shape of what was copied."""
    shapes, cpu = [], torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self, *words: shapes.append(tuple(self.shape)) or cpu(self))
    return shapes


def batch_of(documents=3, length=9):
    ids = torch.randint(3, 60, (documents, length), generator=torch.Generator().manual_seed(0)).tolist()
    counted = (False, *(True,) * (length - 1))
    rows = [TokenDocument(0, str(place), tuple(row), counted, 0, 20) for place, row in enumerate(ids)]
    (batch,) = batch_documents(rows, batch_tokens=1000, pad=0)
    return batch


def test_tensors_come_back_as_they_are_in_one_copy(copies):
    tensors = [torch.arange(6.0).double().view(2, 3), torch.tensor(7.0).double(), torch.zeros(0, 4).double()]
    for one, two in zip(on_host(tensors), tensors, strict=True):
        assert torch.equal(one, two) and one.shape == two.shape
    assert copies == [(7,)]


def test_losses_of_a_batch_are_one_copy_however_many_parts_they_have(copies, monkeypatch):
    layout, batch = layout_of(tiny_model("llama")), batch_of()
    with torch.no_grad():
        hidden = layout.body(input_ids=batch.input_ids).last_hidden_state
        nll = losses.batch_nll(layout, batch, hidden)
        monkeypatch.setattr(losses, "LOGIT_ROWS", 5)
        copies.clear()
        again = losses.batch_nll(layout, batch, hidden)
        logits = layout.logits(hidden).float().log_softmax(dim=-1)
    assert copies == [(24,)]
    torch.testing.assert_close(again, nll, rtol=1e-6, atol=1e-7)
    by_hand = -logits[:, :-1].gather(2, batch.input_ids[:, 1:, None])[..., 0].double()
    torch.testing.assert_close(nll[:, 1:] * batch.counted[:, 1:], by_hand * batch.counted[:, 1:], rtol=1e-5, atol=1e-6)


def test_the_sums_of_all_layers_heads_are_one_copy(copies):
    layout, batch = layout_of(tiny_model("llama")), batch_of()
    n_heads, d_head = layout.n_heads, layout.width("attn_heads") // layout.n_heads
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).double()

    values = {}
    for layer in range(layout.n_layers):
        values[Site(layer, "attn_heads")] = head_sums.HeadOutput(draw(3, n_heads), draw(n_heads, d_head))
        values[layer] = draw(4, 3, n_heads)
    record = head_sums.HeadSums(
        layout,
        shard_sums.zero_sums(as_corpus({"en": ["a"]}), 2, 5 * layout.n_layers * n_heads),
        torch.zeros(1, layout.n_layers, n_heads, d_head).double(),
        [],
    )
    record.add(batch, values)
    assert len(copies) == 1 + 2  # the sums of all layers; rows and tokens, which are on the host already
    assert torch.equal(record.output[0, 1], values[Site(1, "attn_heads")].output)
    total = record.sums.by_shard.total.sum(dim=(0, 1)).view(5, layout.n_layers, n_heads)
    torch.testing.assert_close(total[0, 0], values[Site(0, "attn_heads")].written.sum(dim=0))
    torch.testing.assert_close(total[1:, 1], values[1].sum(dim=1))


def test_the_tuned_lens_reads_streams_where_they_are(copies):
    layout = layout_of(tiny_model("llama"))
    sums = Squares.zeros(layout)
    generator = torch.Generator().manual_seed(2)
    streams = {site: torch.randn(11, layout.d_hidden, generator=generator) for site in sums.hooks}
    sums.add(batch_of(), streams)
    assert copies == [] and sums.tokens == 11
    *states, last = (value.double() for value in streams.values())
    wide = torch.cat([states[1], torch.ones(11, 1)], dim=1)
    host = sums.on_host()
    assert len(copies) == 5 and host.tokens == 11
    torch.testing.assert_close(host.square[1], wide.T @ wide)
    torch.testing.assert_close(host.cross[1], wide.T @ (last - states[1]))
    torch.testing.assert_close(host.total, last.sum(dim=0))
