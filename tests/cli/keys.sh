#!/usr/bin/env bash
# keys.sh: every key does something. keys.tsv has for each key of --keys a value that is not its default's and says where a tiny job shows it.
# DSCHAT_KEYS=REGEX: only the rows of these keys.
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL keys_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
table=tests/cli/keys.tsv here=build/tmp/cli-keys params=build/tmp/cli-keys/keys.in
rm -rf "$here" && mkdir -p "$here"
sft=$here/sft rm=$here/rm ppo=$here/ppo
bad=0
fail() { echo "FAIL keys_$1: $2"; bad=1; }
cat >"$params" <<'PARAMS'
[job]
seed = 7
threads = 1
[actor]
arch_width = 32
arch_layers = 2
arch_heads = 4
arch_positions = 64
arch_std = 0.1
[data]
file = build/tmp/tiny-data/all.h5
[sft]
max_steps = 3
global_batch = 8
micro_tokens = 512
lr = 3e-3
eval_samples = 8
[rm]
max_steps = 3
global_batch = 8
micro_tokens = 512
lr = 3e-3
eval_samples = 8
[ppo]
max_steps = 2
rollout_batch = 8
global_batch = 8
micro_tokens = 512
lr = 3e-3
critic_lr = 3e-3
warmup_steps = 0
checker = words
eval_samples = 4
[generate]
max_prompt = 32
max_answer = 8
[checkpoint]
every_minutes = 0
PARAMS

declare -A parent ranks keys ran
# all_keys BASE: the overrides of a base and its parents, the nearest last.
all_keys() { [ "$1" = - ] || { all_keys "${parent[$1]}"; printf '%s ' "${keys[$1]}"; }; }

# job OUT RANKS KEY=VALUE...: a key that is given twice counts the last time.
job() {
    local out=$1 n=$2 key
    local -A last=()
    shift 2
    for key in job.out="$out" "$@"; do last[${key%%=*}]=$key; done
    if [ "$n" = 1 ]; then tests/patience 120 ./dschat "$params" "${last[@]}" >"$out.log" 2>&1 </dev/null
    else tests/patience 120 mpirun -np "$n" ./dschat "$params" "${last[@]}" >"$out.log" 2>&1 </dev/null; fi
}

# stopped OUT RANKS KEY=VALUE...: the same, its last rank stopped when a step has been made.
stopped() {
    local out=$1 code pid of=()
    (job "$@") &
    pid=$!
    while kill -0 $pid 2>/dev/null && ! grep -qs '^sft  *[1-9]' "$out.log"; do sleep 0.1; done
    of=($(ranks_of $pid))
    [ ${#of[@]} = 0 ] || kill -STOP "${of[-1]}"
    wait $pid
    code=$?
    [ ${#of[@]} = 0 ] || kill -KILL "${of[-1]}" 2>/dev/null
    return $code
}

# plan RANKS KEY=VALUE...
plan() {
    local n=$1 key
    local -A last=()
    shift
    for key in "$@"; do last[${key%%=*}]=$key; done
    ./dschat --plan "$params" --ranks "$n" "${last[@]}" 2>&1 </dev/null
}

# shown OUT WHERE: what a run shows there.
shown() {
    local what=${2#*:}
    case $2 in
    nc:*) ncdump -v "$what" "$1/history.nc" | sed '1,/^data:/d' ;;
    log:*) grep -e "$what" "$1/log.txt" | sed "s|$1|OUT|g; s|  *[0-9]* tokens/s||" ;;
    json:*) grep -e "$what" "$1/summary.json" ;;
    has:*) [ -e "$1/$what" ] && echo there ;;
    attr:*) h5dump -a "/config/${what#*:}" "$1/models/${what%:*}.h5" | grep '(0)' ;;
    esac
}

# alike A B WHERE: whether two runs show the same there; both have it.
alike() {
    case $3 in
    weights:*)
        h5diff "$1/models/${3#*:}.h5" "$2/models/${3#*:}.h5" /weights /weights >"$2.diff" 2>&1
        local code=$?
        [ $code -lt 2 ] || echo "no ${3#*:}.h5 to compare: $(head -n 1 "$2.diff")"
        return $code
        ;;
    *) [ "$(shown "$1" "$3")" = "$(shown "$2" "$3")" ] ;;
    esac
}

# begin BASE: its run, once.
begin() {
    local base=$1
    [ -z "${ran[$base]:-}" ] || return 0
    ran[$base]=1
    job "$here/$base" "${ranks[$base]}" $(all_keys "$base") || { [ "$base" = sft_bad ] || fail "base_$base" "$(tail -n 1 "$here/$base.log")"; }
}

