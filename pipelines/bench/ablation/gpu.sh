#!/usr/bin/env bash
# Three arms by three seeds of the world at 128 px on one GPU, in at most nine minutes.
#
#   OUT=runs/gpu PYTHON=python3 bash pipelines/bench/ablation/gpu.sh
#
# $OUT/figures.jsonl holds the figures, $OUT/docs the study's page and tables for docs/results;
# what fails leaves its end in $OUT/log. CAPLAB_BENCH_TINY=1 tries all of it anywhere.
set -u
OUT=${OUT:?the folder for figures}
PYTHON=${PYTHON:-python3}
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
mkdir -p "$OUT"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/caplab-gpu-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
timeout -k 5 595 "$PYTHON" -m pipelines.bench.ablation.on_gpu "$scratch" \
  >"$scratch/figures" 2>"$scratch/log"
code=$?
cat "$scratch/figures" | tee -a "$OUT/figures.jsonl"
[ $code -eq 0 ] || tail -n 60 "$scratch/log" | tee "$OUT/log"
# A killed study keeps what it judged; its tables tell nothing yet.
[ ! -d "$scratch/docs" ] || cp -r "$scratch/docs" "$OUT"
echo "{\"exit\": $code, \"seconds\": $SECONDS}" | tee -a "$OUT/figures.jsonl"
exit $code
