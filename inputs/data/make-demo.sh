#!/bin/sh
# make-demo.sh DIR: the demo's data sets: sft.h5 (flawed demonstrations) and pairs.h5 (for the reward model and PPO's prompts).
set -eu
dir=$1
here=$(dirname "$0")
mkdir -p "$dir"
if [ -e "$dir/sft.h5" ] && [ -e "$dir/pairs.h5" ]; then exit 0; fi
awk -v kind=sft -v n=16000 -v seed=1 -f "$here/demo.awk" >"$dir/sft.jsonl"
awk -v kind=pairs -v n=20000 -v seed=2 -f "$here/demo.awk" >"$dir/pairs.jsonl"
bin/dschat-data build "$here/demo-sft.in"
bin/dschat-data build "$here/demo-pairs.in"
