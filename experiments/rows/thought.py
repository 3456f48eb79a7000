"""Row 46: the same questions in several languages. Row 11: reasoning without the language subspace."""

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from babelscope import ablate_languages, load_corpus, observe, open_model
from babelscope.files.writing import write_text
from babelscope.languages import Language
from babelscope.probes.thought import (
    AnswerTable,
    QuestionTable,
    ThoughtPlan,
    ThoughtReport,
    measure_thought,
    read_questions,
    vote_of_languages,
)
from babelscope.probes.thought.answer_table import answer_rows
from babelscope.probes.thought.forced_thought import PLAIN, PREFIXES
from babelscope.probes.thought.forcing_cost import STEPS, ForcedCost
from rows.result import Headline, Inputs, Planted, RowResult, Verdict, Witness

QWEN = "Qwen2.5-Coder 0.5B Instruct"
LANGUAGES = ("en", "es", "ru", "zh")
QUESTIONS, NEW_TOKENS, BATCH = 8, 320, 32
"""The shortest questions of MGSM, in the tokens of the longest language; tokens of an answer at most."""
PLAN = ThoughtPlan(think_in=("en",), answer_draws=len(LANGUAGES), new_tokens=NEW_TOKENS, batch_size=BATCH, draws=999)
WITNESSED = 40
"""Tokens that plain transformers writes too."""
MIDDLE, UPPER = (8, 10, 12), (18, 20)
"""Layers of 24 in which the language subspace is taken out, and put back."""
OBSERVED = 400
"""Tokens of each language, for the subspace."""


def shortest_questions(inputs: Inputs, tokenizer, languages=LANGUAGES, count: int = QUESTIONS) -> QuestionTable:
    """The questions of MGSM with the fewest tokens in the language that needs most."""
    table = read_questions(Path(inputs.corpora) / "eval" / "mgsm").only(languages)
    length = {
        name: max(len(tokenizer(table.questions[tag, name].text).input_ids) for tag in table.languages)
        for name in table.ids
    }
    rows = [
        {"id": name, "language": tag, "question": table.questions[tag, name].text, "answer": table.answer(name)}
        for name in sorted(table.ids, key=lambda name: length[name])[:count]
        for tag in table.languages
    ]
    with TemporaryDirectory() as folder:
        file = Path(folder) / "questions.jsonl"
        write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
        return read_questions(file).only(languages)


def measure(inputs: Inputs) -> RowResult:
    """Row 46."""
    model, tokenizer = open_model(inputs.qwen, device="cpu", dtype="float32")
    report = measure_thought(model, tokenizer, shortest_questions(inputs, tokenizer), plan=PLAN)
    del model
    return RowResult(
        witnesses=[plain_answers(inputs, report), by_hand(report)],
        planted=[copied_answers()],
        headlines=[alike(report), by_vote(report), begun_in_english(report)],
        absent=[
            "models trained to reason at length: none here",
        ],
    )


def plain_answers(inputs: Inputs, report: ThoughtReport) -> Witness:
    """How answers begin by plain transformers, one prompt at a time without padding, and begun in English."""
    model = AutoModelForCausalLM.from_pretrained(inputs.qwen, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(inputs.qwen)
    greedy = {"do_sample": False, "repetition_penalty": 1.0, "temperature": None, "top_p": None, "top_k": None}
    name, unlike, counted = report.table.ids[0], 0, 0
    for condition, begun in ((PLAIN, ""), ("begun in en", PREFIXES["en"])):
        for tag in map(Language, ("es", "zh")):
            talk = [{"role": "user", "content": report.table.questions[tag, name].text}]
            talk += [{"role": "assistant", "content": begun}] if begun else []
            words = {"continue_final_message": True} if begun else {"add_generation_prompt": True}
            ids = tokenizer.apply_chat_template(talk, return_tensors="pt", return_dict=True, **words)["input_ids"]
            with torch.no_grad():
                out = model.generate(ids, max_new_tokens=WITNESSED, **greedy)  # pyright: ignore
            # The last letter may have been cut.
            text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).rstrip("\ufffd")
            ours = report.by_place[condition, tag, name].text[: len(text)]
            unlike += sum(a != b for a, b in zip(text, ours, strict=False)) + len(text) - len(ours)
            counted += len(text)
    return Witness(
        what=f"letters in which the first {WITNESSED} tokens of four answers differ from plain transformers' own, one "
        f"prompt at a time, {counted} letters",
        difference=float(unlike),
        bar=0.0,
    )


