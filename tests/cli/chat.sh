#!/usr/bin/env bash
# chat.sh: dschat-chat as a person meets it: in a terminal (tmux) that types umlauts, Chinese and emoji, in a pipe, with a model whose
# every token would command a terminal, and with one that brings a system message.
set -u
bad=0
here=build/tmp/cli-chat
rm -rf "$here" && mkdir -p "$here"
ok() { echo "ok chat_$1"; }
fail() { echo "FAIL chat_$1: $2"; bad=1; }
has() { # has NAME FILE PATTERN
    if grep -q -e "$3" "$2"; then ok "$1"; else fail "$1" "no \"$3\" in: $(head -c 300 "$2" | cat -v)"; fi
}
lacks() { if grep -q -e "$3" "$2"; then fail "$1" "\"$3\" in: $(grep -m 1 -e "$3" "$2" | cat -v)"; else ok "$1"; fi }

# A tiny random model of 67 tokens: three special ones, letters, and 35 that command a terminal (as \ubytes of GPT-2's printable form).
tokenizer() {
    local id=3 c
    printf '{"version": "1.0", "added_tokens": ['
    printf '{"id": 0, "content": "<|endoftext|>", "special": true}, {"id": 1, "content": "<|im_start|>", "special": true},'
    printf '{"id": 2, "content": "<|im_end|>", "special": true}], "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},'
    printf '"model": {"type": "BPE", "merges": [], "vocab": {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2'
    for c in {a..z} H A : '\u0120' '\u010a'; do printf ', "%s": %d' "$c" $((id++)); done # blank, line end
    # escape sequences (colour, title, clear), carriage return, bell, DEL, CSI of C1, U+202E, both halves of an emoji
    for c in '[31m' ']0;owned\u0107' '[2J' '[1A'; do printf ', "\\u011b%s": %d' "$c" $((id++)); done
    for c in '\u010d' '\u0107' '\u0121' '\u00c2\u013d' '\u00e2\u0122\u00ae' '\u00f0\u0141' '\u013a\u0122'; do printf ', "%s": %d' "$c" $((id++)); done
    while [ $id -lt 67 ]; do printf ', "\\u011b[%dm": %d' $id $((id++)); done
    printf '}}}\n'
}
cp -r tests/refs/families/llama "$here/src"
tokenizer >"$here/src/tokenizer.json"
printf '%s' "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are tiny, don\\'t shout.<|im_end|>\\n' }}{% endif %}" \
    >"$here/src/chat_template.jinja"
m=$here/m.h5
bin/dschat-model import "$here/src" "$m" >"$here/import.txt" 2>&1 || { fail import "$(tail -n 1 "$here/import.txt")"; exit 1; }

# piped NAME WORDS ARGUMENTS...: a conversation by pipe; NAME.out, NAME.err
piped() {
    local name=$1 words=$2
    shift 2
    printf '%b' "$words" | bin/dschat-chat "$m" "$@" >"$here/$name.out" 2>"$here/$name.err" || fail "$name" "$(tail -n 1 "$here/$name.err")"
}
piped pipe 'hello\nworld\n' max_answer=12 seed=3
has banner_beside "$here/pipe.err" "m.h5, template chatml, temperature 0.7, top_p 0.9"
has loading "$here/pipe.err" '^loading .*m.h5 \.\.\.$'
lacks answers_alone "$here/pipe.out" 'template\|> \|loading'
if [ "$(wc -l <"$here/pipe.out")" -ge 2 ]; then ok answers; else fail answers "$(cat -v "$here/pipe.out")"; fi

piped escapes 'hello\n' max_answer=100 temperature=5 top_p=1
if LC_ALL=C tr -d '\n\t\040-\176' <"$here/escapes.out" | LC_ALL=C grep -q '[^\xef\xbf\xbd\xf0\x9f\x98\x80]'; then
    fail escapes "a control byte: $(cat -v "$here/escapes.out")"
