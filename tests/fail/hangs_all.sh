#!/usr/bin/env bash
# hangs_all.sh: 100 jobs in which a rank is stopped at a random moment, two at a time: each is ended in time and names it. 20 jobs in which
# a rank is stopped for 20 s: each is done. SEED=N gives the same moments; STOPS and PAUSES how many pairs of jobs (50, 10).
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL hangs_all_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
. tests/fail/hang.inc
RANDOM=${SEED:-$(date +%s)}
moment() { awk -v r=$RANDOM -v most="$1" 'BEGIN {printf "%.3f", r / 32768 * most}'; }

# How long an undisturbed job takes decides which moments there are.
began=$SECONDS
run "$hang_here/whole" 2 $hang_quick || echo "FAIL hangs_all_whole: $(tail -n 1 "$hang_here/whole.log")"
took=$((SECONDS - began + 1))

for i in $(seq 1 ${STOPS:-50}); do
    stop "stop_2_$i" 2 "$(moment $took)" 0 &
    stop "stop_4_$i" 4 "$(moment $((2 * took)))" 0 &
    wait
done
for i in $(seq 1 ${PAUSES:-10}); do
    limit=1 stop "pause_2_$i" 2 "$(moment $took)" 20 &
    limit=1 stop "pause_4_$i" 4 "$(moment $((2 * took)))" 20 &
    wait
done
