#!/usr/bin/env python3
"""Derives numbers.txt, the protobuf field numbers of the definitions in schema.txt.

    derive_numbers.py K8S_PB_SRC

The input is the source folder of the k8s-pb crate (prost bindings of the Kubernetes API). A line is one message:
its name and `field=number` for each field; `~MESSAGE=number` is a message whose fields stand beside its parent's
in JSON. Names of fields are those in JSON.
"""
import glob, os, re, sys

SOURCE = sys.argv[1]
HERE = os.path.dirname(os.path.abspath(__file__))


def norm(name):
    return re.sub(r"[^a-z0-9]", "", name.lower())


def messages():
    found = {}
    for path in glob.glob(SOURCE + "/**/mod.rs", recursive=True):
        text = open(path).read()
        module = os.path.relpath(os.path.dirname(path), SOURCE).replace("/", ".")
        for struct in re.finditer(r"pub struct (\w+) \{(.*?)\n\}", text, re.S):
            fields = re.findall(r"#\[prost\(([^\]]*?)\)\]\s*pub (?:r#)?(\w+):\s*([^#]*?),\s*(?=///|#|\Z)", struct.group(2), re.S)
            found[(module + "." + struct.group(1)).lower()] = [
                (int(re.search(r'tag = "(\d+)"', a).group(1)), name, re.sub(r"\s", "", kind)) for a, name, kind in fields]
    return found


def definitions():
    found, current = {}, None
    for line in open(os.path.join(HERE, "schema.txt")):
        word = line.split()[0]
        if line.startswith("="):
            current = found.setdefault(word[1:], {})
        else:
            current[norm(word)] = word.rstrip("!")
    return found


def path(name):
    full = name[len("io.k8s."):] if name.startswith("io.k8s.") else "api." + name
    return full.replace("apiextensions-apiserver", "apiextensions_apiserver").lower()


def main():
    known, defined, lines = messages(), definitions(), {}

    def write(name, fields, names, group):
        words = []
        for tag, field, kind in fields:
            if norm(field) in names:
                words.append("%s=%d" % (names[norm(field)], tag))
                continue
            inner = re.fullmatch(r"::core::option::Option<(\w+)>", kind)
            below = inner and known.get(path(group + "." + inner.group(1)))
            if below and any(norm(below_field) in names for _, below_field, _ in below):
                words.append("~%s.%s=%d" % (group, inner.group(1), tag))
                write(group + "." + inner.group(1), below, defined.get(group + "." + inner.group(1), names), group)
        if words:
            lines.setdefault(name, " ".join(words))

    for name in defined:
        if path(name) in known:
            write(name, known[path(name)], defined[name], name.rsplit(".", 1)[0])
    with open(os.path.join(HERE, "numbers.txt"), "w") as out:
        out.writelines("%s %s\n" % line for line in sorted(lines.items()))


main()