# row KEY BASE VALUE WHERE
row() {
    local key=$1 base=$2 value=$3 where=$4 out=$here/$1.$2 code want
    local given=($(all_keys "$base"))
    case $where in
    test:*)
        grep -rlq -e "${where#*:}" tests/unit tests/spmd && echo "ok keys_$key" || fail "$key" "no test has ${where#*:}"
        return
        ;;
    plan:*)
        plan "${ranks[$base]}" "${given[@]}" | grep -e "${where#*:}" >"$out.was"
        plan "${ranks[$base]}" "${given[@]}" "$key=$value" | grep -e "${where#*:}" >"$out.is"
        if [ ! -s "$out.is" ] || [ ! -s "$out.was" ]; then fail "$key" "--plan does not show \"${where#*:}\""
        elif cmp -s "$out.was" "$out.is"; then fail "$key" "$value changes nothing of \"${where#*:}\" in --plan"
        else echo "ok keys_$key"; fi
        return
        ;;
    exit:* | stopped:*) ;;
    *) begin "$base" ;;
    esac
    case $where in
    stopped:*) stopped "$out" "${ranks[$base]}" "${given[@]}" "$key=$value" ;;
    *) job "$out" "${ranks[$base]}" "${given[@]}" "$key=$value" ;;
    esac
    code=$?
    case $where in
    exit:* | stopped:*)
        want=${where#*:}
        if [ $code != "${want%%:*}" ]; then fail "$key" "exit code $code, expected ${want%%:*}: $(tail -n 1 "$out.log")"
        elif ! grep -q -e "${want#*:}" "$out.log"; then fail "$key" "does not say \"${want#*:}\": $(tail -n 1 "$out.log")"
        else echo "ok keys_$key"; fi
        return
        ;;
    esac
    if [ $code != 0 ] && [ "$base" != sft_bad ]; then fail "$key" "exit code $code: $(tail -n 1 "$out.log")"
    elif alike "$here/$base" "$out" "$where"; then fail "$key" "$value changes nothing of $where"
    else echo "ok keys_$key"; fi
    rm -rf "$out"
}

# What done holds: the run of sft, to be begun again with other keys.
cp_done() { [ -e "$here/done" ] || cp -r "$sft" "$here/done"; }
cp_other() { [ -e "$here/other.h5" ] || h5repack -l CONTI "$sft/models/sft.h5" "$here/other.h5"; }

while IFS=$'\t' read -r word name of n rest; do
    [ "$word" = base ] || continue
    parent[$name]=$of ranks[$name]=$n keys[$name]=$(eval "echo \"$rest\"")
done <"$table"
begin sft && begin rm && begin ppo && cp_other && cp_done
[ $bad = 0 ] || exit 1

# Two equal runs look alike wherever a row looks, or looking would show nothing.
for base in sft rm ppo; do
    job "$here/again" 1 $(all_keys $base) || fail again "$(tail -n 1 "$here/again.log")"
    awk -F'\t' -v base=$base '$1 !~ /^(#|base)/ && NF >= 4 && $2 == base && $4 !~ /^(exit|plan|stopped|test):/ { print $4 }' "$table" | sort -u >"$here/looks"
    while read -r where; do
        alike "$here/$base" "$here/again" "$where" || fail "again_$base" "two equal runs differ in $where"
    done <"$here/looks"
    rm -rf "$here/again"
done

# Every key has a row, every row a key.
./dschat --keys | sed -n 's/^\([a-z]*[.][a-z0-9_]*\) = .*/\1/p' | sort >"$here/known"
awk -F'\t' '$1 !~ /^(#|base)/ && NF >= 4 { print $1 }' "$table" | sort -u >"$here/told"
while read -r key; do fail "$key" "has no row in $table"; done < <(comm -23 "$here/known" "$here/told")
while read -r key; do fail "$key" "is no key"; done < <(comm -13 "$here/known" "$here/told")

# rows WORKER: every second row of a base that has run, and the bases with an even or odd number of letters.
rows() {
    local number=0 key base value where
    while IFS=$'\t' read -r key base value where; do
        case $key in '' | '#'* | base) continue ;; esac
        number=$((number + 1))
        [[ $key =~ ${DSCHAT_KEYS:-.} ]] || continue
        case $base in sft | rm | ppo) [ $((number % 2)) = "$1" ] || continue ;; *) [ $((${#base} % 2)) = "$1" ] || continue ;; esac
        row "$key" "$base" "$(eval "echo \"$value\"")" "$where"
    done <"$table"
    return $bad
}
rows 0 &
other=$!
rows 1
wait $other || bad=1
exit $bad
