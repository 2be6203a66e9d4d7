#!/usr/bin/env bash
# preflight.sh: everything that a later stage needs is looked at before the first, by a job and by --check: one message with all that is wrong, the
# exit code of its kind, nothing written.
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL preflight_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
bad=0
here=build/tmp/preflight
rm -rf "$here" && mkdir -p "$here"
ok() { echo "ok preflight_$1"; }
fail() { echo "FAIL preflight_$1: $2"; bad=1; }

# expect NAME CODE PATTERN COMMAND...: it ends with CODE and says PATTERN in one error.
expect() {
    local name=$1 want=$2 pattern=$3 log=$here/$1.txt code
    shift 3
    tests/patience 120 "$@" >"$log" 2>&1 </dev/null
    code=$?
    if [ $code != "$want" ]; then fail "$name" "exit code $code, expected $want: $(tail -n 1 "$log")"
    elif ! grep -q -e "$pattern" "$log"; then fail "$name" "does not say \"$pattern\": $(grep -v '^  ' "$log" | head -n 2)"
    elif [ "$want" != 0 ] && [ "$(grep -c '^error' "$log")" != 1 ]; then fail "$name" "$(grep -c '^error' "$log") errors said, expected 1"
    else ok "$name"; fi
}
# checked NAME CODE PATTERN [key=value ...]: by --check, which writes nothing.
checked() {
    local name=$1 want=$2 pattern=$3
    shift 3
    expect "$name" "$want" "$pattern" ./dschat --check "$tiny_params" job.out="$here/never" "$@"
    [ ! -e "$here/never" ] || { fail "$name" "wrote $here/never"; rm -rf "$here/never"; }
}
# refused NAME CODE PATTERN [key=value ...]: by --check and by a job on two ranks, before its first stage.
refused() {
    local name=$1 want=$2 pattern=$3
    checked "$@"
    shift 3
    expect "${name}_job" "$want" "$pattern" mpirun -np 2 ./dschat "$tiny_params" job.out="$here/never" "$@"
    if grep -q '^sft' "$here/${name}_job.txt" || [ -e "$here/never" ]; then fail "${name}_job" "a stage began"; rm -rf "$here/never"; fi
}
# built NAME SOURCE-KEYS LINES: a data set of these JSON lines.
built() {
    printf '%b' "$3" >"$here/$1.jsonl"
    printf '[data]\noutput = %s/%s.h5\ntokenizer = %s\neval_fraction = 0\n[source1]\npath = %s/%s.jsonl\n%b\n' \
        "$here" "$1" "${4:-inputs/data/demo-tokenizer.json}" "$here" "$1" "$2" >"$here/$1.in"
    bin/dschat-data build "$here/$1.in" >"$here/$1.build" 2>&1 || fail "$1" "$(tail -n 1 "$here/$1.build")"
}

checked fine 0 'tiny.in: ok'
for words in 'data   ptx: .* the longest has' 'model  rm: reward from .*sft.h5' 'model  ppo: reward from .*rm.h5' 'disk .* 3 checkpoints of'; do
    grep -q "$words" "$here/fine.txt" || fail fine "does not tell \"$words\""
done

# Rows that are longer than the positions of the model that reads them, a pair's longer one, in each kind: --plan says it too.
long=$(for i in $(seq 70); do printf 'cat '; done)
built long_sft 'stages = sft, ppo' "{\"prompt\": \"a\", \"answer\": \"cat\"}\n{\"prompt\": \"a\", \"answer\": \"$long\"}\n"
built long_rm 'stages = rm' "{\"prompt\": \"a\", \"chosen\": \"cat\", \"rejected\": \"$long\"}\n"
built long_ptx 'form = text\nstages = ptx' "{\"text\": \"$long\"}\n"
refused long_sft 3 'long_sft.h5: row 1 (sft) has [78][0-9] tokens, but the actor (random weights) has 64 positions.*max_tokens = 64' data.sft_file="$here/long_sft.h5"
checked long_rm 3 'long_rm.h5: row 1 (rm) has [78][0-9] tokens, but the reward' data.rm_file="$here/long_rm.h5"
checked long_ptx 3 'long_ptx.h5: row 0 (ptx) has [78][0-9] tokens' data.ptx_file="$here/long_ptx.h5"
checked long_fits 0 ok data.sft_file="$here/long_sft.h5" actor.arch_positions=100
checked long_not_read 0 ok data.ptx_file="$here/long_ptx.h5" ppo.ptx_coef=0
for kind in sft rm ptx; do
    expect "long_${kind}_plan" 3 "long_$kind.h5: row . ($kind) has [78][0-9] tokens" ./dschat --plan "$tiny_params" --ranks 2 data.${kind}_file="$here/long_$kind.h5"
