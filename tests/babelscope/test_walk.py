"""Every measurement that sends text through a model goes by one road, whatever the size of its batches."""

import copy
from contextlib import contextmanager

import pytest
import torch
from conftest import CONFIGS, tiny_model, tiny_tokenizer
from feature_cases import made_sae
from transformers import AutoModelForCausalLM

import babelscope as bs
from babelscope.adaptation.representations import sentence_means
from babelscope.corpus import Corpus, Document, as_corpus, token_windows
from babelscope.errors import CorpusError, MeasurementError
from babelscope.evaluation import HeldOut, answer_losses, document_losses
from babelscope.evaluation.similarity import sentence_vectors
from babelscope.features import observe_features
from babelscope.features.quality import measure_sae
from babelscope.files.state_folder import state_folder
from babelscope.languages import Language
from babelscope.models import layout_of
from babelscope.probes.concepts.concept_neurons import concept_neurons
from babelscope.probes.geometry.sentences import record_sentences
from babelscope.probes.lens.logit_lens import logit_lens
from babelscope.probes.lens.translations import latent_translation
from babelscope.probes.lens.tuned_lens import fit_translators
from babelscope.probes.lens.word_lists import LanguageTokens
from babelscope.probes.units.heads import record_heads
from babelscope.probes.units.removal import removal_votes
from babelscope.probes.units.routing import routing_use
from babelscope.progress import progress_bar
from babelscope.recording import walk as walking
from babelscope.recording.memory_errors import is_out_of_memory
from babelscope.recording.tally import Tally
from babelscope.recording.walk import walk
from babelscope.sites import Site
from babelscope.steering.sweeps.baselines import MixedTokens

TEXTS = {"en": [f"the {'big ' * i}house" for i in range(9)], "eu": [f"etxe {'handi ' * i}a" for i in range(8)]}
SITE = Site(1, "resid_out")
ALL = {"tokens_per_language": None}

ANSWERS = [(5, 6, 7, 8), (9,), (), tuple(range(10, 60)), (9, 10, 11)]
WORDS = {str(k): {"de": "abc"[k % 3] + "x", "fr": "def"[k % 3] + "y", "fi": "ghi"[k % 3] + "z"} for k in range(12)}


def same_ids():
    """The texts as sentences that are translations of each other."""
    tags = [Language("en"), Language("eu")]
    return Corpus({tag: tuple(Document(f"s{i}", TEXTS[tag][i]) for i in range(8)) for tag in tags}, "same")


def held_out():
    return HeldOut.prepare(tiny_tokenizer(), TEXTS)


def listed():
    """Each language's tokens: every second byte."""
    member = torch.zeros(2, 300, dtype=torch.bool)
    member[0, 3::2], member[1, 4::2] = True, True
    return LanguageTokens((Language("en"), Language("eu")), member, torch.zeros(300, dtype=torch.bool), "test")


READERS = {
    "observe": lambda m: bs.observe(m, tiny_tokenizer(), TEXTS, sites=["mlp_gate", "resid_out"], shards=2, **ALL),
    "observe_features": lambda m: observe_features(
        m, tiny_tokenizer(), TEXTS, made_sae(), shards=4, random_sequences=6, random_length=8, **ALL
    ),
    "document_losses": lambda m: [document_losses(m, part).nats for part in held_out()],
    "answer_losses": lambda m: answer_losses(m, (1,), ANSWERS),
    "measure_sae": lambda m: measure_sae(m, tiny_tokenizer(), made_sae(), TEXTS),
    "sentence_vectors": lambda m: sentence_vectors(m, tiny_tokenizer(), [*TEXTS["en"], ""], 1),
    "record_sentences": lambda m: vars(record_sentences(m, tiny_tokenizer(), same_ids())),
    "sentence_means": lambda m: [sentence_means(layout_of(m), part) for part in held_out()],
    "document_means": lambda m: by_document(bs.document_means(m, tiny_tokenizer(), TEXTS, [SITE])[SITE]),
    "record_heads": lambda m: record_heads(m, tiny_tokenizer(), TEXTS, shards=4),
    "removal_votes": lambda m: removal_votes(m, tiny_tokenizer(), TEXTS, shards=4),
    "concept_neurons": lambda m: concept_neurons(m, tiny_tokenizer(), same_ids(), strongest=3, draws=2).top,
    "logit_lens": lambda m: by_mean(logit_lens(m, tiny_tokenizer(), TEXTS, tokens=listed(), draws=3, resamples=3)),
    "fit_translators": lambda m: fit_translators(m, tiny_tokenizer(), TEXTS),
    "fit_translators, kl": lambda m: fit_translators(m, tiny_tokenizer(), TEXTS, fit="kl", epochs=2),
    "latent_translation": lambda m: latent_translation(
        m, tiny_tokenizer(), WORDS, source="de", target="fi", pivot="fr", shots=2, draws=3, resamples=3
    ),
}
"""Each measurement, from a model to numbers."""


