"""The verb `evaluate`."""

from typing import Literal

from tyro.conf import Positional

from babelscope.cli.arguments import Result
from babelscope.corpus import load_corpus
from babelscope.evaluation import bits_per_byte, judge_answers
from babelscope.models import open_model


def run_evaluate(
    what: Positional[Literal["perplexity", "confusion"]],
    model: Positional[str],
    corpus: Positional[str],
    *,
    languages: tuple[str, ...] = (),
    split: str = "test",
    max_length: int = 512,
    device: str = "auto",
    dtype: str = "auto",
) -> Result:
    """Held-out bits per byte of a model (perplexity), or the language of answers in files by target (confusion).

    Args:
        what: "confusion" reads <tag>.txt of answers meant for that language, one a line; its model argument is "-".
    """
    texts = load_corpus(corpus, languages or None, split=split)
    if what == "perplexity":
        opened, tokenizer = open_model(model, device=device, dtype=dtype)
        return {"bits_per_byte": bits_per_byte(opened, tokenizer, texts, max_length=max_length)}
    found = {}
    for tag, documents in texts.items():
        verdicts = [judged.verdict for judged in judge_answers([d.text for d in documents], [tag] * len(documents))]
        found[tag] = {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))}
    return {"verdicts": found}
