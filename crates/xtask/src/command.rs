//! Starting other programs and saying clearly what went wrong.

use std::io;
use std::path::Path;
use std::process::Command;

/// A cargo command in the checkout: the same cargo that runs us.
pub(crate) fn cargo(root: &Path, args: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).args(args);
    command
}

/// Runs it with our own input and output.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status = command.status().map_err(|error| not_started(command, &error))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` failed ({status})", words(command))) }
}

/// Runs it and returns what it printed, on either stream, and whether it succeeded.
pub(crate) fn ask(command: &mut Command) -> Result<(bool, String), String> {
    let output = command.output().map_err(|error| not_started(command, &error))?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

fn not_started(command: &Command, error: &io::Error) -> String {
    let program = command.get_program().to_string_lossy();
    if error.kind() == io::ErrorKind::NotFound {
        return format!("`{program}` is not installed or not on the PATH");
    }
    format!("`{program}` could not be started: {error}")
}

/// The command as one would type it.
fn words(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let all = std::iter::once(program).chain(command.get_args());
    all.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("seawall-no-such-program")).expect_err("it is not there");
        assert!(error.contains("`seawall-no-such-program` is not installed"), "{error}");
    }

    #[test]
    fn a_failing_program_is_shown_as_typed() {
        let error = run(&mut cargo(Path::new("."), &["--no-such-flag-of-cargo"])).expect_err("it fails");
        assert!(error.contains("cargo --no-such-flag-of-cargo` failed"), "{error}");
    }
}
