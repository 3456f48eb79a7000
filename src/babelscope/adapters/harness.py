"""lm-evaluation-harness's own command line, in which `--model babelscope` is known.

    python -m babelscope.adapters.harness run --model babelscope --model_args pretrained=MODEL,steering=RECIPE --tasks …

The harness 0.4 looks for models in its own list alone, so what stands beside it has to be imported first.
"""

from lm_eval.__main__ import cli_evaluate

from babelscope.adapters.lm_eval import SteeredLM

__all__ = ["SteeredLM", "cli_evaluate"]

if __name__ == "__main__":
    cli_evaluate()
