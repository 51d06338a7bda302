//! `seawall key add | list | revoke`: works on the store directly, also beside a running
//! server, which notices within moments.

use seawall_model::{Agent, At, Millis, Tenant, limits};
use seawall_store::{Error, Key, Store};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::clock;
use crate::config::{Loaded, amount};

use super::args::{ConfigArgs, KeyAddArgs, KeyCommand, KeyListArgs, KeyRevokeArgs};
use super::print::{self, BAD, BOLD, Cell, DIM, GOOD, Table};
use super::{check, code};

/// What every key starts with: whoever finds one knows what it is, and so do scanners
/// for leaked secrets.
pub const PREFIX: &str = "sk-sw-";
/// A warning is due when a key's end is nearer than this.
const SOON_MS: u64 = 7 * 86_400_000;

pub(crate) fn run(command: &KeyCommand) -> i32 {
    let done = match command {
        KeyCommand::Add(args) => add(args),
        KeyCommand::List(args) => list(args),
        KeyCommand::Revoke(args) => revoke(args),
    };
    match done {
        Ok(()) => code::OK,
        Err(failed) => {
            if !failed.what.is_empty() {
                print::failure(&failed.what, failed.hint);
            }
            failed.code
        }
    }
}

/// Why a command failed; an empty text was already told.
struct Failed {
    code: i32,
    what: String,
    hint: &'static str,
}

impl Failed {
    fn usage(what: impl Into<String>, hint: &'static str) -> Self {
        Self { code: code::USAGE, what: what.into(), hint }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::NotOpen { .. } | Error::Newer { .. } => code::CANT_CREATE,
            Error::InUse { .. } | Error::Busy => code::UNAVAILABLE,
            Error::KeysFull { .. } | Error::BadName { .. } => code::USAGE,
            Error::KeyExists { .. } => code::INTERNAL,
            // What is left is the disk, or of no concern to keys.
            _ => code::IO,
        };
        Self { code, what: error.to_string(), hint: "" }
    }
}

fn open(args: &ConfigArgs) -> Result<Store, Failed> {
    let flags = args.flags();
    let loaded = Loaded::read(&flags).map_err(|problems| {
        check::report(&flags, &problems);
        Failed::usage("", "")
    })?;
    Ok(Store::open_beside(&loaded.config.data)?)
}

fn add(args: &KeyAddArgs) -> Result<(), Failed> {
    let tenant = Tenant::parse(&args.tenant).map_err(|error| {
        Failed::usage(format!("--tenant {:?}: {error}", args.tenant), "for example acme/search")
    })?;
    let now = clock::now();
    let expires = match &args.expires {
        None => None,
        Some(text) => Some(parse_expires(text, now).ok_or_else(|| {
            Failed::usage(
                format!("--expires {text:?} is neither a time from now nor a day ahead"),
                "30d, 12h or 2030-01-31",
            )
        })?),
    };
    let mut random = [0; 37];
    getrandom::fill(&mut random).map_err(|error| Failed {
        code: code::INTERNAL,
        what: format!("the system gives no random numbers: {error}"),
        hint: "",
    })?;
    let (secret, id) = random.split_at(32);
    let secret = secret_text(secret.try_into().expect("split at 32"));
    let key = Key {
        id: format!("k-{}", hex(id)),
        hash: hash(&secret),
        name: args.name.clone(),
        tenant,
        class: args.class.map(super::args::ClassArg::class),
        models: args.models.clone(),
        created: now,
        expires,
        revoked: None,
        last_used: None,
        admin: args.admin,
        pass_through: args.pass_through,
        agent: args.agent.as_deref().map(agent).transpose()?,
        run: args.run.as_deref().map(run_name).transpose()?,
    };
    open(&args.config)?.add_key(&key)?;
    if args.json.json {
        let mut value = key_json(&key, now);
        value["key"] = json!(secret);
        print::json(&value);
    } else {
        print::note(&format!(
            "Key {BOLD}{}{BOLD:#} for tenant {BOLD}{}{BOLD:#}. It is shown only now:",
            key.id, key.tenant
        ));
        print::line(&secret);
    }
    Ok(())
}

