"""Row 12: attention heads chosen by probes, and shifted, beside heads chosen by their means and at random."""

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import babelscope as bs
from babelscope.probes import indicative_tokens
from babelscope.reference import MODEL
from babelscope.steering.directions import score_heads
from babelscope.steering.directions.head_probes import HeadProbes, fold_of, head_probe_accuracy
from rows.neuron_witnesses import planted_texts, recall_and_precision
from rows.plain import largest, opened
from rows.result import Headline, Inputs, Planted, RowResult, Witness

TARGET, SOURCE, FOLDS, HEADS, STRENGTH = "de", "en", 5, 8, 2.0
PLANTED = {(0, 1), (2, 3)}


def measure(inputs: Inputs) -> RowResult:
    """Probes by scikit-learn, the shift by hooks, planted heads, and what the shift does to the next token."""
    texts = bs.load_corpus("reference", [SOURCE, TARGET], split="train").head(120)
    model, tokenizer = bs.open_model("reference", device="cpu", dtype="float32")
    found = head_probe_accuracy(model, tokenizer, texts, target=TARGET, folds=FOLDS)
    obs = bs.observe(model, tokenizer, texts, sites=["attn_heads"], shards=0)
    return RowResult(
        witnesses=[*probe_witness(texts, found), shift_witness(obs, found)],
        planted=[planted()],
        headlines=[headline(model, tokenizer, obs, found)],
        absent=[
            "attention from text to an image: a vision–language model is reached through its text part; no statistic "
            "of what its heads look at in an image stands beside the probes",
            "the paper's benchmarks of hallucinated objects: they need images and a trained vision–language model",
        ],
    )


def probe_witness(texts, found: HeadProbes) -> list[Witness]:
    """scikit-learn's logistic regression on inputs of plain transformers' output projections, on the same folds."""
    model, tokenizer = opened(str(MODEL))
    layers, heads = found.accuracy.shape
    rows: list[np.ndarray] = []
    for tag in (TARGET, SOURCE):
        for document in texts[tag]:
            seen: list[np.ndarray] = []
            handles = [
                layer.self_attn.o_proj.register_forward_pre_hook(
                    lambda module, args, seen=seen: seen.append(args[0][0, 1:].double().mean(dim=0).numpy())
                )
                for layer in model.model.layers
            ]
            with torch.no_grad():
                model(torch.tensor([tokenizer(document.text)["input_ids"]]))
            for handle in handles:
                handle.remove()
            rows.append(np.stack(seen))
    x = np.stack(rows).reshape(len(rows), layers, heads, -1)
    labels = np.repeat([True, False], [len(texts[TARGET]), len(texts[SOURCE])])
    ids = [document.id for tag in (TARGET, SOURCE) for document in texts[tag]]
    fold = fold_of(ids, FOLDS, torch.Generator().manual_seed(0)).numpy()
    theirs, likelihood = np.zeros((layers, heads)), np.zeros((layers, heads))
    for layer in range(layers):
        for head in range(heads):
            right = np.zeros(len(labels), dtype=bool)
            for number in range(FOLDS):
                train = fold != number
                part = x[:, layer, head]
                spread = part[train].std(axis=0)
                scaled = (part - part[train].mean(axis=0)) / np.where(spread > 0, spread, 1)
                probe = LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=1000).fit(
                    scaled[train], labels[train]
                )
                right[~train] = probe.predict(scaled[~train]) == labels[~train]
                true = np.arange(int((~train).sum())), labels[~train].astype(int)
                likelihood[layer, head] += probe.predict_log_proba(scaled[~train])[true].sum() / len(labels)
            theirs[layer, head] = (right[labels].mean() + right[~labels].mean()) / 2
    what = f"of {layers * heads} heads' probes by scikit-learn on plain transformers' heads, the same folds"
    return [
        Witness(what=f"accuracy {what}", difference=largest(found.accuracy, theirs), bar=1e-9),
        Witness(what=f"likelihood {what}, nats", difference=largest(found.likelihood, likelihood), bar=1e-4),
    ]


