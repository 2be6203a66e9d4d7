# tables.awk: the kernels' JSON lines and the phases' records of tests/bench/run -> its tables and, in the file `json`,
# one JSON object.
function number(x) { return x == "" || x == "-" || x + 0 == 0 ? "null" : x }
function gib(x) { return x == "" || x == "-" || x + 0 == 0 ? "-" : sprintf("%.2f", x / 1073741824) }
function most(who, phase, x) { if (x != "-" && x + 0 > peak[who, phase] + 0) peak[who, phase] = x }
function least(who, phase, x) { if (!((who, phase) in best) || x < best[who, phase]) best[who, phase] = x }

# An iteration is the sum of the best of its phases, ours and the peer's alike.
function add_iteration(who, prefix,    i, name, sum, part) {
    split("gen exp ppo", part, " ")
    for (i = 1; i <= 3; i++) {
        name = prefix part[i]
        if (!((who, name) in best)) return
        sum += best[who, name]
        most(who, prefix "iteration", peak[who, name])
        if (who == "ours") flops[prefix "iteration"] += flops[name]
    }
    best[who, prefix "iteration"] = sum
}

# Generation is bound by memory: it reads the weights once a step. The rest is held against the rate of products. A
# ratio is not rounded up.
function phase_line(p,    ratio, share, of, amount, rate) {
    ratio = ("peer", p) in best ? best["peer", p] / best["ours", p] : ""
    of = bytes[p] > 0 ? "memory" : "matmul"
    amount = of == "memory" ? bytes[p] : flops[p]
    rate = of == "memory" ? memory : matmul
    share = rate > 0 ? amount / best["ours", p] / rate : ""
    printf("%-16s %9.3f %9s %8s %8s %-7s %9s %9s\n", p, best["ours", p],
        ratio == "" ? "-" : sprintf("%.3f", best["peer", p]), ratio == "" ? "-" : sprintf("%.2fx", int(100 * ratio) / 100),
        share == "" ? "-" : sprintf("%.1f %%", 100 * share), of, gib(peak["ours", p]), gib(peak["peer", p]))
    out = out sprintf(",\n \"%s\": {\"ours_s\": %s, \"peer_s\": %s, \"ratio\": %s, \"share\": %s, ", p, best["ours", p],
        number(best["peer", p]), number(ratio), number(share))
    out = out sprintf("\"share_of\": \"%s\", \"ours_peak_bytes\": %s, \"peer_peak_bytes\": %s}", of,
        number(peak["ours", p]), number(peak["peer", p]))
}

function cell(key, form, factor) { return value(key) == "null" ? "-" : sprintf(form, value(key) * factor) }

FILENAME ~ /kernels/ && /"machine"/ {
    machine = $0
    matmul = value("matmul_gflops") * 1e9
    memory = value("read_gbs") * 1e9
    said = sprintf("machine: %s, %s threads; %s %.0f GFLOP/s; memory: read %s GB/s, copy %s GB/s, y += x %s GB/s",
        value("machine"), value("threads"), value("arithmetic"), matmul / 1e9, value("read_gbs"), value("copy_gbs"),
        value("update_gbs"))
    next
}
FILENAME ~ /kernels/ {
    kernel[++n_kernels] = $0
    row[n_kernels] = sprintf("%-14s %-34s %10.3f %9s %8s %8s %8s %s", value("op"), value("shape"), value("seconds") * 1e3,
        cell("gflops", "%.1f", 1), cell("matmul_share", "%.1f %%", 100), cell("gbs", "%.2f", 1),
        cell("bandwidth_share", "%.1f %%", 100), value("traffic") == "none" ? "" : "of " value("traffic"))
    sub(/ +$/, "", row[n_kernels])
    next
}
$2 ~ /iteration$/ { next }
{
    sub(/^chat_.*/, "chat", $2)
    if ($1 == "ours") { flops[$2] = $5; bytes[$2] = $6 }
    least($1, $2, $3 + 0)
    most($1, $2, $4)
}
END {
    add_iteration("ours", ""); add_iteration("peer", ""); add_iteration("ours", "mixed_"); add_iteration("peer", "mixed_")
    if (said != "") print "\n" said
    printf("\n%-16s %9s %9s %8s %8s %-7s %9s %9s\n", "phase", "ours s", "peer s", "ratio", "share", "of", "ours GiB",
        "peer GiB")
    n = split("sft rm gen exp ppo iteration chat mixed_gen mixed_exp mixed_ppo mixed_iteration", order, " ")
    for (i = 1; i <= n; i++) if (("ours", order[i]) in best) phase_line(order[i])
    if (n_kernels)
        printf("\n%-14s %-34s %10s %9s %8s %8s %8s\n", "kernel", "shape", "ms", "GFLOP/s", "share", "GB/s", "share")
    for (i = 1; i <= n_kernels; i++) print row[i]
    printf("{\"machine\": %s,\n \"settings\": %s%s,\n \"kernels\": [", (machine == "" ? "null" : machine), settings,
        out) > json
    for (i = 1; i <= n_kernels; i++) printf("%s\n  %s", (i > 1 ? "," : ""), kernel[i]) > json
    print "]}" > json
}