/// The agent as given.
fn agent(name: &str) -> Result<Agent, Failed> {
    let bad = |error| Failed::usage(format!("--agent {name:?}: {error}"), "for example researcher/42");
    Agent::parse(name).map_err(bad)
}

/// The run's name as given: what a header may hold.
fn run_name(name: &str) -> Result<String, Failed> {
    let fits = (1..=limits::RUN_NAME_BYTES_MAX).contains(&name.len());
    if fits && name.trim() == name && !name.chars().any(char::is_control) {
        return Ok(name.to_owned());
    }
    let what = format!("--run {name:?} is no name of a run");
    Err(Failed::usage(what, "at most 256 bytes, without blanks around it"))
}

fn list(args: &KeyListArgs) -> Result<(), Failed> {
    let now = clock::now();
    let keys = open(&args.config)?.keys()?;
    let all = keys.len();
    let keys: Vec<Key> = keys.into_iter().filter(|key| args.all || key.works(now)).collect();
    if args.json.json {
        print::json(&Value::Array(keys.iter().map(|key| key_json(key, now)).collect()));
        return Ok(());
    }
    if !keys.is_empty() {
        print::text(&table(&keys, now).render());
    }
    let hidden = all - keys.len();
    if all == 0 {
        print::note("There are no keys: calls from this machine need none, others are refused.");
    } else if hidden > 0 {
        print::note(&format!("{DIM}{hidden} revoked or expired, shown with --all{DIM:#}"));
    }
    Ok(())
}

fn revoke(args: &KeyRevokeArgs) -> Result<(), Failed> {
    let mut store = open(&args.config)?;
    if store.revoke_key(&args.id, clock::now())? {
        if args.json.json {
            print::json(&json!({ "id": args.id, "revoked": true }));
        } else {
            print::note(&format!("Key {BOLD}{}{BOLD:#} is revoked.", args.id));
        }
        return Ok(());
    }
    let known = store.keys()?.iter().any(|key| key.id == args.id);
    let what = if known { "was revoked before" } else { "does not exist" };
    Err(Failed::usage(format!("the key {} {what}", args.id), "seawall key list --all"))
}

pub(crate) fn table(keys: &[Key], now: At) -> Table {
    let mut table =
        Table::new(&["id", "tenant", "name", "class", "models", "created", "expires", "last used", "state"]);
    for key in keys {
        let state = match state(key, now) {
            "active" => Cell::styled("active", GOOD),
            other => Cell::styled(other, BAD),
        };
        let scopes = match (key.admin, key.pass_through) {
            (true, true) => " (admin, pass-through)",
            (true, false) => " (admin)",
            (false, true) => " (pass-through)",
            (false, false) => "",
        };
        let agent = key.agent.as_ref().map(|agent| format!(" [{agent}]")).unwrap_or_default();
        table.row(vec![
            key.id.clone().into(),
            key.tenant.as_str().into(),
            format!("{}{agent}{scopes}", key.name).trim_start().into(),
            key.class.map_or("-", seawall_model::Class::as_str).into(),
            if key.models.is_empty() { "all".into() } else { key.models.join(" ").into() },
            show_time(Some(key.created)).into(),
            show_time(key.expires).into(),
            show_time(key.last_used).into(),
            state,
        ]);
    }
    table
}

fn state(key: &Key, now: At) -> &'static str {
    if key.revoked.is_some_and(|at| at <= now) {
        return "revoked";
    }
    match key.expires {
        Some(end) if end <= now => "expired",
        Some(end) if end.since(now) < Millis(SOON_MS) => "ends soon",
        _ => "active",
    }
}

fn key_json(key: &Key, now: At) -> Value {
    let time = |at: Option<At>| at.map(iso_time);
    json!({
        "id": key.id,
        "tenant": key.tenant.as_str(),
        "name": key.name,
        "class": key.class.map(seawall_model::Class::as_str),
        "models": key.models,
        "admin": key.admin,
        "pass_through": key.pass_through,
        "agent": key.agent.as_ref().map(Agent::as_str),
        "run": key.run,
        "created": time(Some(key.created)),
        "expires": time(key.expires),
        "revoked": time(key.revoked),
        "last_used": time(key.last_used),
        "state": state(key, now),
    })
}

