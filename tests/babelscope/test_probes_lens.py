"""The logit lens: bit for bit the model's own at the last depth, masses by hand, chance, and the tuned lens."""

import numpy as np
import pytest
import torch
from artifact_damage import reseal
from conftest import CONFIGS, tiny_model, tiny_tokenizer
from scipy.special import log_softmax
from scipy.stats import binom

from babelscope import Site, load_corpus, read_site
from babelscope.errors import ArtifactError, LanguageError, MeasurementError
from babelscope.languages import Language
from babelscope.models import layout_of, origin_of
from babelscope.probes.lens.logit_lens import layer_logits, lens_logits, logit_lens
from babelscope.probes.lens.translators import Translators
from babelscope.probes.lens.tuned_lens import fit_translators
from babelscope.probes.lens.word_lists import LanguageTokens, indicative, indicative_tokens, word_tokens
from babelscope.probes.streams import depth_sites

WORDS = {
    "cat": {"en": "cat", "de": "Katze", "ru": "кот"},
    "no": {"en": "no", "de": "nein", "ru": "нет"},
    "dog": {"en": "dog", "de": "Hund", "ru": "пёс"},
}


def some_tokens(vocabulary, owner, languages=("en", "fi")):
    member = torch.stack([torch.as_tensor(owner) == k for k in range(len(languages))])
    member = torch.nn.functional.pad(member, (0, vocabulary - member.shape[1]))
    tags = tuple(Language(tag) for tag in languages)
    return LanguageTokens(tags, member, torch.zeros(vocabulary, dtype=torch.bool), "by hand")


@pytest.fixture(scope="module")
def texts():
    return load_corpus("reference", ["en", "fi"], split="test").head(20)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_last_depth_is_the_models_own_logits_bit_for_bit(family, ids):
    model = tiny_model(family)
    with torch.no_grad():
        own = model(ids).logits
    found = layer_logits(model, ids)
    assert found.shape == (4, *own.shape)
    assert torch.equal(found[-1], own)
    assert not torch.equal(found[-2], own)


