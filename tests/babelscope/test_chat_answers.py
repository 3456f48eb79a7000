"""Answers of a chat model: prompts rendered by its template, ends of turns, plain beside steered."""

import pytest
import torch
from chat_cases import CHATML, REFUSES_SYSTEM, TALK, WITH_BOS, assistant, chat_tokenizer, system, user
from conftest import tiny_model, tiny_tokenizer
from delta_cases import bits, random_delta, same_bits
from steering_cases import vector

from babelscope import Direction, Language, Operation, Site, SteeringRecipe, compare_answers, origin_of
from babelscope.errors import ChatError, LanguageError, MeasurementError, SteeringError
from babelscope.evaluation import detect_languages
from babelscope.steering.sweeps import Decoding, Prompt, few_shot, generate_answers, instructed, make_questions
from babelscope.steering.sweeps.beside import pair_answers
from babelscope.steering.sweeps.steered_answers import Answer, ending_ids
from babelscope.steering.sweeps.steering_prompts import left_pad, prompt_ids

EN, FI = Language("en"), Language("fi")
GREEDY = Decoding(new_tokens=12, temperature=0.0)


def ask(*texts, **options):
    return [(Prompt.chat(str(i), EN, text, **options), FI) for i, text in enumerate(texts)]


def greedy(model, ids, ends, steps=12):
    """The likeliest tokens one after another, without cache, padding or generate."""
    ids, out = list(ids), []
    for _ in range(steps):
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        if token in ends:
            return out, True
        out.append(token)
        ids.append(token)
    return out, False


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("template", [CHATML, WITH_BOS], ids=["no BOS", "BOS"])
def test_answers_are_those_of_the_templates_ids_without_padding(family, template):
    model, tokenizer = tiny_model(family), chat_tokenizer(template)
    texts = ["a", "a much longer question\nof two lines", [*TALK, user("犬")]]
    answers = generate_answers(model, tokenizer, ask(*texts), decoding=GREEDY)
    ends = ending_ids(model, tokenizer)
    for text, answer in zip(texts, answers, strict=True):
        messages = [user(text)] if isinstance(text, str) else text
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        out, ended = greedy(model, ids, ends)
        special = {0, 1, 2, 259, 260}
        assert (list(answer.ids), answer.ended) == ([t for t in out if t not in special], ended)


def test_an_answer_ends_at_the_templates_end_of_turn_and_control_tokens_are_not_in_it():
    """The head is made to write a, <|im_start|>, b, <|im_end|>, c … whatever stands before."""
    model, tokenizer = tiny_model("llama"), chat_tokenizer()
    start, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    a, b, c = (tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "abc")
    (prompt,) = prompt_ids(tokenizer, [ask("x")[0][0]])
    script = [a, start, b, end, c, c, c, c]

    def scripted(module, args, kwargs, out):
        out.logits[:, -1] = torch.nn.functional.one_hot(torch.tensor([script[scripted.step]]), 300).float()
        scripted.step += 1
        return out

    scripted.step = 0
    handle = model.register_forward_hook(scripted, with_kwargs=True)
    (answer,) = generate_answers(model, tokenizer, ask("x"), decoding=Decoding(new_tokens=8, temperature=0.0))
    handle.remove()
    assert (answer.ids, answer.text, answer.ended) == ((a, b), "ab", True)


def test_the_generation_configs_ends_and_the_tokenizers_count_too():
    model, tokenizer = tiny_model("llama"), chat_tokenizer()
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.eos_token_id = [7, 2]
    assert ending_ids(model, tokenizer) == (2, 7, end)
    model.generation_config.eos_token_id = None
    assert ending_ids(model, tokenizer) == (2, end)


def test_plain_answers_are_as_long_as_asked_and_chats_are_not_mixed_with_them():
    model, tokenizer = tiny_model("llama"), chat_tokenizer()
    plain = (Prompt("9", EN, "abc"), FI)
    with pytest.raises(MeasurementError, match="1 of 2 prompts are chats"):
        generate_answers(model, tokenizer, [plain, *ask("a")], decoding=GREEDY)
    with pytest.raises(ChatError, match="no chat template"):
        generate_answers(model, tiny_tokenizer(), ask("a"), decoding=GREEDY)
    with pytest.raises(ChatError, match="System role not supported"):
        generate_answers(model, chat_tokenizer(REFUSES_SYSTEM), ask("a", system="b"), decoding=GREEDY)


def test_rows_are_padded_on_the_left_and_texts_and_chats_may_share_a_batch_of_logits():
    tokenizer = chat_tokenizer(WITH_BOS)
    prompt = Prompt.chat("0", EN, "ab")
    ids, mask = left_pad(tokenizer, ["a", prompt])
    own = tokenizer.apply_chat_template([user("ab")], add_generation_prompt=True, return_dict=False)
    assert ids[1].tolist() == own and mask[1].all()
    assert ids[0, -2:].tolist() == [1, *tokenizer("a", add_special_tokens=False)["input_ids"]]
    assert mask[0].tolist() == [0] * (len(own) - 2) + [1, 1]


