#!/usr/bin/env bash
# Installs what dschat needs on Debian 12 and builds PnetCDF for MPICH into build/pnetcdf. Safe to call again at any time:
# with everything there it changes nothing.
#
#   tools/setup.sh              PNETCDF=/prefix tools/setup.sh: use a PnetCDF that is already built for this MPI
#
# Debian's own PnetCDF library is linked with Open MPI, hence the build: Debian's source package, fetched by apt (which checks
# the archive's signature) through source lists of its own below build/apt, so the machine's apt settings stay as they are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
log=$root/build/setup.log
prefix=${PNETCDF:-$root/build/pnetcdf}
pnetcdf_version=1.12.3

needed=(mpich libmpich-dev libhdf5-dev hdf5-tools libinih-dev libjansson-dev libpcre2-dev zlib1g-dev libxxhash-dev libedit-dev
    libhwloc-dev libcmocka-dev libssl-dev libdnnl-dev libutf8proc-dev pkg-config gcc libc6-dev make autoconf automake libtool m4
    dpkg-dev xz-utils netcdf-bin gnuplot-nox tmux)
modules=(hdf5-serial jansson libpcre2-8 libxxhash libedit hwloc libcrypto inih zlib libutf8proc cmocka)
commands=(mpicc mpirun make gcc ar pkg-config awk)

say() { printf '%s\n' "setup: $*"; }

die() {
    printf '%s\n' "setup: error: $*" >&2
    exit 1
}

# logged WHAT COMMAND...: runs it with its output in the log; upon failure shows the log's end.
logged() {
    local what=$1
    shift
    printf '\n### %s\n' "$what" >>"$log"
    if ! "$@" >>"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        printf '%s\n' "setup: error: $what failed (the whole log: build/setup.log)" >&2
        return 1
    fi
}

# The packages of needed[] that dpkg does not have.
missing_packages() {
    local have
    have=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${needed[@]}" 2>/dev/null |
        awk '$2 == "installed" { print $1 }') || true
    printf '%s\n' "${needed[@]}" | grep -vxF -e "${have:-none}" || true
}

# as_root COMMAND...: proxies are handed through sudo by name, because sudo drops them.
as_root() {
    local env=(env DEBIAN_FRONTEND=noninteractive) name
    for name in http_proxy https_proxy ftp_proxy no_proxy all_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY; do
        [ -z "${!name:-}" ] || env+=("$name=${!name}")
    done
    if [ "$(id -u)" = 0 ]; then "${env[@]}" "$@"; else sudo -n "${env[@]}" "$@"; fi
}

may_be_root() {
    [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }
}

install_packages() {
    local missing
    command -v dpkg-query >/dev/null || return 0
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -gt 0 ] || return 0
    if ! may_be_root; then
        say "no rights to install packages; an administrator would type:"
        printf '    apt-get update && apt-get install -y --no-install-recommends %s\n' "${missing[*]}"
        say "going on with what is there"
        return 0
    fi
    say "installing ${#missing[@]} Debian packages: ${missing[*]}"
    logged "apt-get update" as_root apt-get -q update || say "going on with apt's present lists"
    logged "apt-get install" as_root apt-get -q -y --no-install-recommends install "${missing[@]}"
}

# What the build needs, asked of the things themselves: they may come from elsewhere than Debian's packages.
check_needed() {
    local name lacking=()
    for name in "${commands[@]}"; do command -v "$name" >/dev/null || lacking+=("the command $name"); done
    if command -v pkg-config >/dev/null && ! pkg-config --exists "${modules[@]}"; then
        for name in "${modules[@]}"; do pkg-config --exists "$name" || lacking+=("the library $name (pkg-config)"); done
    fi
    if command -v gcc >/dev/null && ! printf '#include <dnnl.h>\n' | gcc -E - >/dev/null 2>&1; then
        lacking+=("the header dnnl.h (oneDNN)")
    fi
    [ ${#lacking[@]} -eq 0 ] || die "$(printf 'still lacking: %s\n' "${lacking[@]}")"
}

# Debian's source lists of this release, turned into deb-src lines below build/apt. Both forms of source list are read.
write_source_lists() {
    local apt=$1 list parts codename file
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-stable}")
    eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
    mkdir -p "$apt/parts" "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/source"
    rm -f "$apt/sources.list" "$apt"/parts/*
    cat "$list" "$parts"*.list 2>/dev/null | awk -v codename="$codename" '
        $1 == "deb" || $1 == "deb-src" {
            line = $0; sub(/^[ \t]*deb(-src)?[ \t]+/, "", line); options = ""
            if (match(line, /^\[[^]]*\][ \t]*/)) { options = substr(line, 1, RLENGTH); line = substr(line, RLENGTH + 1) }
            n = split(line, word, /[ \t]+/)
            if ((word[2] == codename || word[2] == "stable") && (" " line " ") ~ / main /)
                print "deb-src " options word[1], word[2], "main"
        }' | sort -u >"$apt/sources.list" || true
    { for file in "$parts"*.sources; do cat "$file" 2>/dev/null && echo; done || true; } | awk -v codename="$codename" '
        function flush() { if (ours && on && main) printf "%s\n", text; text = ""; ours = 0; on = 1; main = 0; field = "" }
        BEGIN { on = 1 }
        /^[ \t]*$/ { flush(); next }
        /^#/ { next }
        /^[^ \t]/ { field = tolower($1) }
        field == "types:" { if ($0 ~ /^[^ \t]/) text = text "Types: deb-src\n"; next }
        field == "suites:" {
            for (i = 1; i <= NF; i++)
                if ($i == codename || $i == "stable") { ours = 1; text = text "Suites: " $i "\n" }
            next
        }
        field == "components:" { for (i = 1; i <= NF; i++) if ($i == "main") { main = 1; text = text "Components: main\n" } next }
        field == "enabled:" { on = ($2 != "no") }
        { text = text $0 "\n" }
        END { flush() }' >"$apt/parts/debian.sources" || true
    [ -s "$apt/sources.list" ] || [ -s "$apt/parts/debian.sources" ] ||
        die "apt's source lists name no Debian '$codename main'; build PnetCDF $pnetcdf_version for this MPI and set PNETCDF=prefix"
}

