# record.awk: the JSON lines of build/tests/bench/phases -> records: ours, phase, seconds, peak bytes, flops, bytes.
{
    print "ours", prefix value("phase"), value("seconds"), value("peak_bytes"), value("flops"), value("bytes")
    fflush()
}
