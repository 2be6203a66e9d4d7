#!/usr/bin/env bash
# lock_all.sh: lock.sh, 50 times.
exec tests/fail/lock.sh all
