#!/usr/bin/env bash
# ways.sh: going on with a stopped job: on other numbers of ranks, with one file a model, from a torn checkpoint, at the time limit; USR2, a
# second TERM, `keep`, a run that makes no progress, a run that is over.
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL ways_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
bad=0
ok() { echo "ok ways_$1"; }
fail() { echo "FAIL ways_$1: $2"; bad=1; }
here=build/tmp/ways
rm -rf "$here" && mkdir -p "$here"
rounds="sft.max_steps=9 rm.max_steps=9 ppo.max_steps=6"

# until_step OUT STAGE STEP RANKS [key=value ...]: a job that ends with a checkpoint at this step (exit code 11), by a file STOP that is there
# when the step's checkpoint is.
until_step() {
    local out=$1 stage=$2 step=$3 ranks=$4 pid
    shift 4
    (exec mpirun -np "$ranks" ./dschat "$tiny_params" job.out="$out" $rounds "$@" >>"$out.log" 2>&1) &
    pid=$!
    await $pid "$out" "$stage-$step"
    touch "$out/STOP"
    wait $pid
    return $?
}
losses() { ncdump -p 9,9 -v loss "$1/history.nc" | sed '1,/^data:/d' | tr -d ' ;}\n' | sed 's/.*=//' | tr ',' '\n'; }

# The losses of two runs in sft and rm agree to $3 (relative); NaN (an evaluation) equals NaN. Not those of ppo: where a draw falls next to a
# token's bound, a weight that is rounded otherwise changes the answer.
near() {
    paste <(losses "$1") <(losses "$2") | head -n 22 | awk -v gate="$3" '
        NF != 2 { bad = 1; next }
        $1 ~ /[a-zA-Z_]/ || $2 ~ /[a-zA-Z_]/ { if ($1 != $2) bad = 1; next }
        { d = $1 - $2; if (d < 0) d = -d; s = $1 < 0 ? -$1 : $1; if (d > gate * (s + 1e-3)) bad = 1; n++ }
        END { exit bad || n != 18 }'
}

whole=$here/whole
run "$whole" 1 $rounds || fail whole "$(tail -n 1 "$whole.log")"

# A checkpoint of one number of ranks goes on at another: the rounding differs, the arithmetic does not.
for move in sft:000003:2:1 sft:000003:1:4 rm:000003:4:2 ppo:000003:2:4; do
    IFS=: read -r stage step from to <<<"$move"
    name=ranks_${stage}_${from}_to_${to} out=$here/$stage-$from-$to
    until_step "$out" "$stage" 000003 "$from"
    code=$?
    [ $code = 11 ] || { fail "$name" "exit code $code, expected 11: $(tail -n 1 "$out.log")"; continue; }
    run "$out" "$to" $rounds || { fail "$name" "$(tail -n 1 "$out.log")"; continue; }
    if [ "$stage" = ppo ]; then [ -e "$out/models/actor.h5" ] && ok "$name" || fail "$name" "no actor"
    elif near "$whole" "$out" 1e-3; then ok "$name"
    else fail "$name" "losses differ from the uninterrupted run's by more than 1e-3"; fi
done

# One file a model: the same weights.
out=$here/one
until_step "$out" rm 000003 2 checkpoint.files=one
code=$?
run "$out" 2 $rounds checkpoint.files=one && [ $code = 11 ] || fail files_one "exit code $code: $(tail -n 1 "$out.log")"
two=$here/two
run "$two" 2 $rounds || fail whole_two "$(tail -n 1 "$two.log")"
[ "$(weights "$two")" = "$(weights "$out")" ] && [ ! -e "$out/models/actor.shards" ] && ok files_one || fail files_one "weights differ, or shards"

# One shard a node.
out=$here/node
run "$out" 2 $rounds checkpoint.files=node || fail files_node "$(tail -n 1 "$out.log")"
if [ "$(weights "$two")" = "$(weights "$out")" ] && [ "$(ls "$out/models/actor.shards")" = 00000.h5 ]; then ok files_node
else fail files_node "weights differ, or shards: $(ls "$out/models/actor.shards")"; fi

# A torn newest checkpoint: it is named, the one before it serves, the end is the same.
out=$here/torn
until_step "$out" sft 000006 2
shard=$(ls "$out"/checkpoints/sft-00000[6-9]/actor.shards/*.h5 2>/dev/null | tail -n 1)
if [ -z "$shard" ]; then fail torn "no shard in $(ls "$out/checkpoints")"
else
    printf 'x' | dd of="$shard" bs=1 seek=40000 conv=notrunc 2>/dev/null
    if run "$out" 2 $rounds && grep -q "sft-00000[6-9].*\(not\|damaged\|differ\)" "$out.log" && [ "$(weights "$two")" = "$(weights "$out")" ]; then ok torn
    else fail torn "$(grep -m1 -i sft-000006 "$out.log"; tail -n 1 "$out.log")"; fi
fi

# keep = 1
out=$here/keep
run "$out" 1 $rounds checkpoint.keep=1
n=$(ls "$out/checkpoints" | wc -l)
[ "$n" = 1 ] && ok keep || fail keep "$n checkpoints with keep = 1: $(ls "$out/checkpoints" | tr '\n' ' ')"

# USR2: a checkpoint, and on.
out=$here/usr2
(exec mpirun -np 1 ./dschat "$tiny_params" job.out="$out" checkpoint.every_steps=0 >>"$out.log" 2>&1) &
pid=$!
while kill -0 $pid 2>/dev/null && ! grep -q "sft  *1/" "$out.log" 2>/dev/null; do sleep 0.01; done
kill -USR2 "$(ranks_of $pid)"
wait $pid
code=$?
[ $code = 0 ] && [ "$(ls "$out/checkpoints" | wc -l)" = 1 ] && ok usr2 || fail usr2 "exit code $code, checkpoints: $(ls "$out/checkpoints")"

# Two wishes to stop that come together: at once, nothing written.
out=$here/twice
(exec mpirun -np 1 ./dschat "$tiny_params" job.out="$out" checkpoint.every_steps=0 >>"$out.log" 2>&1) &
pid=$!
while kill -0 $pid 2>/dev/null && ! grep -q "sft  *1/" "$out.log" 2>/dev/null; do sleep 0.01; done
rank=$(ranks_of $pid)
for signal in STOP TERM INT CONT; do kill -$signal "$rank"; done
wait $pid
code=$?
[ $code = 11 ] && ok twice || fail twice "exit code $code, expected 11: $(tail -n 1 "$out.log")"

# The time limit: stops before it, with a checkpoint. (11: this machine was too busy for one step before it.)
code=11
for seconds in 6 24 96; do
    [ $code = 11 ] || break
    out=$here/limit-$seconds
    end=$(($(date +%s) + seconds))
    DSCHAT_END_TIME=$end run "$out" 1 job.stop_margin_minutes=0.02 sft.max_steps=100000 sft.epochs=100000
    code=$?
done
[ $code = 10 ] && [ "$(date +%s)" -le $end ] && grep -q "time limit" "$out.log" && ok time_limit ||
    fail time_limit "exit code $code, $(($(date +%s) - end)) s after the limit: $(tail -n 1 "$out.log")"

# A run that is over: nothing to do, however often.
for i in 1 2 3 4; do run "$whole" 1 $rounds; codes[i]=$?; done
[ "${codes[*]}" = "0 0 0 0" ] && ok over || fail over "exit codes ${codes[*]}: $(tail -n 1 "$whole.log")"
exit $bad
