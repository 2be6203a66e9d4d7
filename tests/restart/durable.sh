#!/usr/bin/env bash
# durable.sh: what a checkpoint and a product ask of the disk, and in which order: every byte is synced before its file gets its name, every name
# before what follows relies on it, DONE last; the older checkpoint goes only then, its DONE first. And a job that dies in the middle of that.
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL durable_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
bad=0
here=build/tmp/durable
rm -rf "$here" && mkdir -p "$here"
ok() { echo "ok durable_$1"; }
fail() { echo "FAIL durable_$1: $2"; bad=1; }
cc -shared -fPIC -o "$here/fault.so" tests/fail/hdf5_fault.c -ldl || { fail setup "hdf5_fault.c does not build"; exit 1; }

# job OUT [NAME=VALUE ...]: four steps, a checkpoint after each but the last, the newest kept; with these variables for the preloaded library.
job() {
    local out=$1
    shift
    env FAULT_DIR="$out" LD_PRELOAD="$PWD/$here/fault.so" "$@" tests/patience 60 ./dschat "$tiny_params" job.out="$out" job.stages=sft \
        actor.arch_layers=1 sft.max_steps=4 checkpoint.every_steps=1 checkpoint.keep=1 >>"$out.log" 2>&1
}

out=$here/whole
job "$out" FAULT_TRACE="$here/trace.txt" || fail whole "$(tail -n 1 "$out.log")"
awk -v out="$out/" '
function short(path) { sub(/^.*build\/tmp\/durable\/whole/, "", path); sub(/^\//, "", path); sub(/[.]tmp[.][0-9]+$/, "", path); return path }
function folder(path) { if (path !~ /\//) return ""; sub(/\/[^\/]*$/, "", path); return path }
function wrong(words) { printf "line %d, \"%s\": %s\n", NR, $0, words; bad = 1; exit 1 }
{ path = short($NF) }
# The line after a rename syncs the folder in which the name is.
renamed != "" { if ($1 != "fsync" || path != folder(renamed)) wrong("the folder of " renamed " is not synced at once"); named[renamed] = 1; renamed = "" }
$1 ~ /^(open|write|pwrite|ftruncate)/ && path !~ /^(log.txt|[.]lock)/ { dirty[path] = 1; if (folder(path) in closed) wrong("comes after DONE") }
$1 == "fsync" { delete dirty[path]; syncs++ }
$1 == "rename" {
    if (path ~ /\/DONE$/) { if (!(folder(path) in named)) wrong("DONE before the folder has its name") }
    if (short($2) in dirty) wrong("not synced before it gets its name")
    for (d in dirty) if (path ~ /^checkpoints\/sft-[0-9]+$/ && index(d, "checkpoints/.tmp-") == 1) wrong(d " is not synced before its folder gets a name")
    if (path ~ /^checkpoints\/sft-[0-9]+$/ && "history.nc" in dirty) wrong("history.nc is behind the checkpoint")
    if (path ~ /\/DONE$/) { closed[folder(path)] = 1; steps++; at_sync[steps] = syncs; at_rename[steps] = renames + 1 }
    if (path == "models/sft.h5") { if (!("summary.json" in named)) wrong("the product before the summary"); product = 1 }
    renames++
    renamed = path
}
# The old checkpoint: after the new DONE, its own DONE first.
$1 == "unlink" && path ~ /^checkpoints\/sft-[0-9]+\/DONE$/ && folder(path) in closed { if (steps < 2) wrong("nothing newer is there"); gone[folder(path)] = 1; delete closed[folder(path)] }
$1 == "remove" && path ~ /^checkpoints\/sft-/ { p = path; while (p != "checkpoints" && !(p in gone)) p = folder(p); if (p == "checkpoints") wrong("is removed while its DONE is there") }
END {
    if (bad) exit 1
    if (steps != 3 || !product) { print "no three checkpoints and a product"; exit 1 }
    for (d in dirty) if (d !~ /^log/) { print d " is never synced"; exit 1 }
    # From DONE to DONE: shard, model, state, manifest and DONE with their folders, the folders once more, that of checkpoints, that of
    # the run, the history, what is removed.
    if (at_sync[3] - at_sync[2] != 16 || at_rename[3] - at_rename[2] != 6)
        { printf "%d syncs and %d renames for a checkpoint, expected 16 and 6\n", at_sync[3] - at_sync[2], at_rename[3] - at_rename[2]; exit 1 }
}' "$here/trace.txt" >"$here/order.txt" && ok order || fail order "$(head -n 1 "$here/order.txt")"

# Dies, or fails, at the n-th removal of the older checkpoint's files: the job goes on to the same weights and leaves one whole checkpoint.
for case in kill:1 kill:2 kill:4 kill:6 once:1 once:5; do
    name=prune_${case%:*}_${case#*:} out=$here/${case/:/_}
    job "$out" FAULT_CALL=remove FAULT_MODE="${case%:*}" FAULT_AT="${case#*:}" FAULT_ERRNO=5
    code=$?
    case $case in
    kill:*) [ $code = 137 ] || { fail "$name" "exit code $code: was not killed"; continue; } ;;
    *) [ $code = 4 ] && grep -q '^error.*Input/output error' "$out.log" || { fail "$name" "exit code $code, expected 4: $(tail -n 1 "$out.log")"; continue; } ;;
    esac
    job "$out" || { fail "$name" "does not go on: $(tail -n 1 "$out.log")"; continue; }
    left=$(ls -A "$out/checkpoints" | tr '\n' ' ')
    if ! grep -q 'going on from' "$out.log"; then fail "$name" "did not go on from a checkpoint"
    elif ! h5diff "$out/models/sft.h5" "$here/whole/models/sft.h5" /weights /weights >/dev/null; then fail "$name" "the weights differ"
    elif [ "$left" != "sft-000003 " ] || [ ! -s "$out/checkpoints/sft-000003/DONE" ]; then fail "$name" "leaves $left"
    else ok "$name"; fi
done
exit $bad
