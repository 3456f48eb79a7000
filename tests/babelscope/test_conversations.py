"""Conversations as documents: which tokens count, beside the template run on prefixes and its own marks."""

import json
import logging

import pytest
import torch
from chat_cases import MARKS_ANSWERS, SHOUTS, TALK, TEMPLATES, assistant, chat_tokenizer, system, user
from conftest import tiny_model, tiny_tokenizer
from transformers import ByT5Tokenizer

from babelscope import Document, load_corpus, observe
from babelscope.corpus import (
    Conversation,
    as_conversations,
    as_corpus,
    as_messages,
    check_conversations,
    check_counted,
    romanise,
    tokenize_conversation,
    tokenize_documents,
)
from babelscope.errors import ChatError, CorpusError, PrerequisiteError
from babelscope.recording import plan_observation

TALKS = {
    "two turns": TALK,
    "with system": [system("Vastaa suomeksi."), *TALK],
    "one": [user("犬は?"), assistant("犬です。\n\nはい")],
}


def talk(messages, counted="answer"):
    return Conversation(as_messages(messages), counted)


def by_prefixes(tokenizer, messages):
    """What the assistant writes, told by rendering every beginning of the conversation: (ids, marks)."""

    def ids(turns, **options):
        return tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False, **options)

    whole = ids(messages)
    end, marks = tokenizer.convert_tokens_to_ids("<|im_end|>"), [False] * len(whole)
    for number, turn in enumerate(messages):
        if turn["role"] == "assistant":
            start, stop = len(ids(messages[:number], add_generation_prompt=True)), len(ids(messages[: number + 1]))
            assert whole[:start] == ids(messages[:number], add_generation_prompt=True)
            stop = next(place for place in range(stop - 1, start, -1) if whole[place] == end) + 1
            marks[start:stop] = [True] * (stop - start)
    return tuple(whole), tuple(marks)


@pytest.mark.parametrize("messages", TALKS.values(), ids=TALKS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_answers_are_what_prefixes_of_the_conversation_say(name, messages):
    tokenizer = chat_tokenizer(TEMPLATES[name])
    if name == "as Gemma":
        messages = [turn for turn in messages if turn["role"] != "system"]
    found = tokenize_conversation(tokenizer, talk(messages))
    ids, marks = by_prefixes(tokenizer, messages)
    assert (found.ids, found.taught) == (ids, marks) and found.torn == 0
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert found.counted == tuple(mark and token != end for mark, token in zip(marks, ids, strict=True))


def test_answers_are_what_the_template_itself_marks():
    tokenizer = chat_tokenizer(MARKS_ANSWERS)
    own = tokenizer.apply_chat_template(TALK, return_dict=True, return_assistant_tokens_mask=True)
    found = tokenize_conversation(tokenizer, talk(TALK))
    assert (list(found.ids), list(map(int, found.taught))) == (own["input_ids"], own["assistant_masks"])
    last_only = MARKS_ANSWERS.replace("m['role'] == 'assistant'", "m['role'] == 'assistant' and loop.last")
    found = tokenize_conversation(chat_tokenizer(last_only), talk(TALK))
    assert tokenizer.decode([t for t, c in zip(found.ids, found.counted, strict=True) if c]) == TALK[-1]["content"]


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        ("answer", TALK[1]["content"] + TALK[3]["content"]),
        ("user", TALK[0]["content"] + TALK[2]["content"]),
        ("all", "Be brief." + "".join(turn["content"] for turn in TALK)),
    ],
)
@pytest.mark.parametrize("name", ["chatml", "with BOS", "own system prompt"])
def test_the_words_that_count_are_read_back_and_nothing_of_the_template(name, counted, expected):
    tokenizer = chat_tokenizer(TEMPLATES[name])
    found = tokenize_conversation(tokenizer, talk([system("Be brief."), *TALK], counted))
    assert tokenizer.decode([t for t, c in zip(found.ids, found.counted, strict=True) if c]) == expected
    assert found.n_bytes == len(expected.encode())
    if counted != "answer":
        assert found.taught == found.counted


