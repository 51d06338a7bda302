//! Any bytes as a request of every protocol.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_model::Protocol;
use seawall_wire::{inspect, meter, tokens};

fuzz_target!(|body: &[u8]| {
    for protocol in Protocol::ALL {
        if let Ok(seen) = inspect(protocol, body) {
            assert!(seen.prompt_tokens.0 > 0 && seen.choices > 0);
            assert!(body[seen.model_span].starts_with(b"\""));
        }
        let _ = meter::usage(protocol, body);
        let _ = tokens::estimate_answer(protocol, body);
    }
});
