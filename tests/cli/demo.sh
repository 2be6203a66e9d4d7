#!/usr/bin/env bash
# demo.sh [SEED ...]: the demo as a user runs it: RM accuracy above 90 %, and PPO's true score rises by more than four standard errors. SEEDS: default 1.
set -u
export OMP_NUM_THREADS=1
unset DSCHAT_GUARD
[ $# -gt 0 ] || set -- 1
bad=0
number() { sed -n "s/.*\"$2\": \([-0-9.e]*\).*/\1/p" "$1"; }
inputs/data/make-demo.sh out/demo-data >/dev/null || exit 1
for seed in "$@"; do
    out=build/tmp/demo-$seed
    rm -rf "$out"
    if ! mpirun -np 2 ./dschat inputs/demo.in job.out="$out" job.seed="$seed" job.threads=1 >"build/tmp/demo-$seed.log" 2>&1; then
        echo "FAIL demo_seed_$seed: the run failed: $(tail -n 1 "build/tmp/demo-$seed.log")"
        bad=1
        continue
    fi
    # 500 held-out prompts, scores in [0, 1]: a standard error of the gain of at most 0.03.
    awk -v seed="$seed" -v rm="$(number "$out/summary.json" rm.accuracy_after)" -v before="$(number "$out/summary.json" ppo.true_score_before)" \
        -v after="$(number "$out/summary.json" ppo.true_score_after)" -v reward="$(number "$out/summary.json" ppo.reward_before)" \
        -v reward2="$(number "$out/summary.json" ppo.reward_after)" 'BEGIN {
        n = 500; error = sqrt(before * (1 - before) / n + after * (1 - after) / n)
        ok = rm > 0.9 && after - before > 4 * error && reward2 > reward
        printf "%s demo_seed_%s: RM accuracy %.3f, reward %.2f -> %.2f, true score %.3f -> %.3f (standard error %.3f)\n", ok ? "ok" : "FAIL",
               seed, rm, reward, reward2, before, after, error
        exit !ok }' || bad=1
done
exit $bad
