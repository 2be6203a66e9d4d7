# markdown.awk: one curve of performance.csv as a Markdown table.
BEGIN { n_phases = split(phases, phase, ",") }
$1 == curve {
    if (!(($2) in seen)) { seen[$2] = 1; x[++n] = $2 }
    rate[$2, $6] = $9
    if ($10 > peak[$2] + 0) peak[$2] = $10
    parameters[$2] = $7
}
END {
    if (!n) exit
    printf("\n| %s |", heading)
    if (curve == "size") printf(" weights |")
    for (i = 1; i <= n_phases; i++) printf(" %s, tokens/s |", phase[i])
    printf(" peak GiB |\n|---|")
    for (i = 1; i <= n_phases + (curve == "size"); i++) printf("---|")
    print "---|"
    for (r = 1; r <= n; r++) {
        printf("| %s |", x[r])
        if (curve == "size") printf(" %.1f M |", parameters[x[r]] / 1e6)
        for (i = 1; i <= n_phases; i++) printf(" %s |", ((x[r], phase[i]) in rate) ? sprintf("%.0f", rate[x[r], phase[i]]) : "-")
        printf(" %.2f |\n", peak[x[r]] / 1073741824)
    }
}