# fetch_source APT: Debian's pnetcdf source package into APT/source, its hashes covered by the archive's signature.
fetch_source() {
    local apt=$1 options
    options=(-q -o "Dir::Etc::sourcelist=$apt/sources.list" -o "Dir::Etc::sourceparts=$apt/parts"
        -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o "APT::Sandbox::User=root"
        -o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Get::AllowUnauthenticated=false
        -o Acquire::AllowInsecureRepositories=false -o APT::Get::List-Cleanup=true)
    logged "fetching Debian's list of source packages" apt-get "${options[@]}" update || return 1
    (cd "$apt/source" && logged "fetching the source of pnetcdf" apt-get "${options[@]}" --download-only --only-source \
        source pnetcdf)
}

# Everything that a built PnetCDF depends on.
stamp_text() { printf 'pnetcdf %s\n%s\n%s\n' "$pnetcdf_version" "$prefix" "$(mpicc -show)"; }

compile_pnetcdf() {
    local work=$1 dsc=$2
    rm -rf "$work"
    mkdir -p "$work"
    logged "unpacking $(basename "$dsc")" dpkg-source --no-check -x "$dsc" "$work/src"
    cd "$work/src"
    logged "autoreconf" autoreconf -i
    # --disable-in-place-swap: PnetCDF must never change the caller's buffer, not even for a moment.
    logged "configure" ./configure --prefix="$prefix" MPICC=mpicc CFLAGS="-O2 -g -fPIC" --disable-shared --enable-static \
        --disable-fortran --disable-cxx --disable-in-place-swap
    logged "make" make -j2
    logged "make install" make install DESTDIR="$work/stage"
    cd "$root"
}

build_pnetcdf() {
    local apt=$root/build/apt work=$root/build/pnetcdf.tmp dsc started=$SECONDS
    [ "$prefix" = "$root/build/pnetcdf" ] || die "PNETCDF=$prefix has no include/pnetcdf.h and lib/libpnetcdf.*"
    mpicc -show | grep -q mpich || die "mpicc is not MPICH's ($(mpicc -show | cut -c1-60)); see update-alternatives --config mpi"
    for tool in apt-get dpkg-source autoreconf libtoolize m4; do
        command -v "$tool" >/dev/null || die "PnetCDF cannot be built: no command $tool"
    done
    say "fetching and building PnetCDF $pnetcdf_version for MPICH (about a minute)"
    write_source_lists "$apt"
    fetch_source "$apt"
    dsc=$(ls "$apt"/source/pnetcdf_"$pnetcdf_version"-*.dsc 2>/dev/null | tail -n 1) || true
    [ -n "$dsc" ] || die "apt offers another version than PnetCDF $pnetcdf_version: $(cd "$apt/source" && ls ./*.dsc)"
    compile_pnetcdf "$work" "$dsc"
    stamp_text >"$work/stage$prefix/.stamp"
    rm -rf "$prefix"
    mv "$work/stage$prefix" "$prefix"
    rm -rf "$work"
    say "PnetCDF is built ($((SECONDS - started)) s)"
}

have_pnetcdf() {
    [ -f "$prefix/include/pnetcdf.h" ] && compgen -G "$prefix/lib/libpnetcdf.*" >/dev/null || return 1
    [ "$prefix" != "$root/build/pnetcdf" ] || [ "$(cat "$prefix/.stamp" 2>/dev/null)" = "$(stamp_text)" ]
}

mkdir -p build
exec 9>build/setup.lock
flock 9
: >"$log"
install_packages
check_needed
have_pnetcdf || build_pnetcdf
