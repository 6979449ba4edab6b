//! Images as OCI archives, made without a container engine: a binary and the libraries it is linked
//! to, or a static busybox. An image is made again only when something in it changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::{command, output, target};
use crate::{say, tools};
use layer::Entry;
use recipe::{RECIPES, Recipe};

mod layer;
mod oci;
mod recipe;

/// Where the archives are.
pub(crate) fn folder() -> PathBuf {
    target().join("images")
}

/// Makes what is out of date.
pub(crate) fn build_all() -> Result<()> {
    tools::ensure(&tools::IMAGES)?;
    fs::create_dir_all(folder())?;
    for recipe in &RECIPES {
        build(recipe).with_context(|| format!("cannot make the image {}", recipe.name))?;
    }
    Ok(())
}

/// Makes those that are named, if they are out of date.
pub(crate) fn build_some(names: &[String]) -> Result<()> {
    tools::ensure(&tools::IMAGES)?;
    fs::create_dir_all(folder())?;
    for name in names {
        let Some(recipe) = RECIPES.iter().find(|recipe| recipe.name == name) else {
            let known: Vec<&str> = RECIPES.iter().map(|recipe| recipe.name).collect();
            bail!("no image {name:?}; there are {}", known.join(", "));
        };
        build(recipe).with_context(|| format!("cannot make the image {name}"))?;
    }
    Ok(())
}

fn build(recipe: &Recipe) -> Result<()> {
    let archive = folder().join(format!("{}.tar", recipe.name));
    let note = folder().join(format!("{}.made-from", recipe.name));
    let inputs = describe_inputs(recipe)?;
    if archive.exists() && fs::read_to_string(&note).is_ok_and(|made_from| made_from == inputs) {
        return Ok(());
    }
    say::step(&format!("image {}", recipe.name), || {
        let entries = entries(recipe)?;
        oci::write(&archive, recipe, &entries)?;
        Ok(fs::write(&note, &inputs)?)
    })
}

/// Changes when the recipe or a file it takes changes. This program's own version counts as recipe.
fn describe_inputs(recipe: &Recipe) -> Result<String> {
    let mut text = format!("{recipe:?}\n");
    let mut files: Vec<PathBuf> =
        recipe.binaries.iter().map(|binary| target().join("debug").join(binary.name)).collect();
    if recipe.busybox {
        files.push(busybox()?);
    }
    for file in files {
        let found = fs::metadata(&file).with_context(|| format!("{} is not built", file.display()))?;
        text += &format!("{} {} {}.{}\n", file.display(), found.len(), found.mtime(), found.mtime_nsec());
    }
    Ok(text)
}

fn busybox() -> Result<PathBuf> {
    tools::find("busybox").context("no busybox")
}

fn entries(recipe: &Recipe) -> Result<Vec<Entry>> {
    let mut entries = vec![Entry::folder("tmp", 0o1777)];
    for binary in recipe.binaries {
        let path = target().join("debug").join(binary.name);
        for library in libraries(&path)? {
            entries.push(Entry::file(inside(&library), fs::read(&library)?, 0o755));
        }
        entries.push(Entry::file(inside(Path::new(binary.path)), stripped(&path)?, 0o755));
    }
    if recipe.busybox {
        let busybox = busybox()?;
        entries.push(Entry::file("bin/busybox".into(), fs::read(&busybox)?, 0o755));
        for applet in output(&mut command(&busybox, &["--list"]))?.lines().filter(|name| *name != "busybox") {
            entries.push(Entry::link(format!("bin/{applet}").into(), "busybox".into()));
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries.dedup_by(|a, b| a.path == b.path);
    Ok(entries)
}

fn inside(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

/// Symbols are for a debugger, which is not in the image.
fn stripped(binary: &Path) -> Result<Vec<u8>> {
    let small = folder().join(".stripped");
    output(command("strip", &["-o"]).arg(&small).arg(binary))?;
    let bytes = fs::read(&small)?;
    fs::remove_file(&small)?;
    Ok(bytes)
}

/// What `ldd` names, by the paths that the loader looks at.
fn libraries(binary: &Path) -> Result<Vec<PathBuf>> {
    Ok(parse_ldd(&output(command("ldd", &[] as &[&str]).arg(binary))?))
}

fn parse_ldd(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let words = line.split_whitespace();
        words.into_iter().find(|word| word.starts_with('/')).map(PathBuf::from)
    };
    text.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_libraries_and_the_loader_that_ldd_names() {
        let text = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let wanted = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse_ldd(text), wanted);
    }
}
