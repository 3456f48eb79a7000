"""A model written down by hand that knows facts in two languages by neurons that they share, or each by its own."""

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from babelscope.languages import Language
from babelscope.probes.knowledge import Fact, FactTable

TAGS = ("en", "fi")
SUBJECTS, OBJECTS, NOISE_NEURONS, FACT_LAYER = 8, 4, 8, 0
ONE, LANGUAGE = 0, 1
SUBJECT = LANGUAGE + len(TAGS)
WRITTEN = SUBJECT + len(TAGS) * SUBJECTS
READ = WRITTEN + OBJECTS
OBJECT_WRITTEN = 0.02
"""By a neuron that fires: little, so that no layer's part hides the subject from the next layer's norm."""
NOISE = READ + OBJECTS
HIDDEN = NOISE + 9


def fact_table() -> FactTable:
    """Subject n has object n mod OBJECTS; every word of a language begins with its tag."""
    tags = tuple(map(Language.parse, TAGS))
    names = [*(f"s{n}" for n in range(SUBJECTS)), *(f"o{n}" for n in range(OBJECTS))]
    return FactTable(
        "planted facts",
        tags,
        tuple(Fact("has", f"s{n}", f"o{n % OBJECTS}") for n in range(SUBJECTS)),
        {"has": {tag: f"[X] {tag}has [Y]" for tag in tags}},
        {name: {tag: f"{tag}{name}" for tag in tags} for name in names},
        {},
    )


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A token a word; `<s>` begins a text."""
    table = fact_table()
    words = [label for labels in table.labels.values() for label in labels.values()]
    vocabulary = {word: n for n, word in enumerate(["<s>", "<unk>", *words, *(f"{tag}has" for tag in TAGS)])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", unk_token="<unk>")


def fact_model(
    *, shared: bool, fact_layers: int = 1, seed: int = 0
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """In the first layers a neuron for each subject writes a part of its object; the last one's attention carries that
    to the last token, where the head reads it with the language of the word there.

    shared: the two words of a subject fire one neuron; else each its own, of which the other language's has no part.
    """
    tokenizer, generator = word_tokenizer(), torch.Generator().manual_seed(seed)
    sizes: Any = {
        "hidden_size": HIDDEN,
        "num_hidden_layers": fact_layers + 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
    }
    neurons = len(TAGS) * SUBJECTS + NOISE_NEURONS
    config = LlamaConfig(
        vocab_size=len(tokenizer), intermediate_size=neurons, bos_token_id=0, eos_token_id=0,
        head_dim=HIDDEN, tie_word_embeddings=False, **sizes,
    )  # fmt: skip
    with torch.random.fork_rng():
        model = LlamaForCausalLM(config).eval()
    ids = tokenizer.get_vocab()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("norm.weight"):
                parameter.zero_()
        table, head = model.model.embed_tokens.weight, model.lm_head.weight
        table[:, ONE] = 1
        table[:, NOISE:] = 0.1 * torch.randn(len(table), HIDDEN - NOISE, generator=generator)
        for k, tag in enumerate(TAGS):
            for n in range(SUBJECTS):
                table[ids[f"{tag}s{n}"], SUBJECT + n + (0 if shared else k * SUBJECTS)] = 1
                if shared:
                    # Else the least change would use the noise to tell the languages apart.
                    table[ids[f"{tag}s{n}"], NOISE:] = table[ids[f"{TAGS[0]}s{n}"], NOISE:]
            table[ids[f"{tag}has"], LANGUAGE + k] = 1
            for n in range(OBJECTS):
                head[ids[f"{tag}o{n}"], READ + n], head[ids[f"{tag}o{n}"], LANGUAGE + k] = 3.0, 3.0
        layers: Any = model.model.layers
        last = layers[fact_layers]
        for layer in layers[FACT_LAYER : FACT_LAYER + fact_layers]:
            gate, up, down = (getattr(layer.mlp, f"{name}_proj").weight for name in ("gate", "up", "down"))
            for neuron in range(len(TAGS) * SUBJECTS):
                gate[neuron, SUBJECT + neuron], gate[neuron, ONE] = 4.0, -3.0
                up[neuron, ONE], down[WRITTEN + neuron % OBJECTS, neuron] = 1.0, OBJECT_WRITTEN
            for weight in (gate, up):
                weight[-NOISE_NEURONS:, NOISE:] = torch.randn(NOISE_NEURONS, HIDDEN - NOISE, generator=generator)
            down[NOISE:, -NOISE_NEURONS:] = 0.1 * torch.randn(HIDDEN - NOISE, NOISE_NEURONS, generator=generator)
        for n in range(OBJECTS):
            last.self_attn.v_proj.weight[n, WRITTEN + n] = 1.0
            last.self_attn.o_proj.weight[READ + n, n] = 3.0
    return model, tokenizer