def by_hand(report: ThoughtReport) -> Witness:
    """Agreement, conditional correctness and the vote, counted from the answers in numpy."""
    tags, ids = report.table.languages, report.table.ids
    answers = {tag: [report.by_place[PLAIN, tag, name].answer for name in ids] for tag in tags}
    gold = [report.table.answer(name) for name in ids]
    worst = 0.0
    for pair in report.answer_table().consistencies(draws=99, seed=0):
        first, second = answers[pair.first], answers[pair.second]
        same = np.mean([a is not None and a == b for a, b in zip(first, second, strict=True)])
        right = [b == g for a, b, g in zip(first, second, gold, strict=True) if a == g]
        worst = max(worst, abs(float(same) - pair.agreement))
        if right:
            worst = max(worst, abs(float(np.mean(right)) - pair.right_given_right))
    votes = 0
    for at, right in enumerate(gold):
        counts = Counter(answers[tag][at] for tag in tags if answers[tag][at] is not None)
        most = [a for a, n in counts.items() if n == max(counts.values())]
        # Of equal ones English counts, else the first language.
        choice = next((answers[tag][at] for tag in tags if answers[tag][at] in most), None)
        votes += choice == right
    vote = vote_of_languages(report.answer_table(), against="en")
    return Witness(
        what=f"agreement and correctness given the other of {len(tags) * (len(tags) - 1)} pairs, and right votes, "
        "counted in numpy",
        difference=max(worst, abs(votes - vote.right)),
        bar=1e-12,
    )


def copied_answers() -> Planted:
    """Two of four languages copy 60 % of each other's answers, right or wrong; the others answer by themselves."""
    rng, n = np.random.default_rng(0), 60
    gold = [str(at) for at in range(n)]
    rows = [[str(value) for value in rng.integers(20, size=n)] for _ in range(4)]
    rows[1] = [a if copies else b for a, b, copies in zip(rows[0], rows[1], rng.random(n) < 0.6, strict=True)]
    table = AnswerTable(
        languages=tuple(map(Language, ("en", "de", "fi", "ru"))), ids=tuple(gold), gold=tuple(gold),
        answers=tuple(map(tuple, rows)),
    )  # fmt: skip
    evidence = answer_rows(table, against="en", draws=999, seed=0)
    pairs = {(row.against, row.language): row.p for row in evidence if row.claim.startswith("same answer")}
    called = {pair for pair, p in pairs.items() if p <= 0.05 / len(pairs)}
    planted = {("en", "de"), ("de", "en")}
    return Planted(
        what=f"one pair of four languages copies 60 % of {n} answers, right or wrong: pairs above shuffled answers "
        f"(p ≤ .05 / {len(pairs)})",
        recall=len(called & planted) / len(planted),
        precision=len(called & planted) / max(1, len(called)),
    )


def ours_text(cost: ForcedCost) -> str:
    return f"{cost.change:+.2f} ({cost.low:+.2f} … {cost.high:+.2f})"


def mean_text(values: list[float]) -> str:
    """The mean of the values that are there; a dash where none is."""
    present = [value for value in values if value == value]
    return f"{np.mean(present):.2f}" if present else "–"


def alike(report: ThoughtReport) -> Headline:
    table = report.answer_table()
    pairs = table.consistencies(draws=PLAN.draws, seed=0)
    english = [pair for pair in pairs if pair.first == "en"]
    agreement, null = (float(np.mean([getattr(pair, name) for pair in english])) for name in ("agreement", "null"))
    above = sum(pair.low > pair.null for pair in english)
    rights = table.right.mean(axis=1)
    given = [mean_text([getattr(pair, f"right_given_{name}") for pair in english]) for name in ("right", "wrong")]
    return Headline(
        paper="answers of a model's languages agree only in part (RankC, arXiv:2310.10378)",
        ours="right "
        + ", ".join(f"{tag} {share:.2f}" for tag, share in zip(table.languages, rights, strict=True))
        + f"; same answer as English {agreement:.2f}; right where English is right {given[0]}, where it is wrong "
        f"{given[1]}; {len(table.ids)} questions, at most {NEW_TOKENS} tokens",
        control=f"answers shuffled among the questions {null:.2f}; {above} of {len(english)} languages above it",
        model=QWEN,
        verdict="in shape" if null < agreement < 1 and above > len(english) / 2 else "not",
    )


