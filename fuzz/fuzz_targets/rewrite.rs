//! Whatever is accepted can be rewritten, and is accepted again under its new name.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use seawall_model::Protocol;
use seawall_wire::{inspect, rewrite};

fuzz_target!(|body: &[u8]| {
    let body = Bytes::copy_from_slice(body);
    for protocol in Protocol::ALL {
        if let Ok(seen) = inspect(protocol, &body) {
            let out = rewrite::request(&body, &seen, "other \"name\"", true, None);
            let again = inspect(protocol, &out).expect("still a good request");
            assert_eq!(again.model, "other \"name\"");
            assert_eq!(again.prefix, seen.prefix);
            assert_eq!(
                again.include_usage,
                seen.include_usage
                    || (seen.stream && matches!(protocol, Protocol::Chat | Protocol::Completions))
            );
        }
    }
});