else has escapes "$here/escapes.out" '\\x1b\['; fi
has keys_given "$here/escapes.err" 'temperature 5, top_p 1\.'

# The model's own system message, another, none.
has own_system "$here/pipe.err" "^system: You are tiny, don't shout\.$"
piped other_system '' --system 'Be loud.'
has other_system "$here/other_system.err" '^system: Be loud\.$'
piped no_system '' --system ''
lacks no_system "$here/no_system.err" '^system:'

# Long answers for a model of 128 positions, though a new model would have fewer by default; the same of dschat-eval.
piped long 'hello\n' max_answer=100000
lacks long_answers "$here/long.err" 'arch_positions\|expected'
printf '{"ids": [5, 6]}\n' >"$here/ids.jsonl"
bin/dschat-eval "$m" --generate "$here/ids.jsonl" max_answer=8192 >"$here/eval.out" 2>"$here/eval.err" || fail long_eval "$(tail -n 1 "$here/eval.err")"
has long_eval "$here/eval.out" '"stop"'

# A refused /set leaves the earlier value: the answer is the greedy one still.
piped greedy '/set greedy yes\nhello\n' max_answer=30
piped bad_set '/set greedy yes\n/set greedy perhaps\nhello\n' max_answer=30
has bad_set_said "$here/bad_set.err" 'greedy = perhaps'
if cmp -s "$here/greedy.out" "$here/bad_set.out"; then ok bad_set; else fail bad_set "$(cat -v "$here/bad_set.out")"; fi
# Lines of a pipe may end as in DOS; a command is its first word, whatever blanks follow.
piped dos '/set greedy yes\r\nhello\r\n' max_answer=30
if cmp -s "$here/greedy.out" "$here/dos.out"; then ok dos; else fail dos "$(cat -v "$here/dos.out")"; fi
piped words '/systemic\n/set\n/quit \nhello\n'
if [ -s "$here/words.out" ]; then fail quit_blank "$(cat -v "$here/words.out")"; else ok quit_blank; fi
has no_command "$here/words.err" '^/clear  /system TEXT'
has set_alone "$here/words.err" '^usage: /set'

# ---- in a terminal ----

if ! command -v tmux >/dev/null; then echo "skip chat_terminal: no tmux"; exit $bad; fi
if ! locale -a | grep -qi '^C\.utf-\?8$'; then echo "skip chat_terminal: no locale C.UTF-8"; exit $bad; fi
tm() { LC_ALL=C.UTF-8 tmux -u -S "$here/tmux" "$@"; }
trap 'tm kill-server 2>/dev/null' EXIT
sees() { # sees NAME TEXT: the screen shows it within a minute
    for _ in $(seq 600); do
        tm capture-pane -p -t chat >"$here/$1.screen" 2>/dev/null && grep -qF -- "$2" "$here/$1.screen" && { ok "$1"; return; }
        sleep 0.1
    done
    fail "$1" "the screen shows: $(tr '\n' '|' <"$here/$1.screen")"
}
typed() { tm send-keys -t chat -l "$1" && tm send-keys -t chat Enter; }
words='Grüße 你好 😀 ñ'
for locale in C.UTF-8 C; do
    tm new-session -d -s chat -x 150 -y 40 "LC_ALL=$locale exec bin/dschat-chat $m max_answer=60 temperature=3 top_p=1"
    sees "prompt_$locale" 'quit ends.'
    typed "/set temperature $words"
    sees "typed_$locale" "[generate] temperature = $words: not a number" # as the program got it
    typed "hello $words"
    sees "escape_$locale" '\x1b['
    if [ "$(tm display-message -p -t chat '#{pane_title}')" = owned ]; then fail "title_$locale" "the model set the title"; else ok "title_$locale"; fi
    typed /quit
    for _ in $(seq 100); do tm has-session -t chat 2>/dev/null || break; sleep 0.1; done
    tm kill-session -t chat 2>/dev/null
done
exit $bad