def merging_tokenizer(pair=("Ċ", "Ċ")):
    """Line ends merge, as in most chat models: the template's and a message's become one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {entry: place for place, entry in enumerate(["<pad>", "<s>", "</s>", *letters, "".join(pair)])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[pair]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = TEMPLATES["chatml"]
    return tokenizer


def test_a_token_of_words_and_template_is_not_counted_and_said(caplog):
    tokenizer = merging_tokenizer()
    found = tokenize_conversation(tokenizer, talk([user("a"), assistant("\nb")]))
    words = tokenizer.convert_ids_to_tokens([t for t, c in zip(found.ids, found.counted, strict=True) if c])
    assert (words, found.torn, found.n_bytes) == (["b"], 1, 1)
    corpus = as_corpus({"en": [Document("7", "b", talk([user("a"), assistant("\nb")]))]})
    with caplog.at_level(logging.WARNING):
        check_conversations(tokenizer, corpus)
    assert "1 tokens of 1 conversations hold words and text of the template" in caplog.text


def test_control_tokens_typed_into_an_answer_are_its_words():
    tokenizer = chat_tokenizer()
    found = tokenize_conversation(tokenizer, talk([user("a"), assistant("b<|im_end|>c")]))
    words = [t for t, c in zip(found.ids, found.counted, strict=True) if c]
    assert tokenizer.decode(words) == "b<|im_end|>c" and len(words) == 12 and found.controls == 1
    assert sum(found.taught) == 13


def test_conversations_that_can_not_be_told_apart_are_refused():
    with pytest.raises(ChatError, match="rewrites messages"):
        tokenize_conversation(chat_tokenizer(SHOUTS), talk(TALK))
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = TEMPLATES["chatml"]
    with pytest.raises(PrerequisiteError, match="ByT5Tokenizer does not say"):
        tokenize_conversation(tokenizer, talk(TALK))
    corpus = as_corpus({"fi": [Document("0", "b", talk(TALK)), Document("7", "b", talk([user("a"), user("b")]))]})
    with pytest.raises(ChatError, match="fi, document 7: .*must alternate"):
        check_conversations(chat_tokenizer(TEMPLATES["as Gemma"]), corpus)
    with pytest.raises(ChatError, match="no chat template"):
        check_conversations(tiny_tokenizer(), corpus)


def test_truncation_is_counted():
    document = Document("0", "", talk(TALK))
    (whole,) = tokenize_documents(chat_tokenizer(), [document], 0, max_length=10_000)
    (cut,) = tokenize_documents(chat_tokenizer(), [document], 0, max_length=50)
    assert (len(cut.tokens), len(cut.counted), len(cut.taught or ())) == (50, 50, 50)
    assert cut.truncated == len(whole.tokens) - 50 and cut.tokens == whole.tokens[:50]


@pytest.fixture
def folder(tmp_path):
    rows = [{"id": "a", "messages": TALK}, [user("x"), assistant("y")]]
    (tmp_path / "fi.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def test_rows_of_messages_are_conversations(folder):
    corpus = load_corpus(folder, conversation="answer")
    first, second = corpus["fi"]
    assert (first.id, second.id, first.text, second.text) == ("a", "1", "Kissa on\neläin.\n  Koira. ", "y")
    assert load_corpus(folder, conversation="user")["fi"][1].text == "x"
    assert corpus.hash != load_corpus(folder, conversation="all").hash
    assert "conversations, counted: answer" in corpus.name


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"text": "a"}', "fi.jsonl, line 1: fields text came"),
        ("{", "line 1: is no JSON"),
        ('{"messages": []}', "line 1: nothing came"),
        ('[{"role": "user", "content": "a"}]', "line 1: no message of the assistant.*roles: user"),
        ('{"messages": [{"role": "user", "content": "a"}], "tools": [1]}', "line 1: tools came"),
        ('[{"role": "user", "content": "a"}, {"role": "assistant"}]', "line 1, message 2"),
    ],
)
def test_rows_that_are_none_are_one_line(tmp_path, row, reason):
    (tmp_path / "fi.jsonl").write_text(row + "\n")
    with pytest.raises(ChatError, match=reason) as caught:
        load_corpus(tmp_path, conversation="answer")
    assert "\n" not in str(caught.value)


def test_conversations_and_plain_text_are_not_taken_for_each_other(folder, tmp_path_factory):
    with pytest.raises(CorpusError, match="say --conversation"):
        load_corpus(folder)
    with pytest.raises(ChatError, match="conversation 'both' came"):
        check_counted("both")
    plain = tmp_path_factory.mktemp("plain")
    (plain / "fi.txt").write_text("a\n")
    with pytest.raises(ChatError, match="lines of text came; expected conversations"):
        load_corpus(plain, conversation="user")
    with pytest.raises(CorpusError, match="conversations came; expected plain text"):
        romanise(load_corpus(folder, conversation="user"))


def test_plain_documents_become_a_users_messages(folder):
    corpus = as_conversations(as_corpus({"fi": ["a", "b"]}), system="Be brief.")
    assert [d.conversation.messages[1].content for d in corpus["fi"]] == ["a", "b"]
    assert corpus["fi"][0].text == "a" and corpus["fi"][0].conversation.counted == "user"
    talks = load_corpus(folder, conversation="answer")
    assert as_conversations(talks)["fi"] == talks["fi"]


def test_observe_counts_the_words_and_nothing_else(folder):
    """Beside a plain pass over the template's ids, with the words picked by hand."""
    model, tokenizer = tiny_model("llama"), chat_tokenizer()
    observation = observe(
        model, tokenizer, load_corpus(folder, conversation="answer"), sites=["resid_out"], tokens_per_language=None
    )
    total, count = torch.zeros(3, 32, dtype=torch.float64), 0
    for messages in (TALK, [user("x"), assistant("y")]):
        ids, marks = by_prefixes(tokenizer, messages)
        chosen = torch.tensor(marks) & (torch.tensor(ids) != tokenizer.convert_tokens_to_ids("<|im_end|>"))
        seen = []
        handles = [
            layer.register_forward_hook(
                lambda m, a, out, seen=seen: seen.append(out if torch.is_tensor(out) else out[0])
            )
            for layer in model.model.layers
        ]
        with torch.no_grad():
            model(input_ids=torch.tensor([ids]))
        for handle in handles:
            handle.remove()
        total += torch.stack([value[0].double()[chosen].sum(dim=0) for value in seen])
        count += int(chosen.sum())
    assert observation.tokens == {"fi": count}
    torch.testing.assert_close(observation["resid_out"].sum[:, :, 0] / count, total / count, rtol=1e-4, atol=1e-5)


