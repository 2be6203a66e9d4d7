#!/usr/bin/env bash
# reads.sh: a call that looks at a file of a job fails once (open, read, mmap, access, stat, seek, close: EIO), or a read gives half: in a
# stage that goes on, in a job that begins with model files, on 1 rank and on each of 2. It ends with one message and exit code 4, or as if
# nothing had happened, which the digest of all results proves. A look at each of the run's own files also by name: none counts as missing, and
# no stage runs again for it.
#
# reads.sh [N]: tries N calls of each case, spread over it; "all": every one. DSCHAT_TEST_JOBS trials run at a time (default 2).
set -u
. tests/restart/tiny.inc
. tests/fail/trial.inc
tiny_setup || { echo "FAIL reads_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
want=${1:-5}
jobs=${DSCHAT_TEST_JOBS:-2}
here=build/tmp/reads
rm -rf "$here" && mkdir -p "$here"
cc -shared -fPIC -O1 -o "$here/fault.so" tests/fail/read_fault.c -ldl || { echo "FAIL reads_setup: does not build"; exit 1; }
bad=0

# fault COPY WAY RANKS RANK MODE N [FILE]: a trial; what failed in COPY.count; exit code
fault() {
    rm -f "$1.count"
    (export FAULT_DIR="$1/${7:-}" FAULT_RANK="$4" FAULT_MODE="$5" FAULT_AT="$6" FAULT_COUNT="$PWD/$1.count" LD_PRELOAD="$PWD/$here/fault.so"
    trial_run "$1" "$2" "$3")
}

# some DIR WAY RANKS RANK MODE CALLS FIRST STEP: trials FIRST, FIRST + STEP, ...: a line "same" or "refused", or why it failed, for each
some() {
    local k copy=$1/t$7 why what
    for ((k = $7; k <= $6; k += $8)); do
        trial_copy "$1" "$2" "$copy"
        fault "$copy" "$2" "$3" "$4" "$5" $k
        why=$(trial_judge "$copy" "$2" $?)
        what=$(awk '$2 != "nothing" { $1 = ""; print; exit }' "$copy.count")
        if [ -n "$why" ]; then echo "call $k (${what# }): $why"
        elif grep -q '^error' "$copy.log"; then echo refused
        elif [ -z "$what" ]; then echo missed
        else echo same; fi
    done
    rm -rf "$copy"
}

# sweep RANKS WAY RANK MODE NUMBER
sweep() {
    local dir=$here/$1 name=reads_$4_$2_$1_$3 calls step j log
    log=$here/$name
    trial_codes=4
    [ "$4" = fail ] || trial_codes="3 4"
    trial_copy "$dir" "$2" "$dir/t"
    fault "$dir/t" "$2" "$1" "$3" "$4" 0
    calls=$(sort -n "$dir/t.count" | tail -n 1 | cut -d' ' -f1)
    [ "${calls:-0}" -gt 20 ] || { echo "FAIL $name: only ${calls:-0} calls seen"; bad=1; return; }
    step=$(($5 == 0 || calls < $5 ? 1 : calls / $5))
    for ((j = 0; j < jobs; j++)); do
        some "$dir" "$2" "$1" "$3" "$4" "$calls" $((step / 2 + 1 + j * step)) $((step * jobs)) >"$log.$j" &
    done
    wait
    cat "$log".[0-9]* >"$log.all"
    if grep -q '^call' "$log.all"; then
        bad=1
        echo "FAIL $name: $(grep -c '^call' "$log.all") of $(wc -l <"$log.all"): $(grep -m1 '^call' "$log.all")"
    else echo "ok $name ($(wc -l <"$log.all") of $calls calls: $(grep -c same "$log.all") as if nothing had happened, $(grep -c refused "$log.all") refused)"; fi
}

# look FILE N [CALL]: the n-th call (CALL: of that name) on this file of the run fails, on 1 rank, in rm
look() {
    local copy=$here/1/look why name=reads_look_${1//\//_}_$2
    trial_codes=4
    trial_copy "$here/1" rm "$copy"
    FAULT_CALL=${3:-} fault "$copy" rm 1 0 fail "$2" "out/$1"
    why=$(trial_judge "$copy" rm $?)
    ! grep -q '^sft: superv' "$copy.log" || why="sft, which is done, runs again"
    [ -n "$why" ] || grep -qv " nothing$" "$copy.count" || why="nothing looks at it"
    if [ -n "$why" ]; then bad=1; echo "FAIL $name: $why"; else echo "ok $name"; fi
}

[ "$want" != all ] || want=0
for ranks in 1 2; do
    trial_setup "$here/$ranks" $ranks || { echo "FAIL reads_setup_$ranks: $(tail -n 1 "$here/$ranks/t.log")"; bad=1; continue; }
    for way in $trial_ways; do
        for ((rank = 0; rank < ranks; rank++)); do
            sweep $ranks $way $rank fail "$want"
            sweep $ranks $way $rank short $(((want + 4) / 5))
        done
    done
    [ $ranks = 1 ] || continue
    for k in 1 2 3; do look models/sft.h5 $k access; done
    for file in params.out summary.json history.nc checkpoints checkpoints/rm-000001 checkpoints/rm-000001/DONE; do look $file 1; done
done
exit $bad
