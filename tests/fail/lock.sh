#!/usr/bin/env bash
# lock.sh: several jobs that are started on one folder: one works there, the others end with one message and 11; the folder of a killed job is taken
# over with a word. Argument: all (50 times two and four starts at once; default: once each).
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL lock_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
bad=0
here=build/tmp/lock
rm -rf "$here" && mkdir -p "$here"
ok() { echo "ok lock_$1"; }
fail() { echo "FAIL lock_$1: $2"; bad=1; }
short="sft.max_steps=4 rm.max_steps=4 ppo.max_steps=2 checkpoint.every_steps=1"
rounds=1
[ "${1:-}" != all ] || rounds=50

# What all that happened before goes into.
last_weights() { h5dump -d /weights/model.norm.weight "$1/models/actor.h5" | grep '^ *(' | sha256sum; }
run "$here/alone" 1 $short || { fail alone "$(tail -n 1 "$here/alone.log")"; exit 1; }
want=$(last_weights "$here/alone")

# at_once OUT STARTS: prints what is wrong.
at_once() {
    local out=$1 n=$2 i pids=() code lines
    for i in $(seq "$n"); do
        (exec ./dschat "$tiny_params" job.out="$out" $short >"$out.$i.log" 2>&1) &
        pids+=($!)
    done
    for i in $(seq "$n"); do
        wait "${pids[i - 1]}"
        code=$? lines=$(wc -l <"$out.$i.log")
        case $code in
        0) ;; # the one that works, or one that came when all was done
        11) [ "$lines" = 1 ] && grep -q '^error: .*another job works in this folder: process [0-9]* on' "$out.$i.log" || echo "start $i says: $(head -n 3 "$out.$i.log")" ;;
        *) echo "start $i ended with $code: $(tail -n 1 "$out.$i.log")" ;;
        esac
    done
    [ "$(grep -c '^start' "$out/starts.log")" = 1 ] || echo "$(grep -c '^start' "$out/starts.log") starts worked"
    [ "$(last_weights "$out")" = "$want" ] || echo "the weights differ from those of one start"
}
for n in 2 4; do
    wrong=
    for round in $(seq $rounds); do
        wrong=$(at_once "$here/$n-$round" $n)
        [ -z "$wrong" ] || break
        rm -rf "$here/$n-$round"
    done
    [ -z "$wrong" ] && ok "${n}_at_once" || fail "${n}_at_once" "round $round: $wrong"
done

# One that is stopped for a while keeps its folder; one that is killed loses it at once.
out=$here/killed
(exec ./dschat "$tiny_params" job.out="$out" $short >>"$out.log" 2>&1) &
pid=$!
await $pid "$out" sft-000001
kill -STOP $pid
before=$(find "$out" -type f -exec sha256sum {} + | sort | sha256sum)
./dschat "$tiny_params" job.out="$out" $short >"$out.second.log" 2>&1
code=$?
if [ $code != 11 ] || ! grep -q "process $pid on $(uname -n)" "$out.second.log"; then fail suspended "exit code $code: $(tail -n 1 "$out.second.log")"
elif [ "$(find "$out" -type f -exec sha256sum {} + | sort | sha256sum)" != "$before" ]; then fail suspended "the second start changed something"
else ok suspended; fi
kill -KILL $pid
wait $pid 2>/dev/null
run "$out" 1 $short
code=$?
if [ $code != 0 ]; then fail killed "exit code $code: $(tail -n 1 "$out.log")"
elif ! grep -q "held by process $pid on .*taken over" "$out/log.txt"; then fail killed "does not say that it takes over"
elif [ "$(last_weights "$out")" != "$want" ]; then fail killed "the weights differ"
else ok killed; fi
exit $bad
