#!/usr/bin/env bash
# flips.sh: one bit of a file flips: of a checkpoint, a model (shards and master, or one file), a data set with its tokenizer, the history, the
# rollouts. The job that goes on from it or begins with it, chat, eval, inspect and verify refuse it (exit code 3), or end as if nothing had
# happened (an older checkpoint, a byte that means nothing): the digest of all results, or what they print, is the same.
#
# flips.sh [N [SEED]]: N flips (default 40). DSCHAT_TEST_JOBS trials run at a time (default 2).
set -u
. tests/restart/tiny.inc
. tests/fail/trial.inc
tiny_setup || { echo "FAIL flips_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
want=${1:-40} seed=${2:-1}
jobs=${DSCHAT_TEST_JOBS:-2}
here=build/tmp/flips
rm -rf "$here" && mkdir -p "$here"
trial_codes=3
bad=0

# What is damaged, and who meets it: files below the trial's folder (of the way), then who, by turns.
cases="checkpoint_sft:sft:out/checkpoints/sft-000001:job
checkpoint_rm:rm:out/checkpoints/rm-000001:job
checkpoint_ppo:ppo:out/checkpoints:job
product_sft:rm:out/models/sft*:job
product_rm:ppo:out/models/*:job
history:rm:out/history.nc:job
rollouts:ppo:out/*.nc:job
model:models:from/*:job logprobs perplexity chat inspect
single:single:from/*:job logprobs score chat inspect
data:models:all.h5:job verify job perplexity
data_goes_on:ppo:all.h5:job"

# flip FILE: one bit of it at random, said in $what. (Not in a subshell: there bash's RANDOM would not follow from the seed.)
flip() {
    local size at bit byte
    size=$(stat -c %s "$1")
    at=$(((RANDOM * 32768 + RANDOM) % size)) bit=$((RANDOM % 8))
    byte=$(od -An -tu1 -j $at -N 1 "$1")
    printf '%b' "\\0$(printf %o $((byte ^ (1 << bit))))" | dd of="$1" bs=1 seek=$at conv=notrunc 2>/dev/null
    what="bit $bit of byte $at of $1"
}

# meet WHO DIR RANKS WAY: exit code; what a tool printed in DIR.says
meet() {
    local t=$2
    case $1 in
    job) trial_run "$t" "$4" "$3" ; return ;;
    logprobs) set -- bin/dschat-eval "$t/from/sft.h5" --logprobs "$here/texts.jsonl" ;;
    perplexity) set -- bin/dschat-eval "$t/from/sft.h5" --perplexity "$t/all.h5" ;;
    score) set -- bin/dschat-eval "$t/from/rm.h5" --score "$t/all.h5" ;;
    chat) set -- bin/dschat-chat "$t/from/sft.h5" --prompts "$here/prompts.jsonl" max_answer=4 ;;
    inspect) set -- bin/dschat-model inspect "$t/from/sft.h5" --all --verify ;;
    verify) set -- bin/dschat-data verify "$t/all.h5" ;;
    esac
    tests/patience "$trial_limit" "$@" >"$t.says" 2>>"$t.log" </dev/null
}

# judge WHO COPY WAY CODE: nothing, or why not; what a tool says of an undamaged file is in WAY.WHO
judge() {
    if [ "$1" = job ] || [ "$4" != 0 ]; then trial_judge "$2" "$3" "$4"
    elif ! cmp -s "${2%/*}/$3.$1" <(sed "s|${2##*/}/|t/|g" "$2.says"); then echo "exit code 0, says something else"; fi
}

# some FIRST STEP: trials FIRST, FIRST + STEP, ... < want: a line each
some() {
    local i ranks name way globs whos who list files copy what why code turn
    mapfile -t list <<<"$cases"
    for ((i = $1; i < want; i += $2)); do
        RANDOM=$((seed * 10007 + i))
        turn=$((i / ${#list[@]})) ranks=$((1 + (i + turn) % 2))
        IFS=: read -r name way globs whos <<<"${list[i % ${#list[@]}]}"
        read -ra who <<<"$whos"
        who=${who[turn % ${#who[@]}]}
        copy=$here/$ranks/t$1
        trial_copy "$here/$ranks" "$way" "$copy"
        mapfile -t files < <(cd "$copy" && find $globs -type f)
        flip "$copy/${files[RANDOM % ${#files[@]}]}"
        meet "$who" "$copy" "$ranks" "$way"
        code=$?
        why=$(judge "$who" "$copy" "$way" $code)
        if [ -n "$why" ]; then echo "bad trial $i ($name, $who on $ranks ranks, $what): $why"
        elif [ $code != 0 ]; then echo "refused $i $name $what"
        elif grep -q '^warn' "$copy.log"; then echo "warned $i $name $what"
        else echo "harmless $i $name $what"; fi
    done
    rm -rf "$copy"
}

echo '{"text": "apple bird boat"}' >"$here/texts.jsonl"
echo '{"prompt": "apple bird boat"}' >"$here/prompts.jsonl"
for ranks in 1 2; do
    trial_setup "$here/$ranks" $ranks || { echo "FAIL flips_setup_$ranks: $(tail -n 1 "$here/$ranks/t.log")"; exit 1; }
    for way in models single; do
        trial_copy "$here/$ranks" $way "$here/$ranks/t"
        for who in logprobs perplexity score chat inspect verify; do
            meet $who "$here/$ranks/t" $ranks $way || { echo "FAIL flips_setup_$who: $(tail -n 1 "$here/$ranks/t.log")"; bad=1; }
            cp "$here/$ranks/t.says" "$here/$ranks/$way.$who"
        done
    done
done
for ((j = 0; j < jobs; j++)); do some $j "$jobs" >"$here/ends.$j" & done
wait
cat "$here"/ends.* >"$here/ends"
while IFS=: read -r name _; do
    all=$(grep -c "[0-9] $name " "$here/ends") failed=$(grep -c "^bad trial [0-9]* ($name," "$here/ends")
    if [ "$failed" != 0 ]; then
        bad=1
        echo "FAIL flips_$name: $failed of $((all + failed)), seed $seed: $(grep -m1 "^bad trial [0-9]* ($name," "$here/ends")"
    elif [ "$all" != 0 ]; then
        echo "ok flips_$name ($all flips: $(grep -c "^refused [0-9]* $name " "$here/ends") refused, $(grep -c "^warned [0-9]* $name " "$here/ends") with a warning, \
$(grep -c "^harmless [0-9]* $name " "$here/ends") harmless)"
    fi
done <<<"$cases"
exit $bad
