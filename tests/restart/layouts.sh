#!/usr/bin/env bash
# layouts.sh: the three stages as one job under many layouts: equal lanes give equal weights, bit for bit, whatever the ranks, ZeRO stage, zero
# group and recomputation, also where what travels is quantized; and a job that changes its layout in the middle of a stage, too. Argument: all (every
# layout; default: a few).
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL layouts_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
bad=0
ok() { echo "ok layouts_$1"; }
fail() { echo "FAIL layouts_$1: $2"; bad=1; }
here=build/tmp/layouts
rm -rf "$here" && mkdir -p "$here"
short="layout.lanes=4 sft.max_steps=6 rm.max_steps=6 ppo.max_steps=3"
# How every model is kept: actor, critic, reference, reward.
stages() { printf '%s ' actor.zero_stage="$1" reward.zero_stage="$1" critic.zero_stage="$2" reference.zero_stage="$3"; }

whole=$here/whole
run "$whole" 1 $short $(stages 0 0 0) || { fail whole "$(tail -n 1 "$whole.log")"; exit 1; }
want=$(weights "$whole")

# ranks, stages of actor (and reward), critic, reference, zero group, further keys
few="2:1:1:0:0:actor.offload=moments~critic.offload=moments~reference.offload=weights~reward.offload=weights 2:3:2:3:0:generate.tensor=2~generate.gather_blocks=3~reference.offload=weights~generate.release_cache=yes 2:2:3:3:0: 2:3:0:3:1: 4:3:2:3:2:actor.recompute=block~generate.gather=block 4:0:3:0:4:reward.recompute=block"
all="4:1:2:3:2:generate.tensor=4~generate.release_cache=yes 4:3:3:3:2:generate.tensor=2~generate.gather_blocks=8 1:3:2:3:0: 4:2:1:0:0: 4:1:3:3:1: 4:3:3:3:4:actor.recompute=block 2:0:0:0:2:critic.recompute=block"
[ "${1:-}" = all ] || all=
for case in $few $all; do
    IFS=: read -r ranks a c r zero more <<<"$case"
    name=${ranks}_ranks_zero_${a}${c}${r}_group_$zero out=$here/$name
    if ! run "$out" "$ranks" $short $(stages "$a" "$c" "$r") layout.zero="$zero" ${more//\~/ }; then fail "$name" "$(tail -n 1 "$out.log")"
    elif [ "$(weights "$out")" != "$want" ]; then fail "$name" "the weights differ from those of one rank with 4 lanes"
    else ok "$name"; fi
done

# What travels quantized has other bits than the exact, and the same under every layout.
quant="critic.quantize_gradients=int4"
for model in actor reference reward; do quant+=" $model.quantize_weights=int8"; done
for model in actor reward; do quant+=" $model.quantize_gradients=int8"; done
one=$here/quantized_1 four=$here/quantized_4
if ! run "$one" 1 $short $(stages 3 0 3) $quant; then fail quantized "$(tail -n 1 "$one.log")"
elif ! run "$four" 4 $short $(stages 3 2 3) $quant layout.zero=2 generate.gather=block; then fail quantized "$(tail -n 1 "$four.log")"
elif [ "$(weights "$one")" = "$want" ]; then fail quantized "the weights are those of a job without it"
elif [ "$(weights "$four")" != "$(weights "$one")" ]; then fail quantized "the weights of 4 ranks differ from those of one with 4 lanes"
else ok quantized; fi

# From 4 ranks to 2 to another number, under other stages, in the middle of rm and of ppo.
moves() { # RANKS LANES WANT: 4 -> 2 -> RANKS
    local out=$here/moves_$1 keys="${short/lanes=4/lanes=$2}" first second
    move "$out" 4 rm-000003 $keys $(stages 3 3 3) layout.zero=2
    first=$?
    move "$out" 2 ppo-000001 $keys $(stages 1 2 3)
    second=$?
    if [ "$first $second" != "11 11" ]; then fail "moves_$1" "exit codes $first, $second, expected 11, 11: $(tail -n 1 "$out.log")"
    elif ! run "$out" "$1" $keys $(stages 0 0 0); then fail "moves_$1" "$(tail -n 1 "$out.log")"
    elif [ "$(weights "$out")" != "$3" ]; then fail "moves_$1" "the weights differ from those of one rank with $2 lanes"
    else ok "moves_4_to_2_to_$1"; fi
}
moves 1 4 "$want"
if [ "${1:-}" = all ]; then
    run "$here/whole8" 1 ${short/lanes=4/lanes=8} || fail whole8 "$(tail -n 1 "$here/whole8.log")"
    moves 8 8 "$(weights "$here/whole8")"
fi

# Layouts that cannot be: the nearest one that can is named.
for wish in "layout.zero=3:nearest is [24]" "generate.tensor=3:nearest is [24]" "layout.lanes=6:nearest is [48]"; do
    out=$here/refused
    run "$out" 4 "${wish%%:*}"
    code=$?
    [ $code = 2 ] && grep -q "${wish#*:}" "$out.log" && ok "refused_${wish%%=*}" || fail "refused_${wish%%=*}" "exit code $code: $(tail -n 1 "$out.log")"
    rm -f "$out.log"
done
exit $bad