def by_document(means):
    """Means in an order that is none of the batches'."""
    order = sorted(range(len(means.ids)), key=lambda row: (int(means.language[row]), means.ids[row]))
    return [means.value[order], means.later[order], means.norm, vars(means.stream)]


def by_mean(found):
    """What is no draw of documents, whose order is the batches'."""
    return [found.mass, found.null, found.p, found.entropy_nats, found.kl_nats, found.positions]


def numbers(found):
    """Every tensor in a result, by name."""
    if torch.is_tensor(found):
        return {"": found}
    if isinstance(found, dict):
        pairs = found.items()
    elif isinstance(found, list | tuple):
        pairs = enumerate(found)
    elif isinstance(found, float | int):
        return {"": torch.tensor(found, dtype=torch.float64)}
    elif hasattr(found, "__dict__"):
        pairs = vars(found).items()
    else:
        return {}
    parts = [(name, part) for name, part in pairs if name not in ("settings", "origin")]
    return {f"{name}.{key}": value for name, part in parts for key, value in numbers(part).items()}


FLOAT32 = {"observe_features": 1e-5}
"""Readers whose values are float32 whatever the model is, as an autoencoder reads them: batches of other shapes round
otherwise, by the number of threads too."""


def check_close(one, other, name=""):
    tolerance = FLOAT32.get(name, 1e-9)
    one, other = numbers(one), numbers(other)
    assert one.keys() == other.keys() and one
    for part in one:
        torch.testing.assert_close(one[part].double(), other[part].double(), rtol=tolerance, atol=tolerance, msg=part)


