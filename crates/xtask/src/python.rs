//! The Python environment of the client tests: made once under the target folder, and
//! again when the list of packages or the interpreter changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{ask, run};

/// The packages by name and version.
const REQUIREMENTS: &str = "tests/conformance/requirements.txt";
/// What the environment was made from; written last, so that a half-made one is not used.
const STAMP: &str = ".made-from";

/// The interpreter of an environment that holds everything the client tests need.
pub(crate) fn environment(root: &Path, target: &Path) -> Result<PathBuf, String> {
    let list = root.join(REQUIREMENTS);
    let packages =
        fs::read_to_string(&list).map_err(|error| format!("cannot read {}: {error}", list.display()))?;
    let (found, version) = ask(Command::new("python3").arg("--version")).map_err(|error| {
        format!("{error}: the client tests need it (Debian: apt-get install python3 python3-venv)")
    })?;
    if !found {
        return Err(format!("`python3 --version` failed: {version}"));
    }
    let dir = target.join("venv");
    let python = dir.join("bin/python");
    let stamp = format!("{version}{packages}");
    if fs::read_to_string(dir.join(STAMP)).is_ok_and(|made| made == stamp) && python.exists() {
        return Ok(python);
    }
    println!("making {} from {REQUIREMENTS}", dir.display());
    make(&dir)?;
    install(&python, &list)?;
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

fn install(python: &Path, list: &Path) -> Result<(), String> {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "-r"])
        .arg(list);
    run(&mut pip).map_err(|error| {
        format!(
            "{error}\nthe packages of {REQUIREMENTS} could not be installed: pip says above whether PyPI \
             (or the mirror in PIP_INDEX_URL) is out of reach or a version is gone"
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
        let error = environment(Path::new("/nowhere"), Path::new("/nowhere")).expect_err("there is no list");
        assert!(error.contains("requirements.txt"), "{error}");
    }
}
