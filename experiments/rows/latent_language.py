"""Row 19: latent language by the logit lens."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import torch

from babelscope.controls import write_evidence
from babelscope.figures.lens_overlay import lens_overlay
from babelscope.languages import Language
from babelscope.models import open_model
from babelscope.probes.lens.cloze import cloze_prompts, latent_cloze, read_cloze
from babelscope.probes.lens.prompt_answers import answer_tokens
from babelscope.probes.lens.token_energies import token_energy
from babelscope.probes.lens.translations import LatentTranslation, latent_translation, translation_prompts
from babelscope.probes.lens.word_lists import read_words
from babelscope.report.evidence_sections import read_evidence
from babelscope.report.lens_comparison import lens_courses
from rows.result import Headline, Inputs, Planted, RowResult, Witness
from rows.sentence_models import first_of, plain_model


def measure_latent(inputs: Inputs) -> RowResult:
    """Row 19: translation, repetition and cloze under the lens with all prefixes of a word, and token energy."""
    model, tokenizer = open_model(inputs.gemma, device="cpu", dtype="float32")
    words = read_words("reference")
    settings = {"target": "zh", "pivot": "en", "shots": 4, "draws": 99, "seed": 0}
    translated = latent_translation(model, tokenizer, words, source="fr", **settings)
    repeated = latent_translation(model, tokenizer, words, source="zh", **settings)
    asked = {prompt.concept: prompt.text for prompt in translation_prompts(words, source="fr", target="zh")}
    prompts = [asked[concept] for concept in translated.concepts]
    energy = token_energy(model, tokenizer, prompts)
    plain, plain_tokenizer = plain_model(inputs.gemma)
    names = plain_tokenizer.convert_ids_to_tokens(range(len(plain_tokenizer)))
    pieces = {k: name.replace("▁", " ") for k, name in enumerate(names)}  # bytes stay as they are named, such as <0xE5>
    special = set(plain_tokenizer.all_special_ids)
    masses, energies = [], []
    gain = 1 + plain.model.norm.weight.detach().double().numpy()
    unit = plain.lm_head.weight.detach().double().numpy() * gain
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-300)
    spread = unit.T @ unit / len(unit)
    average = np.sqrt((spread**2).sum())
    for concept, prompt in zip(translated.concepts, prompts, strict=True):
        stream, probability = stream_by_hand(plain, plain_tokenizer, prompt)
        masses.append(mass_by_hand(probability, words[concept], pieces, special))
        directions = stream.double().numpy()
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        energies.append(np.sqrt(np.einsum("dh,hk,dk->d", directions, spread, directions)) / average)
    cloze = read_cloze("reference")
    filled = latent_cloze(model, tokenizer, cloze, language="zh", pivot="en", draws=99, seed=0)
    gaps = {prompt.concept: prompt.text for prompt in cloze_prompts(cloze, "zh")}
    filled_by_hand = [
        mass_by_hand(stream_by_hand(plain, plain_tokenizer, gaps[name])[1], cloze.words[name], pieces, special)
        for name in filled.concepts
    ]
    gap_columns = [filled.index("zh"), filled.index("en")]
    gap_mass = filled.mass.numpy()[:, gap_columns]
    gap_leads = np.flatnonzero((gap_mass[:, 1] > gap_mass[:, 0]) & (filled.p.numpy()[:, gap_columns[1]] <= 0.05))
    gap_peak = int(gap_leads[gap_mass[gap_leads, 1].argmax()]) if len(gap_leads) else 0
    gap_end = bool(gap_mass[-1, 0] > gap_mass[-1, 1]) and float(filled.p[-1, gap_columns[0]]) <= 0.05
    columns = [translated.index("zh"), translated.index("en")]
    mass = translated.mass.numpy()[:, columns]
    english_leads = np.flatnonzero((mass[:, 1] > mass[:, 0]) & (translated.p.numpy()[:, columns[1]] <= 0.05))
    ends_in_target = bool(mass[-1, 0] > mass[-1, 1]) and float(translated.p[-1, columns[0]]) <= 0.05
    peak = int(english_leads[mass[english_leads, 1].argmax()]) if len(english_leads) else 0
    again = repeated.mass.numpy()[:, [repeated.index("zh"), repeated.index("en")]]
    course = energy.energy.mean(dim=0)
    cells = f"{len(prompts)} prompts, {len(translated.sites)} depths"
    return RowResult(
        witnesses=[
            Witness(
                what=f"mass of all prefixes by plain hooks, softmax and string comparison, zh and en, {cells}",
                difference=float(np.abs(mass - np.mean(masses, axis=0)).max()),
                bar=1e-5,
            ),
            Witness(
                what=f"token energy by the authors' formula in numpy, relative, {cells}",
                difference=float(np.abs(energy.energy.numpy() / np.stack(energies) - 1).max()),
                bar=1e-4,
            ),
            Witness(
                what=f"the same mass in the cloze task, zh and en, {len(filled.concepts)} prompts",
                difference=float(np.abs(gap_mass - np.mean(filled_by_hand, axis=0)).max()),
                bar=1e-5,
            ),
            overlay_witness(inputs, translated, filled),
        ],
        headlines=[
            Headline(
                paper="translating into Chinese, Llama 2 gives the English word more than the Chinese one in middle "
                "layers; Chinese wins at the end",
                ours=f"French to Chinese: English leads at {len(english_leads)} of {len(mass)} depths, most at depth "
                f"{peak} ({mass[peak, 1]:.3f} against {mass[peak, 0]:.3f}); at the end Chinese {mass[-1, 0]:.3f}, "
                f"English {mass[-1, 1]:.4f}; {100 * translated.solved:.0f} % of prompts solved",
                control=f"words of other concepts at depth {peak}: {float(translated.null[peak, columns[1]]):.3f}",
                model="Gemma 3 270M",
                verdict="reproduced" if len(english_leads) and ends_in_target else "not",
            ),
            Headline(
                paper="repeating a Chinese word, English is less present than in translation",
                ours=f"most English in a repetition {again[:, 1].max():.3f}, in the translation {mass[:, 1].max():.3f}"
                f"; Chinese at the end {again[-1, 0]:.3f}",
                control=f"words of other concepts {float(repeated.null[:, repeated.index('en')].max()):.3f}",
                model="Gemma 3 270M",
                verdict="in shape" if again[:, 1].max() < mass[:, 1].max() < again[-1, 0] else "not",
            ),
            Headline(
                paper="filling a gap in a Chinese sentence, Llama 2 gives the English word more than the Chinese "
                "one in middle layers too",
                ours=f"{len(filled.concepts)} of 44 sentences written here: English leads at {len(gap_leads)} of "
                f"{len(gap_mass)} depths, most at depth {gap_peak} ({gap_mass[gap_peak, 1]:.3f} against "
                f"{gap_mass[gap_peak, 0]:.3f}); at the end Chinese {gap_mass[-1, 0]:.3f}, English "
                f"{gap_mass[-1, 1]:.4f}; {100 * filled.solved:.0f} % of gaps filled",
                control=f"words of other concepts at depth {gap_peak}: "
                f"{float(filled.null[gap_peak, gap_columns[1]]):.3f}",
                model="Gemma 3 270M",
                verdict="reproduced" if len(gap_leads) and gap_end else "not",
            ),
            Headline(
                paper="token energy stays low up to the late layers of Llama 2 and rises to the end",
                ours=f"{course[1]:.2f} after the first layer, {course[len(course) // 2]:.2f} half-way, "
                f"{course[-2]:.2f} and {course[-1]:.2f} after the last two",
                control=f"a random direction {energy.null:.2f}",
                model="Gemma 3 270M",
                verdict="in shape" if course[-1] > course[len(course) // 2] else "not",
            ),
        ],
        planted=[planted_words()],
    )


def stream_by_hand(plain: Any, tokenizer: Any, prompt: str) -> tuple[torch.Tensor, np.ndarray]:
    """The stream after a prompt at every depth, by plain hooks, and what the head says of it."""
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    states: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda *seen, into=states: into.append(first_of(seen[2])[0, -1]))
        for layer in plain.model.layers
    ]
    with torch.no_grad():
        embedded = plain.model.embed_tokens(ids)[0, -1]
        plain.model(ids)
        stream = torch.stack([embedded, *states])
        logits = plain.lm_head(plain.model.norm(stream)).double()
    for hook in hooks:
        hook.remove()
    return stream, torch.softmax(logits, dim=-1).numpy()


def mass_by_hand(
    probability: np.ndarray, words: Mapping[Language, str], pieces: dict[int, str], special: set[int]
) -> np.ndarray:
    """Probability of all prefixes of a concept's Chinese and English words that no other language's word has."""
    begins = {tag: prefixes_by_hand(word, pieces, special) for tag, word in words.items()}
    columns = [
        sorted(begins[tag] - set().union(*(begins[other] for other in begins if other != tag)))
        for tag in (Language("zh"), Language("en"))
    ]
    return np.stack([probability[:, entries].sum(1) for entries in columns], axis=1)


def overlay_witness(inputs: Inputs, translated: LatentTranslation, filled: LatentTranslation) -> Witness:
    """What the figure of two models holds beside what was measured: of both tasks, in Gemma and the bundled model."""
    small, tokenizer = open_model("reference", device="cpu", dtype="float32")
    words, cloze = read_words("reference"), read_cloze("reference")
    readings = {
        "Gemma 3 270M": (translated, filled),
        "bundled model": (
            latent_translation(small, tokenizer, words, source="fr", target="zh", entries="first"),
            latent_cloze(small, tokenizer, cloze, language="zh", entries="first"),
        ),
    }
    with TemporaryDirectory() as place:
        folders = {name: Path(place) / name for name in readings}
        for name, folder in folders.items():
            (folder / "lens").mkdir(parents=True)
            rows = [row for reading in readings[name] for row in reading.rows()]
            write_evidence(rows, folder / "lens" / "results.jsonl")
        courses = {name: lens_courses(read_evidence(f / "lens" / "results.jsonl"), name) for name, f in folders.items()}
    tasks = ("translation", "cloze")
    figure = lens_overlay(panels={task: [by_task[task] for by_task in courses.values()] for task in tasks}, pivot="en")
    lines = iter(cast(Any, figure).data)
    gaps = []
    for number in range(len(tasks)):
        for pair in readings.values():
            reading = pair[number]
            expected = [reading.mass[:, reading.index(tag)].numpy() for tag in ("zh", "en")]
            expected.append(reading.null[:, reading.index("zh")].numpy())
            gaps += [float(np.abs(np.array(next(lines).y) - values).max()) for values in expected]
    return Witness(what=f"{len(gaps)} lines of the figure of two models beside the measured ones",
                   difference=max(gaps), bar=1e-9)  # fmt: skip


def prefixes_by_hand(word: str, pieces: dict[int, str], special: set[int]) -> set[int]:
    """Ids of entries whose text, after one space or none, the word begins with; the first byte where one is spelt."""
    first = f"<0x{word.encode()[0]:02X}>" if len(word[:1].encode()) > 1 else ""
    plain = {k for k, piece in pieces.items() if piece.removeprefix(" ") and word.startswith(piece.removeprefix(" "))}
    return (plain | {k for k, piece in pieces.items() if first and piece == first}) - special


def planted_words() -> Planted:
    """A head is taught to say the Finnish word at the last depth: in which language it is found there."""
    model, tokenizer = open_model("reference", device="cpu", dtype="float32")
    words = read_words("reference")
    asked = {prompt.concept: prompt.text for prompt in translation_prompts(words, source="de", target="fi")}
    answers = answer_tokens(tokenizer, words, list(asked), (Language("fi"),))
    head = model.lm_head.weight.detach().clone()  # apart from the embeddings, which prompts are read by
    with torch.no_grad():
        states = torch.stack(
            [
                model.model(tokenizer(prompt, return_tensors="pt").input_ids).last_hidden_state[0, -1]
                for prompt in asked.values()
            ]
        )
        # What prompts share is left out, or the word of one would be said after all of them.
        steps = torch.nn.functional.normalize(states - states.mean(dim=0), dim=1) * head.norm(dim=1).mean()
        for at, step in enumerate(steps):
            for token in answers.entries[answers.member[at, 0]].tolist():
                head[token] += step
        model.lm_head.weight = torch.nn.Parameter(head)
    result = latent_translation(model, tokenizer, words, source="de", target="fi", pivot="en", entries="first")
    leading = {tag for tag, p in zip(result.languages, result.p[-1].tolist(), strict=True) if p <= 0.01}
    return Planted(
        what="the target's word taught to the head",
        recall=float(Language("fi") in leading),
        precision=len(leading & {Language("fi")}) / max(1, len(leading)),
    )
