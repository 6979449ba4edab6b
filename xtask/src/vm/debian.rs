//! Fetches a kernel package of any Debian suite from the mirror that this machine's apt uses, and unpacks it.
//!
//! apt does it, with folders of its own below `target/vm`: it checks the suite's signature and the packages' hashes, and the
//! machine's own package lists are left alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::kernels::Kernel;
use super::modules;
use crate::say;
use crate::shell::{command, output};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Names of packages that hold parts of a kernel; newer suites split them.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];
/// How long a package list is good for.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// A kernel on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Unpacked {
    /// The package's version.
    pub(crate) version: String,
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// Modules, each after those it needs.
    pub(crate) modules: Vec<PathBuf>,
    /// The modules that were asked for, in a word: another wish unpacks anew.
    wanted: String,
}

/// The newest version of a kernel; the one fetched before when the mirror cannot be asked.
pub(crate) fn fetch(kernel: &Kernel, folder: &Path) -> Result<Unpacked> {
    let apt = Apt { root: folder.join("apt"), suite: &kernel.suite };
    let cached = cached(folder);
    let packages = match apt.update().and_then(|()| apt.parts(&kernel.package)) {
        Ok(packages) => packages,
        Err(error) => {
            let Some(cached) = cached else { return Err(error) };
            say::line(&format!("   {}: {error:#}\n   going on with {}", kernel.name, cached.version));
            return Ok(cached);
        }
    };
    let version = packages.last().map(|package| package.version.clone()).unwrap_or_default();
    if let Some(cached) = cached.filter(|cached| cached.version == version) {
        return Ok(cached);
    }
    say::step(&format!("{}: fetching Linux {version} of {}", kernel.name, kernel.suite), || {
        let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
        unpack(&apt.download(&names)?, folder, version)
    })
}

fn cached(folder: &Path) -> Option<Unpacked> {
    let unpacked: Unpacked = serde_json::from_slice(&fs::read(folder.join("kernel.json")).ok()?).ok()?;
    let whole = unpacked.image.exists() && unpacked.modules.iter().all(|path| path.exists());
    (whole && unpacked.wanted == modules::WANTED.join(" ")).then_some(unpacked)
}

fn unpack(debs: &Path, folder: &Path, version: String) -> Result<Unpacked> {
    let root = folder.join("root");
    remove(&root)?;
    for deb in files(debs)?.iter().filter(|path| path.extension().is_some_and(|end| end == "deb")) {
        output(command("dpkg-deb", &["-x"]).arg(deb).arg(&root))?;
    }
    let tree = ["lib/modules", "usr/lib/modules"]
        .iter()
        .find_map(|place| files(&root.join(place)).ok()?.into_iter().next())
        .context("the packages hold no modules")?;
    let boot = files(&root.join("boot")).unwrap_or_default();
    let image = boot
        .into_iter()
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
        .or_else(|| Some(tree.join("vmlinuz")).filter(|path| path.exists()))
        .context("the packages hold no kernel image")?;
    let kept = folder.join("vmlinuz");
    fs::copy(image, &kept)?;
    let modules = modules::take(&tree, &folder.join("modules"))?;
    remove(&root)?;
    remove(debs)?;
    let unpacked = Unpacked { version, image: kept, modules, wanted: modules::WANTED.join(" ") };
    fs::write(folder.join("kernel.json"), serde_json::to_vec_pretty(&unpacked)?)?;
    Ok(unpacked)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    Ok(entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?)
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// A package as apt knows it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
    depends: Vec<String>,
}

impl Package {
    /// The first stanza of `apt-cache show`.
    fn parse(stanza: &str) -> Self {
        let stanza = stanza.split("\n\n").next().unwrap_or_default();
        let field = |name: &str| {
            stanza.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
        };
        let first_word = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
        Self {
            name: field("Package:"),
            version: field("Version:"),
            depends: field("Depends:").split(',').map(first_word).collect(),
        }
    }
}

/// apt with folders of its own and one suite.
struct Apt<'a> {
    root: PathBuf,
    suite: &'a str,
}

