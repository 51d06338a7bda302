//! A stream is translated the same however the bytes are cut; and any bytes as an answer.
#![no_main]

mod pieces;

use libfuzzer_sys::fuzz_target;
use seawall_model::{Code, Protocol};
use seawall_wire::translate::{Context, Stream, answer_to};

fn run(engine: Protocol, client: Protocol, pieces: &[&[u8]]) -> (Vec<u8>, Result<(), Code>) {
    let mut stream = Stream::new(engine, client, Context::default());
    let mut out = Vec::new();
    let fed = pieces.iter().try_for_each(|piece| stream.feed(piece, &mut out));
    let end = fed.and_then(|()| stream.end(&mut out)).map_err(|fault| fault.code);
    (out, end)
}

fuzz_target!(|bytes: &[u8]| {
    let (halves, crumbs) = (pieces::halves(bytes), pieces::crumbs(bytes));
    for engine in [Protocol::Chat, Protocol::Messages, Protocol::Responses] {
        for client in [Protocol::Chat, Protocol::Completions, Protocol::Messages, Protocol::Responses] {
            let whole = run(engine, client, &[bytes]);
            assert_eq!(whole, run(engine, client, &halves));
            assert_eq!(whole, run(engine, client, &crumbs));
            let _ = answer_to(engine, client, bytes, &Context::default());
        }
    }
});
