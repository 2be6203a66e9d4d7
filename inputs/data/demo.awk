# demo.awk: the demo's task as JSON lines: say words as told. Usage: awk -v kind=sft|pairs -v n=4000 -v seed=1 -f demo.awk
#
# kind = sft: demonstrations, 4 in 10 of them flawed, so that the fine-tuned model knows the task and makes mistakes.
# kind = pairs: the right answer (chosen) and a flawed one (rejected).
# src/stage/checker.c knows the truth. Random numbers are a generator of our own, so that every awk writes the same file.
function rnd(m) { # 0 .. m-1; Park and Miller's minimal standard generator, exact in doubles
    state = (state * 48271) % 2147483647
    return int(state / 2147483647 * m)
}
function join(a, n,    s, i) {
    s = ""
    for (i = 1; i <= n; i++) s = s (i > 1 ? " " : "") a[i]
    return s
}
function spoil(good, n,    a, i, t, kind, m) { # a flawed copy of n words in good[], as text
    for (i = 1; i <= n; i++) a[i] = good[i]
    kind = rnd(4)
    if (kind == 0 && n > 1) { # two neighbours change places
        i = 1 + rnd(n - 1); t = a[i]; a[i] = a[i + 1]; a[i + 1] = t
        if (a[i] != a[i + 1]) return join(a, n)
    }
    if (kind == 1 && n > 1) return join(a, n - 1) # the last word is missing
    if (kind == 2) { a[n + 1] = word[rnd(words) + 1]; return join(a, n + 1) } # one too many
    i = 1 + rnd(n) # a wrong word
    do t = word[rnd(words) + 1]; while (t == a[i])
    a[i] = t
    return join(a, n)
}
BEGIN {
    words = split("apple bird boat book bread cake cat chair cloud coat cow cup dog door duck egg fish flag frog gate goat " \
                  "hat horse house key lamp leaf lion moon mouse nest owl pear pen rain ring rose ship shoe snow star sun " \
                  "tree wall wind wolf", word, " ")
    split("Say these words:|Say these words backwards:|Say the first of these words:|Say the last of these words:", task, "|")
    state = seed * 7919 + 12345
    for (i = 0; i < 10; i++) rnd(2)
    for (line = 0; line < n; line++) {
        k = 2 + rnd(4); t = 1 + rnd(4)
        for (i = 1; i <= k; i++) given[i] = word[rnd(words) + 1]
        m = t > 2 ? 1 : k
        for (i = 1; i <= m; i++) answer[i] = given[t == 1 ? i : t == 2 ? k + 1 - i : t == 3 ? 1 : k]
        prompt = task[t] " " join(given, k)
        right = join(answer, m)
        if (kind == "pairs")
            printf "{\"prompt\": \"%s\", \"chosen\": \"%s\", \"rejected\": \"%s\"}\n", prompt, right, spoil(answer, m)
        else
            printf "{\"prompt\": \"%s\", \"answer\": \"%s\"}\n", prompt, rnd(10) < 4 ? spoil(answer, m) : right
    }
}
