#!/usr/bin/env bash
# rerun.sh: the same folder started again with other params or inputs: what changes results is refused by name and nothing that tells of the run
# changes; what does not is noted; accepted changes are recorded.
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL rerun_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
bad=0
here=build/tmp/rerun
rm -rf "$here" && mkdir -p "$here"
ok() { echo "ok rerun_$1"; }
fail() { echo "FAIL rerun_$1: $2"; bad=1; }
short="sft.max_steps=6 rm.max_steps=6 ppo.max_steps=3 checkpoint.every_steps=1"

# keys [key=value ...]: of what is given twice the later.
keys() { printf '%s\n' "$@" | awk -F= '{ v[$1] = $0 } END { for (k in v) print v[k] }'; }
again() { # OUT RANKS [key=value ...]
    local out=$1 ranks=$2
    shift 2
    run "$out" "$ranks" $(keys "$@")
}
# until_stop OUT STAGE-STEP [key=value ...]: starts it, and stops it when this checkpoint is there.
until_stop() {
    local out=$1 stop=$2 pid
    shift 2
    (exec mpirun -np 1 ./dschat "$tiny_params" job.out="$out" $(keys "$@") >>"$out.log" 2>&1) &
    pid=$!
    await $pid "$out" "$stop"
    touch "$out/STOP"
    wait $pid
}

# What tells of the run: none of it may change where a start is refused.
told() { (cd "$1" && cat params.out summary.json && find models checkpoints -type f -exec sha256sum {} + | sort) | sha256sum; }

last_error() { grep '^error: ' "$1.log" | tail -n 1; }

# refuses NAME OUT PATTERN [key=value ...]
refuses() {
    local name=$1 out=$2 pattern=$3 before code
    shift 3
    before=$(told "$out")
    again "$out" 1 "$@"
    code=$?
    if [ $code != 2 ]; then fail "$name" "exit code $code, expected 2: $(last_error "$out")"
    elif ! last_error "$out" | grep -q "$pattern"; then fail "$name" "does not say \"$pattern\": $(last_error "$out")"
    elif [ "$(told "$out")" != "$before" ]; then fail "$name" "something in $out changed"
    else ok "$name"; fi
}

# ---- a run stopped in rm ----
out=$here/run
# A copy of the data, so that it can be built again.
cp "$tiny_data/all.h5" "$here/data.h5"
data=data.file=$here/data.h5
until_stop "$out" rm-000002 $short $data
[ -e "$out/models/sft.h5" ] && [ ! -e "$out/models/rm.h5" ] || fail stopped "not stopped in rm: $(tail -n 1 "$out.log")"

refuses lr "$out" 'rm.lr was 0.003 so far, is 0.004 now' $short $data rm.lr=4e-3
refuses finished_stage "$out" 'sft.lr was' $short $data sft.lr=4e-3
refuses finished_length "$out" 'sft.max_steps was 6' $short $data sft.max_steps=9
refuses seed_and_model "$out" 'job.seed was 7 .*actor.arch_std was' $short $data job.seed=8 actor.arch_std=0.2
refuses shorter "$out" 'rm.max_steps was 6' $short $data rm.max_steps=5
refuses stage_dropped "$out" 'job.stages was' $short $data job.stages=sft
# Data built again, with another seed.
sed "s|^output = .*|output = $here/again.h5|; s|^seed = .*|seed = 2|" "$tiny_data/spec.in" >"$here/spec.in"
bin/dschat-data build "$here/spec.in" >"$here/build.log" 2>&1 || fail again "$(tail -n 1 "$here/build.log")"
refuses other_data "$out" 'data.rm_file was' $short $data data.rm_file="$here/again.h5"
cp "$here/data.h5" "$here/kept.h5"
cp "$here/again.h5" "$here/data.h5"
refuses rebuilt_data "$out" 'content of \[data\] rm_file' $short $data
cp "$here/kept.h5" "$here/data.h5"
cp "$out/params.out" "$here/params.out"
sed -i 's/^lr = /lr = x/' "$out/params.out"
refuses unreadable_record "$out" 'not known' $short $data
cp "$here/params.out" "$out/params.out"

# Another program, with a key that this one has not.
sed -i 's/^# program .*/# program dschat 0.0.9 (abc)/; s/^\[sft\]/[sft]\nold_key = 7/' "$out/params.out"

