# isort: off
import os

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # Workers share the cores, and so do the processes that tests start: more threads than cores wait for one another.
    THREADS = max(1, (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
    os.environ["OMP_NUM_THREADS"] = str(THREADS)

from beartype import beartype  # noqa: F401 - first: nnsight, imported before it, breaks its import
# isort: on

import copy
import logging
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OlmoeConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from babelscope import open_model

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    torch.set_num_threads(THREADS)

VOCABULARY = 300
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GEMMA = {**SMALL, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}
EXPERTS = {**SMALL, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
CONFIGS = {
    "llama": LlamaConfig(**SMALL),
    "mistral": MistralConfig(**SMALL, sliding_window=None),
    "qwen2": Qwen2Config(**SMALL),
    "qwen3": Qwen3Config(**SMALL, head_dim=8),
    "gemma2": Gemma2Config(**GEMMA),
    "gemma3_text": Gemma3TextConfig(**GEMMA),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_inner=48,
        n_layer=3,
        n_head=4,
        n_positions=128,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "phi3": Phi3Config(**SMALL, sliding_window=None),
    "gpt_neox": GPTNeoXConfig(**{key: value for key, value in SMALL.items() if key != "num_key_value_heads"}),
    "bloom": BloomConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        n_layer=3,
        n_head=4,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "opt": OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        word_embed_proj_dim=32,
        dropout=0.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "mixtral": MixtralConfig(**SMALL, num_local_experts=4, num_experts_per_tok=2),
    "qwen3_moe": Qwen3MoeConfig(**EXPERTS, head_dim=8),
    "olmoe": OlmoeConfig(**{**EXPERTS, "num_key_value_heads": 4}),
}
FOUR = ("llama", "gemma3_text", "gpt2", "mixtral")


def tiny_model(family: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random model of three layers; matrices times four, so that differences show."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[family]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model.to(dtype).eval()


def tiny_tokenizer(bos: bool = True) -> PreTrainedTokenizerFast:
    """A token a byte, after <pad>, <s> and </s>; BOS before each document where asked."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {entry: index for index, entry in enumerate(["<pad>", "<s>", "</s>", *letters])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>" if bos else None, eos_token="</s>"
    )


def beginning(single: str, special: list[str], named: tuple[str, ...] | list[str] = ()) -> PreTrainedTokenizerFast:
    """A token a byte, and a post-processor of its own; named: tokens that become special ones of the vocabulary."""
    tokenizer = tiny_tokenizer(bos=False)
    tokenizer.add_special_tokens({"additional_special_tokens": list(named)})
    pairs = [(token, tokenizer.convert_tokens_to_ids(token)) for token in special]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=pairs)
    return tokenizer


def as_glm() -> PreTrainedTokenizerFast:
    """Two tokens begin a text."""
    return beginning("[gMASK] <sop> $A", ["[gMASK]", "<sop>"], ["[gMASK]", "<sop>"])


@pytest.fixture(autouse=True)
def logging_is_as_it_was():
    """A test, or an experiment that it runs, that switches logging off takes the log from all tests after it."""
    before = logging.root.manager.disable
    yield
    assert logging.root.manager.disable == before, "logging.disable was left behind"


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture(params=FOUR)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_model(request.param)


@pytest.fixture(scope="session")
def reference():
    """The bundled model and its tokenizer, float32 on the CPU."""
    return open_model("reference", device="cpu")


@pytest.fixture
def ids() -> torch.Tensor:
    """Three rows of seven tokens, none of them special."""
    return torch.randint(3, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(1))


class RealFiles(NamedTuple):
    """Where one of the models is that experiments/make_real_models.py makes."""

    folder: Path
    gguf: Path


def real_models() -> Path:
    """Where that script leaves them when it is given no folder."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("BABELSCOPE_REAL_MODELS") or cache / "babelscope" / "real-models")


@pytest.fixture(scope="session", params=["gemma-3-270m", "qwen2.5-coder-0.5b-instruct"])
def real_files(request) -> RealFiles:
    folder = real_models() / request.param
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; python experiments/make_real_models.py makes it")
    return RealFiles(folder, folder.with_name(f"{folder.name}.gguf"))


@pytest.fixture(scope="session")
def real_model(real_files):
    """Model and tokenizer, float32 on the CPU: one alone is in memory at a time."""
    return open_model(real_files.folder, device="cpu", dtype="float32")
