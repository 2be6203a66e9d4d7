#!/usr/bin/env bash
# flips_all.sh: flips.sh, 2,000 times.
DSCHAT_TEST_JOBS=${DSCHAT_TEST_JOBS:-$(nproc)} exec bash tests/fail/flips.sh 2000 2
