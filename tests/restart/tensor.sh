#!/usr/bin/env bash
# tensor.sh: the three stages as one job over tensor groups, with and without adapters, and moved between tensor sizes in the middle of a stage:
# the losses are those of one rank to 1e-5. And the shape of the paper: an OPT actor with a reward model of OPT-350M's form on tensor 2 x zero 2.
# Argument: all (every layout; default: a few).
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL tensor_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
bad=0
ok() { echo "ok tensor_$1${2:+ ($2)}"; }
fail() { echo "FAIL tensor_$1: $2"; bad=1; }
here=build/tmp/tensor
rm -rf "$here" && mkdir -p "$here"
# Small steps and a larger eps, so that five steps do not enlarge rounding (Adam brings gradients that are next to nothing to full size).
short="sft.eps=1e-5 rm.eps=1e-5 ppo.eps=1e-5 sft.lr=5e-4 rm.lr=5e-4 ppo.lr=2e-4 ppo.critic_lr=2e-4 layout.lanes=4 sft.max_steps=5 rm.max_steps=5 ppo.max_steps=3"
adapters="actor.lora_rank=4 actor.lora_alpha=8 actor.lora_lr=1e-3 critic.lora_rank=3 critic.lora_modules=attention reward.lora_rank=2 reward.only_optimize_lora=yes reward.lora_lr=1e-3"

losses() { ncdump -p 9,17 -v loss,value_loss,accuracy "$1/history.nc" | sed '1,/^data:/d'; }

# compare NAME OUT WANT: losses equal to 1e-5 relative (what is nan is nan in both), and the first ratio of every iteration exactly 1: the
# sampler's log-probs are the trainer's.
compare() {
    local worst
    worst=$(paste <(losses "$2" | tr -s ' ,;' '\n\n\n') <(losses "$3" | tr -s ' ,;' '\n\n\n') | awk '
        $1 ~ /^-?[0-9]/ || $2 ~ /^-?[0-9]/ {
            d = $1 - $2; if (d < 0) d = -d; s = $2 < 0 ? -$2 : $2; r = s > 1e-3 ? d / s : d * 1e3
            if ($1 !~ /^-?[0-9]/ || $2 !~ /^-?[0-9]/) r = 9
            if (r > w) w = r; n++ }
        END { printf "%.2e", (n > 20 ? w : 9) }')
    if ! ncdump -v ratio_first "$2/history.nc" | sed '1,/^data:/d' | tr -s ' =,;' '\n\n\n\n' | awk '/^[0-9]/ { n++; if ($1 != 0) bad = 1 } END { exit bad || n < 3 }'; then
        fail "$1" "the first ratio of an iteration is not 1"
    elif awk "BEGIN { exit !($worst <= 1e-5) }"; then ok "$1" "off by $worst"; else fail "$1" "losses off by $worst"; fi
}

run "$here/whole" 1 $short || { fail whole "$(tail -n 1 "$here/whole.log")"; exit 1; }
run "$here/adapted" 1 $short $adapters || { fail adapted "$(tail -n 1 "$here/adapted.log")"; exit 1; }

# ranks, tensor, ZeRO stages of actor (and reward), critic, reference; whole or adapted; further keys
few="2:2:1:1:0:whole:layout.sequence=yes 4:2:3:2:3:adapted:actor.recompute=block~generate.gather=block 4:4:0:3:0:whole:generate.batch=3 2:1:3:1:3:adapted:generate.tensor=2~generate.gather_blocks=3"
all="2:2:0:0:0:adapted: 4:2:2:1:3:whole:actor.recompute=block 4:4:2:3:0:adapted: 8:4:3:3:3:adapted:layout.sequence=yes 8:2:1:2:0:whole: 8:2:3:0:0:adapted:generate.gather=block 2:1:3:3:3:adapted:"
[ "${1:-}" = all ] || all=
for case in $few $all; do
    IFS=: read -r ranks tensor a c r want more <<<"$case"
    name=${ranks}_ranks_tensor_${tensor}_zero_${a}${c}${r}_$want out=$here/$name
    keys=$([ "$want" = whole ] || echo "$adapters")
    if ! run "$out" "$ranks" $short $keys layout.tensor="$tensor" actor.zero_stage="$a" reward.zero_stage="$a" critic.zero_stage="$c" \
        reference.zero_stage="$r" ${more//\~/ }; then fail "$name" "$(tail -n 1 "$out.log")"
    else compare "$name" "$out" "$here/$want"; fi
done

# Tensor 2 -> 1 -> 4 in the middle of rm and of ppo.
for want in whole adapted; do
    out=$here/moves_$want keys=$([ $want = whole ] || echo "$adapters")
    move "$out" 4 rm-000002 $short $keys layout.tensor=2 actor.zero_stage=3 reward.zero_stage=3
    first=$?
    move "$out" 2 ppo-000001 $short $keys layout.tensor=1 critic.zero_stage=3
    second=$?
    if [ "$first $second" != "11 11" ]; then fail "moves_$want" "exit codes $first, $second, expected 11, 11: $(tail -n 1 "$out.log")"
    elif ! run "$out" 4 $short $keys layout.tensor=4; then fail "moves_$want" "$(tail -n 1 "$out.log")"
    else compare "moves_2_to_1_to_4_$want" "$out" "$here/$want"; fi
done

# The paper's shape.
opt="actor.arch_family=opt actor.arch_heads=6 actor.arch_width=48"
if ! run "$here/form" 1 job.stages=sft sft.max_steps=2 actor.arch_family=opt actor.arch_post_norm=yes actor.arch_embed_width=40; then
    fail opt_350m_form "$(tail -n 1 "$here/form.log")"
else
    # Smaller steps still for the critic, which begins as the reward model: its loss is a small difference of large numbers.
    small=$(sed 's/ rm.lr=5e-4/ rm.lr=1e-4/; s/critic_lr=2e-4/critic_lr=1e-4/' <<<"$short")
    opt="$opt reward.model=$here/form/models/sft.h5 $small"
    if ! run "$here/opt" 1 $opt; then fail opt "$(tail -n 1 "$here/opt.log")"
    elif ! run "$here/opt4" 4 $opt layout.tensor=2 layout.zero=2 actor.zero_stage=3 critic.zero_stage=2 reward.zero_stage=2 reference.zero_stage=3; then
        fail opt4 "$(tail -n 1 "$here/opt4.log")"
    else compare opt_with_350m_reward_tensor_2_zero_2 "$here/opt4" "$here/opt"; fi
fi

# What cannot be is refused with the nearest value that can.
for wish in "4:layout.tensor=3:nearest is [24]" "8:layout.tensor=8:heads, so that it can be split over 4"; do
    IFS=: read -r ranks key words <<<"$wish"
    run "$here/refused" "$ranks" "$key"
    code=$?
    [ $code = 2 ] && grep -q "$words" "$here/refused.log" && ok "refused_${key#*=}" || fail "refused_${key#*=}" "exit code $code: $(tail -n 1 "$here/refused.log")"
    rm -f "$here/refused.log"
done
exit $bad