done

# What the data sets hold.
refused no_pairs 3 'holds no pairs for rm' data.rm_file="$here/long_sft.h5" actor.arch_positions=100
checked no_prompts 3 'holds no prompts for ppo' data.ppo_file="$here/long_rm.h5" actor.arch_positions=100
checked long_prompts 3 'no prompt has at most' generate.max_prompt=2
checked held_out 3 'holds out no samples for sft, but .sft. eval_every' data.sft_file="$here/long_sft.h5" actor.arch_positions=100 sft.eval_every=5
checked held_out_pairs 3 'holds out no pairs, by whose scores .ppo. normalize_reward' data.rm_file="$here/long_rm.h5" actor.arch_positions=100 rm.eval_every=0 ppo.normalize_reward=yes
checked scores_as_they_are 0 ok data.rm_file="$here/long_rm.h5" actor.arch_positions=100 rm.eval_every=0 ppo.normalize_reward=no
checked no_tokens 4 "data. file = $here/none.h5: there is no such file" data.file="$here/none.h5"
! grep -q 'needs a tokenizer' "$here/no_tokens.txt" || fail no_tokens "says what follows from it too"
checked no_file 4 "data. rm_file = $here/none.h5: there is no such file" data.rm_file="$here/none.h5"
sed 's/: 409,/: 0409,/; s/: 410,/: 409,/; s/: 0409,/: 410,/' inputs/data/demo-tokenizer.json >"$here/tok.json" # two tokens change places
built other 'stages = ppo' '{"prompt": "a", "answer": "cat"}\n' "$here/tok.json"
refused tokenizers 3 'other.h5: was made with another tokenizer than' data.ppo_file="$here/other.h5"
checked checker 2 'checker = wrods is unknown.*did you mean words' ppo.checker=wrods

# Models.
run "$here/run" 2 sft.max_steps=1 rm.max_steps=1 ppo.max_steps=1 || fail run "$(tail -n 1 "$here/run.log")"
made=$here/run/models
refused no_critic 4 "critic. model = $here/none.h5: there is no such file" critic.model="$here/none.h5"
checked critic_is_data 3 'all.h5' critic.model="$tiny_data/all.h5"
checked scalar_actor 3 'rm.h5: is a model with a scalar head' actor.model="$made/rm.h5"
checked random_reward 3 'sft.h5: is a language model: its scores would be random' job.stages=ppo actor.model="$made/sft.h5" reward.model="$made/sft.h5"
checked ppo_alone 0 ok job.stages=ppo actor.model="$made/sft.h5" reward.model="$made/rm.h5"
checked by_checker 0 ok job.stages=ppo actor.model="$made/sft.h5" ppo.reward_source=checker critic.model="$made/sft.h5"
checked no_actor 2 'no model for .actor.' job.stages=ppo reward.model="$made/rm.h5"
checked model_positions 3 "the actor ($made/sft.h5) has 64 positions" actor.model="$made/sft.h5" data.sft_file="$here/long_sft.h5"
refused answers 2 'the critic (.*rm.h5) has 64 positions' actor.arch_positions=100 critic.model="$made/rm.h5" generate.max_answer=40
checked heads 2 'tensor = 8' layout.tensor=8
checked adapters 2 'lora_modules' critic.lora_rank=2 critic.lora_modules=nothing
checked model_tokenizer 3 "is not the data set's" actor.model="$made/sft.h5" data.file="$here/other.h5" job.stages=ppo reward.model="$made/rm.h5" ppo.ptx_coef=0

