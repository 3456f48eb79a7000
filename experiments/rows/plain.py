"""Plain transformers, for witnesses: what this library's passes are compared with; nothing of babelscope is called."""

from collections.abc import Iterator, Sequence

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def opened(folder: str, dtype: torch.dtype = torch.float32):
    """A model and its tokenizer, ready to read."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    return model, AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def streams(model, tokenizer, lines: Sequence[str], layer: int) -> Iterator[torch.Tensor]:
    """The residual stream after a layer, one line at a time: (token, hidden), BOS left out."""
    for line in lines:
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(line, add_special_tokens=False)["input_ids"]]])
        yield model(input_ids=ids, output_hidden_states=True).hidden_states[layer + 1][0, 1:]


def largest(first, second) -> float:
    """Largest absolute difference of two arrays or tensors."""
    return float((torch.as_tensor(first).double() - torch.as_tensor(second).double()).abs().max())
