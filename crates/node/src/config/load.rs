//! Puts the layers on each other and says everything that is wrong with the result.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use seawall_model::limits;
use toml::de::DeTable;

use super::problem::{Origin, Problem};
use super::raw::{Reading, Section};
use super::{Config, agents, check, engine, server, tenant, tool};

/// The file that is read if it is there and nothing names another.
pub const FILE: &str = "seawall.toml";

/// What the command line says. `None` and empty mean: says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--data`
    pub data: Option<PathBuf>,
    /// `--engine`, as often as given.
    pub engines: Vec<String>,
    /// `--log`
    pub log: Option<String>,
    /// `--log-format`
    pub log_format: Option<String>,
    /// Names of all environment variables that start with `SEAWALL__`, so that a
    /// mistyped one is told instead of ignored.
    pub env_names: Vec<String>,
}

/// A checked configuration with everything that a reload needs.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is doubtful about it.
    pub warnings: Vec<Problem>,
    /// The flags it was made with; they hold across reloads.
    pub flags: Flags,
}

impl Loaded {
    /// Reads the configuration of this process: [`Config::load`] with its environment.
    /// Called again with the same flags, it is a reload.
    ///
    /// # Errors
    /// Every problem found.
    pub fn read(flags: &Flags) -> Result<Self, Vec<Problem>> {
        let (config, warnings) = Config::load(flags, &env)?;
        Ok(Self { config, warnings, flags: flags.clone() })
    }
}

/// One variable of this process's environment; one that is not UTF-8 counts as unset.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Names of the variables that mean to overlay a key.
#[must_use]
pub fn env_names() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("SEAWALL__")).collect();
    names.sort();
    names
}

impl Config {
    /// Reads the file, if there is one, and everything it names, and puts environment
    /// and flags on top. The environment comes as a function so that this one stays
    /// testable.
    ///
    /// Answers with the config and its warnings.
    ///
    /// # Errors
    /// Every problem found, in the order of the file.
    pub fn load(
        flags: &Flags,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let path = file_path(flags, env);
        let text = match &path {
            None => String::new(),
            Some((path, origin)) => match read_file(path) {
                Ok(text) => text,
                Err(error) => {
                    let what = format!("cannot read {}: {error}", path.display());
                    let hint = format!("it is named by {origin}");
                    return Err(vec![Problem { line: None, key: String::new(), what, hint }]);
                }
            },
        };
        let path = path.map(|(path, _)| path);
        Self::read(path.as_deref(), &text, flags, env, &read_file)
    }

    /// The folder of definitions as far as it can be told of a configuration that is wrong
    /// elsewhere; `None` where agents are turned off or the file cannot be read.
    #[must_use]
    pub fn folder_of_agents(flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
        let path = file_path(flags, env).map(|(path, _)| path);
        let text = path.as_deref().map_or_else(|| Ok(String::new()), read_file).ok()?;
        let mut r = Reading::new(&text, env, &read_file);
        set_overrides(&mut r, flags);
        let (tree, _) = DeTable::parse_recoverable(&text);
        let agents = agents::read_agents(&mut r, &mut Section::root(Some(tree.get_ref())));
        agents.enabled.then_some(agents.folder)
    }

