# json.awk: value("key"): what stands after "key" in this line of JSON, without quotes; "-" if the key is not there.
# Enough for the flat lines that the bench's own programs print.
function value(key,    v) {
    if (!match($0, "\"" key "\": *(\"[^\"]*\"|[^,}]*)")) return "-"
    v = substr($0, RSTART, RLENGTH)
    sub(/^"[^"]*": */, "", v)
    gsub(/"/, "", v)
    return v
}