impl Apt<'_> {
    /// Reads the suite's package list, unless that was done lately.
    fn update(&self) -> Result<()> {
        let stamp = self.root.join("updated");
        let age = fs::metadata(&stamp).and_then(|found| found.modified()).ok();
        if age.is_some_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age < FRESH)) {
            return Ok(());
        }
        for folder in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(self.root.join(folder))?;
        }
        let (mirror, suite) = (mirror()?, self.suite);
        let source = format!(
            "Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\nArchitectures: amd64\nSigned-By: {KEYRING}\n"
        );
        fs::write(self.root.join("suite.sources"), source)?;
        fs::write(self.root.join("status"), "")?;
        output(self.apt("apt-get").args(["-q", "update"]))
            .with_context(|| format!("cannot read the package list of {suite}"))?;
        Ok(fs::write(stamp, "")?)
    }

    /// The packages that hold the kernel, found by what they depend on; the last is a real one.
    fn parts(&self, package: &str) -> Result<Vec<Package>> {
        let mut names = vec![package.to_owned()];
        let mut parts: Vec<Package> = Vec::new();
        while let Some(name) = names.pop() {
            let part = Package::parse(&output(self.apt("apt-cache").args(["show", &name]))?);
            if part.name.is_empty() {
                bail!("{} has no package {name}", self.suite);
            }
            let is_part = |name: &&String| PARTS.iter().any(|part| name.starts_with(part));
            names.extend(part.depends.iter().filter(is_part).cloned());
            parts.push(part);
        }
        Ok(parts)
    }

    fn download(&self, names: &[&str]) -> Result<PathBuf> {
        let folder = self.root.join("debs");
        remove(&folder)?;
        fs::create_dir_all(&folder)?;
        output(self.apt("apt-get").args(["-q", "download"]).args(names).current_dir(&folder))?;
        Ok(folder)
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = command(program, &[] as &[&str]);
        let root = self.root.display();
        let settings = [
            "Dir::Etc::SourceList=/dev/null".to_owned(),
            format!("Dir::Etc::SourceParts={root}/"),
            format!("Dir::State={root}"),
            format!("Dir::State::lists={root}/lists"),
            format!("Dir::State::status={root}/status"),
            format!("Dir::Cache={root}"),
            format!("Dir::Cache::archives={root}/archives"),
            // Menus of graphical programs.
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ];
        for setting in settings {
            apt.args(["-o", &setting]);
        }
        apt
    }
}

/// The mirror that this machine's apt takes Debian's main packages from.
fn mirror() -> Result<String> {
    let format = "$(ORIGIN)|$(COMPONENT)|$(CODENAME)|$(REPO_URI)";
    let list =
        || output(&mut command("apt-get", &["indextargets", "--format", format, "Created-By: Packages"]));
    let found = pick_mirror(&list()?);
    if found.is_none() {
        // A machine that never read its lists does not say where they come from.
        output(&mut command("apt-get", &["-q", "update"]))
            .context("cannot read this machine's package lists")?;
    }
    found.map_or_else(|| pick_mirror(&list()?).context("apt has no source for Debian's main packages"), Ok)
}

fn pick_mirror(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut fields = line.splitn(4, '|');
        let (origin, component, suite) = (fields.next()?, fields.next()?, fields.next()?);
        let whole = origin == "Debian" && component == "main" && !suite.contains('-');
        whole.then(|| fields.next().map(str::to_owned))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_of_whole_suites() {
        let targets = "Debian|main|bookworm-security|http://one/security/\nOther|main|stable|http://other/\nDebian|main|bookworm|http://one/debian/\n";
        assert_eq!(pick_mirror(targets).as_deref(), Some("http://one/debian/"));
        assert_eq!(pick_mirror(""), None);
    }

    #[test]
    fn reads_what_a_package_depends_on() {
        let text = "Package: linux-image-amd64\nVersion: 7.2.13-1\nDepends: linux-base (= 1), linux-image-7.2 (= 7.2.13-1)\n\nPackage: other\n";
        let package = Package::parse(text);
        assert_eq!((package.name.as_str(), package.version.as_str()), ("linux-image-amd64", "7.2.13-1"));
        assert_eq!(package.depends, ["linux-base", "linux-image-7.2"]);
    }
}
