"""A model written down by hand: the language of a token, its neurons, its heads and its concepts are known.

The stream has an axis for each purpose. A word's embedding is one + language + concept + noise of its own; chosen
neurons of a language fire on its words alone and write the axis from which the head reads the language; a chosen head
of each language does so too. All else is noise on axes that the head does not read.
"""

from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from babelscope.artifacts import NeuronSet
from babelscope.axes import Float, Tensor
from babelscope.corpus import Corpus, Document
from babelscope.languages import Language
from babelscope.models import origin_of

ALPHABETS = {"en": "abcdefgh", "fi": "jklmnopq", "ru": "абвгдежз", "hi": "कखगघचछजझ"}
"""Letters of each language's words; of three scripts."""
LANGUAGES = tuple(ALPHABETS)
CLONES = ("en", "fi")
"""The same concept vectors: a word and its translation differ by language and noise. The others have them in another
order, so that a word is near to words that are no translation."""
CONCEPTS, LAYERS, NEURONS, PER_LAYER, HIDDEN, HEADS = 24, 4, 64, 2, 64, 4
WRITING_LAYERS = (1, 2, 3)
ONE, NOISE = 0, slice(1 + 2 * len(LANGUAGES) + CONCEPTS, HIDDEN)
CONCEPT = slice(1 + 2 * len(LANGUAGES), 1 + 2 * len(LANGUAGES) + CONCEPTS)
READ_CONCEPT = 5
"""The concept that the planted concept neurons answer to."""


class Planted(NamedTuple):
    """The model and what is in it."""

    model: Any
    """A LlamaForCausalLM."""
    tokenizer: PreTrainedTokenizerFast
    neurons: dict[str, list[tuple[int, int]]]
    """(layer, neuron) by language."""
    heads: dict[str, tuple[int, int]]
    """(layer, head) by language."""
    axes: Float[Tensor, "axis hidden"]
    """Orthonormal: what stands on which axis of the stream, see `read_axis` and `write_axis`."""
    concept_neurons: list[tuple[int, int]]
    """They fire on the words of one concept in the clones."""

    def sets(self) -> NeuronSet:
        """The planted neurons as a set."""
        mask = torch.zeros(len(LANGUAGES), LAYERS, NEURONS, dtype=torch.bool)
        for k, tag in enumerate(LANGUAGES):
            for layer, neuron in self.neurons[tag]:
                mask[k, layer, neuron] = True
        return NeuronSet.from_mask(
            mask,
            mask.double(),
            origin=origin_of(self.model, self.tokenizer),
            languages=tuple(Language.parse(tag) for tag in LANGUAGES),
            at="mlp_gate",
            method="planted",
            parameters={},
        )


def word(tag: str, concept: int) -> str:
    """The word of a concept in a language: two letters of its alphabet."""
    letters = ALPHABETS[tag]
    return letters[concept % len(letters)] + letters[concept // len(letters)]


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A token a word."""
    words = [word(tag, concept) for tag in LANGUAGES for concept in range(CONCEPTS)]
    vocabulary = {entry: number for number, entry in enumerate(["<pad>", "<s>", "</s>", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def read_axis(k: int) -> int:
    """The axis on which a word's embedding says its language."""
    return 1 + k


def write_axis(k: int) -> int:
    """The axis from which the head reads the language."""
    return 1 + len(LANGUAGES) + k


def words_of(k: int) -> slice:
    """The tokens of a language's words, by concept."""
    return slice(3 + k * CONCEPTS, 3 + (k + 1) * CONCEPTS)


def embeddings(generator: torch.Generator, *, marked: bool) -> Float[Tensor, "vocab hidden"]:
    """Rows of all words; marked=False: nothing in them says the language."""
    table = torch.zeros(3 + len(LANGUAGES) * CONCEPTS, HIDDEN)
    table[:, ONE] = 1
    noise = 0.05 * torch.randn(len(LANGUAGES) * marked + 1, CONCEPTS, HIDDEN - NOISE.start, generator=generator)
    for k, tag in enumerate(LANGUAGES):
        order = torch.arange(CONCEPTS) if tag in CLONES else torch.randperm(CONCEPTS, generator=generator)
        rows = table[words_of(k)]
        rows[:, CONCEPT] = torch.eye(CONCEPTS)[order]
        rows[:, read_axis(k)] = float(marked)
        rows[:, NOISE] = noise[k] if marked else noise[0][order]
    return table


def construct(seed: int = 0, *, marked: bool = True, pivot: str = "") -> Planted:
    """A model of four languages and four layers.

    marked=False: embeddings do not say the language, so that nothing of it can be found in the stream.
    pivot: after the first two layers the stream speaks this language, whatever it reads, and after the last the
    text's own.
    """
    generator = torch.Generator().manual_seed(seed)
    tokenizer = word_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=NEURONS,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config).eval()
    places = torch.stack([torch.randperm(NEURONS, generator=generator) for _ in range(LAYERS)])
    neurons: dict[str, list[tuple[int, int]]] = {tag: [] for tag in LANGUAGES}
    writing = (WRITING_LAYERS[-1],) if pivot else WRITING_LAYERS
    heads = {tag: (writing[k % len(writing)], k % HEADS) for k, tag in enumerate(LANGUAGES)}
    concept_neurons = [(layer, int(places[layer, -1])) for layer in range(LAYERS)]
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(embeddings(generator, marked=marked))
        model.lm_head.weight.zero_()
        model.lm_head.weight[:3, ONE] = -2.0
        for k in range(len(LANGUAGES)):
            model.lm_head.weight[words_of(k), write_axis(k)] = 1.5
            model.lm_head.weight[words_of(k), CONCEPT] = 0.3 * torch.eye(CONCEPTS)
        layers: Any = model.model.layers
        for number, layer in enumerate(layers):
            quiet_attention(layer.self_attn, generator)
            background(layer.mlp, generator)
            gate, up, down = (layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight, layer.mlp.down_proj.weight)
            for k, tag in enumerate(LANGUAGES):
                for place in range(PER_LAYER if number in writing else 0):
                    neuron = int(places[number, k * PER_LAYER + place])
                    neurons[tag].append((number, neuron))
                    gate[neuron], up[neuron], down[:, neuron] = 0, 0, 0
                    gate[neuron, 1 : 1 + len(LANGUAGES)] = -12.0
                    gate[neuron, read_axis(k)] = 6.0
                    up[neuron, ONE], down[write_axis(k), neuron] = 0.1, 0.05
            fires_on_concept(concept_neurons[number][1], gate, up, down)
        for k, tag in enumerate(LANGUAGES):
            plant_head(layers[heads[tag][0]].self_attn, heads[tag][1], k)
        if pivot:
            speak_through(model, LANGUAGES.index(pivot), places)
        axes = torch.linalg.qr(torch.randn(HIDDEN, HIDDEN, generator=generator))[0]
        turn(model, axes)
    by_language = {tag: sorted(pairs) for tag, pairs in neurons.items()}
    return Planted(model, tokenizer, by_language, heads, axes, concept_neurons)