def test_the_last_depth_of_the_reference_model_is_its_own_logits(reference):
    model, tokenizer = reference
    ids = torch.tensor([tokenizer("The river is cold today.")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(layer_logits(model, ids)[-1], model(ids).logits)


def test_masses_entropy_and_divergence_equal_numpys(texts):
    model, tokenizer = tiny_model("gemma2"), tiny_tokenizer()
    tokens = some_tokens(300, [-1] * 10 + [0] * 30 + [1] * 50)
    found = logit_lens(model, tokenizer, texts, tokens=tokens, tokens_per_language=None, draws=9, resamples=9)
    sums, positions = np.zeros((4, 4)), 0
    for document in texts["fi"]:
        ids = torch.tensor([tokenizer(document.text)["input_ids"]])
        log_p = log_softmax(layer_logits(model, ids).double().numpy()[:, 0, 1:], axis=-1)
        p, own = np.exp(log_p), log_p[-1:]
        sums[:, :2] += np.stack([p[..., 10:40].sum((1, 2)), p[..., 40:90].sum((1, 2))], axis=1)
        sums[:, 2] += -(p * log_p).sum((1, 2))
        sums[:, 3] += (np.exp(own) * (own - log_p)).sum((1, 2))
        positions += ids.shape[1] - 1
    witness = sums / positions
    assert int(found.positions[1]) == positions
    assert np.abs(found.mass[1].numpy() - witness[:, :2]).max() < 1e-6
    assert np.abs(found.entropy_nats[1].numpy() - witness[:, 2]).max() < 1e-5
    assert np.abs(found.kl_nats[1].numpy() - witness[:, 3]).max() < 1e-5
    assert found.kl_nats[:, -1].abs().max() == 0
    assert torch.allclose(found.share.sum(dim=2), torch.ones(2, 4, dtype=torch.float64))
    assert (found.low <= found.share + 1e-9).all() and (found.share <= found.high + 1e-9).all()
    assert len(found.rows()) == 2 * 4 * (2 + 2)


def test_random_token_lists_are_no_language(texts):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    p = []
    for seed in range(12):
        owner = torch.randint(-1, 2, (250,), generator=torch.Generator().manual_seed(seed))
        tokens = some_tokens(300, owner)
        found = logit_lens(model, tokenizer, texts.head(3), tokens=tokens, draws=99, resamples=9, seed=seed)
        p.append(float(found.p[0, -1, 0]))
    assert sum(value <= 0.05 for value in p) <= binom.ppf(0.995, 12, 0.05)
    assert abs(float(found.null.mean()) - 0.5) < 0.05


@pytest.mark.parametrize("seed", range(4))
def test_lists_dealt_out_as_they_were_are_ties_and_no_evidence(seed):
    model, tokens = tiny_model("llama", seed=seed), some_tokens(300, [-1] * 10 + [0] + [1])
    texts = {
        "en": [f"hello wor{'ld ' * n}" for n in range(1, 9)],
        "fi": [f"terve maa{'ilma ' * n}" for n in range(1, 9)],
    }
    found = logit_lens(model, tiny_tokenizer(), texts, tokens=tokens, draws=99, resamples=9)
    assert found.p.min() > 0.3, "of two tokens each deal is the list itself with chance 1/2"


def test_a_share_of_nothing_has_no_p(texts):
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight.mul_(1000)  # all probability on one token, to the last bit
    found = logit_lens(model, tiny_tokenizer(), texts, tokens=some_tokens(300, [-1] * 10 + [0] + [1]), draws=19)
    nothing = found.mass.sum(dim=2) == 0
    assert nothing.any() and found.p[nothing].isnan().all() and found.share[nothing].isnan().all()
    assert not found.p[~nothing].isnan().any()


def test_the_reference_model_speaks_a_texts_own_language(reference):
    model, tokenizer = reference
    train, test = (load_corpus("reference", ["en", "fi", "ru"], split=split) for split in ("train", "test"))
    tokens = indicative_tokens(tokenizer, train)
    found = logit_lens(model, tokenizer, test.head(6), tokens=tokens, tokens_per_language=80, resamples=9)
    for k in range(3):
        assert found.share[k, -1].argmax() == k and found.p[k, -1, k] == 0.01
    assert all(tag != row[-1] for tag, row in zip(found.languages, found.leading(), strict=True))


def test_the_rule_for_indicative_tokens_by_hand():
    counts = torch.tensor([[50, 10, 4, 5, 0, 31], [0, 2, 0, 1, 7, 0], [0, 2, 0, 2, 1, 93]])
    # Rates: out of 100, 10 and 98. Token 1: .1 against .2; token 2: too rare; token 4: .7 against .0102.
    assert indicative(counts, ratio=5, min_count=5).nonzero().tolist() == [[0, 0], [1, 4]]
    assert indicative(counts, ratio=3, min_count=5).nonzero().tolist() == [[0, 0], [1, 4], [2, 5]]
    on_the_ratio = torch.tensor([[3, 7], [1, 9]])
    assert indicative(on_the_ratio, ratio=3, min_count=1).nonzero().tolist() == [[0, 0]], "0.3 is three times 0.1"
    with pytest.raises(LanguageError, match="at least two"):
        indicative(counts[:1], ratio=5, min_count=5)


def test_word_tokens_are_disjoint_and_stand_with_and_without_a_space(reference):
    tokenizer = reference[1]
    found = word_tokens(tokenizer, WORDS)
    assert found.languages == ("en", "de", "ru")
    assert int(found.member.sum(dim=0).max()) == 1 and not bool((found.member.any(dim=0) & found.shared).any())
    names = [{tokenizer.decode([i]) for i in row.nonzero()[:, 0].tolist()} for row in found.member]
    assert any(name.startswith(" ") for name in names[0]) and any(not name.startswith(" ") for name in names[0])
    assert all("\ufffd" not in name and name.strip() for row in names for name in row)
    shared = word_tokens(tokenizer, {**WORDS, "in": {"en": "in", "de": "in", "ru": "в"}})
    token = tokenizer(" in", add_special_tokens=False)["input_ids"][0]
    assert bool(shared.shared[token]) and not bool(shared.member[:, token].any())


def test_shuffling_keeps_sizes_and_tokens():
    tokens = some_tokens(60, torch.arange(50) % 3 - 1)
    drawn = tokens.shuffled(torch.Generator().manual_seed(0))
    assert torch.equal(drawn.sum(dim=1), tokens.sizes) and torch.equal(drawn.any(dim=0), tokens.member.any(dim=0))
    assert int((drawn & tokens.member).sum()) < int(tokens.member.sum())


def identity(layout, depths=3):
    origin = origin_of(layout.model, None)
    shares = torch.zeros(depths, dtype=torch.float64)
    return Translators(torch.eye(32).expand(depths, 32, 32), torch.zeros(depths, 32), 1, shares, origin)


def test_identity_translators_change_nothing_and_the_last_depth_needs_none(ids):
    layout = layout_of(tiny_model("llama"))
    state = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    same = identity(layout)
    for depth in range(4):
        assert torch.equal(lens_logits(layout, state, same, depth), lens_logits(layout, state))


def test_translators_equal_numpys_least_squares(texts):
    model, tokenizer = tiny_model("gpt2"), tiny_tokenizer()
    fitted = fit_translators(model, tokenizer, texts, tokens_per_language=None, penalty=0.0)
    states = []
    for document in [one for documents in texts.values() for one in documents]:
        ids = torch.tensor([tokenizer(document.text)["input_ids"]])
        last = read_site(model, ids, Site(2, "resid_out"))
        states.append(torch.stack([read_site(model, ids, Site(1, "resid_out")), last])[:, 0, 1:])
    here, last = torch.cat(states, dim=1).double().numpy()
    wide = np.c_[here, np.ones(len(here))]
    witness, *_ = np.linalg.lstsq(wide, last, rcond=None)
    assert fitted.tokens == len(here)
    assert np.abs(fitted.weight[2].numpy() - witness[:-1].T).max() < 1e-4
    assert np.abs(fitted.bias[2].numpy() - witness[-1]).max() < 1e-4
    left = ((last - wide @ witness) ** 2).sum() / ((last - last.mean(0)) ** 2).sum()
    assert abs(float(fitted.explained[2]) - (1 - left)) < 1e-6


def test_a_tuned_lens_is_nearer_to_the_output(reference):
    train, test = (load_corpus("reference", ["en", "fi"], split=split) for split in ("train", "test"))
    model, tokenizer = reference
    fitted = fit_translators(model, tokenizer, train, tokens_per_language=700)
    assert (fitted.explained[1:] >= fitted.explained[:-1]).all() and (fitted.explained < 1).all()
    tokens = indicative_tokens(tokenizer, train)
    shown = [
        logit_lens(
            model, tokenizer, test.head(3), tokens=tokens, translators=one, tokens_per_language=50, draws=1, resamples=2
        )
        for one in (None, fitted)
    ]
    assert (shown[1].kl_nats[:, 1:-1] < shown[0].kl_nats[:, 1:-1]).all()
    assert shown[1].tuned and "tuned lens" in shown[1].rows()[0].claim


@pytest.fixture(scope="module")
def descended(texts):
    """A random model, whose layers say little of its output, and its tuned lens by descent."""
    model = tiny_model("llama")
    return model, fit_translators(model, tiny_tokenizer(), texts, fit="kl", epochs=3, rate=0.01, seed=1)


def test_descent_ends_below_its_start_on_documents_held_out(descended):
    model, found = descended
    assert found.fit == "kl" and len(found.kl_nats) == len(found.start_nats) == 3
    assert all(end <= start for end, start in zip(found.kl_nats, found.start_nats, strict=True))
    assert found.kl_nats[0] < found.start_nats[0]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_divergence_held_out_equals_numpys(descended, texts):
    model, found = descended
    documents = [document for found in texts.values() for document in found]
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1)).tolist()
    layout, total, rows = layout_of(model), np.zeros(3), 0
    for at in order[:8]:
        ids = torch.tensor([tiny_tokenizer()(documents[at].text)["input_ids"]])
        states = [read_site(model, ids, site)[0, 1:] for site in depth_sites(layout)]
        log_p = [
            log_softmax(lens_logits(layout, state, found, depth).detach().double().numpy(), axis=-1)
            for depth, state in enumerate(states)
        ]
        total += [(np.exp(log_p[-1]) * (log_p[-1] - one)).sum() for one in log_p[:-1]]
        rows += len(states[0])
    assert np.abs(total / rows - found.kl_nats).max() < 1e-6


