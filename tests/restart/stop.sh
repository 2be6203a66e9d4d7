#!/usr/bin/env bash
# stop.sh: the file STOP, time limits that leave no room, starts without progress: each ends with words and with the code that a batch script needs.
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL stop_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
bad=0
here=build/tmp/stop
rm -rf "$here" && mkdir -p "$here"
ok() { echo "ok stop_$1"; }
fail() { echo "FAIL stop_$1: $2"; bad=1; }
short="rm.max_steps=4 ppo.max_steps=2"
begin() { # OUT [key=value ...]: one rank in the background; $pid
    local out=$1
    shift
    (exec ./dschat "$tiny_params" job.out="$out" $short "$@" >>"$out.log" 2>&1) &
    pid=$!
}

# STOP is fulfilled once: 11, a checkpoint, the file is gone; then the run goes on.
out=$here/file
begin "$out" sft.max_steps=200 sft.epochs=9999
await $pid "$out" sft-000003
touch "$out/STOP"
wait $pid
code=$?
last=$(ls "$out/checkpoints" | tail -n 1)
if [ $code != 11 ]; then fail file "exit code $code, expected 11: $(tail -n 1 "$out.log")"
elif [ -e "$out/STOP" ]; then fail file "STOP is still there"
elif [ ! -e "$out/checkpoints/$last/DONE" ] || ! grep -q 'stopped by the file STOP after step .*this start made' "$out/log.txt"; then fail file "$(tail -n 1 "$out.log")"
else ok file; fi

# STOP before the start: removed, nothing is run, said.
out=$here/before
mkdir -p "$out" && touch "$out/STOP"
run "$out" 2 $short sft.max_steps=4
code=$?
if [ $code != 11 ] || [ -e "$out/STOP" ] || ! grep -q 'error: .*STOP lay there before this start' "$out.log"; then fail before "exit code $code: $(tail -n 1 "$out.log")"
elif [ -e "$out/models" ]; then fail before "something was run"
elif ! run "$out" 1 $short sft.max_steps=4; then fail before "does not start again: $(tail -n 1 "$out.log")"
else ok before; fi

# A limit within the margin: both numbers at the launch, then 11, not a start after the other.
out=$here/limit
DSCHAT_END_TIME=$(($(date +%s) + 200)) run "$out" 1 $short job.stop_margin_minutes=10
code=$?
if [ $code != 11 ]; then fail limit "exit code $code, expected 11: $(tail -n 1 "$out.log")"
elif ! grep -q 'warning: the time limit is [12][0-9]* s away, and .*keeps 600 s of it free: no step will be made' "$out.log"; then fail limit "no warning"
elif ! grep -q 'error: this start made no step in [0-9]* s: the time limit is [12][0-9]* s away.*600 s' "$out.log"; then fail limit "$(tail -n 1 "$out.log")"
else ok limit; fi
# The lead of the batch system's signal.
out=$here/lead
DSCHAT_SIGNAL_LEAD=600 DSCHAT_END_TIME=$(($(date +%s) + 500)) run "$out" 1 $short sft.max_steps=4 job.stop_margin_minutes=1
code=$?
[ $code = 0 ] && grep -q 'warning: the time limit is [45][0-9]* s away, and the batch system.s signal comes 600 s before' "$out.log" && ok lead || fail lead "exit code $code: $(grep warning "$out.log")"

# Signals that come before the first step: the fourth start is refused (the first made a checkpoint), with the way on.
out=$here/stuck
for i in 1 2 3 4; do
    # The signal waits for the program from its first instruction on.
    env --block-signal=TERM bash -c 'kill -TERM $$; exec ./dschat "$@"' _ "$tiny_params" job.out="$out" $short >>"$out.log" 2>&1
    codes[i]=$?
done
if [ "${codes[*]}" != "10 10 10 11" ]; then fail stuck "exit codes ${codes[*]}, expected 10 10 10 11: $(tail -n 1 "$out.log")"
elif ! grep -q 'warning: this start made no step: a signal came' "$out.log"; then fail stuck "does not say that no step was made"
elif ! grep '^error: ' "$out.log" | tail -n 1 | grep -q 'the last 2 starts .*sft-000000.*ended with 10.*remove .*starts.log'; then fail stuck "$(tail -n 1 "$out.log")"
else
    rm "$out/starts.log"
    run "$out" 1 $short sft.max_steps=24 && ok stuck || fail stuck "does not go on: $(tail -n 1 "$out.log")"
fi

# Wrong paths and wrong keys lock nothing, however often; deaths do.
out=$here/paths
for i in 1 2 3 4; do run "$out" 1 $short data.file="$here/none.h5"; codes[i]=$?; done
for i in 5 6; do
    rm -f "$out/log.txt"
    begin "$out" checkpoint.every_steps=0
    while kill -0 $pid 2>/dev/null && ! grep -q '^sft: ' "$out/log.txt" 2>/dev/null; do sleep 0.005; done
    kill -KILL $pid 2>/dev/null
    wait $pid 2>/dev/null
    codes[i]=$?
done
run "$out" 1 $short
codes[7]=$?
if [ "${codes[*]}" != "4 4 4 4 137 137 11" ]; then fail paths "exit codes ${codes[*]}, expected 4 4 4 4 137 137 11: $(tail -n 1 "$out.log")"
elif ! grep '^error: ' "$out.log" | tail -n 1 | grep -q 'was killed or died without a word'; then fail paths "$(tail -n 1 "$out.log")"
else ok paths; fi
exit $bad
