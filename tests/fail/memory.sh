#!/usr/bin/env bash
# memory.sh: a rank that may have less and less memory, until the program does not even start: it is done, or it ends with 6 and says for what,
# on which rank and where memory was wanted, also where MPI-IO or UCX give up.
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL memory_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
here=build/tmp/memory
rm -rf "$here" && mkdir -p "$here"
if nm dschat 2>/dev/null | grep -q __asan_init; then echo "skip memory: the sanitizer wants all addresses"; exit 0; fi
named=0 bad=0 step=${STEP:-14}
deadline=$(awk -v s="$(tests/patience --slowness)" 'BEGIN {print 0.1 * s / 100}')
for ((mb = 280; mb > 100; mb -= mb * step / 100)); do
    out=$here/$mb
    tests/patience 100 mpirun -np 2 bash -c "[ \$PMI_RANK = 0 ] || ulimit -v $((mb * 1024)); exec ./dschat $tiny_params job.out=$out sft.max_steps=4 \
        rm.max_steps=4 ppo.max_steps=2 job.deadline_minutes=$deadline" >"$out.log" 2>&1
    code=$?
    if grep -q 'error while loading shared libraries' "$out.log"; then break
    elif [ $code = 6 ] && grep -q -i -E '^dschat: .*rank 1 .*(out|want) of memory' "$out.log"; then named=$((named + 1))
    elif grep -q -i -E 'internal_Init_thread|memory allocation failed' "$out.log"; then : # MPI's own end, HDF5's own words
    elif [ $code != 0 ]; then
        echo "FAIL memory_$mb: exit code $code: $(grep -v '^ *$' "$out.log" | tail -n 1)"
        bad=1
    fi
done
if [ $bad = 0 ] && [ $named -ge 2 ]; then echo "ok memory"
elif [ $bad = 0 ]; then echo "FAIL memory: only $named of the limits were felt"; fi
