//! What is translated is a good request of the other protocol.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_model::Protocol;
use seawall_wire::inspect;
use seawall_wire::translate::request_to;

fuzz_target!(|body: &[u8]| {
    for client in [
        Protocol::Chat,
        Protocol::Completions,
        Protocol::Messages,
        Protocol::Responses,
    ] {
        for engine in [Protocol::Chat, Protocol::Messages, Protocol::Responses] {
            if let Ok((out, _)) = request_to(client, engine, body, "m") {
                inspect(engine, &out).expect("a written request is a good one");
            }
        }
    }
});
