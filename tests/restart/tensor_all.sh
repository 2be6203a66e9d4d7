#!/usr/bin/env bash
# tensor_all.sh: every layout of tensor.sh.
exec tests/restart/tensor.sh all