def test_descent_is_the_same_again_with_the_same_seed_only(descended, texts):
    model, found = descended
    with torch.inference_mode():  # whatever the caller has switched off
        again = fit_translators(model, tiny_tokenizer(), texts, fit="kl", epochs=3, rate=0.01, seed=1)
    other = fit_translators(model, tiny_tokenizer(), texts, fit="kl", epochs=3, rate=0.01, seed=2)
    assert torch.equal(again.weight, found.weight) and again.kl_nats == found.kl_nats
    assert not torch.equal(other.weight, found.weight)


def test_a_descent_that_only_harms_keeps_its_start(texts):
    found = fit_translators(tiny_model("gpt2"), tiny_tokenizer(), texts, fit="kl", epochs=2, rate=50.0)
    assert found.kl_nats == found.start_nats


def test_saved_translators_are_the_same_and_serve_their_own_model_only(descended, texts, tmp_path):
    model, found = descended
    read = Translators.load(found.save(tmp_path / "lens"))
    assert torch.equal(read.weight, found.weight) and torch.equal(read.bias, found.bias)
    assert torch.equal(read.explained, found.explained) and read.origin == found.origin
    assert (read.fit, read.kl_nats, read.start_nats) == ("kl", found.kl_nats, found.start_nats)
    settings = {"tokens": some_tokens(300, [0, 1]), "translators": read, "draws": 1, "resamples": 2}
    assert logit_lens(model, tiny_tokenizer(), texts.head(2), **settings).tuned
    with pytest.raises(ArtifactError, match="translators: made for"):
        logit_lens(tiny_model("gpt2"), tiny_tokenizer(), texts.head(2), **settings)


