#!/bin/sh
# params.sh: --keys and --check as a user types them. From the repository root; a line a case; exit 1 if one fails.
tmp=build/tmp/cli_params
mkdir -p $tmp
failed=0

# case NAME CODE WORDS COMMAND...: the command ends with CODE and says WORDS (a fixed string) on stdout or stderr.
case_() {
    name=$1 code=$2 words=$3
    shift 3
    "$@" >$tmp/said 2>&1
    got=$?
    if [ $got -ne "$code" ]; then
        echo "FAIL $name: exit code $got, expected $code: $(head -n 1 $tmp/said)"
        failed=1
    elif ! grep -qF -- "$words" $tmp/said; then
        echo "FAIL $name: expected \"$words\", it said \"$(head -n 1 $tmp/said)\""
        failed=1
    else
        echo "ok $name"
    fi
}

# The shipped files name data sets and models that are not here: nothing else is wrong with them.
shipped() {
    ./dschat --check "$1" && return
    ./dschat --check "$1" 2>&1 | grep '^error' | sed 's/; also: /\n/g' | grep -vq 'there is no such file' && return 1
    return 0
}

case_ params_keys 0 'ppo.kl_coef = 0.1' ./dschat --keys
case_ params_keys_type 0 'a number from 0 to 1000]' ./dschat --keys
for file in inputs/*.in; do
    case_ "params_check_$(basename "$file" .in)" 0 '' shipped "$file"
done

printf '[job]\nseed = 1\n\n[ppo]\nkl_coeff = 0.2\n' >$tmp/unknown.in
case_ params_unknown_key 2 "$tmp/unknown.in:5: unknown key 'kl_coeff' in [ppo]; did you mean 'kl_coef'?" \
    ./dschat --check $tmp/unknown.in
case_ params_unknown_key_run 2 "$tmp/unknown.in:5: unknown key" ./dschat $tmp/unknown.in
printf '[jbo]\n' >$tmp/section.in
case_ params_unknown_section 2 \
    "$tmp/section.in:1: unknown section [jbo]; did you mean [job]?" ./dschat --check $tmp/section.in
printf '[sft]\nlr = fast\n' >$tmp/type.in
case_ params_wrong_type 2 "$tmp/type.in:2: [sft] lr = fast: not a number" ./dschat --check $tmp/type.in
printf '[sft]\nlr = 11\n' >$tmp/range.in
case_ params_out_of_range 2 "out of range; expected a number from 0 to 10" ./dschat --check $tmp/range.in
printf '[ppo]\nglobal_batch = 48\n' >$tmp/batch.in
case_ params_contradiction 2 \
    "$tmp/batch.in:2: [ppo] global_batch = 48: expected a divisor" ./dschat --check $tmp/batch.in
case_ params_override 2 'data.h5 (default): there is no such file' ./dschat --check $tmp/batch.in ppo.rollout_batch=96
case_ params_override_unknown 2 "did you mean 'seed'?" ./dschat --check inputs/params.in job.sede=3
printf '[job]\ndevice = cuda\n' >$tmp/cuda.in
case_ params_not_built 2 "the CUDA back end is not built" ./dschat --check $tmp/cuda.in
case_ params_keep_layers 2 "needs [actor] recompute = block" ./dschat --check inputs/params.in actor.keep_layers=2
case_ params_no_file 2 "$tmp/absent.in" ./dschat --check $tmp/absent.in
head -c 4096 /dev/urandom >$tmp/binary.in
case_ params_binary 2 "$tmp/binary.in:" ./dschat --check $tmp/binary.in


# Help everywhere, words in any order, a key without its section, paths that a shell has not seen.
for tool in ./dschat bin/dschat-data bin/dschat-model bin/dschat-eval bin/dschat-chat; do
    case_ "params_help_$(basename $tool)" 0 "$(basename $tool)" $tool --help
    case_ "params_h_$(basename $tool)" 0 "$(basename $tool)" $tool -h
done
n=$(mpirun -np 3 ./dschat | grep -c 'as one MPI job')
if [ "$n" = 1 ]; then echo "ok params_help_once"; else echo "FAIL params_help_once: $n of 3 ranks say it"; fi
case_ params_full 4 'cannot be written' bash -c './dschat --keys >/dev/full'
case_ params_help_anywhere 0 'what a model says' bin/dschat-eval x.h5 --help
for line in '--plan inputs/params.in --ranks 64' '--plan --ranks 64 inputs/params.in' '--ranks=64 --plan inputs/params.in' \
    'inputs/params.in --ranks 64 sft.lr=1 --plan'; do
    case_ params_plan_words 0 'plan: inputs/params.in on 64 ranks' ./dschat $line
    case_ params_plan_assumes 0 'a vocabulary of 32000 is assumed' ./dschat $line
    case_ params_plan_lengths 0 'samples of max_prompt + max_answer tokens are assumed' ./dschat $line
done
case_ params_ranks_of_a_job 2 'mpirun -np N' ./dschat inputs/params.in --ranks 4
case_ params_unknown_option 2 'unknown option --plam; did you mean --plan' ./dschat --plam inputs/params.in
case_ params_np 2 "-np: is mpirun's and comes before the program: mpirun -np N" ./dschat -np 2 inputs/params.in
case_ params_np_plan 2 "a plan's is --ranks N" ./dschat --plan inputs/params.in -np 2
case_ params_nothing 2 'expected the name of a params file' ./dschat --check
case_ params_bare_key 2 'did you mean ppo.kl_coef=0.1?' ./dschat --check inputs/params.in kl_coef=0.1
case_ params_home 2 "write $HOME/x.h5" ./dschat --check inputs/params.in 'data.file=~/x.h5'
case_ params_home_tool 4 "write $HOME/x.h5" bin/dschat-model inspect '~/x.h5'
printf '[data]\noutput = $HOME/x.h5\ntokenizer = x\n[source1]\npath = y\n' >$tmp/spec.in
case_ params_home_spec 2 "[data] output = \$HOME/x.h5: ~ and \$ are not expanded in paths; write $HOME/x.h5" bin/dschat-data build $tmp/spec.in

rm -rf $tmp
exit $failed
