"""A model written down by hand that knows facts in some languages by neurons that they share, or each by its own."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from babelscope.adaptation.editing.planned_edits import fact_text
from babelscope.corpus import Corpus, Document
from babelscope.languages import Language
from babelscope.probes.knowledge import Fact, FactTable

TAGS = ("en", "fi")
SUBJECTS, OBJECTS, NOISE_NEURONS, NOISE_UNITS, FACT_LAYER = 8, 4, 8, 9, 0
ONE, LANGUAGE = 0, 1
OBJECT_WRITTEN, NOISE_WRITTEN = 0.72, 3.6
"""By a neuron that fires, over the width, with which norms let it fire: little, so that no layer's part hides the
subject from the next layer's norm."""


def fact_table(languages: Sequence[str] = TAGS) -> FactTable:
    """Subject n has object n mod OBJECTS; every word of a language begins with its tag."""
    tags = tuple(map(Language.parse, languages))
    names = [*(f"s{n}" for n in range(SUBJECTS)), *(f"o{n}" for n in range(OBJECTS))]
    return FactTable(
        "planted facts",
        tags,
        tuple(Fact("has", f"s{n}", f"o{n % OBJECTS}") for n in range(SUBJECTS)),
        {"has": {tag: f"[X] {tag}has [Y]" for tag in tags}},
        {name: {tag: f"{tag}{name}" for tag in tags} for name in names},
        {},
    )


def word_tokenizer(table: FactTable) -> PreTrainedTokenizerFast:
    """A token a word; `<s>` begins a text."""
    words = [label for labels in table.labels.values() for label in labels.values()]
    vocabulary = {word: n for n, word in enumerate(["<s>", "<unk>", *words, *(f"{tag}has" for tag in table.languages)])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")


def fact_model(
    *,
    shared: bool | Collection[str],
    languages: Sequence[str] = TAGS,
    fact_layers: int = 1,
    strength: float = 1.0,
    seed: int = 0,
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """In the first layers a neuron for each subject writes a part of its object; the last one's attention carries that
    to the last token, where the head reads it with the language of the word there.

    shared: the languages in which a subject's word fires the first language's neuron, or whether all do; in the others
    each has neurons of its own, of which no other language has a part.
    strength: of all that MLPs write; the more languages, the more every layer's norm makes of it.
    """
    table, generator = fact_table(languages), torch.Generator().manual_seed(seed)
    tokenizer, count = word_tokenizer(table), len(languages)
    subject = LANGUAGE + count
    written = subject + count * SUBJECTS
    read = written + OBJECTS
    noise = read + OBJECTS
    # Rotary positions take an even number.
    units, neurons = NOISE_UNITS + (noise + NOISE_UNITS) % 2, count * SUBJECTS + NOISE_NEURONS
    hidden = noise + units
    sizes: Any = {
        "hidden_size": hidden, "num_hidden_layers": fact_layers + 1, "num_attention_heads": 1, "num_key_value_heads": 1,
    }  # fmt: skip
    config = LlamaConfig(
        vocab_size=len(tokenizer), intermediate_size=neurons, bos_token_id=0, eos_token_id=0,
        head_dim=hidden, tie_word_embeddings=False, **sizes,
    )  # fmt: skip
    with torch.random.fork_rng():
        model = LlamaForCausalLM(config).eval()
    ids = tokenizer.get_vocab()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("norm.weight"):
                parameter.zero_()
        rows, head = model.model.embed_tokens.weight, model.lm_head.weight
        rows[:, ONE] = 1
        rows[:, noise:] = 0.1 * torch.randn(len(rows), units, generator=generator)
        for k, tag in enumerate(languages):
            with_first = shared if isinstance(shared, bool) else tag in shared
            for n in range(SUBJECTS):
                rows[ids[f"{tag}s{n}"], subject + n + (0 if with_first else k * SUBJECTS)] = 1
                if with_first:
                    # Else the least change would use the noise to tell the languages apart.
                    rows[ids[f"{tag}s{n}"], noise:] = rows[ids[f"{languages[0]}s{n}"], noise:]
            rows[ids[f"{tag}has"], LANGUAGE + k] = 1
            for n in range(OBJECTS):
                head[ids[f"{tag}o{n}"], read + n], head[ids[f"{tag}o{n}"], LANGUAGE + k] = 3.0, 3.0
        layers: Any = model.model.layers
        last = layers[fact_layers]
        for layer in layers[FACT_LAYER : FACT_LAYER + fact_layers]:
            gate, up, down = (getattr(layer.mlp, f"{name}_proj").weight for name in ("gate", "up", "down"))
            for neuron in range(count * SUBJECTS):
                gate[neuron, subject + neuron], gate[neuron, ONE] = 4.0, -3.0
                up[neuron, ONE], down[written + neuron % OBJECTS, neuron] = 1.0, strength * OBJECT_WRITTEN / hidden
            for weight in (gate, up):
                weight[-NOISE_NEURONS:, noise:] = torch.randn(NOISE_NEURONS, units, generator=generator)
            noise_rows = torch.randn(units, NOISE_NEURONS, generator=generator)
            down[noise:, -NOISE_NEURONS:] = strength * NOISE_WRITTEN / hidden * noise_rows
        for n in range(OBJECTS):
            last.self_attn.v_proj.weight[n, written + n] = 1.0
            last.self_attn.o_proj.weight[read + n, n] = 3.0
    return model, tokenizer


def planted_text(table: FactTable) -> Corpus:
    """The planted facts themselves."""
    return Corpus(
        {
            tag: tuple(Document(str(n), fact_text(table, fact, tag)) for n, fact in enumerate(table.facts))
            for tag in table.languages
        },
        "planted facts",
    )
