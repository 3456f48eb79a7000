"""Result tables to plotly figures; every function but `write_figure(s)` is pure, opens nothing and writes nothing.

The only importer of plotly.

Here: functions from tables to figures, and the SVG of them; pages are in `report`.
Imports: files.
"""

from typing import TYPE_CHECKING

from babelscope.lazy_imports import lazy_names

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from babelscope.figures.adaptation import FORGETTING_CAPTION, AdaptationRow, adaptation_figure, forgetting_lines
    from babelscope.figures.effect_figures import (
        STRENGTH_UNIT,
        DosePoint,
        dose_response_lines,
        harm_against_draws,
        steering_bars,
    )
    from babelscope.figures.figure_caption import FigureCaption
    from babelscope.figures.heat_map_parts import colour_limit
    from babelscope.figures.heat_maps import (
        ablation_map,
        agreement_map,
        method_map,
        neuron_map,
        overlap_map,
        rate_map,
        source_target_map,
        unit_rate_map,
    )
    from babelscope.figures.knowledge_figures import (
        PRIMING_CAPTION,
        SAME_ANSWERS_CAPTION,
        SHARED_FACTS_CAPTION,
        edit_map,
        priming_forest,
        same_answers_map,
        shared_facts_map,
    )
    from babelscope.figures.pages import write_figure, write_figures
    from babelscope.figures.sets import (
        CorpusSizePoint,
        Retention,
        corpus_size_lines,
        script_retention,
        script_share_bars,
        set_sizes,
        stability_ranges,
    )
    from babelscope.figures.side_effect_figure import SIDE_EFFECTS_CAPTION, side_effect_lines
    from babelscope.figures.style import (
        Real,
        language_label,
        language_name,
    )
    from babelscope.figures.svg_figure import figure_svg

__all__ = [
    "edit_map",
    "FORGETTING_CAPTION",
    "PRIMING_CAPTION",
    "SAME_ANSWERS_CAPTION",
    "SHARED_FACTS_CAPTION",
    "SIDE_EFFECTS_CAPTION",
    "STRENGTH_UNIT",
    "AdaptationRow",
    "CorpusSizePoint",
    "FigureCaption",
    "DosePoint",
    "Figure",
    "Real",
    "Retention",
    "ablation_map",
    "agreement_map",
    "adaptation_figure",
    "forgetting_lines",
    "colour_limit",
    "corpus_size_lines",
    "dose_response_lines",
    "side_effect_lines",
    "figure_svg",
    "harm_against_draws",
    "language_label",
    "language_name",
    "method_map",
    "neuron_map",
    "overlap_map",
    "priming_forest",
    "rate_map",
    "same_answers_map",
    "script_retention",
    "script_share_bars",
    "set_sizes",
    "shared_facts_map",
    "source_target_map",
    "stability_ranges",
    "steering_bars",
    "unit_rate_map",
    "write_figure",
    "write_figures",
]

__getattr__, __dir__ = lazy_names(__name__)