def test_a_damaged_folder_of_translators_is_refused_in_one_line(descended, tmp_path):
    path = descended[1].save(tmp_path / "lens")
    config = path / "config.json"
    config.write_text(config.read_text().replace('"fit": "kl"', '"fit": "sgd"'))
    with pytest.raises(ArtifactError, match="fit is 'sgd', .*; expected a whole Translators") as error:
        Translators.load(reseal(path))
    assert "\n" not in str(error.value)
    with pytest.raises(ArtifactError, match="one square map"):
        identity(layout_of(tiny_model("llama"))).__class__(
            torch.zeros(2, 32, 31), torch.zeros(2, 32), 1, torch.zeros(2, dtype=torch.float64), descended[1].origin
        )


def test_what_can_not_be_read_is_refused(texts):
    model, tokenizer = tiny_model("llama"), tiny_tokenizer()
    tokens = some_tokens(300, [0, 1])
    with pytest.raises(LanguageError, match="en came alone"):
        logit_lens(model, tokenizer, texts.only(["en"]), tokens=tokens)
    with pytest.raises(MeasurementError, match="200 entries, the model gives 300 logits"):
        logit_lens(model, tokenizer, texts, tokens=some_tokens(200, [0, 1]))
    with pytest.raises(LanguageError, match="en came alone"):
        word_tokens(tokenizer, {"cat": {"en": "cat"}})
    with pytest.raises(MeasurementError, match="no token is en, fi's own"):
        indicative_tokens(tokenizer, {"en": ["aaaaaaaaaa"], "fi": ["aaaaaaaaa"]})
    with pytest.raises(MeasurementError, match="tokens came for 32 dimensions"):
        fit_translators(model, tokenizer, texts, tokens_per_language=5)
    with pytest.raises(MeasurementError, match="at least 5"):
        fit_translators(model, tokenizer, texts.head(2), fit="kl")
    with pytest.raises(MeasurementError, match="0 epochs"):
        fit_translators(model, tokenizer, texts, fit="kl", epochs=0)
