//! A journal's record or row as a failing disk, or a later version, might give it back: it
//! is one, and is written and read again as the same, or the error says what is wrong.
#![no_main]

use libfuzzer_sys::fuzz_target;
use seawall_store::Error;
use seawall_store::journal::{decode, decode_agent, decode_run, encode};

fn judge<T>(answer: Result<T, Error>) -> Option<T> {
    match answer {
        Ok(noun) => Some(noun),
        Err(Error::Corrupt { .. } | Error::NewerForm { .. }) => None,
        Err(error) => panic!("no disk was touched: {error}"),
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Some(record) = judge(decode(bytes)) {
        let again = encode(&record);
        assert_eq!(decode(&again).expect("what was written is read"), record);
        assert!(again.len() <= bytes.len(), "numbers are written in their shortest form");
    }
    let _ = (judge(decode_agent(bytes)), judge(decode_run(bytes)));
});
