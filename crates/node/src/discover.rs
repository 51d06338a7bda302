//! What this machine already has: provider keys in the environment and model servers on
//! the usual local ports. Only looked at when no engine is configured.
//!
//! Pure: the shell asks each [`Candidate`] for its models and hands the [`Answer`]s to
//! [`decide`], which says what will be used and tells a person so.

use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderValue;
use seawall_model::EngineKind;

use crate::config::{Config, Discovered, EngineConfig, Secret, Url};

/// How long a local port may take to answer: it is on this machine.
pub const LOCAL_WAIT_MS_MAX: u64 = 300;
/// How long a provider may take to answer at start, before serving begins without its
/// list of models.
pub const PROVIDER_WAIT_MS_MAX: u64 = 3_000;

/// Ports where model servers listen unless told otherwise, in order of preference.
const PORTS: [(u16, &str); 6] = [
    (11434, "ollama"),
    (8000, "vllm"),
    (30000, "sglang"),
    (8081, "llamacpp"),
    (8080, "llamacpp"),
    (1234, "lmstudio"),
];

/// Something that may be an engine.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The name it would get.
    pub name: Arc<str>,
    /// What kind of server it would be.
    pub kind: EngineKind,
    /// Where it would be.
    pub url: Url,
    /// The variable that holds its key.
    pub key_env: Option<&'static str>,
    /// The key, if there is one.
    pub key: Option<Secret>,
    /// Why it is looked at, in words: `OPENAI_API_KEY is set`.
    pub why: String,
    /// Is it on this machine? Then it is used only if it answers.
    pub local: bool,
}

/// What a candidate said when asked for its models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A list of models, perhaps empty.
    Models(Vec<Arc<str>>),
    /// It took the connection but refused or gave no list: the HTTP status.
    Status(u16),
    /// It answered with something that is no list of models.
    Other,
    /// No answer.
    Silent,
}

/// What will be used, and the words for it.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Engines to add, each with the reason for it.
    pub engines: Vec<(EngineConfig, String)>,
    /// Their models.
    pub discovered: Discovered,
    /// One sentence for each thing found, for the start-up notice.
    pub sentences: Vec<String>,
}

/// Providers whose keys the environment holds.
#[must_use]
pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Vec<Candidate> {
    let providers = [
        ("openai", EngineKind::OpenAi, "OPENAI_API_KEY", "OPENAI_BASE_URL", "https://api.openai.com"),
        (
            "anthropic",
            EngineKind::Anthropic,
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_BASE_URL",
            "https://api.anthropic.com",
        ),
    ];
    let mut found = Vec::new();
    for (name, kind, key_env, url_env, usual) in providers {
        let Some(key) = env(key_env).filter(|key| is_key(key)) else {
            continue;
        };
        let address = env(url_env).filter(|url| !url.trim().is_empty());
        // A base URL that is none must not send the key to the usual place instead.
        let Ok(url) = Url::parse(address.as_deref().unwrap_or(usual)) else {
            continue;
        };
        let why = match &address {
            Some(_) => format!("{key_env} and {url_env} are set"),
            None => format!("{key_env} is set"),
        };
        let key = Some(Secret::new(key.trim()));
        found.push(Candidate {
            name: name.into(),
            kind,
            url,
            key_env: Some(key_env),
            key,
            why,
            local: false,
        });
    }
    found
}

/// Local ports worth a try. Our own is not: asking ourselves would answer.
#[must_use]
pub fn local(own: SocketAddr) -> Vec<Candidate> {
    let mut found: Vec<Candidate> = Vec::new();
    for (port, name) in PORTS {
        if port == own.port() {
            continue;
        }
        let taken = found.iter().any(|candidate| &*candidate.name == name);
        let name = if taken { format!("{name}-{port}") } else { name.to_owned() };
        let url = Url::parse(&format!("http://127.0.0.1:{port}")).expect("a loopback address is a URL");
        let why = format!("port {port} of this machine");
        let (name, kind) = (name.into(), EngineKind::OpenAi);
        found.push(Candidate { name, kind, url, key_env: None, key: None, why, local: true });
    }
    found
}

