"""Row 31, FOCUS and matching pursuit by vectors of words in a file: fastText's, and another model's embeddings."""

import gzip
import re
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from make_word_vectors import vectors_of_model, words_of, write_vectors
from sklearn.linear_model import orthogonal_mp

from babelscope import VocabularyPack, extend_vocabulary, load_corpus, open_model
from babelscope.corpus import Corpus
from babelscope.evaluation import Losses, held_out_losses
from babelscope.languages import Language
from babelscope.vocabulary.initial_rows import ATOMS
from rows.carried_vocabulary import ENTRIES, HELD, TARGET, TRAIN, difference
from rows.result import Headline, Inputs, Witness

WORDS = 5000
"""Most frequent ones, that have a vector of the other model."""


def rows_by_vectors(inputs: Inputs) -> tuple[list[Witness], list[Headline], list[str]]:
    """Witnesses, headlines, and what is absent, also where a file or a model was not given."""
    model, tokenizer = open_model("reference", device="cpu")
    name = f"{inputs.corpora}/mono" if inputs.corpora else "reference"
    train = load_corpus(name, [TARGET], split="train").head(TRAIN)
    held = load_corpus(name, [TARGET], split="valid").head(HELD)
    bits: dict[str, Losses] = {}
    witnesses, absent = list[Witness](), list[str]()

    def measured(label: str, init: str, vectors: Path | None = None) -> VocabularyPack:
        pack = extend_vocabulary(model, tokenizer, train, size=ENTRIES, init=init, vectors=vectors)
        with pack.applied(model):
            bits[label] = held_out_losses(model, pack.tokenizer, held)[0]
        return pack

    for init in ("random", "subword", "focus", "omp"):
        measured(f"{init} of the text" if init in ("focus", "omp") else init, init)
    with TemporaryDirectory() as folder:
        files = {"fastText": Path(inputs.vectors) / f"{TARGET}.vec.gz" if inputs.vectors else None, "Gemma": None}
        if inputs.gemma:
            count = Counter(word for document in train[Language(TARGET)] for word in words_of(document.text))
            words = [word for word, _ in count.most_common(WORDS)]
            files["Gemma"] = Path(folder) / "gemma.vec"
            write_vectors(files["Gemma"], vectors_of_model(inputs.gemma, words))
        for source, file in files.items():
            if file is None:
                absent.append(f"vectors of {source}: no {'file' if source == 'fastText' else 'model'} was given")
                continue
            vectors = read_plainly(file)
            shuffled = Path(folder) / "shuffled.vec"
            order = np.random.default_rng(0).permutation(len(vectors))
            values = list(vectors.values())
            write_vectors(shuffled, {word: values[at] for word, at in zip(vectors, order, strict=True)})
            for init in ("focus", "omp"):
                pack = measured(f"{init} of {source}", init, file)
                measured(f"{init} of {source}, shuffled", init, shuffled)
                witnesses.append(witness(model, pack, train, vectors, init, source))
    headlines = [headline(bits, source) for source in files if f"focus of {source}" in bits]
    absent.append("matching pursuit by another model's rows token by token: here by the words that an entry stands in")
    return witnesses, headlines, absent


def read_plainly(file: Path) -> dict[str, np.ndarray]:
    """The file's vectors by plain Python."""
    data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    lines = [line.split(" ") for line in data.decode().split("\n")[1:] if line]
    return {fields[0]: np.array(fields[1:], dtype=float) for fields in lines}


def witness(
    model: Any, pack: VocabularyPack, train: Corpus, vectors: dict[str, np.ndarray], init: str, source: str
) -> Witness:
    """Rows by numpy: words by a regular expression, weights by bisection or scikit-learn's matching pursuit."""
    sums: dict[int, np.ndarray] = {}
    for document in train[Language(TARGET)]:
        text = document.text
        cut = pack.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        spans = list(zip(cut["input_ids"], cut["offset_mapping"], strict=True))
        for match in re.finditer(r"[^\W\d_]+", text):
            word = match[0].casefold()
            for index, (first, last) in spans if word in vectors else ():
                if first < match.end() and match.start() < last:
                    sums[index] = sums.get(index, 0) + vectors[word]
    unit = {index: value / np.linalg.norm(value) for index, value in sums.items()}
    new = (pack.source < 0).nonzero()[:, 0].tolist()
    known = sorted(unit.keys() - set(new))
    others = np.stack([unit[index] for index in known])
    table = model.get_input_embeddings().weight.detach().double().numpy()[known]
    # Entries that stand in the same words have the same vector: which of them is taken, rounding decides.
    twins = (others @ others.T > 1 - 1e-9).sum(axis=1) > 1
    apart = []
    for row, index in zip(pack.rows.numpy(), new, strict=True):
        if index in unit:
            weights = (simplex if init == "focus" else pursuit)(others, unit[index])
            if init == "focus" or not twins[weights != 0].any():
                apart.append(np.abs(row - weights @ table).max())
    return Witness(
        what=f"{init}: {len(apart)} rows by vectors of {source} against numpy"
        + ("" if init == "focus" else " and scikit-learn, where no two entries have one vector"),
        difference=float(max(apart)),
        bar=1e-4,
    )


def pursuit(others: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Scikit-learn's; it warns where fewer entries give the vector whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(orthogonal_mp(others.T, vector, n_nonzero_coefs=ATOMS))


def simplex(others: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """The point of the simplex that is nearest to the cosines, by bisection of what is taken off."""
    scores = others @ vector
    low, high = scores.min() - 1, scores.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(scores - middle, 0, None).sum() > 1 else (low, middle)
    return np.clip(scores - low, 0, None)


def headline(bits: dict[str, Losses], source: str) -> Headline:
    """FOCUS by vectors of fastText, or matching pursuit by another model's, beside the others of the same vectors."""
    main, second = ("focus", "omp") if source == "fastText" else ("omp", "focus")
    best = bits[f"{main} of {source}"]
    rivals = ("random", "subword", f"{main} of the text", f"{second} of {source}")
    others = [f"{name} {difference(best, bits[name])}" for name in rivals]
    ahead = best.bits_per_byte < bits["random"].bits_per_byte
    said = {
        "focus": "FOCUS begins ahead of random rows and of WECHSEL in five languages (XLM-R), by vectors of fastText",
        "omp": "matching pursuit keeps a model best of the ways without training, ahead of FOCUS (Llama 3 8B, Qwen2.5)",
    }
    ordered = ahead and (main == "focus" or best.bits_per_byte < bits[f"{second} of {source}"].bits_per_byte)
    chance = bits[f"{main} of {source}, shuffled"]
    return Headline(
        paper=said[main],
        ours=f"Basque, {ENTRIES} new entries, bits per byte over {len(best.nats)} documents: {main} by vectors of "
        f"{source} {best.bits_per_byte:.4f}; less that of {', '.join(others)}",
        control=f"less that of shuffled vectors {difference(best, chance)}",
        model="bundled model",
        verdict="in shape" if ordered and best.bits_per_byte < chance.bits_per_byte else "not",
    )
