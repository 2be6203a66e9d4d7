#!/usr/bin/env bash
# smollm2_all.sh: SmolLM2-135M-Instruct's log-probs against transformers on 50 HH transcripts (tests/refs/smollm2_logprobs.jsonl): fp32, every
# token within 2e-3; bf16, 0.03 in the mean. Needs the model (make smollm2).
set -u
model=models/smollm2-135m-instruct.h5
ref=tests/refs/smollm2_logprobs.jsonl
work=build/tmp/smollm2
if [ ! -e "$model" ]; then
    echo "skip smollm2_logprobs: $model is not there; make smollm2 fetches it"
    exit 0
fi
mkdir -p "$work"
numbers() { sed 's/.*"logprobs": \[//; s/\].*//' "$1" | tr ',' '\n'; }
bad=0
# name, dtype, awk condition on worst and mean
compare() {
    if ! bin/dschat-eval "$model" --logprobs "$ref" --dtype "$2" >"$work/$2.jsonl"; then
        echo "FAIL $1: dschat-eval failed"
        return 1
    fi
    paste <(numbers "$ref") <(numbers "$work/$2.jsonl") |
        awk -v name="$1" '{d = $1 - $2; if (d < 0) d = -d; sum += d; if (d > worst) worst = d; n++; if ($1 == "" || $2 == "") odd++}
            END {ok = n > 5000 && !odd && ('"$3"'); printf "%s %s: %d tokens, worst %.2e, mean %.2e\n", ok ? "ok" : "FAIL", name, n, worst, sum / n; exit !ok}'
}
compare smollm2_logprobs_fp32 fp32 'worst < 2e-3' || bad=1
compare smollm2_logprobs_bf16 bf16 'sum / n < 0.03' || bad=1
exit $bad