def shift_witness(obs, found: HeadProbes) -> Witness:
    """Logits under the shift by hooks in plain transformers."""
    model, tokenizer = bs.open_model("reference", device="cpu", dtype="float32")
    recipe = bs.head_shift(
        obs,
        found.accuracy.shape[1],
        target=TARGET,
        source=SOURCE,
        heads=HEADS,
        strength=STRENGTH,
        scores=found.likelihood,
    )
    ids = torch.tensor([tokenizer("The children walked to the house.")["input_ids"]])
    with torch.no_grad(), bs.steer(model, recipe):
        ours = model(ids).logits
    plain, _ = opened(str(MODEL))
    record, k = obs["attn_heads"], [obs.index(tag) for tag in (TARGET, SOURCE)]
    means = (record.sum / obs.token_counts.double())[:, :, k]
    width = record.sum.shape[1] // found.accuracy.shape[1]
    handles = []
    for layer, head in found.best(HEADS):
        cut = slice(head * width, (head + 1) * width)
        shift = STRENGTH * (means[layer, cut, 0] - means[layer, cut, 1]).float()

        def add(module, args, cut=cut, shift=shift):
            value = args[0].clone()
            value[..., cut] += shift
            return (value,)

        handles.append(plain.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(add))
    with torch.no_grad():
        theirs = plain(ids).logits
    # The first token is left as it is by the library where it is a special one: both are compared after it.
    return Witness(
        what=f"logits with {HEADS} heads chosen by probes shifted, against hooks in plain transformers",
        difference=largest(ours[:, -1], theirs[:, -1]),
        bar=1e-3,
    )


def planted() -> Planted:
    """Two heads of twelve write a language, every other one writes what both languages share."""
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        bos_token_id=tokenizer.bos_token_id,
    )
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(config).eval()
    texts = {tag: lines for tag, lines in planted_texts().items() if tag in ("en", "fi")}
    with torch.no_grad():
        table = model.model.embed_tokens.weight
        shared = table[0].clone()
        for tag, sign in (("en", -1.0), ("fi", 1.0)):
            for letter in sorted(set("".join(texts[tag])) - {" "}):
                for text in (letter, f" {letter}"):
                    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                    noise = torch.randn(len(ids), 32)
                    table[ids] = shared + noise
                    table[ids, 0] = sign
        for number, layer in enumerate(model.model.layers):
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
            layer.self_attn.q_proj.weight.zero_()
            value = layer.self_attn.v_proj.weight
            value.zero_()
            for head in range(4):
                if (number, head) in PLANTED:
                    value[8 * head, 0] = 3
    found = head_probe_accuracy(model, tokenizer, texts, target="fi", resamples=2)
    rows = found.rows()
    clear = {divmod(place, 4) for place, row in enumerate(rows) if row.p <= 0.05}
    recall, precision = recall_and_precision(clear, PLANTED)
    return Planted(what="2 of 12 heads that write the language, by p ≤ .05", recall=recall, precision=precision)


def headline(model, tokenizer, obs, found: HeadProbes) -> Headline:
    """The target's tokens as the next one in the source's text, heads shifted."""
    others, held_out = (bs.load_corpus("reference", [SOURCE, TARGET], split=split) for split in ("train", "test"))
    tokens = indicative_tokens(tokenizer, others, vocabulary=len(tokenizer))
    member = tokens.member[tokens.index(TARGET)]
    lines = [torch.tensor([tokenizer(document.text)["input_ids"]]) for document in held_out[SOURCE][:30]]
    n_heads = found.accuracy.shape[1]

    def mass(scores) -> float:
        recipe = bs.head_shift(
            obs, n_heads, target=TARGET, source=SOURCE, heads=HEADS, strength=STRENGTH, scores=scores
        )
        with torch.no_grad(), bs.steer(model, recipe):
            shares = [model(ids).logits[0, 1:].double().softmax(-1)[:, member].sum(-1) for ids in lines]
        return float(torch.cat(shares).mean())

    with torch.no_grad():
        plain = float(
            torch.cat([model(ids).logits[0, 1:].double().softmax(-1)[:, member].sum(-1) for ids in lines]).mean()
        )
    generator = torch.Generator().manual_seed(0)
    drawn = [mass(torch.rand(found.accuracy.shape, generator=generator, dtype=torch.float64)) for _ in range(19)]
    by_probe, by_mean = mass(found.likelihood), mass(None)
    means = score_heads(obs, n_heads, target=TARGET, source=SOURCE)
    both = set(found.best(HEADS)) & {divmod(place, n_heads) for place in means.flatten().topk(HEADS).indices.tolist()}
    return Headline(
        paper="heads chosen by probes, shifted towards English, make a vision–language model hallucinate less in other "
        "languages",
        ours=f"{100 * (by_probe - plain):+.2f} points of German tokens in English text by {HEADS} heads by probes, "
        f"{100 * (by_mean - plain):+.2f} by means, {100 * plain:.2f} % before; {len(both)} heads are chosen by both; "
        f"accuracy of heads {float(found.accuracy.min()):.2f} to {float(found.accuracy.max()):.2f}",
        control=f"{HEADS} heads at random {100 * (float(np.mean(drawn)) - plain):+.2f}, at most "
        f"{100 * (max(drawn) - plain):+.2f} of 19; labels shuffled: best head {float(found.null_best.mean()):.2f}",
        model="bundled model, text only",
        verdict="in shape" if by_probe > max(drawn) else "not",
    )
