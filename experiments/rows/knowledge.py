"""Rows 38 and 28: facts by language, and structures that prime across languages."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.stats import fisher_exact, ttest_1samp
from transformers import AutoModelForCausalLM, AutoTokenizer

from babelscope import NeuronSet, layout_of, load_corpus, observe, open_model, origin_of, select_lape, train_subnetwork
from babelscope.languages import Language
from babelscope.probes.knowledge import (
    BarrierCell,
    FactTable,
    Knowledge,
    KnowledgePlan,
    KnowledgeReport,
    knowledge_barrier,
    knowledge_without_neurons,
    measure_knowledge,
    pooled_votes,
    rank_objects,
    read_facts,
)
from babelscope.probes.knowledge.typed_ranking import BLANK
from babelscope.probes.priming import (
    PrimingEffect,
    PrimingPlan,
    Stimuli,
    read_stimuli,
    structural_priming,
    usual_directions,
)
from rows.barrier_training import mixed_against_barrier, planted_crossing
from rows.planted_grammar import grammar_model, write_grammar
from rows.result import Headline, Inputs, Planted, RowResult, Verdict, Witness

GEMMA = "Gemma 3 270M"
PLANTED_IN, NOT_PLANTED_IN = ("en", "fi"), "ru"
FEW = ("en", "de", "zh", "ru", "fi")
BARRIER_QUESTIONS, NEURON_TOKENS, PRIMED = 16, 4_000, 16


def measure_facts(inputs: Inputs) -> RowResult:
    """Row 38, and what is asked of one model in all languages (N7)."""
    model, tokenizer = open_model(inputs.gemma, device="cpu", dtype="float32")
    table = read_facts("reference")
    few = table.only(FEW)
    plan = KnowledgePlan(barrier=BARRIER_QUESTIONS)
    # Mixtures are measured in a few languages: in all they take twice as long.
    report = measure_knowledge(model, tokenizer, table, plan=replace(plan, barrier=0, lens=False))
    mixtures = knowledge_barrier(model, tokenizer, few, questions=BARRIER_QUESTIONS)
    headlines = [
        by_language(report.knowledge),
        pooled(report.knowledge),
        countries(report),
        barrier(mixtures),
        mixed_against_barrier(table),
        by_cluster(report),
        given_english(report),
        language_or_knowledge(inputs, model, tokenizer, table),
    ]
    del model, tokenizer
    return RowResult(
        witnesses=[plain_scores(inputs.gemma, report.knowledge), exact_null(report.knowledge)],
        planted=[planted_facts(table), planted_crossing()],
        headlines=headlines,
        absent=[
            "mLAMA's facts (CC BY-NC-SA, not fetched here; its folders are read), encoders",
            "mixed-language training of a larger model, which takes more than two cores",
        ],
    )


def plain_scores(folder: str, knowledge: Knowledge) -> Witness:
    """Scores of some facts by plain transformers: each text alone, without a cache, and by its own tokens."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, table, worst, texts = AutoTokenizer.from_pretrained(folder), knowledge.table, 0.0, 0
    for tag, at in ((Language.parse(tag), at) for tag in ("en", "zh", "fi") for at in (0, 20, 60)):
        fact, scores = table.facts[at], knowledge.scores[Language.parse(tag)][at]
        template = table.templates[fact.relation][tag]
        prior = {}
        for subject, values in ((BLANK, None), (table.labels[fact.subject][tag], scores)):
            rows = {
                entity: tokenizer(template.replace("[X]", subject).replace("[Y]", table.labels[entity][tag])).input_ids
                for entity in table.objects(fact.relation, tag)
            }
            begin = tokenizer(template.replace("[X]", subject).split("[Y]")[0].rstrip()).input_ids
            common = min(
                next((i for i, (a, b) in enumerate(zip(row, begin, strict=False)) if a != b), len(begin))
                for row in rows.values()
            )
            for entity, row in rows.items():
                with torch.no_grad():
                    logits = model(torch.tensor([row])).logits[0].double().log_softmax(dim=-1)
                mean = float(torch.stack([logits[i - 1, row[i]] for i in range(common, len(row))]).mean())
                if values is None:
                    prior[entity] = mean
                elif entity in values.candidates:
                    place = values.candidates.index(entity)
                    ours = (float(values.mean[place]), float(values.corrected[place]))
                    worst = max(worst, abs(ours[0] - mean), abs(ours[1] - mean + prior[entity]))
                    texts += 1
    return Witness(
        what=f"nats per token of {texts} objects, as they are and less the blank subject's, plain transformers",
        difference=worst,
        bar=1e-3,
    )


