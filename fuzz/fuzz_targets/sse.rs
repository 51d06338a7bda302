//! An event stream reads the same however the bytes are cut.
#![no_main]

mod pieces;

use libfuzzer_sys::fuzz_target;
use seawall_wire::sse::Events;

fn read(pieces: &[&[u8]]) -> Vec<(Option<String>, Vec<u8>)> {
    let mut got = Vec::new();
    let mut events = Events::new();
    for piece in pieces {
        let fed = events.feed(piece, |event| {
            got.push((event.event.map(str::to_owned), event.data.to_vec()));
            Ok(())
        });
        if fed.is_err() {
            return got;
        }
    }
    let _ = events.end(|event| {
        got.push((event.event.map(str::to_owned), event.data.to_vec()));
        Ok(())
    });
    got
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(&[bytes]);
    assert_eq!(whole, read(&pieces::halves(bytes)));
    assert_eq!(whole, read(&pieces::crumbs(bytes)));
});
