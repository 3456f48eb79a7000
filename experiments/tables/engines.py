"""What llama.cpp does with exported files."""

from tables.measured import read, share


def llama_cpp_table() -> list[str]:
    """Answers in the target language, and agreement on the next token, by what was exported."""
    first, *ways = read("llama_cpp.jsonl")
    config, (prompts,) = first["config"], {way["prompts"] for way in ways}
    blocks, whole = "same next token, weights as in the file", "same next token, weights written out in float32"
    rows = [
        f"| exported | answers in the target language of {prompts}: toolkit | llama.cpp | {blocks} | {whole} |",
        "|---|" + "---|" * 4,
    ]
    for way in ways:
        agreed = (
            f"{share(way[f'agreement_{form}'])} ({share(low)}–{share(high)})"
            for form in ("blocks", "float32")
            for low, high in [way[f"agreement_interval_{form}"]]
        )
        rows.append(f"| {way['way']} | {way['right_toolkit']} | {way['right_llama_cpp']} | {' | '.join(agreed)} |")
    packages = first["environment"]
    return [
        *rows,
        "",
        f"{config['gguf']}, English prompts, {config['new_tokens']} tokens each, likeliest token taken; directions from "
        f"{config['tokens']:,} tokens per language at layer {config['layer']}, strength {config['strength']:g}; the LoRA is "
        f"a random change of {share(config['share'])} of the neurons. xllamacpp {packages['xllamacpp']}.",
    ]