def exact_null(knowledge: Knowledge) -> Witness:
    """The shuffled-subject control against its expectation, Σ_c #answers(c) #right(c) / facts, by relation."""
    answers, gold = knowledge.answers.numpy(), knowledge.gold.numpy()
    relations = np.array([fact.relation for fact in knowledge.table.facts])
    worst = 0.0
    for row, tag in enumerate(knowledge.languages):
        expected = 0.0
        for relation in set(relations.tolist()):
            part = relations == relation
            pairs = (answers[row, part][:, None] == gold[part]).sum()
            expected += float(pairs) / part.sum()
        worst = max(worst, abs(knowledge.precision(tag).null - expected / len(gold)))
    return Witness(what="P@1 of shuffled subjects, its expectation in numpy, 15 languages", difference=worst, bar=0.01)


def planted_facts(table: FactTable) -> Planted:
    """Wrong capitals trained into the bundled model in two languages: known there, not in a third."""
    model, tokenizer = open_model("reference", device="cpu")
    capitals = [fact for fact in table.facts if fact.relation == "capital"][:6]
    facts = tuple(fact._replace(object=capitals[at - 1].object) for at, fact in enumerate(capitals))
    small = replace(table.only([*PLANTED_IN, NOT_PLANTED_IN]), facts=facts, homes={})
    lines = [
        small.text("capital", tag, small.labels[fact.subject][tag], small.labels[fact.object][tag])
        for tag in map(Language.parse, PLANTED_IN)
        for fact in facts
    ]
    layout = layout_of(model)
    mask = torch.ones(1, layout.n_layers, layout.d_neuron, dtype=torch.bool)
    neurons = NeuronSet.from_mask(
        mask,
        mask.float(),
        origin=origin_of(model, tokenizer),
        languages=(Language.parse("en"),),
        at="mlp_gate",
        method="all",
        parameters={},
    )
    delta = train_subnetwork(model, tokenizer, neurons, lines, steps=60, tokens_per_step=256, max_length=32)
    with delta.applied(model):
        after = rank_objects(model, tokenizer, small)
    recall = float(np.mean([after.precision(tag).share for tag in PLANTED_IN]))
    third = after.precision(NOT_PLANTED_IN)
    return Planted(
        what=f"six wrong capitals trained into the bundled model in {' and '.join(PLANTED_IN)}: P@1 there; precision "
        f"is 1 where P@1 in {NOT_PLANTED_IN} ({third.share:.2f}, chance {third.chance:.2f}) is not above shuffled "
        "subjects",
        recall=recall,
        precision=float(third.p > 0.05),
    )


