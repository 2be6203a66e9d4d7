#!/usr/bin/env bash
# reads_all.sh: reads.sh with every call.
DSCHAT_TEST_JOBS=${DSCHAT_TEST_JOBS:-$(nproc)} exec bash tests/fail/reads.sh all
