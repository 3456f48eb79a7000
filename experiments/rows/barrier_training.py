"""Mixed-language training against the knowledge barrier, beside the same text unmixed (of row 38)."""

from dataclasses import replace

from planted.mixed_training import Mixed, train_mixed
from planted.upbringings import Nursery, check_mixed_training

from babelscope import load_corpus, open_model
from babelscope.adaptation import Material, adapt
from babelscope.languages import Language
from babelscope.probes.knowledge import BarrierChange, FactTable
from rows.result import Headline, Planted

BASE, MIXED_WITH = Language.parse("en"), ("de", "fi", "ru")
RELATION = "capital"
FACT_STEPS, STEPS, STEP_TOKENS = 40, 20, 512


def mixed_against_barrier(table: FactTable) -> Headline:
    """Capitals are trained into the bundled model in English alone; then it reads parallel text, mixed or not."""
    facts = tuple(fact for fact in table.facts if fact.relation == RELATION)
    capitals = replace(table.only([BASE, *MIXED_WITH]), facts=facts, homes={})
    trained = measure_mixing(capitals)
    mixed, plain = trained.change("words"), trained.change("document")
    against = trained.change("words", against="document")
    told_by = ("mixup", "full")
    lower = all(change["mixup"].interval.high < 0 for change in (mixed, against))
    rise = {unit: trained.bits[unit][BASE] - trained.bits_before[BASE] for unit in trained.bits}
    return Headline(
        paper="mixed-language training lowers the barrier (arXiv:2406.16135)",
        ours=f"{len(facts)} capitals trained in English, then {STEPS} steps of {STEP_TOKENS} tokens of parallel text "
        "mixed by 8 words; accuracy before and after: "
        + ", ".join(f"{name} {change.before:.2f} and {change.after:.2f}" for name, change in mixed.items())
        + "; change of the drop: "
        + ", ".join(f"{name} {spread(mixed[name])}" for name in told_by)
        + f"; over {len(MIXED_WITH)} languages; English text {rise['words']:+.2f} bits per byte",
        control="the same text with each document in one language, after: "
        + ", ".join(f"{name} {change.after:.2f}" for name, change in plain.items())
        + "; change of the drop: "
        + ", ".join(f"{name} {spread(plain[name])}" for name in told_by)
        + "; mixed less unmixed: "
        + ", ".join(f"{name} {spread(against[name])}" for name in told_by)
        + f"; English text {rise['document']:+.2f}",
        model="the bundled model, 9 million parameters",
        verdict="in shape" if lower else "not",
    )


def spread(change: BarrierChange) -> str:
    return f"{change.change:+.2f} ({change.interval.low:+.2f} … {change.interval.high:+.2f} over facts)"


def measure_mixing(table: FactTable) -> Mixed:
    """The barrier of a model that learnt the facts in English, and after training on text of four languages."""
    model, tokenizer = open_model("reference", device="cpu", dtype="float32")
    texts = {
        "train": load_corpus("reference", table.languages),
        "test": load_corpus("reference", [BASE], split="test").head(16),
    }
    lines = [
        table.text(fact.relation, BASE, table.labels[fact.subject][BASE], table.labels[fact.object][BASE])
        for fact in table.facts
    ]
    learning = Material.prepare(
        model,
        tokenizer,
        language=BASE,
        documents=lines,
        dev=lines,
        test=texts["test"],
        max_length=64,
        same_text=True,
    )
    learnt = adapt(
        learning,
        "full",
        steps=FACT_STEPS,
        learning_rate=1e-3,
        tokens_per_step=256,
        evaluate_every=FACT_STEPS,
        trail_every=FACT_STEPS + 1,
    )
    assert learnt.delta is not None
    learnt.delta.apply(model)
    return train_mixed(
        model,
        tokenizer,
        table,
        texts,
        ("words", "document"),
        max_length=128,
        method="full",
        steps=STEPS,
        learning_rate=3e-4,
        tokens_per_step=STEP_TOKENS,
        evaluate_every=STEPS,
        trail_every=STEPS + 1,
    )


def planted_crossing() -> Planted:
    """Facts read in one of two cloned languages, and mixed text that carries them over or cannot."""
    checks = [*check_mixed_training(Nursery(0))]
    named, truths = (sum(len(getattr(check, name)) for check in checks) for name in ("named", "truths"))
    right = sum(len(check.named & check.truths) for check in checks)
    return Planted(
        what="facts read in one of two cloned languages: the second crosses into questions and options after their own "
        "text mixed word by word, and not after the same text unmixed, nor after mixed text of other facts",
        recall=right / truths,
        precision=right / max(1, named),
    )
