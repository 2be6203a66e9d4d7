#!/usr/bin/env bash
# verify.sh: [job] verify: damage in the data set of a later stage, or in a model, ends the job before its first step; `no` and `used` look at
# less; files without hashes are noted.
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL verify_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
here=build/tmp/verify
rm -rf "$here" && mkdir -p "$here"
bad=0
quick="sft.max_steps=1 rm.max_steps=1 ppo.max_steps=1 actor.arch_width=16 actor.arch_layers=1 actor.arch_heads=2"
ok() { echo "ok verify_$1"; }
fail() { echo "FAIL verify_$1: $2"; bad=1; }

# A bit in the middle of a file.
damage() {
    local at byte
    at=$(($(stat -c %s "$1") / 2))
    byte=$(od -An -tu1 -j $at -N 1 "$1")
    printf '%b' "\\0$(printf %o $((byte ^ 4)))" | dd of="$1" bs=1 seek=$at conv=notrunc 2>/dev/null
}

# expect NAME CODE WORDS UNSAID [key=value ...]: the job's end; words that its log has, and words that it has not.
expect() {
    local name=$1 want=$2 words=$3 unsaid=$4 out=$here/$1 code
    shift 4
    run "$out" 2 $quick "$@"
    code=$?
    if [ $code != "$want" ]; then fail "$name" "exit code $code, expected $want: $(tail -n 1 "$out.log")"
    elif ! grep -q "$words" "$out.log"; then fail "$name" "does not say \"$words\": $(tail -n 1 "$out.log")"
    elif [ -n "$unsaid" ] && grep -q "$unsaid" "$out.log"; then fail "$name" "says \"$unsaid\""
    else ok "$name"; fi
}

cp "$tiny_data/all.h5" "$here/rm.h5"
damage "$here/rm.h5"
first='sft  *1/1'
expect whole 0 'inputs verified: 1 files' 'note: inputs'
expect later_stage 3 'rm.h5: is damaged' "$first" data.rm_file="$here/rm.h5"
expect no 0 'inputs are not verified' 'inputs verified' job.verify=no
expect used 0 "$first" 'damaged' data.rm_file="$here/rm.h5" job.stages=sft
expect all 3 'rm.h5: is damaged' "$first" data.rm_file="$here/rm.h5" job.stages=sft job.verify=all

# Each stage's own files, each once: data sets, models that are named, products of the stages before.
files=""
for kind in sft rm ppo ptx; do
    cp "$tiny_data/all.h5" "$here/own_$kind.h5"
    files="$files data.${kind}_file=$here/own_$kind.h5"
done
made=$here/whole/models
files="$files actor.model=$made/sft.h5 reward.model=$made/rm.h5 critic.model=$made/critic.h5 reference.model=$made/actor.h5"
expect own_all 0 'inputs verified: 8 files' '' $files
expect own_sft 0 'inputs verified: 2 files' '' $files job.stages=sft
expect own_rm 0 'inputs verified: 3 files' '' $files job.stages=rm
expect own_ppo 0 'inputs verified: 6 files' '' $files job.stages=ppo
expect own_no_texts 0 'inputs verified: 5 files' '' $files job.stages=ppo ppo.ptx_coef=0
expect begun 0 'inputs verified: 1 files' '' job.stages=sft
expect begun 0 'inputs verified: 2 files' '' job.stages="sft, rm"
expect begun 0 'inputs verified: 3 files' ''
cp -r "$here/whole/models" "$here/models"
damage "$here/models/rm.shards/00000.h5"
expect model 3 'rm.shards/00000.h5: .* is damaged' "$first" critic.model="$here/models/rm.h5"
expect product 0 'inputs verified: 3 files' '' actor.model="$here/models/sft.h5" reference.model="$here/models/actor.h5"
if command -v h5repack >/dev/null; then
    h5repack "$tiny_data/all.h5" "$here/repacked.h5"
    expect without 0 'repacked.h5 has no hashes' '' data.file="$here/repacked.h5"
    n=$(grep -c 'has no hashes' "$here/without.log")
    [ "$n" = 1 ] && ok noted_once || fail noted_once "said $n times"
else echo "skip verify_without: no h5repack"; fi
exit $bad
