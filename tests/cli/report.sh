#!/usr/bin/env bash
# history.nc and rollouts.nc as their readers see them: the same bytes on 1, 2 and 4 ranks, ncdump, dschat-report.
# Writes its files through tests/spmd/test_history.
set -uo pipefail
build=${BUILD:-build}
writer=$build/tests/spmd/test_history
tmp=build/tmp/report
rm -rf "$tmp"
mkdir -p "$tmp/run"

check() { # check NAME COMMAND...: ok if the command succeeds
    local name=$1 words
    shift
    if words=$("$@" 2>&1); then echo "ok $name"; else echo "FAIL $name: ${words:-no output}"; fi
}
fails_with() { # fails_with CODE WORDS COMMAND...: ends with this code and says these words on one line
    local code=$1 words=$2 said rc=0
    shift 2
    said=$("$@" 2>&1) || rc=$?
    [ "$rc" = "$code" ] && [[ $said == *"$words"* ]] && [ "$(wc -l <<<"$said")" = 1 ] || { echo "code $rc: $said"; return 1; }
}
dump_has() { # dump_has FILE TEXT: ncdump prints this text
    local dump
    dump=$(ncdump "$1" | tr -d '\n ') || return 1
    [[ $dump == *"$2"* ]] || { echo "ncdump $1 lacks '$2'"; return 1; }
}

for n in 1 2 4; do
    if ! mpirun -n $n "$writer" >"$tmp/log-$n" 2>&1 </dev/null; then
        echo "FAIL history_write_$n: $(tail -n 3 "$tmp/log-$n" | tr '\n' ' ')"
        exit
    fi
done
for file in parts.nc deal.nc; do
    check "history_ranks_2_$file" cmp build/tmp/history-1/$file build/tmp/history-2/$file
    check "history_ranks_4_$file" cmp build/tmp/history-1/$file build/tmp/history-4/$file
done
history=build/tmp/history-2/origin.nc
check history_ncdump_stage dump_has $history 'stage=1,1,1,1,1,3,3,3,3;'
check history_ncdump_nan dump_has $history 'lr=0.5,0.5,0.5,0.5,0.5,NaN,NaN,NaN,NaN;'
check history_ncdump_units dump_has $history 'time:units="secondssince1970-01-0100:00:00"'
check history_ncdump_origin dump_has $history ':params_sha256="ab;cd"'
check rollouts_ncdump_order dump_has build/tmp/history-4/deal.nc 'sample=0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,1000,1001,'
check rollouts_ncdump_ragged dump_has build/tmp/history-4/deal.nc 'length=0,0,'

cp "$history" "$tmp/run/history.nc"
echo '{"note": "a < b & c"}' >"$tmp/run/summary.json"
check report_runs tools/dschat-report "$tmp/run"
page=$tmp/run/report.html
check report_plots test "$(grep -c '<svg' "$page")" = 5
check report_escapes grep -q 'a &lt; b &amp; c' "$page"
check report_origin grep -q '<th>params_sha256</th><td>ab; cd</td>' "$page"
check report_no_network test -z "$(sed 's/xmlns[:a-z]*="[^"]*"//g' "$page" | grep -E 'https?:|<script|<link|src=')"
check report_ends_whole test "$(tail -n 1 "$page")" = '</body></html>'
check report_no_argument fails_with 2 "one run's folder is expected" tools/dschat-report
check report_no_folder fails_with 4 "no such folder" tools/dschat-report "$tmp/nowhere"
mkdir -p "$tmp/empty" "$tmp/torn" "$tmp/other"
check report_no_history fails_with 4 "history.nc: no such file" tools/dschat-report "$tmp/empty"
cp build/tmp/history-1/deal.nc "$tmp/other/history.nc"
check report_other_file fails_with 4 "not a history of dschat" tools/dschat-report "$tmp/other"

# A diverged run in progress: NaN and infinities are left out and counted, steps are steps and not records.
mkdir -p "$tmp/odd"
cat >"$tmp/odd.cdl" <<'CDL'
netcdf history {
dimensions: record = UNLIMITED ;
variables: int stage(record) ; stage:flag_values = 1, 2, 3 ; stage:flag_meanings = "sft rm ppo" ;
 int step(record) ; double time(record) ; double loss(record) ; double skipped(record) ; double lr(record) ;
 :dschat_format = "history 2" ;
data:
 stage = 1, 1, 1, 1, 2, 2 ;
 step = 0, 1, 2, 2, 0, 1 ;
 time = 1, 2, 3, 4, 5, 6 ;
 loss = NaN, 2.5, Infinity, NaN, NaN, NaN ;
 skipped = NaN, 0, 1, NaN, NaN, 1 ;
 lr = NaN, NaN, NaN, NaN, NaN, NaN ;
}
CDL
ncgen -o "$tmp/odd/history.nc" "$tmp/odd.cdl"
check report_odd tools/dschat-report "$tmp/odd"
check report_odd_infinite grep -q '<b>loss</b>  <span>2.5 (1 infinite)</span>' "$tmp/odd/report.html"
check report_odd_skipped grep -q '<h2>SFT <small>2 steps, 1 skipped</small></h2>' "$tmp/odd/report.html"
check report_odd_plots test "$(grep -c '<svg' "$tmp/odd/report.html")" = 3
# A stranger's history and names run nothing, here or in a browser, and do not command the terminal.
mkdir -p "$tmp/hostile"
sed 's/flag_meanings = "sft rm ppo"/flag_meanings = "<script>x<\/script> rm ppo"/; s/double loss(record) ;/& loss:units = "`touch build\/tmp\/report\/run-by-units`" ;/' \
    "$tmp/odd.cdl" >"$tmp/hostile.cdl"
ncgen -o "$tmp/hostile/history.nc" "$tmp/hostile.cdl"
check report_hostile tools/dschat-report "$tmp/hostile"
check report_hostile_units test ! -e "$tmp/run-by-units"
check report_hostile_stage test "$(grep -ci '<script' "$tmp/hostile/report.html")" = 0
name=$tmp/$(printf 'x\033[2J\302\233\342\200\256\233y')
mkdir -p "$name"
echo torn >"$name/history.nc"
plain() { # plain COMMAND...: what it says names the file by its printable part, in printable ASCII
    local said
    said=$("$@" 2>&1)
    [[ $said == *"/x[2Jy"* ]] && [ -z "$(LC_ALL=C tr -d '\n\040-\176' <<<"$said")" ] || { cat -v <<<"$said"; return 1; }
}
check report_plain_torn plain tools/dschat-report "$name"
check report_plain_gone plain tools/dschat-report "$name-gone"
mkdir "$tmp/cwd"
check report_into_folder fails_with 4 "cannot be written: cannot overwrite directory" tools/dschat-report "$tmp/odd" "$tmp/cwd"
check report_elsewhere bash -c "cd $tmp/cwd && $PWD/tools/dschat-report ../odd && test -z \"\$(ls -A)\""
