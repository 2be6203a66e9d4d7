#!/bin/bash
# Checkpoints on several ranks: saved and found together, damage noticed by all, one rank without room fails all alike.
set -u
BUILD=${BUILD:-build}
failed=0
for n in 2 3 5; do
    log=build/tmp/hdf5_ranks_$n.log
    mkdir -p build/tmp
    mpirun -np $n $BUILD/tests/unit/test_ckpt >$log 2>&1
    code=$? passed=$(grep -c 'PASSED  \] [1-9]' $log)
    if [ $code = 0 ] && [ "$passed" = $n ]; then
        echo "ok hdf5_ranks $n"
    else
        echo "FAIL hdf5_ranks $n: exit $code, $passed of $n ranks passed: $(grep -m1 ERROR $log)"
        failed=1
    fi
done
exit $failed