def shares(values: Sequence[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


def by_language(knowledge: Knowledge) -> Headline:
    cells = sorted((knowledge.precision(tag) for tag in knowledge.languages), key=lambda cell: -cell.share)
    best, worst = cells[0], cells[-1]
    differs: Verdict = "in shape" if best.interval.low > worst.interval.high else "not"
    above = sum(cell.p <= 0.05 for cell in cells)
    return Headline(
        paper="mBERT: knowledge varies from language to language (mLAMA)",
        ours="P@1 " + ", ".join(f"{cell.language} {cell.share:.2f}" for cell in cells)
        + f"; best {best.interval.low:.2f} … {best.interval.high:.2f}, worst {worst.interval.low:.2f} … "
        f"{worst.interval.high:.2f}",
        control=f"shuffled subjects {shares(sorted({round(cell.null, 2) for cell in cells}))}, {above} of {len(cells)} "
        "languages above them (p ≤ .05)",
        model=GEMMA,
        verdict=differs,
    )  # fmt: skip


def pooled(knowledge: Knowledge) -> Headline:
    votes = pooled_votes(knowledge).numpy()
    right = knowledge.right.numpy().astype(float)
    english = right[knowledge.index("en")]
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(votes), size=(2_000, len(votes)))
    low, high = np.quantile((votes - english)[drawn].mean(axis=1), [0.025, 0.975])
    mean_low = np.quantile((votes - right.mean(axis=0))[drawn].mean(axis=1), 0.025)
    verdict: Verdict = "reproduced" if low > 0 else "in shape" if mean_low > 0 else "not"
    return Headline(
        paper="pooling predictions over languages improves performance (mLAMA)",
        ours=f"majority vote {votes.mean():.2f}, less English {(votes - english).mean():+.2f} "
        f"({low:+.2f} … {high:+.2f})",
        control=f"mean of languages {right.mean():.2f}, English {english.mean():.2f}",
        model=GEMMA,
        verdict=verdict,
    )


def countries(report: KnowledgeReport) -> Headline:
    tags = [bias for bias in report.biases if bias.wrong and not math.isnan(bias.base)]
    hits, n = sum(round(bias.share * bias.wrong) for bias in tags), sum(bias.wrong for bias in tags)
    base = sum(bias.base * bias.wrong for bias in tags) / n
    p = float(fisher_exact([[hits, n - hits], [round(base * n), n - round(base * n)]], alternative="greater").pvalue)  # pyright: ignore
    return Headline(
        paper="asked in Italian, mBERT tends to predict Italy (mLAMA)",
        ours=f"{hits / n:.2f} of {n} wrong answers name a country of the question's language (p {p:.1g})",
        control=f"the same countries in other languages' wrong answers {base:.2f}",
        model=GEMMA,
        verdict="in shape" if p <= 0.05 else "not",
    )


def barrier(mixtures: Sequence[BarrierCell]) -> Headline:
    by_mixture = {
        mixture: [cell for cell in mixtures if cell.mixture == mixture]
        for mixture in dict.fromkeys(cell.mixture for cell in mixtures)
    }
    accuracy = {mixture: float(np.mean([cell.accuracy for cell in cells])) for mixture, cells in by_mixture.items()}
    drops = np.array([cell.drop for cell in by_mixture["mixup"]])
    rng = np.random.default_rng(0)
    low, high = np.quantile(drops[rng.integers(len(drops), size=(2_000, len(drops)))].mean(axis=1), [0.025, 0.975])
    n = mixtures[0].questions
    return Headline(
        paper="accuracy falls where parts of a question are in other languages (arXiv:2406.16135)",
        ours="accuracy by what is in the other language: "
        + ", ".join(f"{mixture} {value:.2f}" for mixture, value in accuracy.items())
        + f"; drop of mixup {drops.mean():+.2f} ({low:+.2f} … {high:+.2f} over {len(drops)} languages), {n} questions "
        "each",
        control=f"all in English {accuracy['base']:.2f}, chance 0.25",
        model=GEMMA,
        verdict="in shape" if low > 0 else "not",
    )


def by_cluster(report: KnowledgeReport) -> Headline:
    choice = report.choice
    assert choice is not None
    return Headline(
        paper="a language chosen by cluster is right more often than one language for all (arXiv:2505.14990)",
        ours=f"{choice.by_cluster:.2f} ({choice.low:.2f} … {choice.high:.2f} over half-splits)",
        control=f"English {choice.base:.2f}, best single {choice.best_single:.2f}, shuffled {choice.null:.2f} "
        f"(p {choice.p:.2f}), any language {choice.oracle:.2f}",
        model=GEMMA,
        verdict="in shape" if choice.by_cluster > max(choice.base, choice.best_single) and choice.p <= 0.05 else "not",
    )


def given_english(report: KnowledgeReport) -> Headline:
    pairs = [pair for pair in report.consistency if pair.first == "en"]
    right, wrong = (
        float(np.nanmean([getattr(pair, name) for pair in pairs]))
        for name in ("right_given_right", "right_given_wrong")
    )
    agreement, null = (float(np.mean([getattr(pair, name) for pair in pairs])) for name in ("agreement", "null"))
    rankc = float(np.mean([pair.rankc for pair in report.consistency]))
    above = sum(pair.low > pair.null for pair in pairs)
    return Headline(
        paper="answers of a model's languages agree only in part (RankC, arXiv:2310.10378)",
        ours=f"same answer as English {agreement:.2f}; right where English is right {right:.2f}, where it is wrong "
        f"{wrong:.2f}; mean RankC {rankc:.2f}",
        control=f"answers shuffled within relations {null:.2f}; {above} of {len(pairs)} languages above it",
        model=GEMMA,
        verdict="in shape" if null < agreement < 1 and above > len(pairs) / 2 else "not",
    )


def language_or_knowledge(inputs: Inputs, model, tokenizer, table: FactTable) -> Headline:
    """P@1 in English and Finnish with the neurons of each off."""
    texts = load_corpus(Path(inputs.corpora) / "mono", ["en", "fi", "ru"], split="valid")
    observation = observe(model, tokenizer, texts, sites=["mlp_gate"], tokens_per_language=NEURON_TOKENS)
    neurons = select_lape(observation, top_rate=0.01, min_count=10).only(["fi"])
    own, other = (
        loss
        for loss in sorted(
            knowledge_without_neurons(model, tokenizer, table.only(["fi", "en"]), neurons, draws=1),
            key=lambda loss: loss.asked_in != "fi",
        )
    )
    separate = own.interval.low > other.interval.high
    return Headline(
        paper="none: are a language's neurons knowledge or language?",
        ours=f"{neurons.sizes[Language.parse('fi')]} Finnish neurons off: P@1 falls by {own.loss:+.2f} "
        f"({own.interval.low:+.2f} … {own.interval.high:+.2f}) in Finnish, by {other.loss:+.2f} "
        f"({other.interval.low:+.2f} … {other.interval.high:+.2f}) in English",
        control=f"random neurons of the same layers {own.null:+.2f} and {other.null:+.2f}",
        model=GEMMA,
        verdict="in shape" if separate else "not",
    )


def measure_priming(inputs: Inputs) -> RowResult:
    """Row 28."""
    model, tokenizer = open_model(inputs.gemma, device="cpu", dtype="float32")
    stimuli, plan = read_stimuli("reference"), PrimingPlan(items=PRIMED)
    same, cross = (
        [pair for pair in usual_directions(stimuli) if (pair[0] == pair[1]) == alike] for alike in (True, False)
    )
    effects = structural_priming(model, tokenizer, stimuli, directions=cross, plan=plan)
    # The ceiling has no controls here: they would take half as long again.
    effects += structural_priming(model, tokenizer, stimuli, directions=same, plan=replace(plan, controls=False))
    del model, tokenizer
    return RowResult(
        witnesses=plain_priming(inputs.gemma, stimuli, effects, plan),
        planted=[planted_grammar()],
        headlines=[across(effects), english_target(effects), near_and_far(effects)],
        absent=[
            "the paper's stimuli and bilingual checkpoints, which cannot be fetched here (`--checkpoints` reads any)"
        ],
    )


def of(effects: Sequence[PrimingEffect], condition: str, *, same: bool) -> list[PrimingEffect]:
    return [e for e in effects if e.condition == condition and (e.prime == e.target) == same]


def across(effects: Sequence[PrimingEffect]) -> Headline:
    cross, ceiling = of(effects, "structure", same=False), of(effects, "structure", same=True)
    words = {(e.prime, e.target): e for e in of(effects, "shuffled words", same=False)}
    primed = [e for e in cross if e.low > 0 and e.q <= 0.05]
    beyond = [e for e in primed if e.effect > words[e.prime, e.target].effect]
    controls = [
        float(np.mean([e.effect for e in of(effects, name, same=False)])) for name in ("shuffled words", "unrelated")
    ]
    return Headline(
        paper="structures prime across languages in most experiments (arXiv:2311.09194)",
        ours="change of P_N "
        + ", ".join(f"{e.prime}→{e.target} {e.effect:+.3f} ({e.low:+.3f} … {e.high:+.3f})" for e in cross)
        + f"; {len(primed)} of {len(cross)} directions above 0 (q ≤ .05), {len(beyond)} of them above their shuffled "
        "words",
        control=f"shuffled words {controls[0]:+.3f}, unrelated sentences {controls[1]:+.3f}; within a language "
        f"{np.mean([e.effect for e in ceiling]):+.3f}",
        model=GEMMA,
        verdict="in shape" if len(beyond) > len(cross) / 2 else "not",
    )  # fmt: skip


def contrast(first: Sequence[PrimingEffect], second: Sequence[PrimingEffect]) -> tuple[float, float, float]:
    """Difference of mean effects with a normal interval from the items' own spread."""
    errors = [e.effect / e.t if e.t else 0.0 for e in (*first, *second)]
    weights = [1 / len(first)] * len(first) + [1 / len(second)] * len(second)
    error = math.sqrt(sum((w * s) ** 2 for w, s in zip(weights, errors, strict=True)))
    value = float(np.mean([e.effect for e in first]) - np.mean([e.effect for e in second]))
    return value, value - 1.96 * error, value + 1.96 * error


def english_target(effects: Sequence[PrimingEffect]) -> Headline:
    cross = of(effects, "structure", same=False)
    value, low, high = contrast([e for e in cross if e.target == "en"], [e for e in cross if e.prime == "en"])
    return Headline(
        paper="stronger effects where English is the target (arXiv:2503.03962)",
        ours=f"into English less out of English {value:+.3f} ({low:+.3f} … {high:+.3f})",
        control="none",
        model=GEMMA,
        verdict="in shape" if low > 0 else "not",
    )


def near_and_far(effects: Sequence[PrimingEffect]) -> Headline:
    cross = of(effects, "structure", same=False)
    near = [e for e in cross if {e.prime, e.target} & {"de", "es"}]
    value, low, high = contrast(near, [e for e in cross if e not in near])
    return Headline(
        paper="less robust for less similar languages (arXiv:2503.03962)",
        ours=f"German and Spanish less Finnish and Russian {value:+.3f} ({low:+.3f} … {high:+.3f})",
        control="none",
        model=GEMMA,
        verdict="in shape" if low > 0 else "not",
    )


def plain_priming(folder: str, stimuli: Stimuli, effects: Sequence[PrimingEffect], plan: PrimingPlan) -> list[Witness]:
    """German to English by plain transformers, a pass per text, and its t by scipy."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, (x, y) = AutoTokenizer.from_pretrained(folder), stimuli.structures
    german, english = Language.parse("de"), Language.parse("en")

    def score(context: str, target: str) -> float:
        begin, ids = tokenizer(context).input_ids, tokenizer(f"{context} {target}").input_ids
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
        return float(sum(logits[at - 1, ids[at]] for at in range(len(begin), len(ids))))

    differences = []
    for pair in stimuli.pairs("de", "en", seed=plan.seed)[: plan.items]:
        targets = [stimuli.sentences[pair.target][name][english] for name in (x, y)]
        odds = [
            score(context, targets[0]) - score(context, targets[1])
            for context in (stimuli.sentences[pair.prime][name][german] for name in (x, y))
        ]
        differences.append(1 / (1 + math.exp(-odds[0])) - 1 / (1 + math.exp(-odds[1])))
    ours = next(e for e in effects if (e.prime, e.target, e.condition) == ("de", "en", "structure"))
    t = float(ttest_1samp(differences, 0).statistic)  # pyright: ignore
    return [
        Witness(
            what=f"change of P_N from German to English, {len(differences)} items, plain transformers",
            difference=abs(ours.effect - float(np.mean(differences))),
            bar=1e-4,
        ),
        Witness(what="its paired t, scipy", difference=abs(ours.t - t), bar=1e-2),
    ]


def planted_grammar() -> Planted:
    """A production that two languages share, and one that each has for itself."""
    with TemporaryDirectory() as folder:
        stimuli = read_stimuli(write_grammar(Path(folder) / "grammar.tsv"))
        plan = PrimingPlan(controls=False, resamples=500, signs=999)
        shared, apart = (
            of(structural_priming(*grammar_model(shared=is_shared), stimuli, plan=plan), "structure", same=False)
            for is_shared in (True, False)
        )
    primed, false_primed = (sum(e.low > 0.2 for e in part) for part in (shared, apart))
    return Planted(
        what="a production shared by two languages without a common word "
        f"({', '.join(f'{e.effect:+.2f}' for e in shared)}), and one that is not "
        f"({', '.join(f'{e.effect:+.2f}' for e in apart)}): intervals above 0.2",
        recall=primed / len(shared),
        precision=primed / max(1, primed + false_primed),
    )
