"""Row 13, of a conversion: late layers of a dense model as experts of language families."""

import tempfile
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

import babelscope as bs
from babelscope.adaptation import expert_study, language_families, late_experts
from babelscope.adaptation.expert_controls import DENSE, FAMILIES, RANDOM, ExpertStudy
from babelscope.corpus import as_corpus
from babelscope.languages import Language
from babelscope.reference import MODEL
from rows.neuron_witnesses import LETTERS, planted_texts, recall_and_precision
from rows.plain import largest, opened
from rows.result import Headline, Planted, Witness

KINDS = ("llama", "mistral", "qwen2", "qwen3")
TAGS = ("en", "de", "es", "fr", "ru", "uk")
LAYERS, STEPS = 3, 20


def conversion_witness() -> Witness:
    """Logits of converted models, opened by transformers from their checkpoints, beside the dense models'."""
    torch.manual_seed(0)
    ids, differences = torch.randint(512, (2, 24)), []
    for kind in KINDS:
        config = AutoConfig.for_model(
            kind,
            vocab_size=512,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            sliding_window=None,
            bos_token_id=1,
            eos_token_id=2,
        )
        dense: Any = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for weight in dense.parameters():
                weight.mul_(4) if weight.ndim > 1 else weight
        for top_k in (1, 2):
            with tempfile.TemporaryDirectory() as folder, torch.no_grad():
                late_experts(dense, layers=2, experts=4, top_k=top_k).model.save_pretrained(folder)
                mixture: Any = AutoModelForCausalLM.from_pretrained(folder)
                expected = dense(ids).logits
                differences.append(largest(mixture(ids).logits, expected) / float(expected.abs().max()))
    return Witness(
        what="logits of the last two layers of four as experts beside the dense ones, by transformers from checkpoints "
        f"({', '.join(KINDS)}; 1 and 2 experts a token), over the largest",
        difference=max(differences),
        bar=1e-5,
    )


def share_witness(study: ExpertStudy) -> Witness:
    """Shares of experts on test text, by the trained mixture's router logits, one text at a time."""
    tokenizer, model = AutoTokenizer.from_pretrained(str(MODEL)), study.mixture.model
    texts = bs.load_corpus("reference", list(TAGS), split="test").head(15)
    shares = []
    for documents in texts.only(list(study.before)).values():
        counts = np.zeros((LAYERS, study.mixture.experts))
        for document in documents:
            ids = torch.tensor([tokenizer(document.text)["input_ids"][:128]])
            with torch.no_grad():
                routers = model(ids, output_router_logits=True).router_logits
            for layer, scores in enumerate(routers):
                chosen = np.argsort(-scores[1:].numpy(), axis=1)[:, : study.mixture.top_k]  # without BOS
                counts[layer] += np.bincount(chosen.ravel(), minlength=study.mixture.experts)
        shares.append((counts / counts.sum(axis=1, keepdims=True)).mean(axis=0))
    return Witness(
        what=f"shares of experts by {len(shares)} languages in the trained mixture, transformers' router logits",
        difference=largest(study.share[FAMILIES], np.array(shares)),
        bar=1e-9,
    )


def planted_experts() -> Planted:
    """Four languages of disjoint letters, two a family, in a small random Llama: whose tokens go to which expert."""
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL))
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(20)
    families = {"one": (Language("en"), Language("fi")), "two": (Language("eu"), Language("cy"))}
    letters = {**LETTERS, "cy": "vwxyz"}
    texts = {}
    for seed, split in enumerate(("train", "test")):
        rng = np.random.default_rng(seed)
        lines = {
            **planted_texts(seed=seed, lines=40),
            "cy": [" ".join(rng.choice(list("vwxyz"), 40)) for _ in range(40)],
        }
        texts[split] = as_corpus({tag: lines[tag] for tag in letters})
    study = expert_study(
        model,
        tokenizer,
        texts,
        families,
        layers=2,
        top_k=1,
        steps=30,
        learning_rate=1e-2,
        tokens_per_step=512,
        max_length=64,
        guide=1.0,
    )
    tags = list(study.before)
    true = {(tag, place) for place, members in enumerate(families.values()) for tag in members}
    found = {
        (tag, place) for k, tag in enumerate(tags) for place in range(2) if float(study.share[FAMILIES][k, place]) > 0.8
    }
    recall, precision = recall_and_precision(found, true)
    return Planted(
        what="experts of 4 languages of disjoint letters in two families, by a share of choices above .8",
        recall=recall,
        precision=precision,
    )


def conversion() -> tuple[Headline, Witness]:
    """The last layers of the bundled model as experts of three branches, beside both controls."""
    model, tokenizer = opened(str(MODEL))
    texts = {split: bs.load_corpus("reference", list(TAGS), split=split) for split in ("train", "test")}
    families = language_families(TAGS, by="branch")
    study = expert_study(
        model,
        tokenizer,
        texts,
        families,
        layers=LAYERS,
        steps=STEPS,
        tokens_per_step=1024,
        max_length=128,
        test_documents=15,
    )
    every = tuple(study.before)
    over = {name: study.gain(FAMILIES, every, over=name) for name in (RANDOM, DENSE)}
    gains = {name: study.gain(name, every)[0] for name in study.after}
    by_family = "; ".join(
        f"{family} {study.gain(FAMILIES, members)[0]:+.4f} (random {study.gain(RANDOM, members)[0]:+.4f}, dense "
        f"{study.gain(DENSE, members)[0]:+.4f}), {study.own_share(FAMILIES, family):.2f} of its choices on its expert"
        for family, members in families.items()
    )
    more = "; ".join(
        f"than {name} {value:+.4f} [{ends.low:+.4f}, {ends.high:+.4f}]" for name, (value, ends, _) in over.items()
    )
    headline = Headline(
        paper="experts of language families in the last layers alone serve many languages better than a dense model "
        "trained on the same text (Apollo-MoE, Qwen 2 models, medical questions; arXiv:2410.10626)",
        ours=f"bits per byte of test text that each branch gained: {by_family}; more {more}",
        control=f"all languages: experts of branches {gains[FAMILIES]:+.4f}, experts of random pairs of languages "
        f"{gains[RANDOM]:+.4f}, the same layers dense {gains[DENSE]:+.4f}; even use "
        f"{1 / study.mixture.experts:.2f}, at most {1 / study.mixture.top_k:.2f}",
        model=f"the bundled model, its last {LAYERS} of 8 layers as {len(families)} experts each (logits differ by "
        f"{study.mixture.difference:.0e} of the largest), {study.mixture.top_k} a token, {STEPS} steps, "
        f"{study.tokens:,} tokens of {len(every)} languages",
        verdict="in shape" if all(ends.low > 0 for _, ends, _ in over.values()) else "not",
    )
    return headline, share_witness(study)