# Files in the wrong place are called what they are.
mkdir -p "$here/hf" && echo '{}' >"$here/hf/config.json"
checked hf_folder 3 "hf: is not an HDF5 file but a Hugging Face folder; bin/dschat-model import $here/hf" actor.model="$here/hf"
checked lines_as_data 3 'not an HDF5 file but JSON; .*dschat-data build' data.file="$here/long_sft.jsonl"
checked model_as_data 3 'rm.h5: has no /samples, so it is not a data set but a model' data.rm_file="$made/rm.h5"
expect data_as_model 3 'is not a model but a data set' bin/dschat-model inspect "$tiny_data/all.h5"
expect data_of_model 3 "is an HDF5 file; expected JSON lines" bin/dschat-data build "$here/long_sft.in" source1.path="$tiny_data/all.h5"

# The folder and the disk.
refused disk 4 'the run needs .* more' actor.arch=opt-175b
touch "$here/file"
expect out_is_file 4 'is not a folder' ./dschat --check "$tiny_params" job.out="$here/file"
if [ "$(id -u)" != 0 ]; then
    mkdir -p "$here/closed" && chmod 500 "$here/closed"
    expect out_closed 4 'cannot be written' ./dschat --check "$tiny_params" job.out="$here/closed/run"
else echo "skip preflight_out_closed: root writes everywhere"; fi

# All that is wrong in one message; what is done is not looked at.
checked several 2 'checker = wrods' ppo.checker=wrods critic.model="$here/none.h5" data.ptx_file="$here/none.h5"
[ "$(grep -o 'also: ' "$here/several.txt" | wc -l)" = 2 ] || fail several "$(grep -o 'also: ' "$here/several.txt" | wc -l) more things said, expected 2"
cp "$tiny_data/all.h5" "$here/gone.h5"
keys="job.out=$here/done data.sft_file=$here/gone.h5 sft.max_steps=1 rm.max_steps=1 ppo.max_steps=1"
tests/patience 120 mpirun -np 2 ./dschat "$tiny_params" $keys >"$here/done.log" 2>&1 || fail done "$(tail -n 1 "$here/done.log")"
rm "$here/gone.h5" "$here/done/models/actor.h5"
expect done_data 0 'sft is done' ./dschat --check "$tiny_params" $keys
expect done_job 0 'sft: done before' mpirun -np 2 ./dschat "$tiny_params" $keys

# Nothing but defaults, the first thing to try: what is needed is said before MPI starts, once, and all ranks end alike. (A temporary folder: the
# default data set is data.h5.)
expect defaults 2 'data. file = data.h5 (default): there is no such file; build it with bin/dschat-data build' mpirun -np 4 ./dschat inputs/params.in job.out="$here/never"
[ ! -e "$here/never" ] || fail defaults "wrote $here/never"

# What is wrong is said once, after what was looked at, also in a pipe.
./dschat --check "$tiny_params" job.out="$here/never" layout.tensor=9 >"$here/once.txt" 2>&1
[ "$(grep -o 'the reward has' "$here/once.txt" | wc -l)" = 1 ] && tail -n 1 "$here/once.txt" | grep -q '^error: ' && ok once || fail once "$(tail -n 1 "$here/once.txt")"

# Rank 0 decides whether a product is there: another rank, whose file system is late, follows it.
cat >"$here/late.c" <<'C'
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
int access(const char *path, int mode) {
    const char *rank = getenv("PMI_RANK"), *end = strstr(path, "/models/sft.h5");
    if (rank && *rank == *getenv("LATE_RANK") && end) return errno = ENOENT, -1;
    return ((int (*)(const char *, int))dlsym(RTLD_NEXT, "access"))(path, mode);
}
C
if cc -shared -fPIC -o "$here/late.so" "$here/late.c" -ldl; then
    run "$here/late" 2 job.stages=sft sft.max_steps=2 || fail late "$(tail -n 1 "$here/late.log")"
    before=$(sha256sum <"$here/late/models/sft.h5")
    expect late_rank_1 0 'sft: done before' mpirun -np 2 -genv LD_PRELOAD "$PWD/$here/late.so" -genv LATE_RANK 1 ./dschat "$tiny_params" \
        job.out="$here/late" sft.max_steps=2 rm.max_steps=1 ppo.max_steps=1 job.deadline_minutes=0.3
    [ "$before" = "$(sha256sum <"$here/late/models/sft.h5")" ] || fail late_rank_1 "sft ran again"
else fail late "does not build"; fi
exit $bad
