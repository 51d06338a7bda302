//! The Python environments of the client tests: each made once under the target folder, and
//! again when its list of packages or the interpreter changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{ask, run};

/// What the environment was made from; written last, so that a half-made one is not used.
const STAMP: &str = ".made-from";

/// One environment.
pub(crate) struct Environment {
    /// Its packages by name and version: a file of the checkout.
    pub(crate) list: &'static str,
    /// Its folder under the target folder.
    pub(crate) folder: &'static str,
}

/// Everything that `tests/conformance` and `tests/process` need.
pub(crate) const CLIENTS: Environment =
    Environment { list: "tests/conformance/requirements.txt", folder: "venv" };
/// CrewAI: a gigabyte, and another major version of the openai client.
pub(crate) const CREWAI: Environment =
    Environment { list: "tests/crewai/requirements.txt", folder: "venv-crewai" };

/// The interpreter of an environment, which is made where it is not there.
pub(crate) fn interpreter(root: &Path, target: &Path, wanted: &Environment) -> Result<PathBuf, String> {
    let list = root.join(wanted.list);
    let packages =
        fs::read_to_string(&list).map_err(|error| format!("cannot read {}: {error}", list.display()))?;
    let (found, version) = ask(Command::new("python3").arg("--version")).map_err(|error| {
        format!("{error}: the client tests need it (Debian: apt-get install python3 python3-venv)")
    })?;
    if !found {
        return Err(format!("`python3 --version` failed: {version}"));
    }
    let dir = target.join(wanted.folder);
    let python = dir.join("bin/python");
    let stamp = format!("{version}{packages}");
    if fs::read_to_string(dir.join(STAMP)).is_ok_and(|made| made == stamp) && python.exists() {
        return Ok(python);
    }
    println!("making {} from {}", dir.display(), wanted.list);
    make(&dir)?;
    install(&python, root, wanted)?;
    fs::write(dir.join(STAMP), stamp)
        .map_err(|error| format!("cannot write in {}: {error}", dir.display()))?;
    Ok(python)
}

fn make(dir: &Path) -> Result<(), String> {
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(|error| format!("cannot remove {}: {error}", dir.display()))?;
    }
    let (made, words) = ask(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
    if made {
        return Ok(());
    }
    // A half-made environment would be taken for a whole one by other tools.
    let _ = fs::remove_dir_all(dir);
    Err(missing_venv(&words))
}

fn missing_venv(words: &str) -> String {
    let hint = if words.contains("ensurepip") || words.contains("No module named venv") {
        "Python's venv module is missing (Debian: apt-get install python3-venv)"
    } else {
        "the Python environment could not be made"
    };
    format!("{words}\n{hint}")
}

fn install(python: &Path, root: &Path, wanted: &Environment) -> Result<(), String> {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "-r"])
        .arg(root.join(wanted.list));
    run(&mut pip).map_err(|error| {
        format!(
            "{error}\nthe packages of {} could not be installed: pip says above whether PyPI \
             (or the mirror in PIP_INDEX_URL) is out of reach or a version is gone",
            wanted.list
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_venv_module_is_told_with_its_cure() {
        let words =
            missing_venv("The virtual environment was not created because ensurepip is not available.");
        assert!(words.contains("apt-get install python3-venv"));
        assert!(!missing_venv("No space left on device").contains("apt-get"));
    }

    #[test]
    fn a_missing_list_is_named() {
        let nowhere = Path::new("/nowhere");
        for wanted in [CLIENTS, CREWAI] {
            let error = interpreter(nowhere, nowhere, &wanted).expect_err("there is no list");
            assert!(error.contains(wanted.list), "{error}");
        }
    }
}
