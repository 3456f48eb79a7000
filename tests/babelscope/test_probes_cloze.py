"""Sentences with a gap: the bundled table, the prompts, and the lens against plain transformers."""

import re

import pytest
import torch
from conftest import tiny_model, tiny_tokenizer

from babelscope import open_model
from babelscope.cli import main
from babelscope.errors import CorpusError, LanguageError, MeasurementError
from babelscope.languages import Language
from babelscope.probes.lens.cloze import GAP, PARTS, ClozeTask, cloze_prompts, latent_cloze, read_cloze
from babelscope.probes.lens.prompt_answers import PromptAnswers, answer_tokens, read_answers
from babelscope.probes.lens.translations import languages_with, latent_answers
from babelscope.reference import CLOZE

EN, DE = Language("en"), Language("de")
HEAD = "part\tname\ten\tde\n"


def table(tmp_path, *lines):
    path = tmp_path / "cloze.tsv"
    path.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_every_bundled_sentence_has_one_gap_and_does_not_say_its_word():
    task = read_cloze("reference")
    assert task.languages == ("en", "de", "fr", "es", "ru", "zh") and len(task.sentences) == 44 and CLOZE.is_file()
    for name, sentences in task.sentences.items():
        assert set(sentences) == set(task.words[name]) == set(task.languages)
        for tag, sentence in sentences.items():
            word, rest = task.words[name][tag].casefold(), sentence.replace(GAP, "").casefold()
            assert sentence.count(f'"{GAP}"') == 1 and not re.search(r"\s", word)
            assert word not in rest if tag == "zh" else not re.search(rf"\b{word}", rest), (word, sentence)
    for tag in task.languages:
        words = [by_tag[tag] for by_tag in task.words.values()]
        assert len(set(words)) == len(words), tag


def test_a_prompt_has_solved_sentences_and_the_open_one():
    task = read_cloze("reference")
    prompts = cloze_prompts(task, "de", shots=2, seed=3)
    assert [prompt.concept for prompt in prompts] == list(task.sentences)
    prompt = next(prompt for prompt in prompts if prompt.concept == "dog")
    *solved, open_one = prompt.text.split("\n")
    assert open_one == 'Ein "___" ist ein Tier, das bellt und das Haus bewacht. Antwort: "' and len(solved) == 2
    answers = {by_tag[DE] for name, by_tag in task.words.items() if name != "dog"}
    assert all(line.endswith('"') and line.split('Antwort: "')[1][:-1] in answers for line in solved)
    assert prompts == cloze_prompts(task, "de", shots=2, seed=3) != cloze_prompts(task, "de", shots=2, seed=4)


def test_the_mass_at_the_end_is_that_of_the_models_own_softmax():
    model, tokenizer = open_model("reference")
    task = read_cloze("reference")
    result = latent_cloze(model, tokenizer, task, language="de", entries="first", draws=9, resamples=9)
    prompts = {prompt.concept: prompt.text for prompt in cloze_prompts(task, "de")}
    tokens = answer_tokens(tokenizer, task.words, result.concepts, result.languages)
    masses = []
    for at, concept in enumerate(result.concepts):
        with torch.no_grad():
            p = torch.softmax(model(**tokenizer(prompts[concept], return_tensors="pt")).logits[0, -1], dim=-1)
        masses.append([float(p[tokens.entries[tokens.member[at, k]]].sum()) for k in range(len(result.languages))])
    assert torch.allclose(result.mass[-1], torch.tensor(masses).double().mean(dim=0), atol=1e-6)
    assert result.cloze and {row.claim for row in result.rows()} == {"logit lens, right word of a cloze, probability"}


def test_answers_are_read_of_any_prompts():
    model, tokenizer = open_model("reference")
    task = read_cloze("reference")
    prompts = cloze_prompts(task, "de")
    whole = latent_answers(model, tokenizer, task.words, prompts, source="de", target="de", draws=9, resamples=9)
    assert not whole.cloze and torch.equal(
        whole.mass, latent_cloze(model, tokenizer, task, language="de", draws=9, resamples=9).mass
    )
    assert languages_with(task.words, ("de",)) == task.languages
    assert PromptAnswers.__name__ in repr(PromptAnswers) and read_answers.__doc__ is not None


def test_the_probe_of_the_lens_fills_gaps_where_sentences_are_given(tmp_path, capsys):
    words = ["probe", "reference", "reference", "--probe", "lens", "--languages", "en", "de", "--cloze", "reference"]
    assert main([*words, "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    assert (tmp_path / "out" / "lens" / "cloze.html").is_file()
    rows = (tmp_path / "out" / "lens" / "results.jsonl").read_text().splitlines()
    assert sum("right word of a cloze" in row for row in rows) == 9 * 6
    words[words.index("de")] = "fi"
    assert main([*words, "--out", str(tmp_path / "bad"), "--device", "cpu"]) == 1
    assert "expected a language of both beside en" in capsys.readouterr().err.splitlines()[-1]


def test_bad_tables_are_one_line(tmp_path):
    label = "label\tanswer\tAnswer:\tAntwort:"
    good = ["sentence\tdog\tA ___ barks.\tEin ___ bellt.", "word\tdog\tdog\tHund"]
    task = read_cloze(table(tmp_path, label, *good))
    assert isinstance(task, ClozeTask) and task.words["dog"][DE] == "Hund" and PARTS[0] == "label"
    with pytest.raises(CorpusError, match="line 3: 'A dog barks.' has 0 gaps; expected one ___"):
        read_cloze(table(tmp_path, label, "sentence\tdog\tA dog barks.\t", good[1]))
    with pytest.raises(CorpusError, match="1 labels, dog without sentence or word"):
        read_cloze(table(tmp_path, label, good[0]))
    with pytest.raises(CorpusError, match="0 labels, no concept without"):
        read_cloze(table(tmp_path, *good))
    with pytest.raises(CorpusError, match="part 'words' with 4 cells; expected one of label, sentence, word"):
        read_cloze(table(tmp_path, label, "words\tdog\tdog\tHund"))
    with pytest.raises(CorpusError, match="word 'dog' came before"):
        read_cloze(table(tmp_path, label, *good, good[1]))
    with pytest.raises(CorpusError, match="expected part, name and language tags"):
        read_cloze(_file(tmp_path, "en\tde\ndog\tHund\n"))
    with pytest.raises(MeasurementError, match="1 sentences in de for 4 shots"):
        cloze_prompts(task, "de")
    with pytest.raises(LanguageError, match="no sentence in 'fi'"):
        latent_cloze(tiny_model("llama"), tiny_tokenizer(), task, language="fi")


def _file(folder, text):
    path = folder / "other.tsv"
    path.write_text(text, encoding="utf-8")
    return path
