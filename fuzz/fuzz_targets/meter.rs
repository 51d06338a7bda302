//! The relay scanner forwards every byte and sees the same whole and in two pieces.
#![no_main]

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

fuzz_target!(|input: (usize, &[u8])| {
    let (cut, bytes) = input;
    let (left, right) = bytes.split_at(cut % (bytes.len() + 1));
    for protocol in Protocol::ALL {
        let whole = run(Meter::stream(protocol, false), &[bytes]);
        assert_eq!(whole.0, bytes);
        assert_eq!(whole, run(Meter::stream(protocol, false), &[left, right]));
        assert_eq!(
            run(Meter::unary(protocol), &[bytes]),
            run(Meter::unary(protocol), &[left, right])
        );
        let hidden = run(Meter::stream(protocol, true), &[left, right]);
        assert!(hidden.0.len() <= bytes.len());
    }
});
