#!/usr/bin/env bash
# The first ten minutes on a machine with a GPU, without a network: is every kernel right, what do the kernels and the
# 8B training step cost, does the GPU say what the CPU says, what do observing and steering cost?
#
#   experiments/first_gpu_run.sh OUT [WHEELS]
#
# OUT: folder of the logs and rows. WHEELS: folder of wheels that experiments/collect_wheels.sh made, for what the
# machine lacks. Each part is bounded in seconds, leaves its own log, and is passed over if an earlier run of the same
# commit into OUT finished it. COMMIT names the commit where git cannot be asked. DEVICE=cpu runs every part small, on
# the CPU, to try the script. PARTS: which parts, in order. Ends with 1 if a part failed.
set -uo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
wheels=${2:+$(cd "$2" && pwd)}
cd "$(dirname "$0")/.."
device=${DEVICE:-cuda}
commit=${COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}
parts=${PARTS:-check compare step passes bench}
export PYTHONPATH="$PWD/src:$PWD/kernels" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
if [ -n "$wheels" ] && [ ! -d "$out/site" ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --target "$out/site" "$wheels"/*.whl || exit 1
fi
export PYTHONPATH="$PYTHONPATH:$out/site"

kernels=$(python3 -c 'from babelscope_kernels.names import NAMES; print(*NAMES)')
if [ "$device" = cpu ]; then
    small="--cpu" step="--model llama --in-turn --device cpu --rounds 2 --rows 2 --length 32"
    passes="--model llama-25m --device cpu --dtype float32 --documents 4 --length 64 --rounds 2 --new-tokens 4 --rows 2"
    compare="--device cpu --steps 2 --prompts 1 --new-tokens 4 --tokens 300"
else
    small="" step="--model llama-8b --device cuda --rows 8 --length 512 --rounds ${ROUNDS:-6}"
    passes="--model llama-8b --rounds ${ROUNDS:-6}" compare=""
fi

# All kernels at once, each in a process of its own: compiling is work for the CPU, and what is compiled is kept.
check() {
    local kernel failed=0 jobs=()
    for kernel in $kernels; do
        python3 -m babelscope_kernels.bench "$kernel" --check $small --commit "$commit" >"$out/check-$kernel.log" 2>&1 &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || failed=1; done
    for kernel in $kernels; do tail -n 20 "$out/check-$kernel.log"; done
    return $failed
}
bench() {
    local checked=""
    [ "$(cat "$out/check.done" 2>/dev/null)" = "$commit $device" ] && checked=--checked
    python3 -m babelscope_kernels.bench ${KERNELS:-all} --resume $checked $small --commit "$commit" --budget "${BENCH_SECONDS:-300}" \
        --results "$out/kernels" --json "$out/bench.json"
}
# An experiment writes its rows into a folder of its own; here they are shown, and copied to OUT.
experiment() {
    local name=$1 status=0
    shift
    rm -rf "runs/$name"
    python3 "experiments/$name.py" "$@" || status=1
    cat runs/"$name"/*/results.jsonl >"$out/$name.jsonl"
    cat "$out/$name.jsonl"
    return $status
}
step() { experiment benchmark_adapt $step; }
passes() { experiment benchmark_gpu_passes $passes; }
compare() { experiment compare_gpu_with_cpu $compare; }

export -f check bench experiment step passes compare
export out commit device kernels small step passes compare
declare -A seconds=([check]=150 [compare]=180 [step]=180 [passes]=180 [bench]=320)
failed=0
for part in $parts; do
    done="$out/$part.done"
    [ "$(cat "$done" 2>/dev/null)" = "$commit $device" ] && { echo "== $part: done before"; continue; }
    echo "== $part, at most ${seconds[$part]} s"
    began=$SECONDS
    if timeout "${seconds[$part]}" bash -uo pipefail -c "$part" 2>&1 | tee "$out/$part.log"; then
        echo "$commit $device" >"$done"
        echo "== $part: done in $((SECONDS - began)) s"
    else
        echo "== $part: FAILED after $((SECONDS - began)) s; its log is $out/$part.log"
        failed=1
    fi
done
exit $failed
