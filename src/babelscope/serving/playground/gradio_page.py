"""The page itself, a thin layer of gradio: it hands a question on and shows what came."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from babelscope.errors import PrerequisiteError, ToolkitError
from babelscope.figures import language_label
from babelscope.serving.playground.answer_markup import STYLE, answers_markup, problem_markup
from babelscope.serving.playground.offered_steering import NO_STEERING
from babelscope.serving.playground.side_by_side import (
    LONGEST_ANSWER,
    STRONGEST,
    WEAKEST,
    Playground,
    PlaygroundQuestion,
)

if TYPE_CHECKING:
    import gradio

LOCAL = "127.0.0.1"
EMPTY = '<p class="how">Write a prompt and press Answer: the plain and the steered answer appear here side by side.</p>'
ANY_TARGET = "as the steering was made for"


def check_gradio() -> None:
    """Raise PrerequisiteError where gradio is not installed."""
    if find_spec("gradio") is None:
        raise PrerequisiteError("gradio is not installed; expected it for the page; pip install 'babelscope[play]'")


def import_gradio() -> Any:
    """gradio, with its telemetry and its record of runs switched off; raises PrerequisiteError where it is missing."""
    check_gradio()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    logging.getLogger("httpx").setLevel(logging.WARNING)  # gradio calls its own address, and that is logged
    import gradio

    return gradio


def answered(playground: Playground, **fields: Any) -> str:
    """What the page shows for a question: both answers, or one line that says what is wrong with it."""
    try:
        return str(answers_markup(playground.answer(PlaygroundQuestion(**fields))))
    except ToolkitError as err:
        return str(problem_markup(str(err)))


def build_page(playground: Playground, name: str) -> "gradio.Blocks":
    """The page of a playground, with the controls that it has a use for; name: of the model, for the title."""
    gr = import_gradio()
    layers = sorted({layer for choice in playground.choices.values() for layer in choice.layers})
    choices = [*playground.choices, NO_STEERING]
    with gr.Blocks(title=f"{name}, steered", analytics_enabled=False) as page:
        where = "The page runs on this machine alone; nothing is sent anywhere."
        gr.Markdown(f"### {name}, plain and steered\nSeed {playground.seed}. {where}")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                fields = {"text": gr.Textbox(label="Prompt", lines=4, placeholder="The children walked")}
                button = gr.Button("Answer", variant="primary")
                if playground.has_chat:
                    fields["chat"] = gr.Checkbox(label="Chat, by the model's own template", value=True)
                    fields["system"] = gr.Textbox(label="System prompt, for chat", lines=1)
                fields["choice"] = gr.Dropdown(choices, value=choices[0], label="Steering")
                targets = [(ANY_TARGET, ""), *((language_label(tag), str(tag)) for tag in playground.targets)]
                fields["target"] = gr.Dropdown(targets, value=_first_target(playground), label="Language wanted")
                fields["strength"] = gr.Slider(WEAKEST, STRONGEST, value=1.0, step=0.1, label="Strength")
                if layers:
                    middle = layers[len(layers) // 4]
                    fields["layer"] = gr.Dropdown(layers, value=middle, label="Layer, for a mean direction")
                if playground.switches:
                    fields["switched_off"] = gr.Dropdown(
                        list(playground.switches),
                        value=[],
                        multiselect=True,
                        label="Neurons to switch off, at every token",
                    )
                fields["new_tokens"] = gr.Slider(8, LONGEST_ANSWER, value=64, step=8, label="New tokens, at most")
            with gr.Column(scale=2, min_width=300):
                shown = gr.HTML(EMPTY, label="Answers")

        def show(*values: Any) -> str:
            return answered(playground, **dict(zip(fields, values, strict=True)))

        keywords = {
            "inputs": list(fields.values()),
            "outputs": shown,
            "concurrency_limit": 1,
            "concurrency_id": "model",
        }
        button.click(show, api_name="answer", **keywords)
        fields["text"].submit(show, api_name=False, **keywords)
    return page


def _first_target(playground: Playground) -> str:
    """The target at first: the first language of a choice that must have one, else what it was made for."""
    first = next(iter(playground.choices.values()), None)
    return str(first.targets[0]) if first and first.targets else ""


@contextmanager
def served_page(playground: Playground, name: str, *, port: int | None = None) -> Iterator[str]:
    """The address of the page, which is served on this machine alone while the context is open.

    port: None takes the first free one from 7860 on. Raises PrerequisiteError where gradio is missing or no port is
    free.
    """
    gr = import_gradio()
    page = build_page(playground, name)
    try:
        _, address, _ = page.launch(
            server_name=LOCAL,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            enable_monitoring=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=STYLE,
        )
    except OSError as err:
        raise PrerequisiteError(f"{LOCAL}, port {port or 'any'}: {err}; expected a free one; choose a --port") from err
    try:
        yield address
    finally:
        page.close(verbose=False)
