//! `seawall check`: every problem with its line and hint, or the effective
//! configuration with the origin of every value, and what each type of agent may do.

use serde_json::{Value, json};

use crate::agents::library::Library;
use crate::config::{Config, Flags, Loaded, Origin, Problem, Setting};

use super::agents::permits::{self, Folder};
use super::args::CheckArgs;
use super::code;
use super::print::{self, BAD, BOLD, Cell, DIM, GOOD, Table, WARN};

pub(crate) fn run(args: &CheckArgs) -> i32 {
    let flags = args.served.flags();
    let loaded = Loaded::read(&flags).map_err(|found| (found, agents_problems(&flags)));
    let loaded = loaded.and_then(|loaded| {
        let folder = permits::read(&loaded.config).map_err(|one| (vec![one], Vec::new()))?;
        Ok((loaded, folder))
    });
    let (loaded, folder) = match loaded {
        Ok(both) => both,
        Err((found, of_agents)) => {
            if args.json.json {
                let problems: Vec<Value> = found.iter().map(problem_json).collect();
                let of_agents: Vec<Value> = of_agents.iter().map(in_file).collect();
                print::json(&json!({ "ok": false, "problems": problems, "agent_problems": of_agents }));
            } else {
                if !of_agents.is_empty() {
                    print::note(by_file("error", &of_agents).trim_end());
                }
                report(&flags, &found);
            }
            return code::USAGE;
        }
    };
    let sound = folder.as_ref().is_none_or(Folder::is_sound);
    if args.json.json {
        print::json(&whole_json(&loaded, folder.as_ref(), args.changed));
    } else {
        print::text(&effective(&loaded, args.changed));
        print::text(&problems("warning", &file_name(&loaded), &loaded.warnings));
        if let Some(folder) = &folder {
            print::text(&folder.render());
            print::text(&by_file("warning", folder.warnings()));
            if !sound {
                print::note(by_file("error", folder.problems()).trim_end());
            }
        }
    }
    if sound { code::OK } else { code::USAGE }
}

/// What is wrong with the definitions, where the configuration is wrong as well: all is told
/// at once.
fn agents_problems(flags: &Flags) -> Vec<(String, Problem)> {
    let Some(folder) = Config::folder_of_agents(flags, &crate::config::load::env) else { return Vec::new() };
    Library::read(&folder).map_or_else(|_| Vec::new(), |(reading, _)| reading.problems)
}

fn in_file((file, problem): &(String, Problem)) -> Value {
    let mut value = problem_json(problem);
    value["file"] = json!(file);
    value
}

/// Problems of several files.
fn by_file(word: &str, found: &[(String, Problem)]) -> String {
    let one = |(file, problem): &(String, Problem)| {
        // Without a line it says nothing of its file by itself.
        let key =
            if problem.line.is_none() { format!("{file}: {}", problem.key) } else { problem.key.clone() };
        problems(word, file, &[Problem { key, ..problem.clone() }])
    };
    found.iter().map(one).collect()
}

/// The effective configuration, and the types of agents with what they may do.
fn whole_json(loaded: &Loaded, folder: Option<&Folder>, changed: bool) -> Value {
    let mut value = effective_json(loaded, changed);
    let Some(folder) = folder else { return value };
    value["ok"] = json!(folder.is_sound());
    value["agents"] = folder.json();
    value["agent_problems"] = folder.problems().iter().map(in_file).collect();
    value["agent_warnings"] = folder.warnings().iter().map(in_file).collect();
    value
}

/// Writes problems to standard error, for every command that reads the configuration.
pub fn report(flags: &Flags, found: &[Problem]) {
    let env = crate::config::load::env("SEAWALL_CONFIG");
    let file = flags.config.as_ref().map(|path| path.display().to_string()).or(env);
    print::note(problems("error", file.as_deref().unwrap_or(crate::config::load::FILE), found).trim_end());
    let all = if found.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", found.len()) };
    print::note(&format!("{BAD}{all} in the configuration.{BAD:#}"));
}

fn file_name(loaded: &Loaded) -> String {
    loaded.config.file.as_ref().map_or_else(|| "no file".to_owned(), |path| path.display().to_string())
}

/// The problems, each with its place and hint, as text with styles.
pub(crate) fn problems(word: &str, file: &str, found: &[Problem]) -> String {
    let style = if word == "error" { BAD } else { WARN };
    let mut out = String::new();
    for problem in found {
        let place = problem.line.map_or_else(String::new, |line| format!("{BOLD}{file}:{line}:{BOLD:#} "));
        let key = if problem.key.is_empty() { String::new() } else { format!("{}: ", problem.key) };
        out.push_str(&format!("{style}{word}:{style:#} {place}{key}{}\n", problem.what));
        if !problem.hint.is_empty() {
            out.push_str(&format!("       {DIM}{}{DIM:#}\n", problem.hint));
        }
    }
    out
}

/// The effective configuration as text with styles.
pub(crate) fn effective(loaded: &Loaded, changed: bool) -> String {
    let mut table = Table::new(&["key", "value", "from"]);
    for setting in shown(&loaded.config.settings, changed) {
        let style = if setting.origin == Origin::Default { DIM } else { anstyle::Style::new() };
        table.row(vec![
            Cell::styled(setting.key.clone(), style),
            Cell::styled(setting.value.clone(), style),
            Cell::styled(setting.origin.to_string(), DIM),
        ]);
    }
    let head = format!("{GOOD}ok{GOOD:#} {BOLD}{}{BOLD:#}\n", file_name(loaded));
    if table.is_empty() { format!("{head}every value is the default\n") } else { head + &table.render() }
}

fn shown(settings: &[Setting], changed: bool) -> impl Iterator<Item = &Setting> {
    settings.iter().filter(move |setting| !changed || setting.origin != Origin::Default)
}

fn effective_json(loaded: &Loaded, changed: bool) -> Value {
    let settings: Vec<Value> = shown(&loaded.config.settings, changed)
        .map(|setting| {
            json!({ "key": setting.key, "value": setting.value, "origin": origin_json(&setting.origin) })
        })
        .collect();
    let file = loaded.config.file.as_ref().map(|path| path.display().to_string());
    let warnings: Vec<Value> = loaded.warnings.iter().map(problem_json).collect();
    json!({ "ok": true, "file": file, "settings": settings, "warnings": warnings })
}

fn origin_json(origin: &Origin) -> Value {
    match origin {
        Origin::Default => json!({ "kind": "default" }),
        Origin::File(line) => json!({ "kind": "file", "line": line }),
        Origin::Env(name) => json!({ "kind": "env", "name": name }),
        Origin::Flag(name) => json!({ "kind": "flag", "name": name }),
        Origin::Found(how) => json!({ "kind": "found", "how": how }),
    }
}

fn problem_json(problem: &Problem) -> Value {
    json!({ "line": problem.line, "key": problem.key, "what": problem.what, "hint": problem.hint })
}
