#!/usr/bin/env bash
# bitwise_all.sh: more seeds of the steps and ways of stopping.
exec tests/restart/bitwise.sh 2 3 4 5