def test_prompts_keep_their_turns_when_words_are_put_beside_the_question():
    prompt = Prompt.chat("0", EN, [system("s"), user("Where?")])
    ((asked, _),) = instructed([(prompt, FI)])
    assert asked.text == "Where? Vastaa suomeksi." == asked.messages[-1].content
    assert [turn.role for turn in asked.messages] == ["system", "user"]
    assert Prompt("0", EN, "a").with_text("b") == Prompt("0", EN, "b")
    from babelscope.corpus import Document, as_corpus

    examples = as_corpus({"en": [Document("1", "one two")], "fi": [Document("1", "yksi kaksi")]})
    ((shown, _),) = few_shot([(prompt, FI)], examples, shots=1)
    assert shown.messages[-1].content == shown.text == "one kaksi Where?"


def test_whole_documents_are_asked_and_a_conversation_without_its_last_answer():
    from babelscope.corpus import Conversation, Document, as_corpus, as_messages

    talk = Conversation(as_messages([user("q"), assistant("a")]), "answer")
    corpus = as_corpus({"en": ["one two three", Document("7", "a", talk)]})
    first, second = make_questions(corpus, per_language=5, system="s")
    assert [m.content for m in first.messages] == ["s", "one two three"] and first.source == "en"
    assert [m.content for m in second.messages] == ["s", "q"] and second.id == "7"


@pytest.fixture
def parts():
    model, tokenizer = tiny_model("llama"), chat_tokenizer()
    origin = origin_of(model, tokenizer)
    direction = Direction(vector() * 9, Site(1, "resid_out"), "fi", ("en",), 1.0, origin)
    return model, tokenizer, direction


def test_plain_and_steered_answers_stand_beside_each_other(parts):
    model, tokenizer, direction = parts
    pairs = compare_answers(model, tokenizer, direction, messages=["a", [user("b")]], decoding=GREEDY)
    plain = generate_answers(model, tokenizer, ask("a", "b"), decoding=GREEDY)
    steered = generate_answers(model, tokenizer, ask("a", "b"), lambda *_: [direction.add(1.0, "raw")], decoding=GREEDY)
    assert [pair.plain.ids for pair in pairs] == [answer.ids for answer in plain]
    assert [pair.steered.ids for pair in pairs] == [answer.ids for answer in steered]
    assert any(pair.plain.ids != pair.steered.ids for pair in pairs)
    again = compare_answers(model, tokenizer, direction.recipe(1.0, "raw"), messages=["a", "b"], decoding=GREEDY)
    assert [pair.steered.ids for pair in again] == [pair.steered.ids for pair in pairs]
    assert all(pair.verdict is not None for pair in pairs)


def test_one_conversation_is_one_prompt_and_texts_are_continued(parts):
    model, tokenizer, direction = parts
    one = compare_answers(model, tokenizer, direction, messages=[*TALK, user("犬")], decoding=GREEDY)
    assert len(one) == 1 and one[0].prompt.text == "犬"
    (plain,) = compare_answers(model, tokenizer, direction, ["abc"], decoding=GREEDY)
    assert plain.prompt.messages == () and len(plain.plain.ids) <= 12


def test_a_trained_delta_speaks_and_leaves_the_model_as_it_was(parts):
    model, tokenizer, _ = parts
    delta, before = random_delta(model, share=0.5, language="fi", size=1.0), bits(model)
    (pair,) = compare_answers(model, tokenizer, delta, messages="a", decoding=GREEDY)
    with delta.applied(model):
        (expected,) = generate_answers(model, tokenizer, ask("a"), decoding=GREEDY)
    assert pair.steered.ids == expected.ids != pair.plain.ids and pair.steered.target == "fi"
    assert same_bits(before, model)


def test_what_can_not_be_compared_is_one_line(parts):
    model, tokenizer, direction = parts
    for given, error, reason in (
        ({}, MeasurementError, "no prompt came"),
        ({"texts": ["a"], "system": "b"}, MeasurementError, "system prompt came without messages"),
        ({"messages": ["a"], "target": "Finnish"}, LanguageError, "write 'fi'"),
        ({"messages": ["a"], "target": "tt"}, LanguageError, "tt cannot be recognised"),
        ({"messages": [[assistant("a")]]}, ChatError, "prompt 0: the last message"),
    ):
        with pytest.raises(error, match=reason):
            compare_answers(model, tokenizer, direction, decoding=GREEDY, **given)
    other = tiny_model("gpt2")
    with pytest.raises(SteeringError):
        compare_answers(other, tokenizer, direction.recipe(1.0, "raw"), messages=["a"], decoding=GREEDY)
    operations = [Operation(Site(1, "resid_out"), "add", vector())]
    assert compare_answers(model, tokenizer, operations, messages=["a"], decoding=GREEDY)[0].verdict is None
    assert isinstance(direction.recipe(1.0, "raw"), SteeringRecipe)


def test_a_right_answer_is_labelled_with_the_target_and_not_with_a_neighbour_that_was_guessed():
    text = "ut, joutuk, joutukuk, joutukukuk"  # of all languages lingua guesses Maori; against Finnish it is Finnish
    assert detect_languages([text]) == [Language("mi")]
    answer = Answer(Prompt("0", EN, "The children walked"), FI, (), text)
    (pair,), (other,) = pair_answers([answer], [answer], FI), pair_answers([answer], [answer], Language("ru"))
    assert (pair.plain_language, pair.steered_language, pair.verdict) == ("mi", "fi", "right")
    assert (other.steered_language, other.verdict) == ("mi", "other language")
