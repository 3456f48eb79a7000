"""Models of random weights in the shapes that benchmarks need, made on the device they are used on."""

from typing import Literal

import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, LlamaConfig, PretrainedConfig, PreTrainedModel

Shape = Literal["llama-25m", "llama-8b", "gemma-270m"]


def shape_of(name: Shape) -> PretrainedConfig:
    """ "llama-25m": 8 layers, hidden 512, FFN 1408, vocabulary 4096; the others as their config files say."""
    if name == "llama-25m":
        return LlamaConfig(
            vocab_size=4096,
            hidden_size=512,
            intermediate_size=1408,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=4,
            tie_word_embeddings=True,
        )
    if name == "llama-8b":  # meta-llama/Llama-3.1-8B
        return LlamaConfig(
            vocab_size=128_256,
            hidden_size=4096,
            intermediate_size=14_336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
        )
    return Gemma3TextConfig(  # google/gemma-3-270m
        vocab_size=262_144,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=18,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=512,
    )


def random_model(
    name: Shape, *, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0
) -> PreTrainedModel:
    """A causal language model of that shape in eval mode; the same weights for the same seed, device and dtype."""
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(shape_of(name), dtype=dtype).eval()
