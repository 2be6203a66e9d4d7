#!/usr/bin/env bash
# isa.sh: a job under every instruction set that this CPU has: the first PPO ratio is 1 and the weights are the same on 1 and 2 ranks; ranks that
# have unlike sets use one; sets that are not there are refused with words.
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL isa_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
here=build/tmp/cli-isa
rm -rf "$here" && mkdir -p "$here"
bad=0
ok() { echo "ok isa_$1"; }
fail() { echo "FAIL isa_$1: $2"; bad=1; }
# refused NAME WORDS COMMAND...: exit code 2, and these words.
refused() {
    local name=$1 words=$2 code
    shift 2
    "$@" >"$here/$name.txt" 2>&1
    code=$?
    if [ $code != 2 ]; then fail "$name" "$* ended with $code: $(tail -n 1 "$here/$name.txt")"
    elif ! grep -q -e "$words" "$here/$name.txt"; then fail "$name" "does not say \"$words\": $(tail -n 1 "$here/$name.txt")"
    else ok "$name"; fi
}

short="layout.lanes=2 sft.max_steps=3 rm.max_steps=3 ppo.max_steps=2"
read -r _ sets < <(./dschat --version | grep '^kernels: ')
for isa in $sets; do
    for ranks in 1 2; do
        out=$here/${isa}_$ranks
        run "$out" $ranks $short job.isa="$isa" || { fail "$isa" "$(tail -n 1 "$out.log")"; continue 2; }
    done
    first=$(ncdump -v ratio_first "$here/${isa}_1/history.nc" | sed '1,/^data:/d' | tr -d ' ,;}\n' | sed 's/ratio_first=//; s/NaN//g')
    if ! grep -q "cpu $isa, " "$here/${isa}_1/log.txt"; then fail "$isa" "the log does not name the set"
    elif [ "$first" != 00 ]; then fail "$isa" "the first ratios of two iterations are not 1: off by $first"
    elif [ "$(weights "$here/${isa}_1")" != "$(weights "$here/${isa}_2")" ]; then fail "$isa" "the weights of 2 ranks differ from those of one"
    else ok "$isa"; fi
done

# Ranks on unlike CPUs: all take what the least of them has.
out=$here/unlike
launch=(mpirun -np 1 -env DSCHAT_ISA avx2 ./dschat "$tiny_params" $short job.out="$out" : -np 1 -env DSCHAT_ISA generic ./dschat "$tiny_params" $short job.out="$out")
if [[ $sets != *avx2* ]]; then echo "skip isa_unlike: this CPU has $sets only"
elif ! tests/patience 120 "${launch[@]}" >"$out.log" 2>&1; then fail unlike "$(tail -n 1 "$out.log")"
elif ! grep -q "note: some ranks' CPUs have avx2, others only generic: all use that" "$out.log"; then fail unlike "nothing is said of it"
elif [ "$(weights "$out")" != "$(weights "$here/generic_1")" ]; then fail unlike "the weights differ from those of the lesser set"
else ok unlike; fi

refused unknown 'job.isa.*avx512_bf16' ./dschat --check "$tiny_params" job.isa=avx512_bf
refused unknown_environment 'DSCHAT_ISA = avx3: no such instruction set' env DSCHAT_ISA=avx3 ./dschat "$tiny_params" job.out="$here/no"
if [[ $sets == *amx* ]]; then echo "skip isa_lacking: this CPU has every set"
else refused lacking "isa = amx: this CPU cannot run it; its best is ${sets##* }" mpirun -np 2 ./dschat "$tiny_params" job.out="$here/no" job.isa=amx; fi
[ ! -e "$here/no" ] || fail refused "a refused job left a folder"
exit $bad