@contextmanager
def small_memory(model, tokens):
    """A machine on which a batch of more than so many padded tokens does not fit."""
    sizes = []

    def check(_, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        sizes.append(hidden.shape[0] * hidden.shape[1])
        if sizes[-1] > tokens and hidden.shape[0] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = layout_of(model).layer(1).register_forward_pre_hook(check, with_kwargs=True)
    try:
        yield sizes
    finally:
        handle.remove()


@contextmanager
def small_head(model, rows):
    """A machine on which the logits of more than so many rows do not fit."""
    sizes = []

    def check(_, args):
        sizes.append(args[0].shape[0])
        if sizes[-1] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = layout_of(model).head.register_forward_pre_hook(check)
    try:
        yield sizes
    finally:
        handle.remove()


@pytest.mark.parametrize("name", READERS)
def test_a_batch_that_does_not_fit_is_halved_and_counted_once(name, caplog):
    model = tiny_model("llama", dtype=torch.float64)
    whole = READERS[name](model)
    with small_memory(model, 100) as sizes:
        check_close(READERS[name](model), whole, name)
    assert max(sizes) > 100 and "did not fit" in caplog.text


@pytest.mark.parametrize("name", READERS)
def test_a_model_in_train_mode_is_measured_as_in_eval_mode(name):
    config = copy.deepcopy(CONFIGS["gpt2"])
    config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = 0.5
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    whole = READERS[name](model.eval())
    check_close(READERS[name](model.train()), whole)
    assert model.training


def test_the_head_may_be_what_does_not_fit():
    """The pass fits, what comes after it does not: nothing was added twice."""
    model = tiny_model("llama", dtype=torch.float64)
    names = ["document_losses", "answer_losses", "logit_lens", "latent_translation"]
    whole = {name: READERS[name](model) for name in names}
    rows = {"document_losses": 60, "answer_losses": 50, "logit_lens": 60, "latent_translation": 3}
    for name in names:
        with small_head(model, rows[name]) as sizes:
            check_close(READERS[name](model), whole[name], name)
        assert max(sizes) > rows[name] >= min(sizes), name


def test_routing_is_halved_too():
    model = tiny_model("mixtral")
    whole = routing_use(model, tiny_tokenizer(), TEXTS, shards=4)
    with small_memory(model, 100) as sizes:
        found = routing_use(model, tiny_tokenizer(), TEXTS, shards=4)
    assert max(sizes) > 100 and found.top_k == whole.top_k == 2
    assert int((found.routed - whole.routed).abs().sum()) <= 2 and torch.equal(
        found.sums.by_shard.tokens, whole.sums.by_shard.tokens
    )


def test_mixed_directions_read_each_token_once():
    """Their draws follow the batches, so halved batches give other directions of the same tokens."""
    model, totals = tiny_model("llama", dtype=torch.float64), []
    for tokens in (10**9, 100):
        mixed = MixedTokens.zeros(SITE, 2, 32, False, 0)
        with small_memory(model, tokens):
            walk(layout_of(model), windows(), [mixed])
        totals.append(mixed)
    whole, halved = totals
    assert whole.count == halved.count == sum(len(text) for texts in TEXTS.values() for text in texts)
    torch.testing.assert_close(whole.total, halved.total, rtol=1e-9, atol=1e-9)
    assert not torch.equal(whole.weighted, halved.weighted)


@pytest.mark.parametrize("name", READERS)
def test_padded_batches_are_one_document_at_a_time(name, monkeypatch):
    model = tiny_model("llama", dtype=torch.float64)
    whole = READERS[name](model)
    monkeypatch.setattr(walking, "CPU_TOKENS", 1)
    check_close(READERS[name](model), whole, name)


class Pools:
    """Sums of one site by document, which the test looks at."""

    def __init__(self, site):
        self.hooks, self.sums = {site: lambda batch, at: (at.value.double() * at.counted[..., None]).sum(dim=1)}, {}

    def add(self, batch, values):
        for document, row in zip(batch.documents, *values.values(), strict=True):
            assert document.id not in self.sums
            self.sums[document.id] = row


class Hidden(Pools):
    """The body's output, worked out after the pass."""

    def __init__(self, site):
        super().__init__(site)
        self.hooks = {}

    def measure(self, batch, values, hidden):
        return {"hidden": (hidden.double() * batch.counted[..., None]).sum(dim=1)}


def windows(texts=TEXTS):
    return token_windows(tiny_tokenizer(), as_corpus(texts), tokens_per_language=None, max_length=512)


@pytest.mark.parametrize("kind", [Pools, Hidden])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3_text"])
def test_a_watcher_sees_what_plain_transformers_gives_one_text_at_a_time(kind, family):
    model, texts = tiny_model(family, dtype=torch.float64), {"en": TEXTS["en"]}
    layout = layout_of(model)
    last = Site(layout.n_layers - 1, "resid_out")
    watcher = kind(last)
    with small_memory(model, 150):
        walk(layout, windows(texts), [watcher, Tally.zeros(1, 0)])
    for document in next(windows(texts)):
        with torch.no_grad():
            output = model(torch.tensor([document.tokens]), output_hidden_states=True)
        hidden = output.hidden_states[-1][0, 1:]
        found = watcher.sums[document.id]
        if kind is Pools:
            hidden = bs.read_site(model, torch.tensor([document.tokens]), last)[0, 1:]
        torch.testing.assert_close(found, hidden.double().sum(dim=0), rtol=1e-9, atol=1e-9)


def test_a_failure_that_is_not_of_memory_is_not_hidden():
    layout = layout_of(tiny_model("llama"))
    handle = layout.layer(0).register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("broken")))
    with pytest.raises(RuntimeError, match="broken"):
        walk(layout, windows(), [Tally.zeros(2, 0)])
    handle.remove()


