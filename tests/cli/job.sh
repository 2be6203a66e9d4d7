#!/usr/bin/env bash
# job.sh: what a run leaves, looked at as the README tells: HDF5's and NetCDF's tools, dschat-model, -eval, -chat, -data and the report.
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL job_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
bad=0
here=build/tmp/cli-job
rm -rf "$here" && mkdir -p "$here"
ok() { echo "ok job_$1"; }
fail() { echo "FAIL job_$1: $2"; bad=1; }
# shows NAME PATTERN COMMAND...: the command succeeds and its output has the pattern.
shows() {
    local name=$1 pattern=$2 code
    shift 2
    "$@" >"$here/$name.txt" 2>&1 </dev/null
    code=$?
    if [ $code != 0 ]; then fail "$name" "$* ended with $code: $(tail -n 1 "$here/$name.txt")"
    elif [ -n "$pattern" ] && ! grep -q -e "$pattern" "$here/$name.txt"; then fail "$name" "$* does not show \"$pattern\": $(tail -n 1 "$here/$name.txt")"
    else ok "$name"; fi
}
# refused NAME CODE PATTERN COMMAND...: the command ends with the code and an error that has the pattern.
refused() {
    local name=$1 want=$2 pattern=$3 code
    shift 3
    "$@" >"$here/$name.txt" 2>&1
    code=$?
    if [ $code = "$want" ] && grep -q -e "$pattern" "$here/$name.txt"; then ok "$name"; else fail "$name" "ended with $code: $(tail -n 1 "$here/$name.txt")"; fi
}
same() { if cmp -s "$2" "$3"; then ok "$1"; else fail "$1" "$2 and $3 differ"; fi; }

out=$here/run
run "$out" 2 sft.max_steps=6 rm.max_steps=6 ppo.max_steps=6 checkpoint.every_steps=2 || { fail run "$(tail -n 1 "$out.log")"; exit 1; }
shows version 'dschat [0-9]' ./dschat --version
shows help 'mpirun' ./dschat --help
for file in params.out log.txt summary.json history.nc rollouts.nc models/sft.h5 models/rm.h5 models/critic.h5 models/actor.h5 models/actor_ema.h5; do
    [ -s "$out/$file" ] || fail files "no $file"
done
shows summary '"ppo.reward_after"' cat "$out/summary.json"
shows params_out 'max_steps = 6' cat "$out/params.out"
# What a run echoes runs again.
shows params_again ok ./dschat --check "$out/params.out"

w=/weights/model.norm.weight
shows h5ls "$w" h5ls -r "$out/models/actor.h5"
shows h5dump 'DATASET "/weights/model.norm.weight"' h5dump -d $w "$out/models/actor.h5"
shows h5copy '' h5copy -i "$out/models/actor.h5" -o "$here/one.h5" -s $w -d /norm
shows h5repack '' h5repack -l CONTI "$out/models/actor.h5" "$here/repacked.h5"
shows h5repack_loads 'llama' bin/dschat-model inspect "$here/repacked.h5" --verify
shows h5diff_same '' h5diff "$out/models/actor.h5" "$out/models/actor.h5"
h5diff "$out/checkpoints/ppo-000002/actor.h5" "$out/checkpoints/ppo-000004/actor.h5" $w $w >"$here/h5diff.txt" 2>&1
[ $? = 1 ] && ok h5diff_steps || fail h5diff_steps "checkpoints of two steps do not differ: $(tail -n 1 "$here/h5diff.txt")"
shows origin 'params_sha256' h5dump -a /origin/params_sha256 "$out/models/actor.h5"
shows ncdump 'units' ncdump -h "$out/history.nc"
shows ncdump_rollouts 'log-probability' ncdump -h "$out/rollouts.nc"
shows report '3 stages, [0-9]* plots, 18 steps' tools/dschat-report "$out"
# The evaluation before is there (step 0), and a plot of two evaluations shows both, joined.
first=$(ncdump -v stage,step,eval_nll,eval_accuracy,eval_reward "$out/history.nc" | tr -d '\n ' | sed 's/.*data://; s/[a-z_]*=//g')
awk -F ';' '{ n = split($1, stage, ","); split($2, step, ","); split($3, nll, ","); split($4, right, ","); split($5, reward, ",")
    for (i = 1; i <= n; i++) if (step[i] == 0) before = before stage[i] ((stage[i] == 1 ? nll[i] : stage[i] == 2 ? right[i] : reward[i]) ~ /[0-9]/) " "
    exit before != "11 21 31 " }' <<<"$first" && ok history_before || fail history_before "$first"
