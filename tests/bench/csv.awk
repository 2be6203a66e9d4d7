# csv.awk: the JSON lines of build/tests/bench/phases -> lines of performance.csv after `head`.
{
    printf("%s,%s,%s,%s,%s,%s\n", head, value("phase"), value("parameters"), value("seconds"), value("tokens_per_s"),
        value("peak_bytes"))
    fflush()
}
