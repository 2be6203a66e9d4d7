#!/bin/sh
# local.sh: run a params file on this machine: jobs/local.sh inputs/demo.in [section.key=value ...]. RANKS: how many (default 2).
set -eu
params=$1
shift
case $params in
*demo.in) inputs/data/make-demo.sh out/demo-data ;;
esac
exec mpirun -np "${RANKS:-2}" ./dschat "$params" "$@"
