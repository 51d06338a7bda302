//! Lists of models: written for clients, read from engines.

use seawall_model::limits::{MODEL_NAME_BYTES_MAX, MODELS_MAX};
use seawall_model::{Code, Fault};

use crate::json::{self, Object};
use crate::writer::{Writer, written};

/// OpenAI's list: each model with its name, creation in Unix seconds and owner.
#[must_use]
pub fn models(list: &[(&str, u64, &str)]) -> Vec<u8> {
    written(|w| {
        w.open().field("object", "list").key("data").open_list();
        for (id, created, owner) in list {
            openai(w, id, *created, owner);
        }
        w.close_list().close();
    })
}

/// OpenAI's description of one model.
#[must_use]
pub fn model(id: &str, created: u64, owner: &str) -> Vec<u8> {
    written(|w| openai(w, id, created, owner))
}

/// Anthropic's list, for clients that send `anthropic-version`. All on one page.
#[must_use]
pub fn models_anthropic(list: &[(&str, u64, &str)]) -> Vec<u8> {
    written(|w| {
        w.open().key("data").open_list();
        for (id, created, _) in list {
            anthropic(w, id, *created);
        }
        w.close_list().key("has_more").flag(false);
        w.key("first_id").text_or_null(list.first().map(|(id, ..)| *id));
        w.key("last_id").text_or_null(list.last().map(|(id, ..)| *id)).close();
    })
}

/// Anthropic's description of one model.
#[must_use]
pub fn model_anthropic(id: &str, created: u64) -> Vec<u8> {
    written(|w| anthropic(w, id, created))
}

fn openai(w: &mut Writer<'_>, id: &str, created: u64, owner: &str) {
    w.open().field("id", id).field("object", "model");
    w.key("created").count(created).field("owned_by", owner).close();
}

fn anthropic(w: &mut Writer<'_>, id: &str, created: u64) {
    w.open().field("type", "model").field("id", id).field("display_name", id);
    w.field("created_at", &rfc3339(created)).field("lifecycle", "active").close();
}

/// Unix seconds as `2026-01-31T23:59:59Z`, up to the year 9999. The calendar is Howard
/// Hinnant's `civil_from_days` (<https://howardhinnant.github.io/date_algorithms.html>).
fn rfc3339(secs: u64) -> String {
    const YEAR_9999: u64 = 253_402_300_799;
    let secs = secs.min(YEAR_9999);
    let (days, of_day) = (secs / 86_400 + 719_468, secs % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The names in an engine's list of models: OpenAI's and Anthropic's `data[].id`, or
/// Ollama's `models[].name`. In the engine's order, without repeats, at most
/// [`MODELS_MAX`].
///
/// # Errors
/// `engine_garbled` when it is no such list.
pub fn parse_models(body: &[u8]) -> Result<Vec<String>, Fault> {
    let garbled = || Fault::new(Code::EngineGarbled, "The engine's list of models could not be understood.");
    let whole = Object::parse(body).ok_or_else(garbled)?;
    let raw = whole.find("data").or_else(|| whole.find("models")).ok_or_else(garbled)?;
    let items = json::items(raw).ok_or_else(garbled)?;
    let mut names: Vec<String> = Vec::new();
    let mut known = std::collections::BTreeSet::new();
    for item in items {
        let Ok(entry) = json::object(item) else { continue };
        let name = ["id", "name", "model"].into_iter().find_map(|field| entry.hint(field));
        let Some(name) = name.filter(|name| !name.is_empty() && name.len() <= MODEL_NAME_BYTES_MAX) else {
            continue;
        };
        if names.len() < MODELS_MAX && known.insert(name.clone()) {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_take_the_shape_of_their_api() {
        let list = [("a", 1, "seawall"), ("b/c", 2, "vllm")];
        let openai = r#"{"object":"list","data":[{"id":"a","object":"model","created":1,"owned_by":"seawall"},{"id":"b/c","object":"model","created":2,"owned_by":"vllm"}]}"#;
        assert_eq!(models(&list), openai.as_bytes());
        let anthropic: serde_json::Value = serde_json::from_slice(&models_anthropic(&list)).expect("JSON");
        assert_eq!(anthropic["last_id"], "b/c");
        assert_eq!(anthropic["data"][0]["created_at"], "1970-01-01T00:00:01Z");
        let empty: serde_json::Value = serde_json::from_slice(&models_anthropic(&[])).expect("JSON");
        assert!(empty["first_id"].is_null());
        assert_eq!(parse_models(&models(&list)), Ok(vec!["a".to_owned(), "b/c".to_owned()]));
    }

    #[test]
    fn dates_are_right() {
        assert_eq!(rfc3339(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(rfc3339(1_735_689_599), "2024-12-31T23:59:59Z");
        assert_eq!(rfc3339(u64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn engines_lists_are_read_in_every_shape_and_bounded() {
        assert_eq!(
            parse_models(br#"{"models":[{"name":"l:8b","model":"x"},{"name":"l:8b"},5]}"#),
            Ok(vec!["l:8b".to_owned()])
        );
        assert_eq!(parse_models(br#"{"data":[]}"#), Ok(vec![]));
        assert_eq!(parse_models(b"<html>").map_err(|fault| fault.code), Err(Code::EngineGarbled));
        let many: String = (0..10_000).map(|at| format!(r#"{{"id":"m{at}"}},"#)).collect();
        let many = format!(r#"{{"data":[{}{{}}]}}"#, many);
        assert_eq!(parse_models(many.as_bytes()).map(|names| names.len()), Ok(MODELS_MAX));
    }
}
