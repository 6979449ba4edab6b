#!/usr/bin/env python3
"""Derives schema.txt, resources.txt and columns.txt, the tables of API facts that this crate embeds.

    derive.py OPENAPI_V3_DIR DISCOVERY_JSON TABLES_JSON

The inputs are what a Kubernetes API server of the served version answers on /openapi/v3/* (one file a group
version), on aggregated discovery ({"api": .., "apis": ..}) and as column definitions of its tables
({"GROUP/VERSION/RESOURCE": [..]}). Names, types and list semantics are kept, descriptions are not.
"""
import glob, json, os, sys

API = "io.k8s.api."
SPECIAL = {
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "microtime",
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "intorstring",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "raw",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch": "raw",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "raw",
}
ANY = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON"


def short(ref):
    name = ref.rsplit("/", 1)[-1]
    if name in SPECIAL:
        return SPECIAL[name]
    if name.startswith(ANY) and not name.endswith(("JSONSchemaProps",)):
        return "any:" + name[len(ANY):] if name != ANY else "any"
    return name[len(API):] if name.startswith(API) else name


def kind(s):
    if "$ref" in s:
        return short(s["$ref"])
    if "allOf" in s:
        return short(s["allOf"][0]["$ref"])
    t = s.get("type")
    if t == "array":
        return "[" + kind(s["items"]) + "]"
    if t == "object":
        return "{" + kind(s["additionalProperties"]) + "}" if "additionalProperties" in s else "raw"
    if t == "integer":
        return s["format"]
    if t == "number":
        return "double"
    if t == "boolean":
        return "bool"
    return "byte" if s.get("format") == "byte" else "string"


def attributes(s):
    out = []
    if s.get("x-kubernetes-list-type"):
        keys = ",".join(s.get("x-kubernetes-list-map-keys", []))
        out.append("list=" + s["x-kubernetes-list-type"] + (":" + keys if keys else ""))
    if s.get("x-kubernetes-map-type"):
        out.append("atomic")
    if s.get("x-kubernetes-patch-strategy"):
        out.append("patch=" + s["x-kubernetes-patch-strategy"])
    if s.get("x-kubernetes-patch-merge-key"):
        out.append("key=" + s["x-kubernetes-patch-merge-key"])
    if s.get("enum"):
        out.append("enum=" + "|".join(s["enum"]))
    if "default" in s:
        out.append("default=" + json.dumps(s["default"], separators=(",", ":")))
    return out


def schema(folder, out):
    definitions = {}
    for f in sorted(glob.glob(os.path.join(folder, "ap*__v*.json"))):
        definitions.update(json.load(open(f)).get("components", {}).get("schemas", {}))
    for name in sorted(definitions):
        s = definitions[name]
        label = short(name)
        if "properties" not in s and s.get("type") != "object" or label == "raw":
            continue
        marks = ["atomic"] if s.get("x-kubernetes-map-type") else []
        gvk = s.get("x-kubernetes-group-version-kind", [])
        if len(gvk) == 1:
            marks.append("gvk=%s/%s/%s" % (gvk[0]["group"], gvk[0]["version"], gvk[0]["kind"]))
        out.write(" ".join(["=" + label] + marks) + "\n")
        required = s.get("required", [])
        for field, f in s.get("properties", {}).items():
            out.write(" ".join([field + ("!" if field in required else ""), kind(f)] + attributes(f)) + "\n")


def resources(path, out):
    discovery = json.load(open(path))
    for part in ("api", "apis"):
        for group in discovery[part]["items"]:
            for version in group["versions"]:
                name = group["metadata"].get("name", "")
                out.write("@%s/%s\n" % (name, version["version"]))
                for r in version["resources"]:
                    out.write(" ".join([r["resource"], r["singularResource"], r["responseKind"]["kind"],
                        r["scope"], "short=" + ",".join(r.get("shortNames", [])),
                        "cat=" + ",".join(r.get("categories", [])), "verbs=" + ",".join(r["verbs"])]) + "\n")
                    for sub in r.get("subresources", []):
                        k = sub["responseKind"]
                        out.write("/%s %s/%s/%s verbs=%s\n" % (
                            sub["subresource"], k["group"], k["version"], k["kind"], ",".join(sub["verbs"])))


def columns(path, out):
    for key, cells in sorted(json.load(open(path)).items()):
        out.write("@" + key + "\n")
        for c in cells:
            out.write("%s;%s;%s;%d\n" % (c["name"], c["type"], c["format"], c["priority"]))


if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    for write, source, name in zip((schema, resources, columns), sys.argv[1:], ("schema", "resources", "columns")):
        with open(os.path.join(here, name + ".txt"), "w") as out:
            write(source, out)