    /// As [`Self::load`], from a text that stands in `path`; other files are read
    /// through `files`. Pure, given those functions.
    ///
    /// # Errors
    /// Every problem found, in the order of the file.
    pub fn read(
        path: Option<&Path>,
        text: &str,
        flags: &Flags,
        env: &dyn Fn(&str) -> Option<String>,
        files: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<(Self, Vec<Problem>), Vec<Problem>> {
        let mut r = Reading::new(text, env, files);
        r.base = path.and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
        set_overrides(&mut r, flags);
        let (tree, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let line = error.span().map(|span| r.line(span.start));
            r.problems.add(line, "", format!("not TOML: {}", error.message().replace('\n', "; ")), "");
        }
        // What could be read in spite of syntax errors is checked too; that parts of it
        // are missing then must not bring problems of its own.
        if !errors.is_empty() {
            return Err(r.problems.finish());
        }
        let root = Section::root(Some(tree.get_ref()));
        let mut config = read_all(&mut r, root);
        config.file = path.map(Path::to_owned);
        add_flag_engines(&mut r, &mut config, flags);
        check::check(&mut r, &config);
        warn_of_stray_variables(&mut r, flags);
        if !r.problems.is_empty() {
            return Err(r.problems.finish());
        }
        config.settings = std::mem::take(&mut r.settings);
        Ok((config, r.warnings.finish()))
    }
}

fn read_all(r: &mut Reading<'_>, mut root: Section<'_>) -> Config {
    let listen = server::read_listen(r, &mut root);
    let mut config = Config::bare(server::read_data(r, &mut root));
    config.listen = listen;
    config.tls = server::read_tls(r, &mut root);
    config.log = server::read_log(r, &mut root);
    config.limits = server::read_limits(r, &mut root);
    config.queue = server::read_queue(r, &mut root);
    config.classes = server::read_classes(r, &mut root);
    config.retry = server::read_retry(r, &mut root);
    config.guard = server::read_guard(r, &mut root);
    config.memo = server::read_memo(r, &mut root);
    config.engines = engine::read_engines(r, &mut root, &config.limits);
    config.models = tenant::read_models(r, &mut root, &config.engines);
    config.tenants = tenant::read_tenants(r, &mut root);
    config.tools = tool::read_tools(r, &mut root);
    config.agents = agents::read_agents(r, &mut root);
    config.sim = server::read_sim(r, &mut root);
    config.metrics = server::read_metrics(r, &mut root);
    config.proxy = server::read_proxy(r, &mut root);
    root.finish(r);
    config
}

/// The file to read: the one that is named, or the usual one if it exists.
fn file_path(flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Option<(PathBuf, Origin)> {
    if let Some(path) = &flags.config {
        return Some((path.clone(), Origin::Flag("--config".into())));
    }
    if let Some(path) = env("SEAWALL_CONFIG").filter(|path| !path.is_empty()) {
        return Some((path.into(), Origin::Env("SEAWALL_CONFIG".into())));
    }
    Path::new(FILE).exists().then(|| (FILE.into(), Origin::Default))
}

/// Short names of the environment, and above them flags.
fn set_overrides(r: &mut Reading<'_>, flags: &Flags) {
    let short = [
        ("listen", "SEAWALL_LISTEN"),
        ("data", "SEAWALL_DATA"),
        ("log.level", "SEAWALL_LOG"),
        ("log.format", "SEAWALL_LOG_FORMAT"),
    ];
    for (key, name) in short {
        if let Some(text) = (r.env)(name).filter(|text| !text.is_empty()) {
            r.overrides.insert(key, (Origin::Env(name.into()), text));
        }
    }
    let data = flags.data.as_ref().map(|path| path.to_string_lossy().into_owned());
    let given = [
        ("listen", "--listen", flags.listen.clone()),
        ("data", "--data", data),
        ("log.level", "--log", flags.log.clone()),
        ("log.format", "--log-format", flags.log_format.clone()),
    ];
    for (key, name, text) in given {
        if let Some(text) = text {
            r.overrides.insert(key, (Origin::Flag(name.into()), text));
        }
    }
}

fn add_flag_engines(r: &mut Reading<'_>, config: &mut Config, flags: &Flags) {
    for text in &flags.engines {
        match engine::from_flag(text, &config.limits, r.env, &config.engines) {
            Ok(engine) => {
                let key = format!("engine.{}.url", engine.name);
                r.record(key, format!("{:?}", engine.urls[0].as_str()), Origin::Flag("--engine".into()));
                config.engines.push(engine);
            }
            Err(what) => r.problems.add(None, "--engine", what, ""),
        }
    }
    if config.engines.len() > limits::ENGINES_MAX {
        let what = format!("more than {} engines in all", limits::ENGINES_MAX);
        r.problems.add(None, "--engine", what, "");
    }
}

fn warn_of_stray_variables(r: &mut Reading<'_>, flags: &Flags) {
    let known: Vec<String> = r.env_known.iter().cloned().collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    for name in flags.env_names.iter().filter(|name| !known.contains(&name.as_str())) {
        let hint = match super::problem::nearest(name, &known) {
            Some(near) => format!("did you mean {near}?"),
            None => "the rule is SEAWALL__SECTION__KEY".to_owned(),
        };
        r.warnings.add(None, format!("${name}"), "this variable names no key and has no effect", hint);
    }
}

/// Reads a text file of at most [`limits::CONFIG_BYTES_MAX`]: the config itself, a key,
/// a certificate.
///
/// # Errors
/// It cannot be read, is too large, or is not UTF-8.
pub fn read_file(path: &Path) -> io::Result<String> {
    #[expect(clippy::disallowed_methods, reason = "the one place where configuration reads files")]
    let file = std::fs::File::open(path)?;
    let mut text = String::new();
    file.take(limits::CONFIG_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limits::CONFIG_BYTES_MAX {
        let what = format!("larger than {} bytes", limits::CONFIG_BYTES_MAX);
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(text)
}
