#!/usr/bin/env bash
# finite.sh: numbers that stop being finite: a stage ends with 5 before it writes its product, and names what and where; a skipped step
# leaves the weights as they were.
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL finite_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
bad=0
here=build/tmp/fail-finite
rm -rf "$here" && mkdir -p "$here"
ok() { echo "ok finite_$1"; }
fail() { echo "FAIL finite_$1: $2"; bad=1; }
diverge="weight_decay=10 schedule=constant warmup_steps=0 max_steps=24"

# with STAGE KEY=VALUE...: the same keys of a stage.
with() { local stage=$1; shift; printf "$stage.%s " "$@"; }

# expect NAME PRODUCT RANKS [key=value ...] -- PATTERN...: the job ends with 5 without that product, and says each pattern; the last one is its
# only error.
expect() {
    local name=$1 product=$2 ranks=$3 out=$here/$1 code keys=() pattern
    shift 3
    while [ "$1" != -- ]; do keys+=("$1"); shift; done
    shift
    run "$out" "$ranks" "${keys[@]}"
    code=$?
    [ $code = 5 ] || { fail "$name" "exit code $code, expected 5: $(tail -n 1 "$out.log")"; return; }
    [ ! -e "$out/models/$product.h5" ] || { fail "$name" "wrote $product.h5"; return; }
    for pattern in "$@"; do
        grep -q -e "$pattern" "$out.log" || { fail "$name" "does not say \"$pattern\": $(tail -n 1 "$out.log")"; return; }
    done
    [ "$(grep -c '^error' "$out.log")" = 1 ] && grep '^error' "$out.log" | grep -q -e "$pattern" || { fail "$name" "not one error \"$pattern\""; return; }
    ! grep -q 'nan\|inf$' "$out.log" || { fail "$name" "prints $(grep -m 1 'nan\|inf$' "$out.log")"; return; }
    ok "$name"
}

expect overflow sft 2 job.stages=sft sft.lr=9 sft.warmup_steps=0 sft.max_steps=30 -- 'error: sft: after the last step the perplexity of held-out samples, exp('
expect sft sft 1 job.stages=sft sft.lr=10 $(with sft $diverge) job.max_bad_steps=100 -- 'warning: sft step [0-9]* skipped: rank 0: the actor' \
    'sft *24/24 .*skipped ([0-9]*)' 'error: sft: after the last step the loss'
expect rm rm 2 job.stages=sft,rm sft.max_steps=1 rm.lr=10 $(with rm $diverge) job.max_bad_steps=100 -- 'warning: rm step [0-9]* skipped: rank [01]: the reward' \
    'error: rm: after the last step a score'
expect ppo actor 2 sft.max_steps=1 rm.max_steps=1 ppo.lr=10 $(with ppo $diverge) ppo.critic_lr=10 job.max_bad_steps=100 -- \
    'warning: ppo step [0-9]* skipped: rank [01]: ' 'error: ppo: after the last step rank [01]: the actor'

# A step that was skipped: weights and moments are those before it.
out=$here/same
run "$out" 2 job.stages=sft sft.lr=10 $(with sft $diverge) job.max_bad_steps=1 checkpoint.every_steps=1 checkpoint.keep=99
at=$(sed -n 's/^warning: sft step \([0-9]*\) skipped.*/\1/p' "$out.log" | head -n 1)
if [ -z "$at" ]; then fail same "no step was skipped: $(tail -n 1 "$out.log")"
else
    names=$(printf '%s/checkpoints/sft-%06d/actor.h5 ' "$out" $((at - 1)) "$out" "$at")
    before=$(printf '%s/checkpoints/sft-%06d/actor.h5' "$out" $((at - 2)))
    if ! h5diff $names >"$here/same.txt" 2>&1; then fail same "the step changed something: $(head -n 1 "$here/same.txt")"
    elif h5diff "$before" ${names%% *} >"$here/same.txt" 2>&1; then fail same "the step before changed nothing"
    else ok same; fi
fi
exit $bad
