//! What is known of a tool before it is called: its name, what it is for, the schema of its
//! arguments, and how it may be repeated.

use std::sync::Arc;

use seawall_model::EffectClass;
use seawall_model::limits::{TOOL_ABOUT_BYTES_MAX, TOOL_NAME_BYTES_MAX, TOOL_SCHEMA_BYTES_MAX};

use super::words::shorten;
use crate::config::tool::ToolRule;

/// A tool that may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCard {
    /// `server.tool`, or the name of an HTTP tool.
    pub name: Arc<str>,
    /// What it is for, in the words of whoever offers it. A server's own words are not to be
    /// trusted: they reach the model as they are.
    pub about: Arc<str>,
    /// JSON Schema of its arguments.
    pub schema: Arc<str>,
    /// How it may be repeated.
    pub class: EffectClass,
    /// The tool that undoes it, where its class is [`EffectClass::Compensable`].
    pub undo: Option<Arc<str>>,
    /// The tool that says whether it was done, likewise.
    pub query: Option<Arc<str>>,
}

/// What an MCP server hints at. They are hints: the config's word stands above them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `readOnlyHint`
    pub read_only: Option<bool>,
    /// `idempotentHint`
    pub idempotent: Option<bool>,
}

impl Hints {
    /// The class by the hints alone. `destructiveHint = false` says that nothing is
    /// overwritten, not that twice is as good as once, so it makes nothing repeatable.
    #[must_use]
    pub fn class(self) -> EffectClass {
        match self {
            Self { read_only: Some(true), .. } => EffectClass::Read,
            Self { idempotent: Some(true), .. } => EffectClass::Idempotent,
            _ => EffectClass::Irreversible,
        }
    }
}

/// A tool as a server lists it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name there.
    pub name: String,
    /// What it says of itself.
    pub about: String,
    /// JSON Schema of its arguments.
    pub schema: String,
    /// Its hints.
    pub hints: Hints,
}

impl Listed {
    /// Its card, under its server's name and rules.
    ///
    /// # Errors
    /// In words, why it cannot be offered.
    pub fn card(self, server: &str, rule: Option<&ToolRule>) -> Result<ToolCard, &'static str> {
        if !is_name(&self.name) {
            return Err(
                "its name is empty, too long or holds other characters than letters, digits and _ - . /",
            );
        }
        if self.schema.len() > TOOL_SCHEMA_BYTES_MAX {
            return Err("its schema is too large");
        }
        Ok(ToolCard {
            name: format!("{server}.{}", self.name).into(),
            about: shorten(&self.about, TOOL_ABOUT_BYTES_MAX).into(),
            schema: self.schema.into(),
            class: rule.and_then(|rule| rule.class).unwrap_or_else(|| self.hints.class()),
            undo: rule.and_then(|rule| rule.undo.clone()),
            query: rule.and_then(|rule| rule.query.clone()),
        })
    }
}

/// Is this a name that MCP allows for a tool?
#[must_use]
pub fn is_name(name: &str) -> bool {
    (1..=TOOL_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, hints: Hints) -> Listed {
        Listed { name: name.into(), about: "é".repeat(TOOL_ABOUT_BYTES_MAX), schema: "{}".into(), hints }
    }

    #[test]
    fn what_is_not_known_to_be_harmless_is_irreversible() {
        let class = |read_only, idempotent| Hints { read_only, idempotent }.class();
        assert_eq!(class(Some(true), None), EffectClass::Read);
        assert_eq!(class(Some(true), Some(true)), EffectClass::Read);
        assert_eq!(class(Some(false), Some(true)), EffectClass::Idempotent);
        assert_eq!(class(None, Some(true)), EffectClass::Idempotent);
        for (read_only, idempotent) in [(None, None), (Some(false), None), (Some(false), Some(false))] {
            assert_eq!(class(read_only, idempotent), EffectClass::Irreversible);
        }
    }

    #[test]
    fn the_configs_word_stands_above_the_hints() {
        let hints = Hints { read_only: Some(true), idempotent: None };
        let rule =
            ToolRule { class: Some(EffectClass::Compensable), undo: Some("s.undo".into()), query: None };
        let card = listed("pay", hints).card("s", Some(&rule)).expect("good");
        assert_eq!(
            (&*card.name, card.class, card.undo.as_deref()),
            ("s.pay", EffectClass::Compensable, Some("s.undo"))
        );
        let card = listed("pay", hints).card("s", Some(&ToolRule::default())).expect("good");
        assert_eq!((card.class, card.about.len()), (EffectClass::Read, TOOL_ABOUT_BYTES_MAX));
    }

    #[test]
    fn a_tool_that_cannot_be_offered_says_why() {
        for name in ["", "a b", "a\nb", &"x".repeat(TOOL_NAME_BYTES_MAX + 1)] {
            assert!(listed(name, Hints::default()).card("s", None).is_err(), "{name}");
        }
        let mut large = listed("a", Hints::default());
        large.schema = " ".repeat(TOOL_SCHEMA_BYTES_MAX + 1);
        assert!(large.card("s", None).is_err());
    }
}
