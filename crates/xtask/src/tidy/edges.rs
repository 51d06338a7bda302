//! Which crate may depend on which, and that lint bans reach every crate.

use super::{Failure, place};
use crate::tree::Tree;

/// The walls of the house: each crate and the crates of ours that it may use.
const EDGES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("wire", &["model"]),
    ("kernel", &["model"]),
    ("store", &["model"]),
    ("watch", &["model"]),
    ("load", &["model"]),
    ("node", &["model", "wire", "kernel", "store", "watch", "load"]),
    ("sim", &["model", "wire", "kernel", "store", "watch", "load"]),
    ("xtask", &[]),
];

/// Outside crates that do something in the world, and the one crate that may use each.
const ROOMS: &[(&str, &str)] = &[
    ("getrandom", "node"),
    ("hyper", "node"),
    ("hyper-util", "node"),
    ("rusqlite", "store"),
    ("rustls", "node"),
    ("socket2", "node"),
    ("tikv-jemallocator", "node"),
    ("tokio", "node"),
    ("tokio-rustls", "node"),
    ("tracing-subscriber", "node"),
];

/// A line of a dependency section: the crate's name, the whole line and its number.
struct Dependency<'a> {
    name: &'a str,
    text: &'a str,
    line: usize,
}

fn dependencies(manifest: &str) -> Vec<Dependency<'_>> {
    let mut inside = false;
    let mut found = Vec::new();
    for (line, text) in manifest.lines().enumerate() {
        let text = text.trim();
        if let Some(section) = text.strip_prefix('[') {
            let section = section.trim_end_matches(']');
            inside = section.ends_with("dependencies") && !section.starts_with("workspace");
            continue;
        }
        let name = text.split(['.', '=', ' ']).next().unwrap_or("");
        if inside && !name.is_empty() && !name.starts_with('#') {
            found.push(Dependency { name: name.trim_matches('"'), text, line });
        }
    }
    found
}

/// Edges between our crates are exactly those of the table.
pub(super) fn ours(tree: &Tree) -> Vec<Failure> {
    let mut failures = Vec::new();
    let failure = |at, what, mend: &str| Failure {
        at,
        rule: "edge",
        what,
        why: "no doors between the middle rooms: what a room cannot reach, it cannot entangle",
        mend: mend.to_owned(),
    };
    for name in tree.crates() {
        let path = format!("crates/{name}/Cargo.toml");
        let Some((_, allowed)) = EDGES.iter().find(|(from, _)| *from == name) else {
            let mend = "write a one-page ADR and add the crate to EDGES in crates/xtask/src/tidy/edges.rs";
            failures.push(failure(path, format!("the crate `{name}` is not in the table of edges"), mend));
            continue;
        };
        for dependency in dependencies(tree.text(&path)) {
            let ours =
                dependency.name.strip_prefix("seawall-").or((dependency.name == "xtask").then_some("xtask"));
            if let Some(to) = ours.filter(|to| !allowed.contains(to)) {
                let what = format!("`{name}` depends on `{to}`");
                let mend = "move the shared noun to model, or pass the value through node";
                failures.push(failure(place(&path, dependency.line), what, mend));
            }
        }
    }
    failures
}

/// Outside crates come in one version, and those that act only in their room.
pub(super) fn theirs(tree: &Tree) -> Vec<Failure> {
    let mut failures = Vec::new();
    for name in tree.crates() {
        let path = format!("crates/{name}/Cargo.toml");
        for dependency in dependencies(tree.text(&path)) {
            let at = place(&path, dependency.line);
            let room = ROOMS.iter().find(|(outside, _)| *outside == dependency.name);
            if let Some((outside, room)) = room.filter(|(_, room)| *room != name) {
                failures.push(Failure {
                    at: at.clone(),
                    rule: "room",
                    what: format!("`{name}` depends on `{outside}`, which acts in the world"),
                    why: "only node touches sockets, tasks and clocks, only store the disk: the rest can be simulated",
                    mend: format!("return what is wanted as a value, and let `{room}` do it"),
                });
            }
            if !dependency.text.contains("workspace = true") {
                failures.push(Failure {
                    at,
                    rule: "version",
                    what: format!("`{}` names its own version or path", dependency.name),
                    why: "one version of each, so that nothing is built twice",
                    mend: "write `NAME.workspace = true`, and the version once in the root Cargo.toml"
                        .to_owned(),
                });
            }
        }
    }
    failures
}

/// A crate's `clippy.toml` replaces the root's, so it must repeat every ban.
pub(super) fn bans(tree: &Tree) -> Vec<Failure> {
    let root: Vec<_> = banned(tree.text("clippy.toml")).collect();
    let mut failures = Vec::new();
    for name in tree.crates() {
        let path = format!("crates/{name}/clippy.toml");
        let Some(text) = tree.texts.get(&path) else {
            continue;
        };
        let repeated: Vec<_> = banned(text).collect();
        for ban in root.iter().filter(|ban| !repeated.contains(ban)) {
            failures.push(Failure {
                at: path.clone(),
                rule: "bans",
                what: format!("the root's ban of `{ban}` is missing"),
                why: "clippy reads one clippy.toml per crate: a ban that is not repeated does not hold there",
                mend: "copy its line from the root's clippy.toml".to_owned(),
            });
        }
    }
    failures
}

fn banned(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.trim().strip_prefix("{ path = \"")?.split('"').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(path: &str, text: &str) -> Tree {
        Tree::of(&[(path, text)])
    }

    #[test]
    fn an_edge_outside_the_table_fails() {
        let text = "[dependencies]\nseawall-model.workspace = true\nseawall-wire.workspace = true\n";
        let failures = ours(&with("crates/kernel/Cargo.toml", text));
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].at, "crates/kernel/Cargo.toml:3");
        assert!(ours(&with("crates/node/Cargo.toml", text)).is_empty());
        let dev = "[dev-dependencies]\nseawall-node.workspace = true\n";
        assert_eq!(ours(&with("crates/sim/Cargo.toml", dev)).len(), 1, "dev-dependencies are edges too");
    }

    #[test]
    fn a_crate_outside_the_table_fails() {
        assert!(ours(&with("crates/extra/Cargo.toml", ""))[0].what.contains("extra"));
    }

    #[test]
    fn an_acting_dependency_outside_its_room_fails() {
        let text = "[dependencies]\ntokio.workspace = true\nrusqlite = { workspace = true }\n";
        assert_eq!(theirs(&with("crates/kernel/Cargo.toml", text)).len(), 2);
        assert_eq!(theirs(&with("crates/node/Cargo.toml", text)).len(), 1);
    }

    #[test]
    fn a_version_of_its_own_fails() {
        let failures = theirs(&with("crates/wire/Cargo.toml", "[dependencies]\nserde = \"1\"\n"));
        assert_eq!((failures[0].rule, failures[0].at.as_str()), ("version", "crates/wire/Cargo.toml:2"));
    }

    #[test]
    fn a_ban_that_is_not_repeated_fails() {
        let root = "disallowed-methods = [\n    { path = \"a::b\", reason = \"x\" },\n]\n";
        let tree = Tree::of(&[
            ("clippy.toml", root),
            ("crates/kernel/Cargo.toml", ""),
            ("crates/kernel/clippy.toml", ""),
            ("crates/wire/Cargo.toml", ""),
            ("crates/wire/clippy.toml", root),
            ("crates/node/Cargo.toml", ""),
        ]);
        let failures = bans(&tree);
        assert_eq!(failures.len(), 1);
        assert_eq!(failures[0].at, "crates/kernel/clippy.toml");
    }
}
