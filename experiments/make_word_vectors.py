"""Writes files of word vectors, as fastText writes them, for `vocabulary extend --vectors`.

    python experiments/make_word_vectors.py --corpus CORPUS --languages eu --out FOLDER [--model MODEL]

Without a model, vectors are those of fastText, which gensim trains on the train text (`pip install gensim`; babelscope
itself does not need it). With one, a word's vector is the mean of the model's embeddings of its tokens. A file is
FOLDER/<tag>.vec.gz, or <tag>.<model>.vec.gz.
"""

import gzip
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from babelscope import load_corpus, open_model
from babelscope.errors import PrerequisiteError
from babelscope.files.writing import write_bytes
from babelscope.vocabulary.token_tables import token_tables

FEWEST = 3
"""Times that a word must come for fastText."""


@dataclass(frozen=True)
class Config:
    corpus: str
    languages: tuple[str, ...]
    out: str
    """Folder that the files are written into."""
    model: str = ""
    """Folder, Hugging Face id or "reference", for vectors of its embeddings; empty: fastText's."""
    width: int = 100
    """Dimensions of fastText's vectors."""


def run(config: Config) -> None:
    for tag, documents in load_corpus(config.corpus, config.languages, split="train").items():
        sentences = [words_of(document.text) for document in documents]
        if config.model:
            words = sorted({word for sentence in sentences for word in sentence})
            vectors = vectors_of_model(config.model, words)
        else:
            vectors = vectors_of_fasttext(sentences, config.width)
        name = f"{tag}.{Path(config.model).name}.vec.gz" if config.model else f"{tag}.vec.gz"
        write_vectors(Path(config.out) / name, vectors)


def words_of(text: str) -> list[str]:
    """Runs of letters, case-folded."""
    return re.findall(r"[^\W\d_]+", text.casefold())


def vectors_of_model(name: str, words: Iterable[str]) -> dict[str, np.ndarray]:
    """By word, the mean of a model's embeddings of the tokens of the word after a space."""
    model, tokenizer = open_model(name, device="cpu")
    table = token_tables(model).embedding.weight.detach()
    return {
        word: table[tokenizer(f" {word}", add_special_tokens=False)["input_ids"]].float().mean(dim=0).numpy()
        for word in words
    }


def vectors_of_fasttext(sentences: list[list[str]], width: int) -> dict[str, np.ndarray]:
    """By word, most frequent first; by one worker, the same but for Python's seed of hashes."""
    try:
        from gensim.models import FastText  # pyright: ignore[reportMissingImports]
    except ImportError as err:
        raise PrerequisiteError("gensim is not there; expected it for vectors of fastText; pip install gensim") from err
    trained = FastText(sentences, vector_size=width, epochs=3, min_count=FEWEST, workers=1, seed=0).wv
    return {word: trained[word] for word in trained.index_to_key}


def write_vectors(path: Path, vectors: Mapping[str, np.ndarray]) -> None:
    """A first line of the numbers of words and dimensions, then a line a word; packed where the name says .gz."""
    width = len(next(iter(vectors.values())))
    rows = [
        f"{len(vectors)} {width}",
        *(f"{word} {' '.join(f'{x:.5g}' for x in row)}" for word, row in vectors.items()),
    ]
    data = "".join(f"{row}\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


if __name__ == "__main__":
    run(tyro.cli(Config))
