#!/usr/bin/env bash
# demo_all.sh: the demo with three seeds.
exec tests/cli/demo.sh 1 2 3