# Harmless ones, a stage that has not begun, more steps, the same data under another name: it goes on, and says so.
again "$out" 1 $short data.file="$here/kept.h5" checkpoint.keep=3 actor.zero_stage=0 rm.micro_tokens=300 rm.max_steps=7 ppo.lr=2e-3 ppo.max_steps=2 job.max_hours=5
code=$?
missing=
for words in 'checkpoint.keep was 2 .*do not depend' 'rm.micro_tokens was 512 .*last bits' 'rm.max_steps was 6 .*extended' 'ppo.lr was 0.001 .*has begun' \
    'data.rm_file was .*the same content' 'the program was dschat 0.0.9 (abc) so far'; do
    grep -q "note: $words" "$out/log.txt" || missing="$missing \"$words\""
done
if [ $code != 0 ]; then fail harmless "exit code $code: $(tail -n 1 "$out.log")"
elif [ -n "$missing" ]; then fail harmless "does not say$missing"
elif ! grep -q '^# change .*rm.max_steps = 7 (was 6)' "$out/params.out" || ! grep -q '^max_steps = 7' "$out/params.out"; then fail harmless "params.out does not tell of max_steps"
elif ! grep -q 'params_changes.*rm.max_steps = 7' "$out/summary.json"; then fail harmless "summary.json does not tell of max_steps"
elif ! h5dump -a /origin/params_changes "$out/models/actor.h5" | grep -q 'rm.max_steps = 7'; then fail harmless "actor.h5 does not tell of max_steps"
else ok harmless; fi

# A finished run: the same again is fine and writes no record, others are refused.
same="$short data.file=$here/kept.h5 checkpoint.keep=3 actor.zero_stage=0 rm.micro_tokens=300 rm.max_steps=7 ppo.lr=2e-3 ppo.max_steps=2 job.max_hours=5"
before=$(told "$out")
again "$out" 1 $same && [ "$(told "$out")" = "$before" ] && ok same_again || fail same_again "$(tail -n 1 "$out.log")"
again "$out" 1 $same checkpoint.keep=4 && grep -q '^# change .*rm.max_steps = 7 (was 6)' "$out/params.out" && grep -q '^# change .*checkpoint.keep = 4' "$out/params.out" && ok changes_kept ||
    fail changes_kept "earlier changes are gone from params.out: $(last_error "$out")"
same="$same checkpoint.keep=4"
refuses finished_run "$out" 'this run (at its end) has other params: ppo.kl_coef was' $same ppo.kl_coef=0.3
refuses finished_run_longer "$out" 'ppo.max_steps was 2' $same ppo.max_steps=9

# Accepted: recorded with old, new and step.
out=$here/accepted
until_stop "$out" sft-000002 $short
again "$out" 1 $short sft.lr=4e-3 job.accept_changes=yes
code=$?
if [ $code != 0 ]; then fail accepted "exit code $code: $(tail -n 1 "$out.log")"
elif ! grep -q '^# change .* sft-00000[0-9]: sft.lr = 0.004 (was 0.003): accepted' "$out/params.out"; then fail accepted "params.out: $(tail -n 1 "$out/params.out")"
elif ! grep -q 'params_changes.*sft.lr = 0.004 (was 0.003)' "$out/summary.json"; then fail accepted "summary.json does not tell"
elif ! h5dump -a /origin/params_changes "$out/models/sft.h5" | grep -q 'sft.lr = 0.004'; then fail accepted "sft.h5 does not tell"
else ok accepted; fi
refuses accepted_then_back "$out" 'sft.lr was 0.004' $short

# Another stage after all are done, on other keys.
out=$here/later
again "$out" 1 $short job.stages=sft,rm || fail later "$(tail -n 1 "$out.log")"
again "$out" 2 $short ppo.lr=5e-4
code=$?
[ $code = 0 ] && [ -e "$out/models/actor.h5" ] && grep -q 'job.stages was sft, rm' "$out/log.txt" && ok stage_added || fail stage_added "exit code $code: $(tail -n 1 "$out.log")"
out=$here/front
again "$out" 1 $short job.stages=rm || fail front "$(tail -n 1 "$out.log")"
refuses stage_in_front "$out" 'job.stages was rm' $short job.stages=sft,rm

# A model given as input, replaced by another.
out=$here/given
mkdir "$here/in" && cp -r "$here/later"/models/sft.* "$here/in"
until_stop "$out" sft-000002 $short actor.model="$here/in/sft.h5"
rm -r "$here/in" && mkdir "$here/in" && cp -r "$here/accepted"/models/sft.* "$here/in"
refuses replaced_model "$out" 'content of \[actor\] model' $short actor.model="$here/in/sft.h5"
# Nothing was made yet: anything may change.
out=$here/nothing
again "$out" 1 $short data.file="$here/missing.h5"
again "$out" 1 $short sft.lr=1e-3 && ok nothing_yet || fail nothing_yet "$(tail -n 1 "$out.log")"
exit $bad
