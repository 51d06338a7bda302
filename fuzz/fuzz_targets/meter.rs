//! The relay scanner forwards every byte and sees the same however the bytes are cut.
#![no_main]

mod pieces;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use seawall_model::{Finish, Protocol, Usage};
use seawall_wire::Meter;

fn run(mut meter: Meter, pieces: &[&[u8]]) -> (Vec<u8>, Option<Usage>, Option<Finish>, u64) {
    let mut out = Vec::new();
    for piece in pieces {
        out.extend_from_slice(&meter.relay(Bytes::copy_from_slice(piece)));
    }
    out.extend_from_slice(&meter.flush());
    (out, meter.usage(), meter.finish(), meter.tokens())
}

fuzz_target!(|bytes: &[u8]| {
    let (halves, crumbs) = (pieces::halves(bytes), pieces::crumbs(bytes));
    for protocol in Protocol::ALL {
        let whole = run(Meter::stream(protocol, false), &[bytes]);
        assert_eq!(whole.0, bytes);
        assert_eq!(whole, run(Meter::stream(protocol, false), &halves));
        assert_eq!(whole, run(Meter::stream(protocol, false), &crumbs));
        let unary = run(Meter::unary(protocol), &[bytes]);
        assert_eq!(unary.0, bytes);
        assert_eq!(unary, run(Meter::unary(protocol), &halves));
        let hidden = run(Meter::stream(protocol, true), &[bytes]);
        assert!(hidden.0.len() <= bytes.len());
        assert_eq!(hidden, run(Meter::stream(protocol, true), &crumbs));
    }
});
