"""Small tokenizers of the three kinds that surgery knows, trained on the bundled text, and models for them."""

import copy
from functools import cache

import torch
from conftest import CONFIGS
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, PhiConfig, PreTrainedTokenizerFast

from babelscope import load_corpus

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
KINDS = ("byte-level", "byte fallback", "unigram")
TEMPLATE = "{% for message in messages %}<|turn|>{{ message['content'] }}</s>{% endfor %}"
PHI = PhiConfig(
    vocab_size=300,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=128,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
FALLBACK = [f"<0x{value:02X}>" for value in range(256)]


def lines(*languages, count=60):
    """The first bundled lines of some languages."""
    return {tag: [document.text for document in load_corpus("reference")[tag][:count]] for tag in languages}


def every_line(count=12):
    return {tag: [d.text for d in documents[:count]] for tag, documents in load_corpus("reference").items()}


@cache
def _backend(kind):
    text = [line for found in lines("en", "fi", "eu", "hi", count=80).values() for line in found]
    if kind == "byte-level":
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=900, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        )
    elif kind == "byte fallback":
        backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        backend.normalizer = normalizers.Replace(" ", "▁")
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        trainer = trainers.BpeTrainer(vocab_size=1100, special_tokens=[*SPECIAL, *FALLBACK], show_progress=False)
        backend.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    else:
        backend = Tokenizer(models.Unigram())
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        backend.decoder = decoders.Metaspace(prepend_scheme="never")
        trainer = trainers.UnigramTrainer(
            vocab_size=700, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
        )
    backend.train_from_iterator(text, trainer)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return backend.to_str()


def tokenizer_of(kind):
    """One of the three kinds, with an added token after its own entries and a chat template."""
    backend = Tokenizer.from_str(_backend(kind))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def model_for(tokenizer, family="llama", padding=5, seed=0, dtype=torch.float32):
    """A random model with a row for each entry and some rows that no entry has."""
    config = copy.deepcopy(PHI if family == "phi" else CONFIGS[family])
    config.vocab_size = len(tokenizer) + padding
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
            else:
                parameter.add_(torch.rand(parameter.shape, generator=generator) * 0.1)
    model.generation_config.eos_token_id = [2, tokenizer.convert_tokens_to_ids("<|turn|>")]
    return model.to(dtype).eval()


def ids_of(tokenizer, text):
    return torch.tensor([tokenizer(text).input_ids])
