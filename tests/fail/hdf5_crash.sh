#!/bin/bash
# Every file-changing call of a checkpoint, one after the other: the process is killed there, or the call fails (no space,
# I/O error; once, or from then on). Each time the newest whole checkpoint is the old or the new one, it loads, and the next
# save works.
# STRIDE=1 tries every call, default every 7th (kill: every 3rd). Prints "ok NAME" or "FAIL NAME: why".
set -u
BUILD=${BUILD:-build}
STRIDE=${STRIDE:-7}
CKPT=$PWD/$BUILD/tests/unit/test_ckpt
[[ $BUILD = /* ]] && CKPT=$BUILD/tests/unit/test_ckpt
D=$PWD/build/tmp/hdf5_crash
rm -rf $D && mkdir -p $D
cd $D || exit 1
cc -shared -fPIC -O1 -o fault.so $OLDPWD/tests/fail/hdf5_fault.c -ldl || exit 1
failed=0
bad() { echo "FAIL hdf5_crash $1: $2"; failed=1; }

# A folder with two checkpoints; the save under test adds a third and deletes the first.
$CKPT save base sft 2 rank 2 && $CKPT save base sft 3 rank 2 || bad setup "cannot save"

# run MODE ERRNO K FILES: saves step $STEP into a copy with a fault at call K; its exit code in $code, its words in err.txt
STEP=4
run() {
    rm -rf ck && cp -r base ck
    LD_PRELOAD=$D/fault.so FAULT_DIR=/ck FAULT_MODE=$1 FAULT_ERRNO=$2 FAULT_AT=$3 FAULT_COUNT=$D/count \
        $CKPT save $D/ck sft $STEP $4 2 2>err.txt
    code=$?
}

# judge NAME K: what is found afterwards is whole, and the run goes on
judge() {
    local name newest
    newest=$($CKPT newest ck 2>warn.txt) || bad "$1" "call $2: newest fails: $(cat warn.txt)"
    name=${newest##*/}
    case $name in
    sft-000003 | sft-000004)
        $CKPT load "$newest" $((10#${name#sft-})) >load.txt 2>&1 ||
            bad "$1" "call $2: $name does not load: $(cat load.txt)"
        ;;
    *) bad "$1" "call $2: newest is $name" ;;
    esac
    [ "$1" != kill ] && [ "$code" = 0 ] && [ "$name" != sft-00000$STEP ] && bad "$1" "call $2: exit 0, but newest is $name"
    $CKPT save ck sft 5 rank 2 2>again.txt || bad "$1" "call $2: the next save fails: $(cat again.txt)"
    newest=$($CKPT newest ck 2>/dev/null)
    [ "${newest##*/}" = sft-000005 ] || bad "$1" "call $2: after the next save newest is $newest"
    [ -z "$(ls -A ck | grep tmp)" ] || bad "$1" "call $2: left behind: $(ls -A ck)"
}

# sweep NAME MODE ERRNO FILES STRIDE
sweep() {
    local k n=0 before=$failed
    run none 0 0 "$4"
    local total=$(cat count)
    [ "$total" -gt 30 ] || bad "$1" "only $total calls seen"
    for ((k = 1; k <= total; k += $5)); do
        run "$2" "$3" $k "$4" 2>/dev/null # the shell's own "Killed"
        n=$((n + 1))
        if [ "$2" = kill ]; then
            [ $code = 137 ] || bad "$1" "call $k: exit $code, expected to be killed"
        elif [ $code != 0 ]; then
            [ $code = 4 ] || bad "$1" "call $k: exit $code, expected 4: $(cat err.txt)"
            grep -q "error: .*/ck" err.txt || bad "$1" "call $k: no message names the file: $(cat err.txt)"
        fi
        judge "$2" $k
        [ $failed != $before ] && return
    done
    echo "ok hdf5_crash $1 ($n of $total calls)"
}

sweep kill_rank kill 0 rank $(((STRIDE + 2) / 3))
sweep kill_one kill 0 one $STRIDE
sweep no_space once 28 rank $STRIDE
sweep no_space_ever ever 28 rank $STRIDE
sweep io_error once 5 one $STRIDE
STEP=3 # replaces the newest one
sweep kill_replace kill 0 rank $STRIDE
sweep io_error_replace once 5 rank $STRIDE
exit $failed