for name in eval_nll eval_accuracy eval_reward eval_true_score; do
    points=$(awk -v b="<b>$name</b>" 'index($0, b) { on = 1 } on { n += gsub(/<use [^>]*translate/, "") } on && /stroke=.rgb\( 31,/ { line = 1 }
        /<\/figure>/ { on = 0 } END { print n + 0, line + 0 }' "$out/report.html")
    [ "$points" = "2 1" ] && ok "report_$name" || fail "report_$name" "points and lines: $points, expected 2 and 1"
done

shows inspect 'llama' bin/dschat-model inspect "$out/models/actor.h5"
shows inspect_verify 'llama' bin/dschat-model inspect "$out/models/actor.h5" --verify
shows export '' bin/dschat-model export "$out/models/actor.h5" "$here/hf"
# A model trained here brings the template that it was trained with, and what ends an answer.
shows export_template "'.n.nHuman: '" cat "$here/hf/chat_template.jinja"
shows export_generation '"eos_token_id": 0' cat "$here/hf/generation_config.json"
shows import 'llama' bin/dschat-model import "$here/hf" "$here/back.h5"
shows export_again '' bin/dschat-model export "$here/back.h5" "$here/hf2"
same round_trip "$here/hf/model.safetensors" "$here/hf2/model.safetensors"

printf '{"prompt": "Say the last of these words: wolf tree"}\n{"messages": [{"role": "user", "content": "Say cat"}]}\n' >"$here/prompts.jsonl"
printf '{"prompt": "wolf tree"}\n{"ids": [5, 6]}\n' >"$here/raw.jsonl"
printf '{"text": "wolf tree"}\n{"ids": [5, 6, 7]}\n' >"$here/texts.jsonl"
for model in sft actor actor_ema; do
    shows "chat_$model" '"stop"' bin/dschat-chat "$out/models/$model.h5" --prompts "$here/prompts.jsonl" max_answer=8
done
# The template is the one of the data; a terminal's conversation; from the repacked single file the same answers.
bin/dschat-chat "$here/repacked.h5" --prompts "$here/prompts.jsonl" max_answer=8 >"$here/repacked.txt"
same repacked_answers "$here/chat_actor.txt" "$here/repacked.txt"
printf '/set temperature 0.7\n/system Be kind.\nSay cat\n/clear\n/quit\n' >"$here/typed.txt"
shows chat_terminal 'template hh' bash -c "script -qec 'bin/dschat-chat $out/models/actor.h5 max_answer=4' /dev/null <$here/typed.txt"
shows eval_logprobs '"logprobs"' bin/dschat-eval "$out/models/actor.h5" --logprobs "$here/texts.jsonl"
shows eval_generate '"text"' bin/dschat-eval "$out/models/actor.h5" --generate "$here/raw.jsonl" max_answer=4
shows eval_perplexity 'perplexity' bin/dschat-eval "$out/models/sft.h5" --perplexity "$tiny_data/all.h5"
shows eval_score 'accuracy' bin/dschat-eval "$out/models/rm.h5" --score "$tiny_data/all.h5"
shows eval_values '"values"' bin/dschat-eval "$out/models/rm.h5" --values "$here/texts.jsonl"
# Tokens of another tokenizer mean nothing to a model: no figure is made of them. Two tokens change places; a larger vocabulary.
sed 's/: 409,/: 0409,/; s/: 410,/: 409,/; s/: 0409,/: 410,/' inputs/data/demo-tokenizer.json >"$here/tok.json"
for tok in "$here/tok.json" tests/refs/token_gpt2.json; do
    other=$here/other-$(basename "$tok" .json)
    bin/dschat-data build "$tiny_data/spec.in" data.tokenizer="$tok" data.output="$other.h5" >"$here/build.txt" 2>&1 || fail eval_other "$(tail -n 1 "$here/build.txt")"
    refused "eval_perplexity_${other##*-}" 3 "^error: $other.h5: .* $out/models/sft.h5 " bin/dschat-eval "$out/models/sft.h5" --perplexity "$other.h5"
    refused "eval_score_${other##*-}" 3 "^error: $other.h5: .* $out/models/rm.h5 " bin/dschat-eval "$out/models/rm.h5" --score "$other.h5"
done
refused eval_prompts 2 'unknown option --prompts' bin/dschat-eval "$out/models/sft.h5" --logprobs "$here/texts.jsonl" --prompts "$here/prompts.jsonl"
refused chat_logprobs 2 'unknown option --logprobs' bin/dschat-chat "$out/models/sft.h5" --logprobs "$here/texts.jsonl"
refused export_tilde 2 '~ and $ are not expanded' bin/dschat-model export "$out/models/sft.h5" '~/hf'
refused import_tilde 2 '~ and $ are not expanded' bin/dschat-model import "$here/hf" '$HOME/x.h5'
# A full disk is no success of a command that only prints.
for command in "./dschat --template" "./dschat --plan $tiny_params --ranks 2" "bin/dschat-data show $tiny_data/all.h5" "bin/dschat-model inspect $out/models/sft.h5" \
    "bin/dschat-eval $out/models/sft.h5 --logprobs $here/texts.jsonl" "bin/dschat-chat $out/models/sft.h5 --prompts $here/prompts.jsonl"; do
    refused "full_$(basename "${command%% *}")_$(cut -d' ' -f2 <<<"$command" | tr -c 'a-z\n' _)" 4 'the output cannot be written' sh -c "$command >/dev/full"
done
echo hi | refused full_conversation 4 'the output cannot be written' sh -c "cat | bin/dschat-chat $out/models/sft.h5 max_answer=2 >/dev/full"
# The last screen names a model that is there: the reward model's own tool where no other was made.
run "$here/rm" 1 job.stages=rm rm.max_steps=1 actor.model="$out/models/sft.h5" || fail next "$(tail -n 1 "$here/rm.log")"
grep -q "^next: bin/dschat-eval $here/rm/models/rm.h5 --score $tiny_data/all.h5 " "$here/rm.log" && ! grep -q rollouts.nc "$here/rm.log" && ok next || fail next "$(tail -n 2 "$here/rm.log")"
shows data_show 'hh' bin/dschat-data show "$tiny_data/all.h5" 2
shows data_verify 'as they were written' bin/dschat-data verify "$tiny_data/all.h5"
exit $bad