/// A key from 32 random bytes: the prefix and 43 characters of base64url.
#[must_use]
pub fn secret_text(random: &[u8; 32]) -> String {
    format!("{PREFIX}{}", base64url(random))
}

/// What the store keeps of a key: a plain hash is enough for 256 random bits.
#[must_use]
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// RFC 4648 section 5, without padding.
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..=chunk.len() {
            let index = (bits >> (18 - 6 * place)) & 63;
            out.push(char::from(ALPHABET[index as usize]));
        }
    }
    out
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A length of time from now (`30d`), or the start of a day in UTC that lies ahead.
fn parse_expires(text: &str, now: At) -> Option<At> {
    if let Ok(day) = text.trim().parse::<jiff::civil::Date>() {
        let start = day.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        let at = At(u64::try_from(start.timestamp().as_microsecond()).ok()?);
        return (at > now).then_some(at);
    }
    // A bare number would be milliseconds, which nobody means here.
    if text.trim().ends_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    amount::millis(text).filter(|span| *span > 0).map(|span| now.plus(Millis(span)))
}

pub(crate) fn show_time(at: Option<At>) -> String {
    let time =
        at.and_then(|at| i64::try_from(at.0).ok()).and_then(|at| jiff::Timestamp::from_microsecond(at).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M").to_string())
}

fn iso_time(at: At) -> String {
    let time = i64::try_from(at.0).ok().and_then(|at| jiff::Timestamp::from_microsecond(at).ok());
    time.map_or_else(|| "never".to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: At = At(1_700_000_000_000_000);

    #[test]
    fn base64url_is_that_of_the_rfc() {
        for (bytes, expected) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
            ("fooba", "Zm9vYmE"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64url(bytes.as_bytes()), expected);
        }
        assert_eq!(base64url(&[0xff, 0xfe, 0xfd]), "__79");
    }

    #[test]
    fn a_key_has_its_shape_and_hash() {
        let secret = secret_text(&[7; 32]);
        assert_eq!(secret.len(), PREFIX.len() + 43);
        assert!(secret.starts_with(PREFIX));
        assert_eq!(hex(&hash("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn ends_are_read_from_now_or_from_the_calendar() {
        assert_eq!(parse_expires("30d", NOW), Some(NOW.plus(Millis(30 * 86_400_000))));
        assert_eq!(parse_expires("2030-01-31", NOW), Some(At(1_896_048_000_000_000)));
        for bad in ["2020-01-31", "30", "0d", "soon", "", "2030-13-01", "99999999999999999999d"] {
            assert_eq!(parse_expires(bad, NOW), None, "{bad}");
        }
    }

    #[test]
    fn states_are_told_apart() {
        let mut key = sample("k-1");
        assert_eq!(state(&key, NOW), "active");
        key.expires = Some(NOW.plus(Millis(1)));
        assert_eq!(state(&key, NOW), "ends soon");
        key.expires = Some(NOW);
        assert_eq!(state(&key, NOW), "expired");
        key.revoked = Some(NOW);
        assert_eq!(state(&key, NOW), "revoked");
    }

    #[test]
    fn the_list_is_a_table_without_secrets() {
        let mut key = sample("k-2");
        key.admin = true;
        key.name = "ci".into();
        key.models = vec!["fast".into(), "slow".into()];
        let mut files = sample("k-3");
        files.pass_through = true;
        files.agent = Agent::parse("indexer/1").ok();
        insta::assert_snapshot!(print::plain(&table(&[sample("k-1"), key, files], NOW).render()), @r"
        id   tenant  name                        class  models     created           expires  last used  state
        k-1  acme                                -      all        2023-11-14 22:13  -        -          active
        k-2  acme    ci (admin)                  -      fast slow  2023-11-14 22:13  -        -          active
        k-3  acme    [indexer/1] (pass-through)  -      all        2023-11-14 22:13  -        -          active
        ");
    }

    fn sample(id: &str) -> Key {
        Key {
            id: id.into(),
            hash: [0; 32],
            name: String::new(),
            tenant: Tenant::parse("acme").expect("valid"),
            class: None,
            models: Vec::new(),
            created: NOW,
            expires: None,
            revoked: None,
            last_used: None,
            admin: false,
            pass_through: false,
            agent: None,
            run: None,
        }
    }
}
