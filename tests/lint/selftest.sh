#!/usr/bin/env bash
# Does tests/lint/includes.sh see what it is there to see? One small tree with one offence each; silence is a failure.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tree=$(mktemp -d "${TMPDIR:-/tmp}/recalld-lint.XXXXXX")
trap 'rm -rf "$tree"' EXIT
bad=0

fresh() {
    rm -rf "${tree:?}"/*
    mkdir -p "$tree"/{core,config,ann,train,server,tests/unit/core}
    echo '#include <stdio.h>' >"$tree/core/err.h"
    echo '#include "core/err.h"' >"$tree/config/load.h"
    echo '#include "ann/ann.h"' >"$tree/ann/flat.c"
    echo '#include "core/err.h"' >"$tree/ann/ann.h"
}
expect() { # $1 what the message must contain; the tree holds the offence
    local out
    if out=$("$here/includes.sh" "$tree") || ! grep -qF -- "$1" <<<"$out"; then
        echo "selftest: not reported: $1 (got: $out)"
        bad=1
    fi
}
offend() { # $1 file, $2 its line, $3 expected message
    fresh
    echo "$2" >>"$tree/$1"
    expect "$3"
}

fresh
"$here/includes.sh" "$tree" || { echo "selftest: the clean tree is not clean"; bad=1; }
offend core/a.c '#include "config/load.h"' 'may include from: core'
offend ann/a.c '#include "config/load.h"' 'may include from: core ann'
offend config/a.c '#include "ann/ann.h"' 'may include from: core config'
offend train/a.c '#include "server/x.h"' 'may include from: core config ann train'
offend server/a.c '#include "train/x.h"' 'may include from: core config ann server'
offend tests/unit/core/test_a.c '#include "ann/ann.h"' 'may include from: core tests'
offend core/a.c '#include "../core/err.h"' 'without ..'
offend core/a.c '#include "err.h"' "from the project's root"
offend core/a.c '#include "core/none.h"' 'no such file'
offend core/a.c '#include "core/b.c"' 'is compiled, not included'
offend core/a.c '#include <yaml.h>' 'only config/ uses this library'
offend train/a.c '#include <event2/http.h>' 'only server/ uses this library'
offend core/a.c '    exit(1);' 'library code returns an error'
offend core/a.c '/* fine */ printf("x");' 'library code returns an error'
offend config/a.c 'fprintf(stderr, "x");' 'library code returns an error'
offend ann/a.c 'abort();' 'library code returns an error'
offend core/Big.c 'int x;' 'lower_case'
offend core/notes.txt 'x' 'unexpected kind of file'
fresh
echo '#include "core/err.h"' >"$tree/core/a.h"
echo '#include "core/a.h"' >>"$tree/core/err.h"
expect 'includes itself through others'
# and what looks like an offence but is none
fresh
printf '%s\n' '/* exit(1) is for main' ' * printf("x") too */' 'int x = at_exit(1); // abort()' 'f("exit(1)"); o->exit(1);' \
    'abort(); /* lint-allow: out of memory in a test double */' >"$tree/core/a.c"
"$here/includes.sh" "$tree" || { echo "selftest: reported what is fine"; bad=1; }
exit $bad
