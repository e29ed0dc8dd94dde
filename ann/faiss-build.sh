#!/usr/bin/env bash
# Find faiss with its C API, or build it once per machine.
#
#   ann/faiss-build.sh ensure      what `make deps` calls: find it, else build it into the cache (about three minutes)
#   ann/faiss-build.sh flags DIR   what `make` calls: write DIR/faiss.cflags and DIR/faiss.libs (compiler response
#                                  files), or fail and name the command that helps; never builds, never downloads
#   ann/faiss-build.sh where       print the cache folder in use, or "system"
#
# Why build at all: Debian 12's libfaiss-dev (1.7.3) ships the C API's headers without its library, and is compiled
# without AVX2, so its distance loops are scalar. We take Debian's own source package of the same version and compile it
# with the C API and, where the processor has it, AVX2. A system whose packages do have a working libfaiss_c is used as
# it is (the probe below must compile, link, run and find the right neighbours).
#
# Why static: faiss_c and faiss_avx2 end up inside our two programs, so `make install` yields binaries that need only
# distribution packages at run time (OpenBLAS, libgomp, libstdc++). A shared build would need a run path into somebody's
# home directory, and would break when that cache is cleaned.
#
# Portability: an AVX2 build does not run on a processor without AVX2. The cache key names the instruction set, so one
# home directory shared by different machines is safe, but binaries must not be copied from an AVX2 machine to one
# without it. There, or to build for others, use FAISS_OPT=generic make deps && FAISS_OPT=generic make.
#
# Nothing half-made is ever visible: all work happens in a temporary folder beside the final one, which appears by one
# rename; a lock keeps two builds apart, and its holder clears what a killed build left behind.
set -euo pipefail

RECIPE=r1 # part of the cache key: raise it when the way we build changes
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf 'faiss: %s\n' "$*"; }
die() {
    printf 'faiss: %s\n' "$*" >&2
    exit 1
}

# --- where things are ------------------------------------------------------------------------------------------------

# avx2 | generic: what this processor can run, unless FAISS_OPT says otherwise
opt_level() {
    if [ -n "${FAISS_OPT:-}" ]; then
        case $FAISS_OPT in
        avx2 | generic) echo "$FAISS_OPT" ;;
        *) die "FAISS_OPT must be avx2 or generic, not '$FAISS_OPT'" ;;
        esac
    elif grep -qw avx2 /proc/cpuinfo 2>/dev/null && grep -qw fma /proc/cpuinfo && grep -qw f16c /proc/cpuinfo; then
        echo avx2
    else
        echo generic
    fi
}

# Everything besides the version that makes two builds different: instruction set, recipe, machine, distribution.
flags_key() {
    local id=unknown
    # shellcheck source=/dev/null
    [ -r /etc/os-release ] && id=$(. /etc/os-release && echo "${ID:-linux}${VERSION_ID:-}")
    echo "$(opt_level)-static-$RECIPE-$(uname -m)-$id"
}

# Folders a cache may live in, best first. HOME may be unset, "/" or not ours (containers, service accounts). Under sudo
# the user will run `make` afterwards with another HOME, so there the shared folder comes first.
cache_roots() {
    if [ "$(id -u)" = 0 ] && [ -n "${SUDO_USER:-}" ]; then echo /var/cache/recalld; fi
    case ${XDG_CACHE_HOME:-} in /?*) echo "$XDG_CACHE_HOME/recalld" ;; esac
    case ${HOME:-} in /?*) [ -d "$HOME" ] && echo "$HOME/.cache/recalld" ;; esac
    echo /var/cache/recalld
    echo "$ROOT/.cache/recalld"
}

find_cached() { # prints the newest finished build that fits this machine
    local root key hit
    key=$(flags_key)
    while read -r root; do
        hit=$(find "$root" -maxdepth 1 -name "faiss-*-$key" 2>/dev/null | sort -V | tail -n 1) || true
        if [ -n "$hit" ] && [ -r "$hit/lib/libfaiss_c.a" ]; then
            echo "$hit"
            return 0
        fi
    done < <(cache_roots)
    return 1
}

writable_root() {
    local root
    while read -r root; do
        if mkdir -p "$root" 2>/dev/null && [ -w "$root" ]; then
            echo "$root"
            return 0
        fi
    done < <(cache_roots)
    die "no writable cache folder (tried: $(cache_roots | tr '\n' ' ')); set XDG_CACHE_HOME"
}

# --- compiler flags --------------------------------------------------------------------------------------------------

