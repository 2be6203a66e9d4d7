#!/usr/bin/env bash
# bitwise.sh: a job stopped at a chosen step of each stage, in several ways, and continued ends with the weights, history and rollouts of one
# that was not stopped, bit for bit. Arguments: seeds of the choice (default 1).
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL restart_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
[ $# -gt 0 ] || set -- 1
bad=0
fail() { echo "FAIL $1: $2"; bad=1; }

# Starts the job, waits until the log tells of step $3 of stage $2, does $4 (a signal's name, STOP or KILL), waits for the end.
stop_at() {
    local out=$1 stage=$2 step=$3 how=$4 ranks=$5 zero=$6 pid code
    (exec mpirun -np "$ranks" ./dschat "$tiny_params" job.out="$out" actor.zero_stage="$zero" critic.zero_stage="$zero" reward.zero_stage="$zero" >>"$out.log" 2>&1) &
    pid=$!
    # Waits for a checkpoint of the stage at or after the step, or for the end.
    while kill -0 "$pid" 2>/dev/null; do
        reached=0
        for done_file in "$out/checkpoints/$stage"-*/DONE; do
            at=${done_file%/DONE} at=${at##*-}
            [ -e "$done_file" ] && [ "$at" -ge "$step" ] && reached=1
        done
        [ "$reached" = 1 ] && break
        sleep 0.005
    done
    case $how in
    STOP) touch "$out/STOP" ;;
    *) kill -"$how" $(ranks_of "$pid") ;;
    esac
    wait "$pid" 2>/dev/null
    code=$?
    return "$code"
}

check() {
    local name=$1 whole=$2 out=$3
    if [ "$(weights "$whole")" != "$(weights "$out")" ]; then fail "$name" "the weights differ"
    elif ! cmp -s <(records "$whole") <(records "$out"); then fail "$name" "history or rollouts differ"
    elif ! cmp -s <(grep -v '"memory\|seconds"' "$whole/summary.json") <(grep -v '"memory\|seconds"' "$out/summary.json"); then
        fail "$name" "summary.json differs: $(diff "$whole/summary.json" "$out/summary.json" | grep -v 'memory\|seconds"' | grep -m 1 '^[<>]')"
    else echo "ok $name"; fi
}

for ranks_zero in "1 0" "2 1"; do
    set_ranks=${ranks_zero% *} zero=${ranks_zero#* }
    whole=build/tmp/restart-whole-$set_ranks-$zero
    rm -rf "$whole" "$whole.log"
    if ! run "$whole" "$set_ranks" actor.zero_stage="$zero" critic.zero_stage="$zero" reward.zero_stage="$zero"; then
        fail "restart_whole_$set_ranks" "$(tail -n 1 "$whole.log")"
        continue
    fi
    for seed in "$@"; do
        i=0
        for stage in sft rm ppo; do
            # The way and the step follow from the seed.
            ways=(TERM STOP KILL USR1 INT)
            how=${ways[$(((seed + i + set_ranks) % 5))]}
            step=3
            [ $(((seed + i) % 2)) = 0 ] || [ "$stage" = ppo ] || step=6
            i=$((i + 1))
            name=restart_${stage}_${step}_${how}_ranks_${set_ranks}_zero_${zero}
            out=build/tmp/$name
            rm -rf "$out" "$out.log"
            stop_at "$out" "$stage" "$step" "$how" "$set_ranks" "$zero"
            code=$?
            if [ -e "$out/models/actor.h5" ]; then fail "$name" "was not stopped"; continue; fi
            want=10 # to be queued again; a file STOP: not
            [ "$how" != STOP ] || want=11
            if [ "$how" != KILL ] && [ "$code" != $want ]; then fail "$name" "exit code $code, expected $want: $(tail -n 1 "$out.log")"; continue; fi
            if ! run "$out" "$set_ranks" actor.zero_stage="$zero" critic.zero_stage="$zero" reward.zero_stage="$zero"; then
                fail "$name" "did not continue: $(tail -n 1 "$out.log")"
                continue
            fi
            check "$name" "$whole" "$out"
        done
    done
done
exit $bad
