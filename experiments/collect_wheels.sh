#!/usr/bin/env bash
# Wheels of what the toolkit's GPU runs need beside torch, transformers and triton, for a machine without a network.
#
#   experiments/collect_wheels.sh FOLDER [PYTHON]      PYTHON: version there, 3.12 if not told; Linux, x86-64
#
# Nothing heavy is among them: language identification, plots and data sets are imported only where they are used.
set -euo pipefail
folder=$1 python=${2:-3.12}
platforms=()
for number in 17 24 27 28 31 34; do platforms+=(--platform "manylinux_2_${number}_x86_64"); done
python3 -m pip download --quiet --dest "$folder" --no-deps --only-binary=:all: --implementation cp \
    --python-version "$python" "${platforms[@]}" --platform manylinux2014_x86_64 \
    anyascii docstring-parser langcodes language-data marisa-trie typeguard tyro zstandard
size=$(du -sm "$folder" | cut -f1)
echo "$folder: $(ls "$folder" | wc -l) wheels, $size MB"
