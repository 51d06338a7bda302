//! The checkout as the rules see it: every path, and the text of the files they read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold no source of ours.
const SKIPPED: [&str; 6] = ["target", ".git", ".venv", "node_modules", "__pycache__", ".pytest_cache"];
/// Kinds of file whose text is read.
const READ: [&str; 6] = ["rs", "toml", "md", "txt", "py", "lock"];

/// The paths (with `/`, relative to the root) and texts of a checkout.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Every file.
    pub(crate) paths: BTreeSet<String>,
    /// The text of each file that is source, configuration or prose.
    pub(crate) texts: BTreeMap<String, String>,
}

impl Tree {
    /// Reads the checkout under `root`.
    pub(crate) fn read(root: &Path) -> Result<Self, String> {
        let mut tree = Self::default();
        tree.walk(root, "")?;
        Ok(tree)
    }

    /// A checkout made up for a test.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let texts: BTreeMap<_, _> =
            files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        Self { paths: texts.keys().cloned().collect(), texts }
    }

    /// The text of a file, empty if there is none.
    pub(crate) fn text(&self, path: &str) -> &str {
        self.texts.get(path).map_or("", String::as_str)
    }

    /// Rust files with their texts, in the order of their paths.
    pub(crate) fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        let rust = self.texts.iter().filter(|(path, _)| path.ends_with(".rs"));
        rust.map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// The names of the crates, which are the folders of `crates/`.
    pub(crate) fn crates(&self) -> Vec<&str> {
        let manifests = self.paths.iter().filter_map(|path| path.strip_prefix("crates/"));
        manifests
            .filter_map(|path| path.strip_suffix("/Cargo.toml"))
            .filter(|name| !name.contains('/'))
            .collect()
    }

    /// Is this a file, or a folder with a file in it?
    pub(crate) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let folder = format!("{path}/");
        let below = self.paths.range(folder.clone()..).next();
        self.paths.contains(path) || below.is_some_and(|first| first.starts_with(&folder))
    }

    fn walk(&mut self, root: &Path, below: &str) -> Result<(), String> {
        let dir = root.join(below);
        let failed = |error| format!("cannot read {}: {error}", dir.display());
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                if !SKIPPED.contains(&name.as_str()) {
                    self.walk(root, &path)?;
                }
                continue;
            }
            if READ.iter().any(|kind| name.strip_suffix(kind).is_some_and(|stem| stem.ends_with('.'))) {
                let text = fs::read_to_string(entry.path()).map_err(|error| format!("{path}: {error}"))?;
                self.texts.insert(path.clone(), text);
            }
            self.paths.insert(path);
        }
        Ok(())
    }
}

/// The workspace's root: the nearest folder above with a `[workspace]` manifest. Looked
/// up when run, not when built, as a shared build cache serves several checkouts.
pub(crate) fn find_root() -> Result<PathBuf, String> {
    let start = std::env::current_dir().map_err(|error| format!("no current folder: {error}"))?;
    let is_root = |dir: &&Path| {
        fs::read_to_string(dir.join("Cargo.toml"))
            .is_ok_and(|text| text.lines().any(|line| line == "[workspace]"))
    };
    let found = start.ancestors().find(is_root);
    found.map(Path::to_owned).ok_or_else(|| format!("{} is in no Seawall checkout", start.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_and_files_exist_and_prefixes_of_names_do_not() {
        let tree = Tree::of(&[("crates/kernel/src/queue.rs", ""), ("crates/kernel/Cargo.toml", "")]);
        assert!(
            tree.has("crates/kernel")
                && tree.has("crates/kernel/src/")
                && tree.has("crates/kernel/src/queue.rs")
        );
        assert!(!tree.has("crates/kern") && !tree.has("crates/kernel/src/queue"));
        assert_eq!(tree.crates(), ["kernel"]);
    }
}
