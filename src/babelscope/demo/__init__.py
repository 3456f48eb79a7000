"""The main job on the bundled model and corpus: observe, identify, control, ablate, steer, report."""

from babelscope.demo.run import Budget, run_demo

__all__ = ["Budget", "run_demo"]
