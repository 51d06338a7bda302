//! The fingerprint of a prompt, by which calls that begin alike find the replica
//! that has their beginning in its cache.

use seawall_model::limits::{PREFIX_BLOCK_BYTES, PREFIX_BLOCKS_MAX};

/// FNV's offset basis, the start of every chain.
const START: u64 = 0xcbf2_9ce4_8422_2325;
/// FNV's prime.
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Chained hashes of the whole blocks of all parts, read as one text. Block *n*'s
/// hash covers everything before it, so equal hashes mean equal prefixes. The hash is
/// FNV-1a over 8-byte words with Murmur3's finisher: fixed, so that it means the same
/// in every process and release.
pub(crate) fn hashes(parts: &[&[u8]]) -> Box<[u64]> {
    let total: usize = parts.iter().map(|part| part.len()).sum();
    let mut blocks = Vec::with_capacity((total / PREFIX_BLOCK_BYTES).min(PREFIX_BLOCKS_MAX));
    let mut hash = START;
    let mut word = 0_u64;
    let mut filled = 0_usize;
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() && blocks.len() < PREFIX_BLOCKS_MAX {
            if filled.is_multiple_of(8)
                && let Some((eight, after)) = rest.split_first_chunk::<8>()
            {
                hash = (hash ^ u64::from_le_bytes(*eight)).wrapping_mul(PRIME).rotate_left(23);
                filled += 8;
                rest = after;
            } else {
                word |= u64::from(rest[0]) << (8 * (filled % 8));
                filled += 1;
                rest = &rest[1..];
                if filled.is_multiple_of(8) {
                    hash = (hash ^ word).wrapping_mul(PRIME).rotate_left(23);
                    word = 0;
                }
            }
            if filled == PREFIX_BLOCK_BYTES {
                blocks.push(finish(hash));
                filled = 0;
            }
        }
    }
    blocks.into_boxed_slice()
}

const _: () = assert!(PREFIX_BLOCK_BYTES.is_multiple_of(8), "a block is a whole number of words");

/// Spreads every bit over the whole word (Murmur3's 64-bit finisher).
fn finish(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_prompt_keeps_the_hashes_of_the_shorter() {
        let text = vec![b'x'; PREFIX_BLOCK_BYTES * 5 + 100];
        let short = hashes(&[&text[..PREFIX_BLOCK_BYTES * 3 + 1]]);
        let long = hashes(&[&text]);
        assert_eq!(short.len(), 3);
        assert_eq!(long.len(), 5);
        assert_eq!(short[..], long[..3]);
        assert!(long.windows(2).all(|two| two[0] != two[1]), "the chain moves on even over equal blocks");
    }

    #[test]
    fn how_the_text_is_cut_into_parts_does_not_matter() {
        let text: Vec<u8> = (0..PREFIX_BLOCK_BYTES * 3).map(|at| (at % 251) as u8).collect();
        let whole = hashes(&[&text]);
        for cut in [1, 7, 8, 9, 2_047, 2_048, 3_000] {
            assert_eq!(whole, hashes(&[&text[..cut], &text[cut..]]), "cut at {cut}");
        }
    }

    #[test]
    fn the_hash_is_fixed_for_ever() {
        // Pinned: replicas of Seawall and later releases must agree on it.
        // The values are those of an independent program.
        assert_eq!(hashes(&[&[0_u8; PREFIX_BLOCK_BYTES]])[..], [12039095476163118637]);
        let text: Vec<u8> = (0..2 * PREFIX_BLOCK_BYTES).map(|at| (at % 251) as u8).collect();
        assert_eq!(hashes(&[&text])[..], [2794764046250452749, 8180198734286577343]);
    }

    #[test]
    fn one_byte_changes_its_block_and_all_after_it() {
        let mut text = vec![b'x'; PREFIX_BLOCK_BYTES * 3];
        let before = hashes(&[&text]);
        text[PREFIX_BLOCK_BYTES + 5] = b'y';
        let after = hashes(&[&text]);
        assert_eq!(before[0], after[0]);
        assert_ne!(before[1], after[1]);
        assert_ne!(before[2], after[2]);
    }

    #[test]
    fn only_so_many_blocks_are_looked_at() {
        let text = vec![0_u8; PREFIX_BLOCK_BYTES * (PREFIX_BLOCKS_MAX + 3)];
        assert_eq!(hashes(&[&text]).len(), PREFIX_BLOCKS_MAX);
    }
}
