//! Where a target cuts its input, for parsers that must see the same however the network
//! cuts the bytes. The place comes from the bytes themselves, so that a golden file is a
//! seed as it stands and each mutation moves the cut.

/// Bytes that come one by one.
const CRUMBS_MAX: usize = 128;

/// The input in two pieces.
pub fn halves(bytes: &[u8]) -> [&[u8]; 2] {
    let sum = bytes.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    let (left, right) = bytes.split_at(sum % (bytes.len() + 1));
    [left, right]
}

/// The input byte by byte; where it is long, only about its beginning, so that most runs
/// stay short.
pub fn crumbs(bytes: &[u8]) -> Vec<&[u8]> {
    let (first, rest) = bytes.split_at(bytes.len().min(CRUMBS_MAX));
    first.chunks(1).chain(rest.chunks(64)).collect()
}
