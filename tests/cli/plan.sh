#!/usr/bin/env bash
# plan.sh: --plan foretells the memory of a rank, by purpose, to the byte; what does not fit is said with exit code 1 and what to change; it needs no
# MPI, no model and no memory.
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL plan_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
bad=0
ok() { echo "ok plan_$1"; }
fail() { echo "FAIL plan_$1: $2"; bad=1; }
here=build/tmp/plan
rm -rf "$here" && mkdir -p "$here"
short="sft.max_steps=2 rm.max_steps=2 ppo.max_steps=1"

# On CPUs that do not multiply bf16 such models are fp32; --plan knows it where [job] isa says which they are.
isas=$(./dschat --version | sed -n 's/^kernels: //p')
isa=""
[[ $isas = *bf16* ]] || isa=job.isa=${isas##* }

# ranks, keys
while read -r name ranks keys; do
    out=$here/$name
    if ! run "$out" "$ranks" $short $keys $isa </dev/null; then fail "$name" "$(tail -n 1 "$out.log")"; continue; fi
    if ! ./dschat --plan "$tiny_params" --ranks "$ranks" $short $keys $isa >"$out.plan"; then fail "$name" "no plan: $(tail -n 1 "$out.plan")"; continue; fi
    for tag in weights gradients optimizer activations kv communication host; do
        echo "$tag $(sed -n "s/.*\"memory.$tag\": \([0-9.e+]*\).*/\1/p" "$out/summary.json")"
    done >"$out.measured"
    awk '$1 == "phase" { for (i = 2; i <= 8; i++) name[i] = $i } $1 == "most" { for (i = 2; i <= 8; i++) print name[i], $i }' "$out.plan" |
        paste "$out.measured" - | awk -v name="$name" '
            { if ($1 != $3) { print "FAIL plan_" name ": " $1 " against " $3; bad = 1 } measured[NR] = $2; plan[NR] = $4; tag[NR] = $1; n++ }
            END { for (i = 1; i <= n; i++) { d = plan[i] - measured[i]; if (d < 0) d = -d
                      if (d != 0) { bad = 1; printf "FAIL plan_%s: %s: planned %d, measured %d bytes\n", name, tag[i], plan[i], measured[i] } }
                  if (n != 7) { print "FAIL plan_" name ": no figures"; bad = 1 }
                  if (!bad) printf "ok plan_%s\n", name; exit bad }' || bad=1
done <<'CASES'
one_rank 1 actor.zero_stage=0 critic.zero_stage=0
two_ranks 2 actor.zero_stage=1 critic.zero_stage=2
lanes 2 layout.lanes=8 actor.zero_stage=2 critic.zero_stage=1 ppo.ema=no
stage_3 4 actor.zero_stage=3 critic.zero_stage=3 reference.zero_stage=3 reward.zero_stage=3 layout.zero=2 actor.recompute=block
blocks 2 actor.zero_stage=3 generate.gather=block
offload 2 actor.offload=moments critic.offload=moments actor.dtype=bf16 actor.zero_stage=2
library 2 layout.reduce=library actor.zero_stage=0 critic.zero_stage=1 sft.micro_tokens=256
quantized 4 actor.zero_stage=3 reference.zero_stage=3 layout.zero=2 layout.lanes=8 actor.quantize_weights=int8 reference.quantize_weights=int8 actor.quantize_gradients=int4 critic.quantize_gradients=int8 generate.gather=block
quantized_1 1 actor.zero_stage=3 actor.quantize_weights=int8 reward.quantize_gradients=int8
tensor 4 layout.tensor=2 actor.zero_stage=3 critic.zero_stage=2 layout.zero=1
adapters 2 actor.lora_rank=4 critic.lora_rank=2 critic.lora_modules=attention reward.lora_rank=3 reward.only_optimize_lora=yes actor.zero_stage=3 reward.dtype=bf16
adapters_only 4 actor.lora_rank=4 actor.only_optimize_lora=yes actor.zero_stage=3 reference.zero_stage=3 layout.zero=2
adapters_host 2 actor.lora_rank=4 actor.lora_modules=mlp actor.zero_stage=2 reference.offload=weights
adapters_apart 2 actor.lora_rank=4 actor.only_optimize_lora=yes reference.dtype=bf16
adapters_blocks 2 layout.tensor=2 actor.lora_rank=4 generate.gather=block actor.offload=moments
split 4 generate.tensor=2 actor.zero_stage=3 generate.gather_blocks=3 generate.release_cache=yes reference.offload=weights reward.offload=weights
sequence 4 layout.tensor=2 layout.sequence=yes actor.zero_stage=2 critic.zero_stage=3 sft.micro_tokens=251
half 2 actor.dtype=bf16 critic.dtype=bf16 reward.dtype=bf16 reference.dtype=bf16 generate.batch=4
fit 2 machine.memory_gib=0.041 actor.recompute=fit critic.recompute=fit reward.recompute=fit
CASES
# The last case is of memory for some of the four layers: plan and run chose the same number.
kept=$(sed -n '/^\[actor\]/,/^\[critic\]/s/^keep_layers = \([0-9]*\).*/\1/p' "$here/fit/params.out")
[ "$kept" -gt 1 ] && [ "$kept" -lt 4 ] && grep -q "actor .* $kept of 4 layers keep" "$here/fit.plan" && ok fit_some || fail fit_some "$kept of 4 layers in params.out"

