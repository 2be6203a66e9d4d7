#!/bin/sh
# local.sh: run a params file on this machine: jobs/local.sh inputs/demo.in [section.key=value ...]. RANKS: how many (default 1, whose threads have
# all cores: faster than as many ranks; the demo: 2).
set -eu
params=${1:?is missing: jobs/local.sh PARAMS [section.key=value ...]}
shift
case $params in
*demo.in)
    inputs/data/make-demo.sh out/demo-data
    RANKS=${RANKS:-2}
    ;;
esac
exec mpirun -np "${RANKS:-1}" ./dschat "$params" "$@"
