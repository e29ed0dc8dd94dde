#!/usr/bin/python3
"""Keeps the smallest inputs of a corpus, up to 48 KiB of them, in one file that replay.c reads; or takes them out again.

    tests/fuzz/pack.py FOLDER FILE               tests/fuzz/pack.py --unpack FILE FOLDER
"""

import hashlib
import pathlib
import sys

ROOM = 48 << 10


def pack(folder, target):
    packed = b""
    for data in sorted((path.read_bytes() for path in folder.iterdir()), key=lambda data: (len(data), data)):
        if len(packed) + len(data) + 4 > ROOM:
            break
        packed += len(data).to_bytes(4, "little") + data
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(packed)


def unpack(source, folder):
    rest = source.read_bytes()
    while rest:
        size = int.from_bytes(rest[:4], "little")
        data, rest = rest[4:4 + size], rest[4 + size:]
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def main():
    arguments = sys.argv[1:]
    if arguments[0] == "--unpack":
        unpack(*map(pathlib.Path, arguments[1:]))
    else:
        pack(*map(pathlib.Path, arguments))


if __name__ == "__main__":
    main()
