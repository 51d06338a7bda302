//! Any bytes as an engine's list of models.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_model::limits::{MODEL_NAME_BYTES_MAX, MODELS_MAX};
use seawall_wire::models::parse_models;

fuzz_target!(|body: &[u8]| {
    if let Ok(names) = parse_models(body) {
        assert!(names.len() <= MODELS_MAX);
        assert!(names.iter().all(|name| !name.is_empty() && name.len() <= MODEL_NAME_BYTES_MAX));
    }
});
