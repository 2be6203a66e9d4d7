#!/usr/bin/env bash
# output.sh: where a run writes: what the umask allows, through no link, into no folder that others can change; and that no name
# or text of a file reaches the terminal as a command.
set -u
. tests/restart/tiny.inc
tiny_setup || { echo "FAIL output_setup: $(tail -n 1 "$tiny_data/build.log")"; exit 1; }
bad=0
here=build/tmp/cli-output
rm -rf "$here" && mkdir -p "$here"
ok() { echo "ok output_$1"; }
fail() { echo "FAIL output_$1: $2"; bad=1; }
short=(sft.max_steps=1 rm.max_steps=1 ppo.max_steps=1 checkpoint.every_steps=1)

# ---- umask ----

umask_run() { # umask_run MASK MODES-THAT-ALL-HAVE
    local out=$here/umask-$1 wrong
    (umask "$1" && run "$out" 2 "${short[@]}") || { fail "umask_$1" "$(tail -n 1 "$out.log")"; return; }
    wrong=$(find "$out" -perm "/$1" -printf '%m %P, '; find "$out" ! -perm "-$2" -printf '%m %P, ')
    if [ -z "$wrong" ]; then ok "umask_$1"; else fail "umask_$1" "$wrong"; fi
}
umask_run 027 0440
umask_run 002 0664

# ---- links ----

echo precious >"$here/victim"
planted() { # planted NAME: it leads elsewhere; the run is refused with words, or writes a file of its own there
    local out=$here/link-$1 code
    mkdir -p "$out"
    ln -s ../victim "$out/$1"
    run "$out" 1 "${short[@]}" job.stages=sft
    code=$?
    if [ "$(cat "$here/victim")" != precious ]; then fail "link_$1" "the file that it leads to was changed"
    elif [ $code = 4 ] && grep -q "$1: is a symbolic link" "$out.log"; then ok "link_$1"
    elif [ $code = 0 ] && [ -f "$out/$1" ] && [ ! -L "$out/$1" ]; then ok "link_$1"
    else fail "link_$1" "code $code: $(tail -n 1 "$out.log")"; fi
}
for name in log.txt history.nc params.out starts.log models checkpoints; do planted $name; done
mkdir -p "$here/link-rollouts" && ln -s ../victim "$here/link-rollouts/rollouts.nc"
run "$here/link-rollouts" 1 "${short[@]}"
if [ $? = 4 ] && grep -q 'rollouts.nc: is a symbolic link' "$here/link-rollouts.log" && [ "$(cat "$here/victim")" = precious ]; then ok link_rollouts
else fail link_rollouts "$(tail -n 1 "$here/link-rollouts.log")"; fi

# ---- folders ----

folder() { # folder NAME WORDS: the run in it is refused with these words
    local code
    run "$here/$1" 2 "${short[@]}" job.stages=sft
    code=$?
    if [ $code = 4 ] && grep -q "$2" "$here/$1.log" && [ "$(grep -c '^error: ' "$here/$1.log")" = 1 ]; then ok "$1"
    else fail "$1" "code $code: $(tail -n 1 "$here/$1.log")"; fi
}
mkdir -m 0777 "$here/anybodys"
folder anybodys 'chmod o-w'
if [ "$(id -u)" = 0 ]; then
    mkdir "$here/foreign" && chown 12345 "$here/foreign"
    folder foreign 'belongs to user 12345'
else echo "skip output_foreign: only the superuser can make a folder somebody else's"; fi
mkdir "$here/real" && ln -s real "$here/named"
if run "$here/named" 1 "${short[@]}" job.stages=sft && [ -s "$here/real/models/sft.h5" ]; then ok link_of_the_user
else fail link_of_the_user "$(tail -n 1 "$here/named.log")"; fi

# ---- what a terminal gets ----

esc=$(printf '\033]0;owned\007\033[2J')
plain() { # plain NAME FILE: only printable characters, blanks and line ends
    if LC_ALL=C grep -q '[^[:print:][:space:]]' "$2" || grep -q $'\r' "$2"; then fail "$1" "$(LC_ALL=C grep -m 1 '[^[:print:][:space:]]' "$2" | cat -v)"
    elif [ -s "$2" ]; then ok "$1"
    else fail "$1" "nothing was said"; fi
}
says() { # says NAME COMMAND...: what it prints is plain, and does show the name's control bytes
    local name=$1
    shift
    "$@" >"$here/$name.txt" 2>&1 </dev/null
    plain "$name" "$here/$name.txt"
    grep -q '\\x1b\|\\u202e' "$here/$name.txt" || fail "${name}_visible" "$(head -n 1 "$here/$name.txt")"
}
cp -r tests/refs/families/llama "$here/src"
printf 'line\n\033[31m\r{{ messages }}\342\200\256\302\233' >"$here/src/chat_template.jinja"
bin/dschat-model import "$here/src" "$here/evil.h5" >"$here/import.txt" 2>&1 || fail import "$(tail -n 1 "$here/import.txt")"
says inspect bin/dschat-model inspect "$here/evil.h5"
cp "$here/evil.h5" "$here/a$esc.h5"
says inspect_name bin/dschat-model inspect "$here/a$esc.h5"
says missing_model bin/dschat-model inspect "$here/b$esc.h5"
says missing_params ./dschat --check "$here/c$esc.in"
printf '[job]\nse%sed = 1\n' $'\302\233' >"$here/key.in"
./dschat --check "$here/key.in" >"$here/key.txt" 2>&1
plain key "$here/key.txt"
for i in 1 2 3 4; do printf '{"prompt": "\\u001b[2Jcat \\u202e", "answer": "sun\\u009b \\u0007tree"}\n'; done >"$here/evil.jsonl"
printf '[data]\noutput = %s/evil-data.h5\ntokenizer = inputs/data/demo-tokenizer.json\neval_count = 0\n[source1]\npath = %s/evil.jsonl\nstages = sft\n' \
    "$here" "$here" >"$here/spec.in"
bin/dschat-data build "$here/spec.in" >"$here/build.txt" 2>&1 || fail build "$(tail -n 1 "$here/build.txt")"
plain build "$here/build.txt"
says show bin/dschat-data show "$here/evil-data.h5"
exit $bad
