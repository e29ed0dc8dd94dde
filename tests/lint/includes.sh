#!/usr/bin/env bash
# The house rules a compiler does not check: who may include whom, which library belongs to which room, what library code
# must not call, how files are named. Prints file:line: what, for every offence; exit status 1 if there was one.
# `includes.sh DIR` checks another tree (tests/lint/selftest.sh feeds it one offence of each kind).
set -euo pipefail
cd "${1:-$(dirname "$0")/../..}"

ROOMS="core config ann train server"
declare -A MAY_INCLUDE=(
    [core]="core"
    [config]="core config"
    [ann]="core ann"
    [train]="core config ann train"
    [server]="core config ann server"
)
# Third-party headers with one home. Everything else in <> is free: libc, pthreads, jansson, OpenBLAS, zlib, zstd.
declare -A HOME_OF=(
    ["event2/"]="server"
    ["event.h"]="server"
    ["evhttp.h"]="server"
    ["yaml.h"]="config"
    ["faiss/"]="ann"
)

found=0
offence() {
    echo "$1: $2"
    found=1
}
contains() { case " $1 " in *" $2 "*) return 0 ;; *) return 1 ;; esac }

# file:line:"header" or file:line:<header> of every include in the given files
includes_of() { grep -nHE '^[[:space:]]*#[[:space:]]*include' "$@" | sed -E 's/^([^:]*:[0-9]*):[^"<]*(["<][^">]*[">]).*/\1 \2/' || true; }

check_quoted() { # $1 place, $2 header, $3 the rooms it may come from, besides its own folder of tests
    case $2 in
    *..*) offence "$1" "\"$2\": write the path from the project's root, without .." ;;
    *.c) offence "$1" "\"$2\": a source file is compiled, not included" ;;
    */*) if ! contains "$3" "${2%%/*}"; then
        offence "$1" "\"$2\": may include from: $3"
    elif [ ! -f "$2" ]; then
        offence "$1" "\"$2\": no such file"
    fi ;;
    *) offence "$1" "\"$2\": write the path from the project's root, like \"core/err.h\"" ;;
    esac
}

check_system() { # $1 place, $2 header, $3 the rooms whose libraries may be used
    local prefix
    for prefix in "${!HOME_OF[@]}"; do
        case $2 in "$prefix"*) contains "$3" "${HOME_OF[$prefix]}" || offence "$1" "<$2>: only ${HOME_OF[$prefix]}/ uses this library" ;; esac
    done
}

shopt -s nullglob
for room in $ROOMS; do
    files=("$room"/*.[ch])
    tests=(tests/unit/"$room"/*.[ch])
    if [ ${#files[@]} -gt 0 ]; then
        while read -r place header; do
            bare=${header:1:-1}
            case $header in
            '"'*) check_quoted "$place" "$bare" "${MAY_INCLUDE[$room]}" ;;
            '<'*) check_system "$place" "$bare" "$room" ;;
            esac
        done < <(includes_of "${files[@]}")
    fi
    if [ ${#tests[@]} -gt 0 ]; then
        while read -r place header; do
            bare=${header:1:-1}
            case $header in
            '"'*) check_quoted "$place" "$bare" "${MAY_INCLUDE[$room]} tests" ;;
            '<'*) check_system "$place" "$bare" "${MAY_INCLUDE[$room]}" ;;
            esac
        done < <(includes_of "${tests[@]}")
    fi
done

# No cycle among headers: tsort names the files of one if there is.
headers=(core/*.h config/*.h ann/*.h train/*.h server/*.h)
if [ ${#headers[@]} -gt 0 ]; then
    cycle=$(includes_of "${headers[@]}" | sed -nE 's/^([^:]*):[0-9]* "(.*)"$/\1 \2/p' | tsort 2>&1 >/dev/null || true)
    [ -z "$cycle" ] || offence "${cycle##*: }" "includes itself through others: $(tr '\n' ' ' <<<"$cycle")"
fi

# Library code returns errors and stays silent: only main and the command files of the two programs print or exit.
# core/log.c is where log lines are written. Comments are removed first; a line that must be an exception carries
# "lint-allow: why" in a comment.
FORBIDDEN='(^|[^A-Za-z0-9_>.])(printf|vprintf|puts|putchar|perror|exit|_exit|_Exit|quick_exit|abort|assert)[[:space:]]*\(|(^|[^A-Za-z0-9_])v?f(printf|puts|putc)[[:space:]]*\([^;]*(stdout|stderr)'
strip_comments() { # keeps line numbers
    awk '{ line = $0; out = ""
        allowed = index(line, "lint-allow: ")
        while (length(line)) {
            if (inside) { p = index(line, "*/"); if (!p) { line = "" } else { line = substr(line, p + 2); inside = 0 } }
            else { p = index(line, "/*"); q = index(line, "//"); 
                if (q && (!p || q < p)) { out = out substr(line, 1, q - 1); line = "" }
                else if (p) { out = out substr(line, 1, p - 1); line = substr(line, p + 2); inside = 1 }
                else { out = out line; line = "" } } }
        print allowed ? "" : out }' "$1"
}
for file in core/*.[ch] config/*.[ch] ann/*.[ch]; do
    [ "$file" = core/log.c ] && continue
    while IFS=: read -r line text; do
        offence "$file:$line" "library code returns an error instead: $(sed -E 's/^[[:space:]]+//' <<<"$text")"
    done < <(strip_comments "$file" | sed -E 's/"([^"\\]|\\.)*"/""/g' | grep -nE "$FORBIDDEN" || true)
done

# Names: lower case, words joined by _, in one of the rooms; nothing else at the top.
for file in core/* config/* ann/* train/* server/*; do
    case $file in
    *.c | *.h) [[ ${file##*/} =~ ^[a-z][a-z0-9_]*\.[ch]$ ]] || offence "$file" "file names are lower_case.c or .h" ;;
    *.sh | *.yaml | *.md | *.html | *.css | *.js) ;;
    *) offence "$file" "unexpected kind of file in a source folder" ;;
    esac
done
if [ -e .git ]; then
    while read -r name; do
        contains "Makefile core ann config train server systemd tests docs README.md LICENSE CHANGELOG.md CONTRIBUTING.md" "$name" ||
            offence "$name" "the top level is fixed: see docs/architecture.md"
    done < <(git ls-files | cut -d/ -f1 | grep -v '^\.' | sort -u)
fi

exit $found
