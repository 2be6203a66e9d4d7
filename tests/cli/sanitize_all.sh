#!/usr/bin/env bash
# sanitize_all.sh: unit, kernels, spmd on 2 ranks, and a whole job that is stopped and goes on: no report, under AddressSanitizer with
# UndefinedBehaviorSanitizer (for every instruction set that this CPU has) and under ThreadSanitizer (for its best one).
# SANITIZE=thread: just that one (address, thread). By itself: TEST_TIMEOUT=1800 tests/run cli/sanitize_all
#
# What is seen: our own code in every process: the ranks, the children that inspect HDF5 files, the threads of watchdog, courier, lock
# and signals, and OpenMP's. What is not: what libraries do (tests/sanitize/*.supp say which, and why), and races over memory that ranks
# share, whose other side is another process.
# OpenMP under TSan: gcc's libgomp does not tell what its barriers order. LLVM's libomp does, by its tool Archer, and takes libgomp's
# place if it is there (Debian's libomp-14-dev); if not, every rank has one thread. A loop that deals out its work as threads come
# shows the races of the turns that it took, no others.
set -u
. tests/restart/tiny.inc
bad=0
ok() { echo "ok sanitize_$1"; }
fail() { echo "FAIL sanitize_$1: $2"; bad=1; }

# UCX's own look at memory and signals comes in the way: it calls into TSan from threads that are already gone.
export UCX_MEM_EVENTS=no UCX_HANDLE_ERRORS=none

# reporting NAME COMMAND...: what sanitizers say of its processes lies in $top/reports/NAME.PROGRAM.PID. Memory that is not there is an
# error that the program has words for. Some tests fork with threads.
reporting() {
    local to="log_path='$PWD/$top/reports/$1':log_exe_name=1:allocator_may_return_null=1" supp=$PWD/tests/sanitize
    shift
    ASAN_OPTIONS="$to:detect_stack_use_after_return=1" UBSAN_OPTIONS="$to:print_stacktrace=1" \
        LSAN_OPTIONS="suppressions='$supp/leaks.supp':print_suppressions=0" \
        TSAN_OPTIONS="$to:die_after_fork=0:suppressions='$supp/races.supp'" "$@"
}

# A file that is made to crash the HDF5 library does so, in the child that is there for it.
expected() {
    [[ $1 = *.dschat-inspects-hdf5.* ]] &&
        awk '/^ *#[0-9]+ / && !/lib[a-z]*san\.so|interceptor|libc\.so/ { theirs = /libhdf5/; exit } END { exit !theirs }' "$1"
}

# The line of a report that says what it is, and the first place of ours that it names.
words_of() {
    awk '/ERROR: |WARNING: |runtime error: / && !what { sub(/^=+[0-9]*=*/, ""); what = $0 }
        what && !place && match($0, /(src|kernels|tools|tests)\/[a-z0-9_\/]+\.[ch]:[0-9]+/) { place = ", at " substr($0, RSTART, RLENGTH) }
        END { print (what ? what : "a report without words") place }' "$1"
}

# judge NAME CODE WHY: of a command that was reporting NAME.
judge() {
    local report program found=0
    for report in "$top/reports/$1".*; do
        [ -e "$report" ] && ! expected "$report" || continue
        program=${report#"$top/reports/$1."}
        fail "$1_${program%%.*}" "$(words_of "$report") ($report)"
        found=1
    done
    if [ "$2" != 0 ]; then fail "$1" "$3"; elif [ $found = 0 ]; then ok "$1"; fi
}

suite() { # suite NAME SUITE
    local log=$top/$2.log code=0
    BUILD=$top TEST_RANKS=2 TEST_TIMEOUT=900 reporting "$1" env -u DSCHAT_TEST_ALL tests/run "$2" >"$log" 2>&1 || code=$?
    judge "$1" $code "$(sed -n 's/^FAILED: //p' "$log" | tr '\n' ' ')(see $log)"
}

# job NAME: three stages on 2 ranks of $threads threads, which is stopped in the second stage and goes on. Until then the ranks take
# each other for nodes, so that their couriers work.
job() {
    local out=$top/job code keys=(sft.max_steps=4 rm.max_steps=6 ppo.max_steps=3 job.threads=$threads job.deadline_minutes=9)
    local tiny_top=$top tiny_seconds=900
    rm -rf "$out" "$out.log"
    MPIR_CVAR_NOLOCAL=1 reporting "$1" move "$out" 2 rm-000002 "${keys[@]}"
    code=$?
    [ $code != 11 ] || { reporting "$1" run "$out" 2 "${keys[@]}" && code=0 || code=$?; }
    judge "$1" $code "ended with exit code $code: $(tail -n 1 "$out.log")"
}

# Does a program that is compiled so run at all? Without it the kernel's settings or the compiler are at fault, not we.
works() {
    echo 'int main(void) { return 0; }' >"$top/try.c"
    cc "-fsanitize=$1" -o "$top/try" "$top/try.c" >"$top/try.log" 2>&1 && "$top/try" >>"$top/try.log" 2>&1
}

variant() { # variant NAME SAN FOLDER
    local name=$1 code=0
    top=$3
    rm -rf "${top:?}/reports"
    mkdir -p "$top/reports"
    if ! works "$1"; then
        echo "skip sanitize_$1: $(head -n 1 "$top/try.log")"
        return
    fi
    if ! make -j"$(nproc)" SAN="$2" BUILD="$top" all tests >"$top/make.log" 2>&1; then
        fail "$1_build" "$(grep -m 1 -E 'error|\*\*\*' "$top/make.log") ($top/make.log)"
        return
    fi
    tiny_top=$top reporting "$1_data" tiny_setup || code=$?
    judge "$1_data" $code "$(tail -n 1 "$tiny_data/build.log")"
    [ $code != 0 ] || job "$1_job"
    for name in unit kernels spmd; do suite "$1_$name" $name; done
}

threads=2
[[ ${SANITIZE:-address} != address ]] || variant address 1 build/asan
if [[ ${SANITIZE:-thread} = thread ]]; then
    export TEST_ISA=${TEST_ISA:-$(./dschat --version | sed -n 's/^kernels: .* //p')}
    if ! compgen -G '/usr/lib/llvm-*/lib/libarcher.so' >/dev/null; then
        export OMP_THREAD_LIMIT=1
        threads=1
        echo "skip sanitize_thread_openmp: no libarcher.so (Debian's libomp-14-dev): every rank has one thread"
    fi
    variant thread thread build/tsan
fi
exit $bad