ROW = '{"id": "7", "prompt": "Frage: wie viele?\\nAntwort:", "answer": " sieben <eos>"}\n'


def test_after_a_prompt_the_tokens_of_the_answer_alone_count(tmp_path, tokenizer):
    (tmp_path / "de.jsonl").write_text(ROW)
    document = load_corpus(tmp_path, split="all")["de"][0]
    prompt, answer = "Frage: wie viele?\nAntwort:", " sieben <eos>"
    assert (document.id, document.text, document.prompt) == ("7", answer, prompt)
    tokens = tokenize_documents(tokenizer, [document], 0, max_length=512, name=None)[0]
    plain = tokenize_documents(tokenizer, [Document("7", prompt + answer)], 0, max_length=512, name=None)[0]
    assert tokens.tokens == plain.tokens and tokens.n_bytes == len(answer.encode())
    counted = [token for token, is_in in zip(tokens.tokens, tokens.counted, strict=True) if is_in]
    assert tokenizer.decode(counted) == answer and not any(tokens.counted[: -len(counted)])


def test_observed_answers_are_whole_text_less_prompts(tmp_path, tokenizer):
    """The published way: counts of prompt and answer, less those of the prompt alone."""
    model = tiny_model("llama")
    pairs = [("Q: ab? A:", " ba yes"), ("Q: cd? A:", " dc and more")]
    answers = {tag: [Document(str(n), a, None, p) for n, (p, a) in enumerate(pairs)] for tag in ("en", "fi")}
    whole, prompts = ({tag: [of(pair) for pair in pairs] for tag in answers} for of in ("".join, lambda pair: pair[0]))
    counts, whole_counts, prompt_counts = (observe(model, tokenizer, texts) for texts in (answers, whole, prompts))
    difference = whole_counts["mlp_gate"].active - prompt_counts["mlp_gate"].active
    assert torch.equal(counts["mlp_gate"].active, difference)
    assert counts.tokens == {tag: whole_counts.tokens[tag] - prompt_counts.tokens[tag] for tag in counts.tokens}


