#!/usr/bin/env python3
"""Derives wire.txt, the numbers of protobuf fields, from the file descriptors that a Go client binary carries.

    derive_wire.py BINARY

BINARY is any program built with the Kubernetes Go types, such as kubectl. A line `=NAME` opens a message; its fields
follow as `NUMBER:NAME`, with `>MESSAGE` where a field's members stand in its parent in JSON (an inlined struct).
"""
import os, re, sys, zlib

API = "io.k8s.api."


def fields(data):
    """(number, value) of each field of a message; values are numbers or bytes."""
    at = 0

    def varint():
        nonlocal at
        shift = value = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
        elif kind == 2:
            size = varint()
            yield key >> 3, data[at:at + size]
            at += size
        elif kind == 1:
            at += 8
        elif kind == 5:
            at += 4
        else:
            raise ValueError("group")


def full(name):
    name = name.lstrip(".")
    return "io.k8s." + name[len("k8s.io."):] if name.startswith("k8s.io.") else name


def short(name):
    return name[len(API):] if name.startswith(API) else name


def messages(binary):
    found = {}
    for match in re.finditer(rb"\x1f\x8b\x08", binary):
        try:
            raw = zlib.decompressobj(31).decompress(binary[match.start():match.start() + 400_000])
            parts = list(fields(raw))
        except (zlib.error, ValueError, IndexError):
            continue
        package = next((v.decode("latin1") for n, v in parts if n == 2 and isinstance(v, bytes)), "")
        if not package.startswith("k8s.io."):
            continue
        for number, value in parts:
            if number == 4:
                message(full(package), value, found)
    return found


def message(prefix, raw, found):
    name, out = "", []
    for number, value in fields(raw):
        if number == 1:
            name = prefix + "." + value.decode()
        elif number == 2:
            f = dict((n, v) for n, v in fields(value))
            out.append((f[3], f[1].decode(), full(f.get(6, b"").decode())))
    found[name] = out


def known(path):
    names, current = {}, None
    for line in open(path):
        if line.startswith("="):
            label = line[1:].split()[0]
            current = names.setdefault(label if label.startswith("io.") else API + label, set())
        else:
            current.add(line.split(" ")[0].rstrip("!"))
    return names


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    schema = known(os.path.join(here, "schema.txt"))
    found = messages(open(sys.argv[1], "rb").read())
    wanted = [n for n in sorted(found) if n in schema]
    inlined, lines = [], {}

    def describe(name, json_names):
        parts = []
        for number, field, kind in found[name]:
            lower = field[:1].lower() + field[1:]
            field = lower if lower in json_names else field
            inline = field not in json_names and kind in found
            if inline and kind not in inlined:
                inlined.append(kind)
            parts.append("%d:%s%s" % (number, field, ">" + short(kind) if inline else ""))
        return " ".join(parts)

    for name in wanted:
        lines[name] = describe(name, schema[name])
    for name in inlined:
        lines.setdefault(name, " ".join("%d:%s" % (n, f) for n, f, _ in found[name]))
    with open(os.path.join(here, "wire.txt"), "w") as out:
        for name in sorted(lines):
            out.write("=%s\n%s\n" % (short(name), lines[name]))


if __name__ == "__main__":
    main()