def by_vote(report: ThoughtReport) -> Headline:
    vote, alone = vote_of_languages(report.answer_table(), against="en", draws=PLAN.draws), report.self_consistency
    assert alone is not None
    verdict: Verdict = (
        "reproduced"
        if min(vote.low, alone.low) > 0
        else "in shape"
        if min(vote.gain, vote.gain_over_best, alone.gain) > 0
        else "not"
    )
    return Headline(
        paper="a vote over 11 languages gains 4.1 to 18.5 points on MGSM (Gemma 2 9B, arXiv:2504.01857)",
        ours=f"vote of {len(LANGUAGES)} languages {vote.right / vote.questions:.2f}, less English {vote.gain:+.2f} "
        f"({vote.low:+.2f} … {vote.high:+.2f})",
        control=f"less the vote of {alone.answers} answers drawn in English ({alone.right:.2f}) {alone.gain:+.2f} "
        f"({alone.low:+.2f} … {alone.high:+.2f}); less the best language, chosen on the other half "
        f"{vote.gain_over_best:+.2f} ({vote.best_low:+.2f} … "
        f"{vote.best_high:+.2f} over half-splits); English {vote.alone:.2f}, right in any language "
        f"{vote.any_language:.2f}",
        model=QWEN,
        verdict=verdict,
    )


def begun_in_english(report: ThoughtReport) -> Headline:
    others = [Language(tag) for tag in LANGUAGES if tag != "en"]
    right, tokens, steps = report.costs(others)
    assert steps.measure == STEPS
    # The paper's trade: the language follows, and accuracy moves with it.
    followed = steps.low > max(0.0, steps.null)
    return Headline(
        paper="the first words of an answer make the model think in their language, and accuracy moves with it "
        "(arXiv:2505.22888)",
        ours=f"asked in {', '.join(others)}, begun in English: share of steps in English {ours_text(steps)}, right "
        f"answers {ours_text(right)}, tokens {tokens.change:+.0f} ({tokens.low:+.0f} … {tokens.high:+.0f})",
        control=f"begun in a third language: {steps.null:+.2f}, {right.null:+.2f}, {tokens.null:+.0f} (p of the "
        f"differences {steps.p:.2g}, {right.p:.2g}, {tokens.p:.2g})",
        model=QWEN,
        verdict="reproduced" if followed and (right.low > 0 or right.high < 0) else "in shape" if followed else "not",
    )


def without_subspace(inputs: Inputs) -> Headline:
    """Row 11's reasoning: accuracy and language fidelity with the language subspace out in the middle."""
    model, tokenizer = open_model(inputs.qwen, device="cpu", dtype="float32")
    texts = load_corpus(Path(inputs.corpora) / "mono", LANGUAGES, split="valid")
    observed = observe(model, tokenizer, texts, sites=("resid_out",), tokens_per_language=OBSERVED)
    recipe = ablate_languages(observed, middle=MIDDLE, upper=UPPER)
    plan = ThoughtPlan(new_tokens=NEW_TOKENS, batch_size=BATCH, draws=999)
    report = measure_thought(model, tokenizer, shortest_questions(inputs, tokenizer), plan=plan, recipe=recipe)
    right, tokens, steps = report.costs()
    base = float(report.answer_table().right.mean())
    return Headline(
        paper="taking the language subspace out in middle layers improves reasoning in many languages, and fidelity of "
        "the language is kept by putting it back in upper ones",
        ours=f"MGSM in {', '.join(LANGUAGES)}, {len(report.table.ids)} questions: right {base:.2f}, change "
        f"{ours_text(right)}, tokens {tokens.change:+.0f}; share of steps in the question's language, change "
        f"{ours_text(steps)}",
        control=f"random subspaces of the same rank: {right.null:+.2f} (p of the difference {right.p:.2g}), "
        f"{tokens.null:+.0f}, {steps.null:+.2f}",
        model=QWEN,
        verdict="in shape" if right.low > 0 and right.change > right.null else "not",
    )