SYSTEM_LIBS="-lfaiss_c -lfaiss -lgomp -lopenblas -lstdc++ -lm"

cached_cflags() { echo "-isystem $1/include"; }
cached_libs() { # $1 cache folder. faiss_c and faiss need each other's symbols in one pass only: c first
    echo "$1/lib/libfaiss_c.a $1/lib/libfaiss.a -lopenblas -lgomp -lstdc++ -lm -lpthread"
}

# A tiny program through the C API: HNSW over 64 points on a line must find the point itself.
probe() { # $1 compiler flags, $2 libraries
    local dir rc=0
    dir=$(mktemp -d "${TMPDIR:-/tmp}/recalld-probe.XXXXXX")
    cat >"$dir/probe.c" <<'C'
#include <faiss/c_api/AutoTune_c.h>
#include <faiss/c_api/Index_c.h>
#include <faiss/c_api/error_c.h>
#include <faiss/c_api/index_factory_c.h>
#include <faiss/c_api/index_io_c.h>
#include <stdio.h>
int main(void)
{
    enum { N = 64, D = 4 };
    float x[N * D] = {0}, dist[1], q[D] = {41, 0, 0, 0};
    for (int i = 0; i < N; i++)
        x[i * D] = (float)i;
    FaissIndex *ix = NULL;
    idx_t label[1] = {-1};
    if (faiss_index_factory(&ix, D, "HNSW8", METRIC_L2) || faiss_Index_add(ix, N, x) ||
        faiss_Index_search(ix, 1, q, 1, dist, label)) {
        fprintf(stderr, "%s\n", faiss_get_last_error());
        return 1;
    }
    faiss_Index_free(ix);
    return label[0] == 41 ? 0 : 2;
}
C
    # shellcheck disable=SC2086 # flags are words
    { ${CC:-cc} -O1 -o "$dir/probe" $1 "$dir/probe.c" $2 && "$dir/probe"; } >"$dir/log" 2>&1 || rc=1
    if [ $rc != 0 ] && [ "${3:-}" = loud ]; then cat "$dir/log" >&2; fi
    rm -rf "$dir"
    return $rc
}

# The system's headers are there on every Debian with libfaiss-dev; the library mostly is not, and then we need not
# compile anything to know it.
system_usable() {
    ls /usr/lib/*/libfaiss_c.* /usr/lib/libfaiss_c.* /usr/local/lib/libfaiss_c.* >/dev/null 2>&1 || return 1
    probe "" "$SYSTEM_LIBS"
}

# --- building --------------------------------------------------------------------------------------------------------

# Debian's source package, without touching the system's package lists: the configured sources are copied with their
# type changed to deb-src (URI, suite, components and signing keys stay as the machine has them), and apt keeps lists
# and caches for this one call in our folder. Works as any user.
fetch_source() { # $1 working folder -> $1/src
    local work=$1 file apt
    mkdir -p "$work/apt/parts" "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/download"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -r "$file" ] || continue
        sed -n -E 's/^[[:space:]]*deb([[:space:]])/deb-src\1/p' "$file" >>"$work/apt/parts/one-line.list"
    done
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -r "$file" ] || continue
        sed -E 's/^[Tt]ypes:.*/Types: deb-src/' "$file" >"$work/apt/parts/$(basename "$file")"
    done
    apt=(apt-get -q -o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$work/apt/parts"
        -o "Dir::State::lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache" -o "APT::Sandbox::User=$(id -un)"
        -o "Acquire::Retries=3" -o "Acquire::Languages=none")
    # a third-party repository without sources may fail here; what counts is that faiss can be fetched
    "${apt[@]}" update || true
    (cd "$work/download" && "${apt[@]}" source --download-only faiss) ||
        die "cannot fetch Debian's source package of faiss (network? mirror in /etc/apt?)"
    dpkg-source --no-check -x "$work"/download/faiss_*.dsc "$work/src"
}

jobs_for_machine() { # a compiler process needs up to 1 GB here
    local cores gigabytes
    cores=$(nproc)
    gigabytes=$(awk '/^MemAvailable/ {print int($2 / 1048576)}' /proc/meminfo)
    [ "${gigabytes:-1}" -ge 1 ] || gigabytes=1
    [ "$cores" -le "$gigabytes" ] && echo "$cores" || echo "$gigabytes"
}

