#!/usr/bin/env bash
# Everything of this project that asks for a GPU, in one command that can be stopped and started again:
#
#   bash benchmarks/on_a_gpu.sh [--dry] [STEP ...]       steps, by default all, in this order:
#
#   tests    pytest -m gpu
#   speed    train_speed.py and crop_speed.py, which write benchmarks/results/*_cuda.json
#   cifar10  the rows of docs/results.md that have a reported number, 3 seeds of 200 epochs each
#   tiny     Tiny-ImageNet-LT at rho 100 and 10 by LDAM's recipe: ce, ldam_drw, logit_adjust, dro_lt, ifl, 3 seeds
#
# --dry prints the commands and runs none. Nothing of it has been run on a GPU yet, so its time is not known. Pictures
# are fetched (170 and 248 MB) unless data/05_model_input has them prepared. A cell that is finished is kept, one that
# was cut off resumes; weights go to data/gpu, numbers to benchmarks/results/trained, for docs/results.md:
# `uv run ltpipe generate`.
set -euo pipefail
cd "$(dirname "$0")/.."

call() {
  echo "+ $*"
  if [ -z "$dry" ]; then "$@"; fi
}

# prepare BENCHMARK: manifest and images
prepare() {
  if [ -e "data/05_model_input/$1/manifest.parquet" ]; then
    echo "$1: the prepared data in data/05_model_input/$1 are taken as they are"
  else
    call uv run kedro run "--pipeline=$1" --tags=fetch,cluster,split
  fi
}

# train BENCHMARK RUN ...: every seed of the runs; a run after the one that it starts from
train() {
  local benchmark=$1
  shift
  prepare "$benchmark"
  for run in "$@"; do
    call uv run ltpipe train "data/05_model_input/$benchmark" --benchmark "conf/base/parameters/$benchmark.yml" \
      --run "$run" --out "data/gpu/$benchmark" --device cuda --record benchmarks/results/trained
  done
}

tests() { call uv run pytest -m gpu; }

speed() {
  call uv run python benchmarks/train_speed.py --device cuda
  call uv run python benchmarks/crop_speed.py --device cuda
}

cifar10() { train cifar10_lt ce ldam_drw ce_la logit_adjust logit_adjust_post_hoc tau_norm balanced_softmax dro_lt; }

tiny() {
  train tiny_imagenet_lt ce ldam_drw logit_adjust dro_lt ifl
  train tiny_imagenet_lt_10 ce ldam_drw logit_adjust dro_lt ifl
}

steps=(tests speed cifar10 tiny) dry=""
if [ "${1:-}" = --dry ]; then dry=yes && shift; fi
for step in "$@"; do
  case " ${steps[*]} " in
    *" $step "*) ;;
    *) echo "no step $step; there is: ${steps[*]}" >&2 && exit 2 ;;
  esac
done
for step in "${@:-${steps[@]}}"; do "$step"; done
