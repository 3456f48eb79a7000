"""The rows by number: what each is, where it was published, how to run it, and the function that measures it."""

from typing import NamedTuple


class RowEntry(NamedTuple):
    """One row of docs/rows.md."""

    title: str
    source: str
    command: str
    """The verb or function that people call."""
    measure: str = ""
    """module:function in `rows`, from Inputs to RowResult; empty where nothing is there to measure."""


ROWS: dict[int, RowEntry] = {
    1: RowEntry(
        "Language neurons by activation entropy (LAPE)", "arXiv:2402.16438", "identify --method lape", "neurons:lape"
    ),
    2: RowEntry(
        "Specific, related and general neurons, and parts of the model",
        "arXiv:2505.21505",
        "probe --probe roles",
        "neurons:roles",
    ),
    3: RowEntry(
        "Neurons by the effect of removing them (PLND)",
        "arXiv:2402.18815",
        "probe --probe removal",
        "neurons_removed:removal",
    ),
    4: RowEntry(
        "Neuron specialization by cumulative activation",
        "arXiv:2404.11201",
        "identify --method specialization",
        "neurons_shared:specialization",
    ),
    5: RowEntry(
        "Ablation of each language's neurons on each text", "arXiv:2402.16438", "ablate", "neurons_off:ablation"
    ),
    6: RowEntry("Language arithmetic and fallback languages", "arXiv:2507.22608", "fallback", "neurons_off:arithmetic"),
    7: RowEntry(
        "Features by rates against random tokens (LangFIR)",
        "arXiv:2604.03532",
        "features --method langfir-sets",
        "features:measure_langfir",
    ),
    8: RowEntry(
        "Monolinguality of features",
        "arXiv:2505.05111",
        "features --method monolinguality",
        "features:measure_monolinguality",
    ),
    9: RowEntry(
        "Steering by discriminant shifts (ITLC)", "arXiv:2506.12450", "bs.lda_direction", "steering:measure_itlc"
    ),
    10: RowEntry(
        "Steering by a linear map between languages (INCLINE)",
        "arXiv:2410.12462",
        "bs.incline",
        "steering:measure_incline",
    ),
    11: RowEntry(
        "Language apart from reasoning", "arXiv:2505.15257", "bs.ablate_languages", "steering:measure_subspace"
    ),
    12: RowEntry("Heads shifted between languages (CLAIM)", "arXiv:2506.11073", "probe --probe heads", "heads:measure"),
    13: RowEntry(
        "Experts by language, and experts of language families",
        "arXiv:2510.04694, arXiv:2410.10626",
        "probe --probe routing; experts",
        "experts:measure",
    ),
    14: RowEntry(
        "Shift to the dominant language and back (ShifCon)",
        "arXiv:2410.19453",
        "adapt --objective shift",
        "shift:shift",
    ),
    15: RowEntry(
        "Training only a language's subnetwork", "arXiv:2510.13580", "adapt", "subnetwork_training:subnetwork"
    ),
    16: RowEntry(
        "Lottery-ticket sparse fine-tuning (LT-SFT)",
        "arXiv:2110.07560",
        "adapt --baseline lt-sft",
        "lottery_tickets:lottery",
    ),
    17: RowEntry("Kernels of masked updates", "this library", "adapt"),
    18: RowEntry("Kernels of attention statistics", "this library", "probe --probe heads"),
    19: RowEntry(
        "Latent language by the logit lens",
        "arXiv:2402.10588",
        "probe --probe lens --words FILE",
        "latent_language:measure_latent",
    ),
    20: RowEntry(
        "Geometry of token embeddings",
        "arXiv:2311.18034",
        "probe --probe embeddings",
        "embeddings:measure_embeddings",
    ),
    21: RowEntry(
        "Alignment with English (MEXA)",
        "arXiv:2410.05873",
        "probe --probe alignment --task-scores FILE",
        "mexa:measure_mexa",
    ),
    22: RowEntry(
        "Similarity of representations",
        "arXiv:2212.01924",
        "probe --probe alignment",
        "similarity:measure_similarity",
    ),
    23: RowEntry(
        "Language trees and transfer (mPLM-Sim)",
        "arXiv:2305.13684",
        "probe --probe trees",
        "family_trees:measure_trees",
    ),
    24: RowEntry(
        "Concepts and compression over training", "arXiv:2506.01629", "probe --probe concepts", "concepts:measure"
    ),
    25: RowEntry(
        "Working languages over training (Babel Tower)",
        "arXiv:2412.07298",
        "probe --probe checkpoints",
        "checkpoints:measure",
    ),
    26: RowEntry(
        "Circuits shared or specific",
        "arXiv:2410.06496, arXiv:2410.09223",
        "probe --probe circuits",
        "circuits:measure",
    ),
    27: RowEntry("Keys and values of MLPs", "arXiv:2406.16235", "probe --probe values", "causes:measure_values"),
    28: RowEntry("Structural priming across languages", "arXiv:2503.03962", "priming", "knowledge:measure_priming"),
    29: RowEntry(
        "Cost, allocation and overlap of a tokenizer",
        "arXiv:2305.17179",
        "probe --probe tokenizer",
        "tokenizer_cost:measure_tokenizer",
    ),
    30: RowEntry(
        "Training shares from merges", "arXiv:2407.16607", "probe --probe tokenizer", "vocabulary:measure_shares"
    ),
    31: RowEntry(
        "Vocabulary extension and replacement", "arXiv:2406.11477", "vocabulary extend", "vocabulary:measure_extend"
    ),
    32: RowEntry("Vocabulary trimming", "arXiv:2305.15020", "vocabulary trim", "vocabulary:measure_trim"),
    33: RowEntry(
        "Continued training with replay", "this library", "adapt --replay en --harm-bound .05", "replay:replay"
    ),
    34: RowEntry("Alignment as an objective", "arXiv:2502.14830", "adapt --objective align", "contrast:contrast"),
    35: RowEntry(
        "General-knowledge subtraction and routing", "arXiv:2505.10939", "subtract", "general_knowledge:general"
    ),
    36: RowEntry("Influence of training text", "arXiv:2308.03296", "influence", "influence:measure_influence"),
    37: RowEntry(
        "Language confusion", "arXiv:2406.20052", "evaluate confusion", "confusion_benchmark:measure_confusion"
    ),
    38: RowEntry("Knowledge by language", "arXiv:2102.00894", "knowledge", "knowledge:measure_facts"),
    39: RowEntry("Observe once, merge", "this library", "merge", "counting:measure_merge"),
    42: RowEntry(
        "Dose and response of steering", "this library", "steer --sweep --side-effects", "steering:measure_dose"
    ),
    43: RowEntry(
        "Which language helps which, and the choice of sources",
        "arXiv:1905.12688, arXiv:2305.13684",
        "transfer",
        "transfer:measure_transfer",
    ),
    44: RowEntry("Facts edited across languages", "arXiv:2406.17764, arXiv:2202.05262", "edit", "editing:measure"),
    45: RowEntry(
        "Low-rank control of the language (Neural FOXP2)",
        "arXiv:2602.00945",
        "bs.low_rank_control",
        "low_rank:measure_low_rank",
    ),
    46: RowEntry(
        "Consistency across languages and the language of thought",
        "arXiv:2310.10378, arXiv:2504.01857, arXiv:2505.22888",
        "consistency",
        "thought:measure",
    ),
}
