"""Chat templates and tokenizers that the tests of chat share: a token a byte, and control tokens for turns."""

from conftest import tiny_tokenizer

TURNS = ["<|im_start|>", "<|im_end|>"]
"""Control tokens that no name of the tokenizer lists, as in chat models."""
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WITH_BOS = "{{ bos_token }}" + CHATML
OWN_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe of help.<|im_end|>\n' }}{% endif %}" + CHATML
)
REFUSES_SYSTEM = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<|im_start|>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + m['content'] | trim"
    " + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
"""As Gemma's: BOS, words stripped, no system prompt, another name for the assistant."""
FOLDS_SYSTEM = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{{ '<|im_start|>' + m['role'] + '\n' + (first if loop.first else '') + m['content'] | trim"
    " + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FORGETS_SYSTEM = CHATML.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
SHOUTS = CHATML.replace("m['content']", "m['content'] | upper")
RAISES = "{{ raise_exception('not today\nor tomorrow') }}"
BREAKS = "{{ messages[0]['content'] + 1 }}"
MARKS_ANSWERS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "with BOS": WITH_BOS,
    "own system prompt": OWN_SYSTEM,
    "as Gemma": REFUSES_SYSTEM,
    "folds system": FOLDS_SYSTEM,
    "marks answers": MARKS_ANSWERS,
}


def chat_tokenizer(template=CHATML, bos=True):
    """A tiny tokenizer with tokens for turns and a template."""
    tokenizer = tiny_tokenizer(bos)
    tokenizer.add_special_tokens({"additional_special_tokens": TURNS})
    # As tokenizers saved by others often are: the tokens are special, and no name lists them.
    tokenizer.extra_special_tokens = []
    tokenizer.chat_template = template
    return tokenizer


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


TALK = [user("What is  a cat?\n"), assistant("Kissa on\neläin."), user("¿Y 犬?"), assistant("  Koira. ")]