compile() { # $1 working folder: $1/src -> $1/out/{include,lib}
    local work=$1 target=faiss opt
    opt=$(opt_level)
    [ "$opt" = avx2 ] && target=faiss_avx2
    # upstream ties the C API to the generic library; tie it to the one we build
    sed -i -E "s/(target_link_libraries\(faiss_c PRIVATE) faiss\)/\1 $target)/" "$work/src/c_api/CMakeLists.txt"
    grep -q "faiss_c PRIVATE $target)" "$work/src/c_api/CMakeLists.txt" ||
        die "c_api/CMakeLists.txt of this faiss version is not as expected"
    cmake -S "$work/src" -B "$work/obj" -DFAISS_OPT_LEVEL="$opt" -DFAISS_ENABLE_C_API=ON -DFAISS_ENABLE_PYTHON=OFF \
        -DFAISS_ENABLE_GPU=OFF -DBUILD_TESTING=OFF -DBUILD_SHARED_LIBS=OFF -DCMAKE_BUILD_TYPE=Release \
        -DCMAKE_POSITION_INDEPENDENT_CODE=ON -DBLA_VENDOR=OpenBLAS
    cmake --build "$work/obj" --parallel "$(jobs_for_machine)" --target "$target"
    cmake --build "$work/obj" --parallel "$(jobs_for_machine)" --target faiss_c
    mkdir -p "$work/out/lib" "$work/out/include/faiss"
    cp "$work/obj/faiss/lib$target.a" "$work/out/lib/libfaiss.a"
    cp "$work/obj/c_api/libfaiss_c.a" "$work/out/lib/libfaiss_c.a"
    (cd "$work/src" && find c_api -name '*.h' ! -path '*/gpu/*' -exec cp --parents {} "$work/out/include/faiss/" \;)
    cp "$work/src/LICENSE" "$work/out/LICENSE"
}

# Run a step in a shell of its own that stops at its first error (not in a condition: there bash ignores set -e), without
# the lock's descriptor; stdout is the log.
logged() {
    local rc
    set +e
    (
        set -e
        "$@"
    ) 2>&1 9>&-
    rc=$?
    set -e
    [ $rc = 0 ] && return
    tail -n 15 "$log" >&2
    die "$1 failed, see $log"
}

build() {
    local root work version final log started=$SECONDS
    root=$(writable_root)
    exec 9>"$root/.lock"
    if ! flock -n 9; then
        say "another build is running, waiting for it"
        flock 9
    fi
    if find_cached >/dev/null; then return 0; fi
    rm -rf "$root"/.build.*
    work=$(mktemp -d "$root/.build.XXXXXX")
    log=$root/faiss-build.log
    # shellcheck disable=SC2064 # expand now: the variable is local
    trap "rm -rf '$work'" EXIT
    trap 'exit 130' INT TERM HUP
    say "building the C API with $(opt_level) instructions; this takes about three minutes, once per machine (log: $log)"
    logged fetch_source "$work" >"$log"
    version=$(cd "$work/src" && dpkg-parsechangelog -S Version | tr -c 'A-Za-z0-9.+\n-' _)
    say "compiling Debian's faiss $version on $(jobs_for_machine) cores"
    logged compile "$work" >>"$log"
    probe "$(cached_cflags "$work/out")" "$(cached_libs "$work/out")" loud || die "the freshly built library fails its probe"
    final=$root/faiss-$version-$(flags_key)
    rm -rf "$final"
    mv "$work/out" "$final"
    say "built in $((SECONDS - started)) s: $final"
}

# --- commands --------------------------------------------------------------------------------------------------------

write_if_changed() { # $1 file; text on stdin. Keeps the time stamp when nothing changed, so make relinks nothing
    local text
    text=$(cat)
    [ -r "$1" ] && [ "$(cat "$1")" = "$text" ] || printf '%s\n' "$text" >"$1"
}

case ${1:-} in
ensure)
    if dir=$(find_cached); then
        say "using $dir"
    elif system_usable; then
        say "using the system's libfaiss_c"
    else
        build
    fi
    ;;
flags)
    out=${2:?usage: ann/faiss-build.sh flags DIR}
    if dir=$(find_cached); then
        cached_cflags "$dir" | write_if_changed "$out/faiss.cflags"
        cached_libs "$dir" | write_if_changed "$out/faiss.libs"
    elif system_usable; then
        printf '' | write_if_changed "$out/faiss.cflags"
        echo "$SYSTEM_LIBS" | write_if_changed "$out/faiss.libs"
    else
        die "no faiss with a C API on this machine: run 'make deps' first"
    fi
    ;;
where) find_cached || { system_usable && echo system; } || die "not built yet: run 'make deps'" ;;
*) die "usage: ann/faiss-build.sh ensure | flags DIR | where" ;;
esac
