#!/usr/bin/env bash
# layouts_all.sh: every layout of layouts.sh.
exec tests/restart/layouts.sh all