# The same job with a reference of its own, from the same weights: the same records to the last digit, more memory.
keys="$short actor.lora_rank=4 actor.only_optimize_lora=yes actor.zero_stage=3 reference.zero_stage=3 layout.zero=2 reference.model=$here/adapters_only/models/sft.h5"
most() { awk '$1 == "phase" { for (i = 2; i <= 8; i++) if ($i == "weights") at = i } $1 == "ppo" { print $at; exit }' "$1"; }
if run "$here/apart" 4 $keys </dev/null && ./dschat --plan "$tiny_params" --ranks 4 $keys >"$here/apart.plan"; then
    records "$here/apart" >"$here/apart.records"
    records "$here/adapters_only" | cmp -s - "$here/apart.records" && [ -s "$here/apart.records" ] && ok beside_same || fail beside_same "other records"
    [ "$(most "$here/adapters_only.plan")" -lt "$(most "$here/apart.plan")" ] && ok beside_saves || fail beside_saves "$(most "$here/adapters_only.plan") and $(most "$here/apart.plan") bytes"
else fail beside "$(tail -n 1 "$here/apart.log")"; fi

# The set of instructions tells what bf16 is, on any machine.
held() { ./dschat --plan "$tiny_params" --ranks 1 actor.dtype=bf16 job.isa="$1" | sed -n 's/^  actor .*; \(bf16\|fp32\), ZeRO.*/\1/p'; }
[ "$(held auto) $(held avx2) $(held avx512_bf16)" = "bf16 fp32 bf16" ] && ok isa || fail isa "$(held auto) $(held avx2) $(held avx512_bf16)"

# Shapes of published models, without a file of them.
plan() { ./dschat --plan "$here/big.in" "$@" >"$here/big.txt" 2>&1; }
cat >"$here/big.in" <<'PARAMS'
[actor]
arch = opt-13b
dtype = bf16
[reward]
model = models/not-there.h5
arch = opt-350m
[machine]
preset = a100-80g
PARAMS
plan --ranks 1
[ $? = 1 ] && grep -q "it does not fit" "$here/big.txt" && grep -q "would fit" "$here/big.txt" && ok too_large || fail too_large "$(tail -n 2 "$here/big.txt")"
plan --ranks 16 actor.zero_stage=3 reference.zero_stage=3 actor.recompute=block reference.dtype=bf16
[ $? = 0 ] && grep -q "it fits" "$here/big.txt" && ok fits || fail fits "$(tail -n 2 "$here/big.txt")"
plan --ranks 6 layout.zero=4
[ $? = 2 ] && grep -q "nearest is" "$here/big.txt" && ok refused || fail refused "$(tail -n 1 "$here/big.txt")"
plan --ranks 4 actor.arch=opt-13
[ $? = 2 ] && grep -q "did you mean opt-13b" "$here/big.txt" && ok unknown_shape || fail unknown_shape "$(tail -n 1 "$here/big.txt")"
plan --ranks 4 critic.arch=opt-350m
[ $? = 2 ] && grep -q "only .actor. begins a new model" "$here/big.txt" && ok shape_without_model || fail shape_without_model "$(tail -n 1 "$here/big.txt")"
plan --ranks x
[ $? = 2 ] && ok usage || fail usage "$(tail -n 1 "$here/big.txt")"

# The shipped params files fit on the ranks that they name, and their jobs ask for as many.
for file in inputs/rlhf-*.in; do
    name=$(basename "$file" .in) ranks=$(sed -n '1s/.*planned for \([0-9]*\) ranks.*/\1/p' "$file") job=jobs/$(basename "$file" .in).slurm
    if ! ./dschat --plan "$file" --ranks "$ranks" >"$here/$name.txt" 2>&1; then fail "$name" "$(tail -n 2 "$here/$name.txt" | head -n 1)"
    elif [ -e "$job" ] && [ $((8 * $(sed -n 's/#SBATCH --nodes=//p' "$job"))) != "$ranks" ]; then fail "$name" "$job asks for other ranks"
    else ok "$name"; fi
done

# An answer comes at once for every shipped file on any number of ranks, also where it does not fit and changes are tried: seconds of CPU.
TIMEFORMAT=%U
slow="" tried=0 does_not=0
for file in inputs/*.in; do
    for ranks in 1 16 64 1024; do
        spent=$({ time timeout 120 ./dschat --plan "$file" --ranks $ranks >"$here/quick.txt" 2>&1; } 2>&1)
        awk -v spent="$spent" 'BEGIN { exit !(spent > 2) }' && slow="$slow $(basename "$file") on $ranks ranks: $spent s;"
        tried=$((tried + 1)) does_not=$((does_not + $(grep -c "^it does not fit" "$here/quick.txt")))
    done
done
[ -z "$slow" ] && [ $tried -ge 40 ] && [ $does_not -ge 3 ] && ok quick || fail quick "$tried plans, $does_not do not fit:$slow"

# What a step sends grows by the same with every micro-batch after the first, whose sums are as large.
for micro in 4096 2048 512; do ./dschat --plan inputs/rlhf-13b.in --ranks 16 sft.micro_tokens=$micro | grep '^  sft .*sends'; done | awk '
    { for (i = 1; i < NF; i++) if ($(i + 1) == "GiB" && $(i + 3) == "sums") sum[NR] = $i; else if ($(i + 1) == "GiB" && $(i + 3) == "gathers") gather[NR] = $i
      match($0, /[(][0-9]+/); turns[NR] = substr($0, RSTART + 1, RLENGTH - 1) }
    function near(a, b) { return a > 0 && a < 1.005 * b && b < 1.005 * a }
    END { exit !(turns[1] == 1 && turns[2] == 2 && turns[3] == 8 && near(sum[2], 2 * sum[1]) && near(sum[3], 8 * sum[1]) &&
                 near(gather[3] - gather[2], 6 * (gather[2] - gather[1])) && gather[2] > 1.9 * gather[1]) }' && ok turns || fail turns "traffic of 1, 2, 8 micro-batches"
exit $bad