def turn(model: LlamaForCausalLM, axes: Tensor) -> None:
    """Turn the whole stream, so that no unit of it stands for a purpose; norms without weights do not see it."""
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.copy_(axes.T @ parameter)
        elif parameter.ndim > 1:
            parameter.copy_(parameter @ axes)


def quiet_attention(attention: torch.nn.Module, generator: torch.Generator) -> None:
    """Even attention whose heads carry noise to noise."""
    weights = {name: attention.get_submodule(name).get_parameter("weight") for name in ("q_proj", "k_proj")}
    for weight in weights.values():
        weight.zero_()
    for name in ("v_proj", "o_proj"):
        weight = attention.get_submodule(name).get_parameter("weight")
        weight.zero_()
        side = weight[:, NOISE] if name == "v_proj" else weight[NOISE]
        side.copy_(0.05 * torch.randn(side.shape, generator=generator))


def background(mlp: torch.nn.Module, generator: torch.Generator) -> None:
    """Neurons that answer to a word's own noise, whatever its language, and write on the axes of noise."""
    for name in ("gate_proj", "up_proj", "down_proj"):
        weight = mlp.get_submodule(name).get_parameter("weight")
        weight.zero_()
        side = weight[NOISE] if name == "down_proj" else weight[:, NOISE]
        side.copy_((0.0001 if name == "down_proj" else 2.0) * torch.randn(side.shape, generator=generator))


def fires_on_concept(neuron: int, gate: Tensor, up: Tensor, down: Tensor) -> None:
    """A neuron for the words of one concept of the clones: neither language fires it on other words."""
    gate[neuron], up[neuron], down[:, neuron] = 0, 0, 0
    gate[neuron, ONE], gate[neuron, CONCEPT.start + READ_CONCEPT] = -3.0, 6.0
    up[neuron, ONE], down[NOISE.start, neuron] = 0.1, 0.1


def plant_head(attention: torch.nn.Module, head: int, k: int) -> None:
    """A head that writes its language's axis where it sees words of it, and nothing elsewhere."""
    width = HIDDEN // HEADS
    value, output = (attention.get_submodule(name).get_parameter("weight") for name in ("v_proj", "o_proj"))
    value[head * width : (head + 1) * width] = 0
    output[:, head * width : (head + 1) * width] = 0
    value[head * width, read_axis(k)], output[write_axis(k), head * width] = 1.0, 0.03


def speak_through(model: Any, pivot: int, places: Tensor) -> None:
    """The first layer writes the pivot's axis for every word; the last but one takes it off."""
    for number, strength in ((0, 0.03), (2, -0.04)):
        mlp, neuron = model.model.layers[number].mlp, int(places[number, -2])
        for weight in (mlp.gate_proj.weight, mlp.up_proj.weight):
            weight[neuron] = 0
            weight[neuron, ONE] = 1.0
        mlp.down_proj.weight[:, neuron] = 0
        mlp.down_proj.weight[write_axis(pivot), neuron] = strength


def sentences(
    count: int = 120, length: int = 14, seed: int = 0, *, skewed: bool = False, unrelated: tuple[str, ...] = ()
) -> Corpus:
    """Parallel text: sentence i holds the same concepts in every language, but in the `unrelated` ones.

    skewed: concepts by falling frequency, so that there is something to learn.
    """
    texts: dict[Language, tuple[Document, ...]] = {}
    weights = 1 / torch.arange(1, CONCEPTS + 1) ** (2.0 if skewed else 0.0)
    for k, tag in enumerate(LANGUAGES):
        generator = torch.Generator().manual_seed(seed + (1000 * (k + 1) if tag in unrelated else 0))
        texts[Language.parse(tag)] = tuple(
            Document(f"s{number}", " ".join(word(tag, int(c)) for c in row))
            for number, row in enumerate(
                torch.multinomial(weights.expand(count, -1), length, replacement=True, generator=generator)
            )
        )
    return Corpus(texts, "planted sentences")
