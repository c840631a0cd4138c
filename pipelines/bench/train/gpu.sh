#!/usr/bin/env bash
# The trainer on one GPU in at most nine minutes: figures as JSON lines in $OUT/figures.jsonl.
#
#   OUT=/tmp/figures PYTHON=python3 bash pipelines/bench/train/gpu.sh [PART ...]
#
# A part that fails or takes too long leaves its end in $OUT/PART.log and the others go on; the
# script's own end says whether one did. CAPLAB_BENCH_TINY=1 tries all of it in a minute anywhere.
set -u
OUT=${OUT:?the folder for figures}
PYTHON=${PYTHON:-python3}
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
declare -A LIMIT=([parity]=60 [dit-33m]=85 [dit-130m]=90 [pixart]=110 [world]=105 [beside]=90)
mkdir -p "$OUT"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/caplab-gpu-XXXXXX")
trap 'rm -rf "$scratch"' EXIT
failed=0
[ $# -gt 0 ] || set -- parity dit-33m dit-130m pixart world beside
for part in "$@"; do
  began=$SECONDS
  timeout -k 5 "${LIMIT[$part]}" "$PYTHON" -m pipelines.bench.train.on_gpu "$part" "$scratch" \
    >"$scratch/figures" 2>"$scratch/log"
  code=$?
  if [ $code -eq 0 ]; then
    tee -a "$OUT/figures.jsonl" <"$scratch/figures"
  else
    failed=1
    tail -n 40 "$scratch/log" | tee "$OUT/$part.log"
  fi
  echo "{\"part\": \"$part\", \"exit\": $code, \"seconds\": $((SECONDS - began))}" |
    tee -a "$OUT/figures.jsonl"
done
cp "$scratch"/*.png "$OUT" 2>/dev/null
exit $failed
