#!/usr/bin/env bash
# Does tests/lint find what it is there to find?
tests/lint --self-test
