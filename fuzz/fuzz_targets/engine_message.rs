//! Any bytes as an engine's error body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_model::limits::ENGINE_MESSAGE_CHARS_MAX;
use seawall_wire::fault::engine_message;

fuzz_target!(|body: &[u8]| {
    if let Some(message) = engine_message(body) {
        assert!(!message.is_empty() && message.chars().count() <= ENGINE_MESSAGE_CHARS_MAX);
        assert!(!message.chars().any(char::is_control));
    }
});