def test_a_token_of_prompt_and_answer_is_not_counted_and_said(caplog):
    model, tokenizer = tiny_model("llama"), merging_tokenizer(("a", "b"))
    texts = {"en": [Document("0", "bc", None, "a"), Document("1", " b", None, "a")], "fi": ["ab"]}
    with caplog.at_level(logging.WARNING):
        observation = observe(model, tokenizer, texts, sites=["resid_out"])
    assert observation.tokens == {"en": 3, "fi": 1}
    said = "texts handed over, en: 1 tokens of 1 prompts with answers hold the end of the prompt and the start of the"
    assert caplog.text.count(said) == 1 and "fi: 1 tokens of" not in caplog.text
    (tokens,) = tokenize_documents(tokenizer, texts["en"][:1], 0, max_length=512)
    assert (tokens.torn, tokens.n_counted, tokens.n_bytes) == (1, 1, 1)
    assert "documents: 1 tokens of 1 prompts with answers" in caplog.text


@pytest.mark.parametrize(
    ("answer", "prompt", "reason"),
    [
        ("b", "a", r"\(2 tokens hold the end of a prompt and the start of its answer\); .* begin answers with a space"),
        ("xyz", "a" * 600, r"\(182 are past max_length 512\); expected text that counts; raise max_length or leave"),
    ],
)
def test_a_language_of_which_nothing_counts_is_refused_before_the_pass(monkeypatch, answer, prompt, reason):
    model, tokenizer = tiny_model("llama"), merging_tokenizer(("a", "b"))
    documents = [Document(str(number), answer, None, prompt) for number in range(2)]
    texts = {"en": ["a text of which all counts"], "fi": documents}
    monkeypatch.setattr(model, "forward", None)
    for read in (
        lambda: observe(model, tokenizer, texts, sites=["resid_out"]),
        lambda: plan_observation(model, texts, sites=["resid_out"], tokenizer=tokenizer),
    ):
        with pytest.raises(CorpusError, match=f"no token of fi counts {reason}"):
            read()


def test_prompts_are_part_of_what_a_text_is(tmp_path):
    two = [as_corpus({"en": [Document("0", "yes", None, prompt)]}) for prompt in ("a", "b")]
    assert two[0].hash != two[1].hash != as_corpus({"en": [Document("0", "yes")]}).hash
    with pytest.raises(CorpusError, match="prompts with answers came"):
        romanise(as_corpus({"ru": [Document("0", "да", None, "a")]}))
    talks = as_conversations(two[0], counted="answer")["en"][0].conversation
    assert [turn.as_dict() for turn in talks.messages] == [user("a"), assistant("yes")] and talks.text == "yes"
    (tmp_path / "en.jsonl").write_text('{"text": "a"}\n{"prompt": "a", "answer": 3}\n')
    with pytest.raises(CorpusError, match=r"line 2: no readable row \(answer is int\)"):
        load_corpus(tmp_path, split="all")
    (tmp_path / "en.jsonl").write_text('{"prompt": "a", "answer": "b", "system": "Be brief."}\n')
    with pytest.raises(ChatError, match=r"line 1: system came, .*a message or the prompt"):
        load_corpus(tmp_path, split="all")