@pytest.mark.parametrize(
    ("words", "means_memory"),
    [
        ("CUDA error: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("MPS backend out of memory (MPS allocated: 9 GB)", True),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", True),
        ("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_errors_of_memory_are_known_by_their_words(words, means_memory):
    assert is_out_of_memory(RuntimeError(words)) is means_memory


def test_two_watchers_of_one_name_are_not_resumed_as_one(tmp_path):
    layout, watchers = layout_of(tiny_model("llama")), [Tally.zeros(2, 0), Tally.zeros(2, 0)]
    with state_folder(tmp_path, "x") as state, pytest.raises(MeasurementError, match="two watchers keep a .tally"):
        walk(layout, windows(), watchers, state=state)


def test_one_document_that_does_not_fit_is_named():
    model = tiny_model("llama")
    layout_of(model).layer(0).register_forward_pre_hook(
        lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory"))
    )
    with pytest.raises(CorpusError, match="document '8' of 42 tokens does not fit in memory"):
        walk(layout_of(model), windows(), [Tally.zeros(2, 0)])


def test_logits_and_hidden_states_are_not_read_in_one_walk():
    layout = layout_of(tiny_model("llama"))
    with pytest.raises(MeasurementError, match="walk twice"):
        walk(layout, windows(), [Pools(Site(None, "logits")), Hidden(SITE)])


def test_only_watchers_with_a_state_are_kept_for_later(tmp_path):
    with state_folder(tmp_path, "x") as state, pytest.raises(MeasurementError, match="Pools has no state"):
        walk(layout_of(tiny_model("llama")), windows(), [Pools(SITE)], state=state)


def test_batches_follow_the_device_and_nothing_else():
    layout = layout_of(tiny_model("llama"))
    with small_memory(layout.model, 10**9) as sizes:
        walk(layout, windows({"en": ["a" * 100] * 200}), [Tally.zeros(1, 0)])
    assert sizes == [4040] * 5
    assert (walking.CPU_TOKENS, walking.GPU_TOKENS) == (4_096, 32_768)


@pytest.mark.parametrize(("limit", "unit", "total"), [(40, "tokens", 80), (None, "documents", 17)])
def test_a_progress_bar_knows_its_total_and_what_an_earlier_run_read(monkeypatch, tmp_path, limit, unit, total):
    bars = []

    def made(**options):
        bars.append(progress_bar(**options))
        return bars[-1]

    monkeypatch.setattr(walking, "progress_bar", made)
    asked = iter([False, False, True])
    options = {"tokens_per_language": limit, "batch_size": 3, "progress": True, "checkpoint": tmp_path, "shards": 0}
    with pytest.raises(KeyboardInterrupt):
        bs.observe(tiny_model("llama"), tiny_tokenizer(), TEXTS, stop=lambda: next(asked), **options)
    first = bars[-1].n
    assert bars[-1].total == total and bars[-1].unit == unit and 0 < first < total
    bs.observe(tiny_model("llama"), tiny_tokenizer(), TEXTS, **options)
    assert (bars[-1].initial, bars[-1].n) == (first, total)


def test_a_bar_whose_total_was_expected_too_small_ends_at_what_was_read(monkeypatch):
    bars = []

    def made(**options):
        bars.append(progress_bar(**options))
        return bars[-1]

    monkeypatch.setattr(walking, "progress_bar", made)
    progress = walking.Progress(("en",), total=1)
    walk(layout_of(tiny_model("llama")), windows({"en": ["a" * 30] * 4}), [Tally.zeros(1, 0)], progress=progress)
    assert bars[-1].n == bars[-1].total > 1