/// Decides which candidates become engines. A local one must have at least one model to
/// offer: many things listen on port 8000. A provider whose key is set is used even if
/// it is silent now, or a slow start of the network would change what is served.
#[must_use]
pub fn decide(config: &Config, candidates: &[Candidate], answers: &[Answer]) -> Found {
    assert_eq!(candidates.len(), answers.len(), "one answer for each candidate");
    let mut found = Found::default();
    for (candidate, answer) in candidates.iter().zip(answers) {
        let models = match answer {
            Answer::Models(models) => models.as_slice(),
            _ => &[],
        };
        if candidate.local && models.is_empty() {
            continue;
        }
        found.sentences.push(sentence(candidate, answer));
        found.discovered.models.insert(candidate.name.clone(), models.to_vec());
        found.engines.push((candidate.engine(config), candidate.why.clone()));
    }
    if found.engines.is_empty() {
        found.sentences.push(
            "No engine is configured and none was found: the built-in simulated engine answers. \
             Set OPENAI_API_KEY or ANTHROPIC_API_KEY, or start with --engine URL."
                .to_owned(),
        );
    }
    found
}

impl Candidate {
    /// The engine it would be.
    #[must_use]
    pub fn engine(&self, config: &Config) -> EngineConfig {
        let mut engine = EngineConfig::new(&self.name, self.kind, vec![self.url.clone()], &config.limits);
        engine.key = self.key.clone();
        engine.key_from = self.key_env.map(|name| format!("${name}"));
        engine
    }
}

fn sentence(candidate: &Candidate, answer: &Answer) -> String {
    let Candidate { name, url, why, .. } = candidate;
    let rest = match answer {
        Answer::Models(models) => match models.as_slice() {
            [] => "it lists no models".to_owned(),
            [one] => format!("1 model: {one}"),
            [first, ..] => format!("{} models, such as {first}", models.len()),
        },
        Answer::Status(401 | 403) => "but it rejects the key".to_owned(),
        Answer::Status(status) => format!("but it answers {status} when asked for its models"),
        Answer::Other => "but its list of models makes no sense".to_owned(),
        Answer::Silent => "but it does not answer now; it will be asked again".to_owned(),
    };
    format!("Found {name} at {url} ({why}): {rest}.")
}

fn is_key(key: &str) -> bool {
    !key.trim().is_empty() && HeaderValue::from_str(key.trim()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        |name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn keys_in_the_environment_are_found() {
        let env = env(&[
            ("OPENAI_API_KEY", " sk-1\n"),
            ("OPENAI_BASE_URL", "http://proxy:9/v1"),
            ("ANTHROPIC_API_KEY", ""),
        ]);
        let found = from_env(&env);
        assert_eq!(found.len(), 1, "an empty key is no key");
        assert_eq!(found[0].url.as_str(), "http://proxy:9");
        assert_eq!(found[0].key.as_ref().map(Secret::reveal), Some("sk-1"));
        assert_eq!(found[0].why, "OPENAI_API_KEY and OPENAI_BASE_URL are set");
    }

    #[test]
    fn a_bad_base_url_never_sends_the_key_elsewhere() {
        let env = env(&[("OPENAI_API_KEY", "sk-1"), ("OPENAI_BASE_URL", "proxy:9")]);
        assert!(from_env(&env).is_empty());
    }

    #[test]
    fn our_own_port_is_not_asked_and_names_differ() {
        let ports: Vec<u16> = local(([127, 0, 0, 1], 8080).into()).iter().map(|c| c.url.port()).collect();
        assert!(!ports.contains(&8080) && ports.contains(&8081));
        let mut names: Vec<_> = local(([127, 0, 0, 1], 1).into()).into_iter().map(|c| c.name).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn what_answers_is_used_and_said() {
        let config = Config::bare("d".into());
        let env = env(&[("ANTHROPIC_API_KEY", "sk-ant")]);
        let mut candidates = from_env(&env);
        candidates.extend(local(config.listen).into_iter().take(2));
        let answers = [Answer::Silent, Answer::Models(vec!["qwen3".into()]), Answer::Status(404)];
        let found = decide(&config, &candidates, &answers);
        let names: Vec<&str> = found.engines.iter().map(|(engine, _)| &*engine.name).collect();
        assert_eq!(names, ["anthropic", "ollama"]);
        assert_eq!(
            found.sentences,
            [
                "Found anthropic at https://api.anthropic.com (ANTHROPIC_API_KEY is set): but it does not answer now; \
                 it will be asked again.",
                "Found ollama at http://127.0.0.1:11434 (port 11434 of this machine): 1 model: qwen3.",
            ]
        );
        assert!(!found.sentences.concat().contains("sk-ant"));
    }

    #[test]
    fn nothing_found_says_what_to_do() {
        let config = Config::bare("d".into());
        let candidates = local(config.listen);
        let silent = vec![Answer::Silent; candidates.len()];
        let found = decide(&config, &candidates, &silent);
        assert!(found.engines.is_empty());
        assert!(found.sentences[0].contains("simulated engine"));
    }
}
