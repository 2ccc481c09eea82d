#!/bin/sh
# Train `tiny:hard` on one GPU: `sh benchmarks/train_hard.sh smoke|full OUT [WORKERS]`.
# OUT then holds tiny_hard.tar, to be unpacked into benchmarks/tiny_hard, and log.jsonl.
set -eu
export OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
export PYTHONPATH="$(dirname "$0")/..${PYTHONPATH:+:$PYTHONPATH}"
case "$1" in
smoke) set -- "$2" "${3:-11}" --minutes 0.27 --scenes 2500 --clips 150 --check-scenes 64 ;;
full) set -- "$2" "${3:-11}" --minutes 6.5 --scenes 40000 --clips 2500 ;;
*) echo "smoke or full, not $1" >&2; exit 2 ;;
esac
out=$1 workers=$2
shift 2
exec "${PYTHON:-python}" -m prumerge.tiny.train_hard --out "$out" --device cuda --bf16 --workers "$workers" "$@"
