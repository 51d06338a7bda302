//! What is translated of a good request is a good request of the other protocol; and any
//! bytes are translated or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_model::Protocol;
use seawall_wire::inspect;
use seawall_wire::translate::request_to;

fuzz_target!(|body: &[u8]| {
    for client in [Protocol::Chat, Protocol::Completions, Protocol::Messages, Protocol::Responses] {
        // As in the gateway: what inspection refuses is never translated there.
        let good = inspect(client, body).is_ok();
        for engine in [Protocol::Chat, Protocol::Messages, Protocol::Responses] {
            let Ok((out, _)) = request_to(client, engine, body, "m") else {
                continue;
            };
            let seen = inspect(engine, &out);
            assert!(!good || seen.is_ok(), "{client:?} to {engine:?}: {:?}", seen.err());
            assert!(seen.is_err() || seen.is_ok_and(|seen| seen.model == "m"));
        }
    }
});
