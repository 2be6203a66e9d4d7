#!/usr/bin/env bash
# job.sh: a job that cannot go on says why, with the exit code of its kind on every rank, in time, and leaves nothing half-written.
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL job_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
bad=0
here=build/tmp/fail-job
rm -rf "$here" && mkdir -p "$here"
quick="sft.max_steps=4 rm.max_steps=4 ppo.max_steps=2"

ok() { echo "ok job_$1"; }
fail() { echo "FAIL job_$1: $2"; bad=1; }

# expect NAME CODE PATTERN RANKS [key=value ...]: the job ends with CODE, says PATTERN once, and no file has a temporary name.
expect() {
    local name=$1 want=$2 pattern=$3 ranks=$4 out=$here/$1 code n
    shift 4
    run "$out" "$ranks" $quick "$@"
    code=$?
    n=$(grep -c "$pattern" "$out.log")
    if [ $code != "$want" ]; then fail "$name" "exit code $code, expected $want: $(tail -n 1 "$out.log")"
    elif [ "$n" != 1 ]; then fail "$name" "\"$pattern\" is said $n times, expected once: $(tail -n 2 "$out.log")"
    elif [ -d "$out" ] && find "$out" -name '*.tmp*' -o -name '*.part' | grep -q .; then fail "$name" "left $(find "$out" -name '*.tmp*' | head -1)"
    else ok "$name"; fi
}

expect no_data 4 'build/tmp/nothing.h5' 2 data.file=build/tmp/nothing.h5
expect data_is_text 3 'not an HDF5 file' 2 data.file="$tiny_params"
head -c 3000 "$tiny_data/all.h5" >"$here/short.h5"
expect data_cut 3 'short.h5' 2 data.file="$here/short.h5"
expect no_model 4 'build/tmp/nothing.h5' 2 actor.model=build/tmp/nothing.h5
expect model_is_data 3 'all.h5' 2 actor.model="$tiny_data/all.h5"
expect unknown_key 2 'sft.lrr' 2 sft.lrr=1
expect too_short 2 'positions' 2 actor.arch_positions=8
expect lanes_not_there 2 'lanes' 2 layout.lanes=3
quick= expect numbers 5 'error: sft: [0-9]* steps in a row were skipped' 2 sft.lr=10 sft.weight_decay=10 sft.warmup_steps=0 sft.max_steps=60 job.max_bad_steps=2

(ulimit -f 8000 && expect file_limit 4 'cannot write .*: File too large' 1 actor.arch_width=384) # the system's signal XFSZ

# A model of another tokenizer than the data's.
run "$here/whole" 2 $quick || fail whole "$(tail -n 1 "$here/whole.log")"
sed "s|^output = .*|output = $here/other.h5|; s|^tokenizer = .*|tokenizer = $here/tok.json|" "$tiny_data/spec.in" >"$here/spec.in"
sed 's/: 409,/: 0409,/; s/: 410,/: 409,/; s/: 0409,/: 410,/' inputs/data/demo-tokenizer.json >"$here/tok.json" # two tokens change places
if cmp -s "$here/tok.json" inputs/data/demo-tokenizer.json; then fail tokenizer "the tokens to change are not there"
else
    bin/dschat-data build "$here/spec.in" >"$here/build.log" 2>&1 || fail tokenizer "$(tail -n 1 "$here/build.log")"
    expect tokenizer 3 "is not the data set's" 2 actor.model="$here/whole/models/sft.h5" data.file="$here/other.h5"
fi

# The disk fills at the n-th call that changes a file, on every rank, or one rank's calls fail once: exit code 4, one error; the job then goes
# on, to the bits of an undisturbed one.
cc -shared -fPIC -o "$here/fault.so" tests/fail/hdf5_fault.c -ldl || fail fault "does not build"
sums=$(weights "$here/whole")
for case in ever:2 ever:30 ever:90 once:150 ever:250 once:400 ever:600; do
    name=disk_full_${case#*:}_${case%:*} out=$here/full_${case#*:}
    (export FAULT_DIR="$out" FAULT_AT="${case#*:}" FAULT_MODE="${case%:*}" FAULT_COUNT="$here/count"
    tests/patience 120 mpirun -np 2 -genv LD_PRELOAD "$PWD/$here/fault.so" ./dschat "$tiny_params" job.out="$out" $quick >>"$out.log" 2>&1)
    code=$?
    errors=$(grep -c '^error' "$out.log")
    [ "$code" != 0 ] || { fail "$name" "nothing failed: $(cat "$here/count") calls"; continue; }
    if [ $code != 4 ]; then fail "$name" "exit code $code, expected 4: $(tail -n 1 "$out.log")"
    elif [ "$errors" != 1 ]; then fail "$name" "$errors errors said, expected 1: $(tail -n 2 "$out.log")"
    elif [ "$(sed -n 's/^[a-z]*: //p' "$out.log" | grep -cxF -e "$(sed -n 's/^error: //p' "$out.log")")" != 1 ]; then fail "$name" "said twice: $(tail -n 1 "$out.log")"
    elif ! run "$out" 2 $quick; then fail "$name" "does not go on with room: $(tail -n 1 "$out.log")"
    elif [ "$(weights "$out")" != "$sums" ]; then fail "$name" "the weights differ"
    else ok "$name"; fi
done

# A rank killed: the job ends at once, and goes on later.
out=$here/killed
(exec mpirun -np 3 ./dschat "$tiny_params" job.out="$out" >>"$out.log" 2>&1) &
pid=$!
while kill -0 $pid 2>/dev/null && ! ls "$out"/checkpoints/sft-*/DONE >/dev/null 2>&1; do sleep 0.01; done
began=$SECONDS
kill -KILL "$(ranks_of $pid | tail -n 1)"
wait $pid
code=$?
if [ $code = 0 ] || [ $((SECONDS - began)) -gt $((20 * $(tests/patience --slowness) / 100)) ]; then fail killed_rank "exit code $code after $((SECONDS - began)) s"
elif ! run "$out" 3; then fail killed_rank "did not go on: $(tail -n 1 "$out.log")"
else ok killed_rank; fi

# A rank that hangs: the others wait for the deadline, then say which rank they waited for and where.
out=$here/hangs
(exec mpirun -np 2 ./dschat "$tiny_params" job.out="$out" \
    job.deadline_minutes="$(awk -v s="$(tests/patience --slowness)" 'BEGIN {print 0.05 * s / 100}')" >>"$out.log" 2>&1) &
pid=$!
while kill -0 $pid 2>/dev/null && ! ls "$out"/checkpoints/sft-*/DONE >/dev/null 2>&1; do sleep 0.01; done
began=$SECONDS
stuck=$(ranks_of $pid | tail -n 1)
kill -STOP "$stuck"
wait $pid
code=$?
kill -KILL "$stuck" 2>/dev/null
if [ $code = 0 ] || [ $((SECONDS - began)) -gt $((30 * $(tests/patience --slowness) / 100)) ]; then fail hanging_rank "exit code $code after $((SECONDS - began)) s"
elif ! grep -q 'sft step' "$out.log"; then fail hanging_rank "does not say where: $(tail -n 3 "$out.log")"
else ok hanging_rank; fi
exit $bad
