//! Tests of the configuration as a whole: layers, problems, plan.

use std::io;
use std::path::Path;

use proptest::prelude::*;
use seawall_kernel::plan::{Meter, Period};
use seawall_model::{Bytes, Class, EngineKind, Millis, Protocol, Tenant};

use super::*;

const EXAMPLE: &str = include_str!("../../../../examples/seawall.toml");
const GUIDE: &str = include_str!("../../../../docs/guide.md");

fn no_env(_: &str) -> Option<String> {
    None
}

fn no_files(_: &Path) -> io::Result<String> {
    Err(io::ErrorKind::NotFound.into())
}

type Read = Result<(Config, Vec<Problem>), Vec<Problem>>;

fn read(text: &str) -> Read {
    read_with(text, &Flags::default(), &no_env)
}

fn read_with(text: &str, flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Read {
    Config::read(Some(Path::new("/etc/seawall/seawall.toml")), text, flags, env, &no_files)
}

fn show(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn nothing_at_all_is_a_good_configuration() {
    let (config, warnings) = read("").expect("good");
    assert!(warnings.is_empty());
    assert_eq!(config.listen, LISTEN);
    assert_eq!(config.limits, LimitsConfig::default());
    assert_eq!(config.classes, CLASS_SHARES);
    assert!(config.engines.is_empty());
    assert!(config.settings.iter().all(|setting| setting.origin == Origin::Default));
    let (plan, _) = plan::plan(&config, &mut Ids::default(), &Discovered::default());
    assert_eq!(plan.class_share, CLASS_SHARES);
}

#[test]
fn the_example_is_good_and_means_what_it_says() {
    let (config, warnings) = read(EXAMPLE).expect("good");
    insta::assert_snapshot!(show(&warnings), @r"
    line 45: engine.openai.key_env: $OPENAI_API_KEY is not set: calls go out without a key (export OPENAI_API_KEY=...)
    line 52: engine.claude.key_env: $ANTHROPIC_API_KEY is not set: calls go out without a key (export ANTHROPIC_API_KEY=...)
    ");
    assert_eq!(config.limits.memory_bytes_max, Bytes(1 << 30));
    assert_eq!(config.limits.drain_ms_max, Millis(30_000));
    let vllm = config.engine("vllm").expect("named");
    assert_eq!((vllm.urls.len(), vllm.kind, vllm.pace.calls_max), (2, EngineKind::OpenAi, 256));
    assert_eq!(vllm.first_token_ms_max, Millis(120_000));
    assert_eq!(vllm.stall_ms_max, config.limits.stall_ms_max, "an engine inherits what it does not say");
    assert!(vllm.speaks(Protocol::Chat) && vllm.speaks(Protocol::Other) && !vllm.speaks(Protocol::Responses));
    assert!(config.engine("openai").expect("named").speaks(Protocol::Responses));
    assert_eq!(config.engine("claude").expect("named").urls[0].as_str(), "https://api.anthropic.com");
    let fast = &config.models[0];
    assert_eq!(&*fast.targets[0].upstream, "meta-llama/Llama-3.1-8B-Instruct");
    assert_eq!((fast.price.input, fast.price.cached, fast.price.cache_written), (150_000, 75_000, 150_000));
    let search = &config.tenants[1];
    assert_eq!(search.class, Some(Class::Interactive));
    assert_eq!(search.rule.budgets[0].limit, 25_000_000, "dollars become micro-dollars");
    assert_eq!(
        (search.rule.budgets[1].meter, search.rule.budgets[1].period),
        (Meter::Tokens, Period::Minute)
    );
}

#[test]
fn later_layers_win_and_origins_are_kept() {
    let text = "listen = '127.0.0.1:1'\n[log]\nlevel = 'warn'\n[limits]\nbody_bytes_max = 5000\nstall_ms_max = '2s'\n";
    let env = |name: &str| match name {
        "SEAWALL_LISTEN" => Some("127.0.0.1:2".to_owned()),
        "SEAWALL__LISTEN" => Some("127.0.0.1:9".to_owned()),
        "SEAWALL__LIMITS__BODY_BYTES_MAX" => Some("6 KiB".to_owned()),
        "SEAWALL__LOG__ACCESS" => Some("false".to_owned()),
        "SEAWALL__CLASSES__BATCH" => Some("7".to_owned()),
        "SEAWALL__QUEUE__LEN_MAX" => Some(String::new()),
        _ => None,
    };
    let flags = Flags { listen: Some("127.0.0.1:3".into()), ..Flags::default() };
    let (config, _) = read_with(text, &flags, &env).expect("good");
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.log.level, LogLevel::Warn);
    assert!(!config.log.access);
    assert_eq!(config.limits.body_bytes_max, Bytes(6 << 10));
    assert_eq!(config.limits.stall_ms_max, Millis(2_000));
    assert_eq!(config.classes[Class::Batch as usize], 7);
    let origin = |key: &str| config.settings.iter().find(|s| s.key == key).map(|s| s.origin.to_string());
    assert_eq!(origin("listen").as_deref(), Some("--listen"));
    assert_eq!(origin("log.level").as_deref(), Some("line 3"));
    assert_eq!(origin("limits.body_bytes_max").as_deref(), Some("$SEAWALL__LIMITS__BODY_BYTES_MAX"));
    assert_eq!(origin("queue.len_max").as_deref(), Some("default"), "an empty variable says nothing");
    let (config, _) = read_with(text, &Flags::default(), &env).expect("good");
    assert_eq!(config.listen.port(), 2, "the short name wins over the long one");
}

#[test]
fn a_bad_variable_or_flag_names_itself() {
    let env = |name: &str| (name == "SEAWALL__LIMITS__CONNECTIONS_MAX").then(|| "many".to_owned());
    let flags = Flags {
        listen: Some("8080".into()),
        engines: vec!["10.0.0.1:8000".into()],
        env_names: vec!["SEAWALL__LIMITS__CONNECTION_MAX".into()],
        ..Flags::default()
    };
    let problems = read_with("", &flags, &env).expect_err("bad");
    insta::assert_snapshot!(show(&problems), @r#"
    listen: expected an address such as "127.0.0.1:8080" or "0.0.0.0:8080", found the text "8080" (it comes from --listen)
    limits.connections_max: expected a whole number, found the text "many" (it comes from $SEAWALL__LIMITS__CONNECTIONS_MAX)
    --engine: an address starts with http:// or https://: write for example "http://127.0.0.1:8000"
    "#);
    let (_, warnings) =
        read_with("", &Flags { env_names: flags.env_names, ..Flags::default() }, &no_env).expect("good");
    insta::assert_snapshot!(show(&warnings), @"$SEAWALL__LIMITS__CONNECTION_MAX: this variable names no key and has no effect (did you mean SEAWALL__LIMITS__CONNECTIONS_MAX?)");
}

/// Everything that a tired operator can get wrong, at once.
const BAD: &str = r#"lisen = "127.0.0.1:8080"
data = 7
[tls]
cert = "a.pem"
[log]
level = "loud"
access = "yes"
[limits]
body_bytes_max = "2 GiB"
stream_window_bytes = 10
connect_ms_max = "5 parsecs"
[queue]
len_max = 10
tenant_len_max = 20
[classes]
interactive = 60
batch = 50
[retry]
pause_ms = 5000
percent = 200
[[engine]]
name = "a/b"
url = "http://x"
[[engine]]
name = "vllm"
url = "10.0.0.1:8000"
key = "sk-secret-in-the-file"
speaks = ["chat", "morse"]
calls_min = 10
calls_max = 5
headers = { Authorization = "Bearer sk-secret-too", Host = "x" }
tls_skip_verify = true
[[engine]]
name = "vllm"
url = "http://me:hunter2@10.0.0.2"
[[engine]]
kind = "openapi"
[[model]]
name = "fast"
targets = ["vlm/llama",
  "llama"]
price = { input = 1 }
[[model]]
name = "fast"
targets = []
[[tenant]]
prefix = "acme//x"
weight = 0
[[tenant]]
prefix = "acme"
class = "urgent"
budget = [{ meter = "eur", period = "day", limit = 1 }, { meter = "usd" }]
[sim]
pace = "warp"
[metrics]
listen = "0.0.0.0:9090"
"#;

#[test]
fn all_problems_are_told_at_once_with_their_lines() {
    let problems = read(BAD).expect_err("bad");
    let shown = show(&problems);
    assert!(problems.len() >= 30, "{shown}");
    for secret in ["sk-secret", "hunter2"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn syntax_errors_are_told_alone_and_all() {
    let problems = read("listen = \nlisten = 3\n[limits\nbody = 1\nx = 'a\n").expect_err("bad");
    let lines: Vec<_> = problems.iter().filter_map(|problem| problem.line).collect();
    assert!(lines.contains(&1) && lines.contains(&3), "{}", show(&problems));
    assert!(problems.iter().all(|problem| problem.what.starts_with("not TOML")));
}

#[test]
fn the_wrong_brackets_are_explained() {
    let problems = read("[engine]\nname = 'a'\n[[limits]]\nx = 1\n").expect_err("bad");
    insta::assert_snapshot!(show(&problems), @r"
    line 1: engine: expected a list of tables, found a table (write [[engine]] with two brackets, once for each)
    line 3: limits: expected a table, found a list (write [limits] with one bracket, and its keys below)
    ");
}

#[test]
fn keys_come_from_the_environment_or_a_file_and_are_never_shown() {
    let text = "[[engine]]\nname = 'a'\nurl = 'https://h'\nkey_env = 'K'\nheaders = { x-team = 'sk-private' }\n\
                [[engine]]\nname = 'b'\nurl = 'https://i'\nkey_file = 'k.txt'\n";
    let env = |name: &str| (name == "K").then(|| "sk-from-env\n".to_owned());
    let files = |path: &Path| match path.to_str() {
        Some("/etc/seawall/k.txt") => Ok("  sk-from-file\n".to_owned()),
        other => panic!("{other:?}: a path in the file starts at the file's directory"),
    };
    let path = Path::new("/etc/seawall/seawall.toml");
    let (config, warnings) = Config::read(Some(path), text, &Flags::default(), &env, &files).expect("good");
    assert!(warnings.is_empty(), "{warnings:?}");
    let key =
        |name: &str| config.engine(name).and_then(|e| e.key.as_ref()).map(|key| key.reveal().to_owned());
    assert_eq!(key("a").as_deref(), Some("sk-from-env"));
    assert_eq!(key("b").as_deref(), Some("sk-from-file"));
    let (plan, routes) = plan::plan(&config, &mut Ids::default(), &Discovered::default());
    let everything = format!("{config:?} {plan:?} {routes:?}");
    assert!(!everything.contains("sk-"), "{everything}");
}

#[test]
fn pem_files_that_could_not_be_served_with_are_problems() {
    let shell = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
    let files = |path: &Path| match path.file_name().and_then(|name| name.to_str()) {
        Some("one.crt") => Ok(include_str!("../../tests/tls/one.crt").to_owned()),
        Some("one.key") => Ok(include_str!("../../tests/tls/one.key").to_owned()),
        Some("two.key") => Ok(include_str!("../../tests/tls/two.key").to_owned()),
        Some("shell") => Ok(shell.to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let read = |cert: &str, key: &str, ca: &str| {
        let engine = format!("[[engine]]\nname = 'e'\nurl = 'https://h'\ntls_ca_file = '{ca}'\n");
        let text = format!("[tls]\ncert = '{cert}'\nkey = '{key}'\n{engine}");
        Config::read(Some(Path::new("/c/seawall.toml")), &text, &Flags::default(), &no_env, &files)
    };
    let (config, _) = read("one.crt", "one.key", "one.crt").expect("good");
    assert!(config.tls.is_some() && config.engines[0].tls_ca_file.is_some());
    let told = |cert: &str, key: &str, ca: &str| show(&read(cert, key, ca).expect_err("bad"));
    insta::assert_snapshot!(told("one.crt", "two.key", "one.key"), @r"
    line 3: tls.key: /c/two.key: is not the key of this certificate (it must be the key that the first certificate in the chain was made for)
    line 7: engine.e.tls_ca_file: /c/one.key: holds no certificate (they stand between BEGIN CERTIFICATE and END CERTIFICATE; is it the right file?)
    ");
    insta::assert_snapshot!(told("shell", "one.crt", "shell"), @r"
    line 2: tls.cert: /c/shell: the first certificate in it cannot be read: invalid peer certificate: BadEncoding
    line 3: tls.key: /c/one.crt: holds no private key in PEM (an RSA, ECDSA or Ed25519 key in PEM, without a passphrase; is it the right file?)
    line 7: engine.e.tls_ca_file: /c/shell: certificate 1 in it cannot be an authority: invalid peer certificate: BadEncoding
    ");
    insta::assert_snapshot!(told("none.crt", "none.key", "none.crt"), @r"
    line 2: tls.cert: cannot read /c/none.crt: entity not found
    line 3: tls.key: cannot read /c/none.key: entity not found
    line 7: engine.e.tls_ca_file: cannot read /c/none.crt: entity not found
    ");
}

#[test]
fn engines_of_flags_join_those_of_the_file() {
    let text = "[[engine]]\nname = 'vllm'\nurl = 'http://10.0.0.1:8000'\n";
    let env = |name: &str| (name == "OPENAI_API_KEY").then(|| "sk-1".to_owned());
    let engines = ["http://127.0.0.1:9000/v1/", "big=http://[::1]:9001", "https://api.openai.com"];
    let flags = Flags { engines: engines.map(str::to_owned).to_vec(), ..Flags::default() };
    let (config, _) = read_with(text, &flags, &env).expect("good");
    let names: Vec<&str> = config.engines.iter().map(|engine| &*engine.name).collect();
    assert_eq!(names, ["vllm", "127.0.0.1-9000", "big", "openai"]);
    assert!(config.engines[3].key.is_some());
    let flags = Flags { engines: vec!["vllm=http://x".into()], ..Flags::default() };
    let problems = read_with(text, &flags, &no_env).expect_err("the name is taken");
    assert_eq!(problems.len(), 1);
}

#[test]
fn doubtful_things_are_warnings() {
    let text = "listen = '0.0.0.0:8080'\n[[engine]]\nname = 'a'\nurl = 'http://10.0.0.1'\nkey_env = 'K'\n\
                [[engine]]\nname = 'b'\nurl = 'http://10.0.0.1/v1'\n[[model]]\nname = 'm'\ntargets = ['a/x']\n\
                [[tenant]]\nprefix = 'acme'\nbudget = [{ meter = 'usd', period = 'day', limit = 1 }]\nmodels = ['mm']\n";
    let env = |name: &str| (name == "K").then(|| "sk".to_owned());
    let (_, warnings) = read_with(text, &Flags::default(), &env).expect("good");
    insta::assert_snapshot!(show(&warnings));
}

fn discovered(pairs: &[(&str, &[&str])]) -> Discovered {
    let list = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
    Discovered { models: pairs.iter().map(|(engine, names)| (Arc::from(*engine), list(names))).collect() }
}

const TWO: &str = "[[engine]]\nname = 'a'\nurls = ['http://h1', 'http://h2']\n[[engine]]\nname = 'b'\nurl = 'http://h3'\n\
    [[model]]\nname = 'fast'\ntargets = ['a/llama', 'b/mini']\nprice = { input = 1, output = 2 }\n\
    [[model]]\nname = 'secret'\ntargets = ['b/big']\nhidden = true\n\
    [[tenant]]\nprefix = 'acme'\nmodels = ['fast']\nclass = 'batch'\n[[tenant]]\nprefix = '*'\nclass = 'agent'\n";

#[test]
fn every_model_has_a_name_and_an_address() {
    let (config, _) = read(TWO).expect("good");
    let found = discovered(&[("a", &["llama", "qwen"]), ("b", &["qwen", "big"])]);
    let (plan, routes) = plan::plan(&config, &mut Ids::default(), &found);
    let listed: Vec<&str> = routes.listed().map(|model| &*model.name).collect();
    assert_eq!(
        listed,
        ["fast", "llama", "qwen", "b/qwen"],
        "configured first; a taken name gets its engine in front"
    );
    let targets = |name: &str| -> Vec<String> {
        let model = routes.resolve(name).and_then(|id| routes.model(id)).unwrap_or_else(|| panic!("{name}"));
        let engine = |id| routes.engine(id).expect("planned").name.clone();
        model.targets.iter().map(|target| format!("{}/{}", engine(target.engine), target.upstream)).collect()
    };
    assert_eq!(targets("fast"), ["a/llama", "b/mini"]);
    for direct in ["a/llama", "b/mini", "a/qwen", "b/qwen", "b/big"] {
        assert_eq!(targets(direct), [direct]);
    }
    assert_eq!(routes.resolve("a/qwen"), routes.resolve("qwen"));
    assert_eq!(routes.resolve("b/big"), routes.resolve("secret"), "a single target needs no second id");
    assert_eq!(routes.resolve("nothing"), None);
    assert_eq!(routes.nearest("fats"), Some("fast"));
    // The price of an alias holds for its targets by any name.
    let price = |name: &str| routes.model(routes.resolve(name).expect("named")).expect("planned").price;
    assert_eq!(price("a/llama"), price("fast"));
    assert_eq!(price("llama"), price("fast"));
    assert_eq!(price("b/mini").output, 2_000_000);
    // The kernel's models and the shell's are the same, target by target.
    assert!(
        plan.models.is_sorted_by_key(|model| model.id) && plan.engines.is_sorted_by_key(|engine| engine.id)
    );
    for model in &plan.models {
        let route = routes.model(model.id).expect("routed");
        assert_eq!(model.targets, route.targets.iter().map(|target| target.engine).collect::<Vec<_>>());
    }
    let a = &plan.engines[0];
    let urls: Vec<&str> =
        a.replicas.iter().map(|r| routes.replica(r.id).expect("routed").url.as_str()).collect();
    assert_eq!(urls, ["http://h1", "http://h2"]);
}

#[test]
fn ids_stay_with_their_names_across_reloads() {
    let mut ids = Ids::default();
    let (before, _) = read(TWO).expect("good");
    let (_, first) = plan::plan(&before, &mut ids, &Discovered::default());
    // Everything moves: another engine comes first, the replicas change places.
    let text =
        "[[engine]]\nname = 'new'\nurl = 'http://h0'\n[[model]]\nname = 'newest'\ntargets = ['new/x']\n"
            .to_owned()
            + &TWO.replace("'http://h1', 'http://h2'", "'http://h2', 'http://h9', 'http://h1'");
    let (after, _) = read(&text).expect("good");
    let (plan, second) = plan::plan(&after, &mut ids, &Discovered::default());
    assert_eq!(first.resolve("fast"), second.resolve("fast"));
    assert_ne!(second.resolve("newest"), first.resolve("fast"));
    for engine in first.engines() {
        assert_eq!(second.engine(engine.id).map(|e| e.name.clone()), Some(engine.name.clone()));
        for replica in &engine.replicas {
            let url = &first.replica(*replica).expect("routed").url;
            assert_eq!(&second.replica(*replica).expect("still routed").url, url);
        }
    }
    assert!(plan.engines.iter().all(|engine| engine.replicas.is_sorted_by_key(|replica| replica.id)));
}

#[test]
fn rules_hold_along_the_path() {
    let (config, _) = read(TWO).expect("good");
    let (plan, routes) = plan::plan(&config, &mut Ids::default(), &Discovered::default());
    let tenant = |path: &str| Tenant::parse(path).expect("valid");
    let id = |name: &str| routes.resolve(name).expect("named");
    assert!(routes.allows(&tenant("acme/search"), id("fast")));
    assert!(!routes.allows(&tenant("acme/search"), id("secret")));
    assert!(
        !routes.allows(&tenant("acme"), id("b/mini")),
        "a list of names is not dodged by a direct address"
    );
    assert!(routes.allows(&tenant("acmeish"), id("secret")));
    assert_eq!(routes.class_of(&tenant("acme/search")), Some(Class::Batch));
    assert_eq!(routes.class_of(&tenant("other")), Some(Class::Agent));
    let prefixes: Vec<&str> = plan.tenants.iter().map(|rule| &*rule.prefix).collect();
    assert_eq!(prefixes, ["*", "acme"], "by prefix");
    let agent = |name: &str| seawall_model::Agent::parse(name).expect("valid");
    assert!(!routes.allows_agent(&tenant("acme"), &agent("writer")), "a list of models names no agents");
    assert!(routes.allows_agent(&tenant("other"), &agent("writer/1")));
}

#[test]
fn agents_are_named_by_type_key_or_pattern() {
    let named = |name: &str, agent: &str| {
        let agent = seawall_model::Agent::parse(agent).expect("valid");
        plan::names_agent(&["fast", name], &agent)
    };
    for (name, agent, fits) in [
        ("agent/writer", "writer", true),
        ("agent/writer", "writer/1", true),
        ("agent/writer/1", "writer/1", true),
        ("agent/writer/1", "writer/2", false),
        ("agent/writer/1", "writer", false),
        ("agent/*", "writer/1", true),
        ("agent/wri*", "writer", true),
        ("agent/writer", "writers", false),
        ("writer", "writer", false),
        ("*", "writer", false),
    ] {
        assert_eq!(named(name, agent), fits, "{name} and {agent}");
    }
}

#[test]
fn more_models_than_the_limit_are_left_out_not_fatal() {
    let (config, _) = read("[[engine]]\nname = 'a'\nurl = 'http://h'\n").expect("good");
    let names: Vec<Arc<str>> = (0..limits::MODELS_MAX + 10).map(|n| format!("m{n}").into()).collect();
    let mut found = Discovered::default();
    found.models.insert("a".into(), names);
    let (plan, routes) = plan::plan(&config, &mut Ids::default(), &found);
    assert_eq!(plan.models.len(), limits::MODELS_MAX);
    assert!(routes.resolve("m0").is_some() && routes.resolve(&format!("m{}", limits::MODELS_MAX)).is_none());
}

#[test]
fn the_guide_has_every_key() {
    let (config, _) = read(EXAMPLE).expect("good");
    let mut missing: Vec<&str> = config
        .settings
        .iter()
        .filter_map(|setting| setting.key.rsplit('.').next())
        .filter(|key| !GUIDE.contains(&format!("`{key}`")))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    assert!(missing.is_empty(), "docs/guide.md does not explain {missing:?}");
}

/// Text that looks like a config: known words in unlikely places.
fn likely_text() -> impl Strategy<Value = String> {
    let words = [
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ",",
        "\n",
        "\n",
        ".",
        "\"",
        "'",
        " ",
        "#",
        "engine",
        "model",
        "tenant",
        "limits",
        "name",
        "url",
        "urls",
        "targets",
        "price",
        "budget",
        "key_env",
        "headers",
        "listen",
        "classes",
        "batch",
        "retry",
        "sim",
        "pace",
        "faults",
        "body_bytes_max",
        "rate",
        "1",
        "-1",
        "1e400",
        "nan",
        "true",
        "99999999999999999999999",
        "1979-05-27",
        "\"32 MiB\"",
        "\"vllm/x\"",
        "\"http://h\"",
        "é",
        "\u{0}",
        "input",
        "output",
        "models",
        "prefix",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..60).prop_map(|words| words.concat())
}

/// Well-formed assignments of any value to any known place.
fn assignment() -> impl Strategy<Value = String> {
    let keys = [
        "listen",
        "data",
        "engine",
        "model",
        "tenant",
        "limits",
        "queue.len_max",
        "classes.batch",
        "retry.percent",
        "sim.pace",
        "sim.kv_tokens",
        "log.level",
        "tls.cert",
        "limits.body_bytes_max",
        "limits.drain_ms_max",
        "metrics",
        "proxy.use_env",
    ];
    let values = [
        "1",
        "-5",
        "0x7fffffffffffffff",
        "1e300",
        "nan",
        "inf",
        "true",
        "''",
        "'a'",
        "'64 KiB'",
        "[]",
        "[1]",
        "['a']",
        "{}",
        "[{}]",
        "[{ name = 'a', url = 'http://h' }]",
        "[{ name = 1, urls = [1, 'x'], models = [''], rate = 3 }]",
        "[{ name = 'm', targets = ['a/b', '/', 'a/'], price = [] }]",
        "[{ prefix = '*', budget = [{ limit = -1 }] }]",
        "1979-05-27",
        "[{ name = 'a', url = 'http://h', calls_min = 100000, headers = { a = 1, '' = 'x', b = \"\\n\" } }]",
    ];
    (prop::sample::select(keys.to_vec()), prop::sample::select(values.to_vec()))
        .prop_map(|(k, v)| format!("{k} = {v}\n"))
}

proptest! {
    #[test]
    fn no_text_panics(text in prop_oneof![any::<String>(), likely_text()]) {
        // Whatever it is, it is an answer.
        if let Err(problems) = read(&text) {
            prop_assert!(!problems.is_empty());
        }
    }

    #[test]
    fn no_assignment_panics_and_what_is_read_can_be_planned(lines in prop::collection::vec(assignment(), 0..8)) {
        if let Ok((config, _)) = read(&lines.concat()) {
            let (plan, _) = plan::plan(&config, &mut Ids::default(), &Discovered::default());
            prop_assert_eq!(plan.engines.len(), config.engines.len());
        }
    }

    #[test]
    fn no_variable_panics(value in any::<String>()) {
        let env = |name: &str| name.starts_with("SEAWALL").then(|| value.clone());
        let _ = read_with("", &Flags::default(), &env);
    }
}
