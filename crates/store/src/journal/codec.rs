//! The binary form of the nouns that the journal keeps: one byte of format version, then
//! the fields in the order in which `nouns` lists them.
//!
//! Whole numbers are LEB128, texts and lists carry their length, choices a tag that is
//! never given to another variant. Reading is total: any bytes give a noun or a
//! [`Flaw`], and never take more memory than a small multiple of their own length. One
//! list of fields per noun gives all of it: writing, reading, showing as JSON, and (in
//! tests) inventing one.

use std::sync::Arc;

use seawall_model::{Address, Agent, At, Code, MicroUsd, Millis, Payload, RunKey, Tenant, Tokens};

use super::json::Json;
use crate::Error;

/// The format that is written. A later one is refused, not guessed at.
pub(super) const FORMAT: u8 = 1;
/// Room made for a list before its items have been seen: a length is a claim.
const ITEMS_TRUSTED: usize = 64;

/// The digest of a blob.
pub(super) type Digest = [u8; 32];

/// Why bytes are no noun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    #[error("it has format {0}")]
    Newer(u8),
    #[error("it ends too early")]
    Short,
    #[error("it goes on after its end")]
    Long,
    #[error("a number is too large for its place")]
    Number,
    #[error("a text is not UTF-8")]
    Text,
    #[error("a name breaks the rules of names")]
    Name,
    #[error("{0} has no variant {1}")]
    Variant(&'static str, u8),
    #[error("an unknown error code")]
    Code,
}

/// Where nouns are written, and which blobs they named on the way.
#[derive(Debug, Default)]
pub(super) struct Sink {
    pub(super) bytes: Vec<u8>,
    pub(super) blobs: Vec<Digest>,
}

impl Sink {
    /// Writes one noun with its format in place of what was there.
    pub(super) fn hold<N: Noun>(&mut self, noun: &N) -> &[u8] {
        self.bytes.clear();
        self.blobs.clear();
        self.bytes.push(FORMAT);
        noun.write(self);
        &self.bytes
    }

    /// How many blobs the noun names, as its row's column says.
    pub(super) fn named(&self) -> i64 {
        crate::column::count(self.blobs.len())
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    fn run(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }
}

/// Bytes being read, and the blobs met on the way.
#[derive(Debug)]
pub(super) struct Source<'a> {
    rest: &'a [u8],
    blobs: Vec<Digest>,
}

impl<'a> Source<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, Flaw> {
        let (first, rest) = self.rest.split_first().ok_or(Flaw::Short)?;
        self.rest = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u64, Flaw> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Flaw::Number);
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Flaw::Number)
    }

    /// A length that the rest can hold: of bytes, or of items of one byte at least.
    fn length(&mut self) -> Result<usize, Flaw> {
        let length = usize::try_from(self.number()?).map_err(|_| Flaw::Short)?;
        if length > self.rest.len() { Err(Flaw::Short) } else { Ok(length) }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Flaw> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Flaw::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn text(&mut self) -> Result<&'a str, Flaw> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| Flaw::Text)
    }
}

/// Reads one noun with its format, and the digests of the blobs that it names.
pub(super) fn read<N: Noun>(bytes: &[u8]) -> Result<(N, Vec<Digest>), Flaw> {
    let mut source = Source { rest: bytes, blobs: Vec::new() };
    let format = source.byte()?;
    if format != FORMAT {
        return Err(Flaw::Newer(format));
    }
    let noun = N::read(&mut source)?;
    if source.rest.is_empty() { Ok((noun, source.blobs)) } else { Err(Flaw::Long) }
}

/// The same for what was read from the store; `what` names it in the error.
pub(super) fn decode<N: Noun>(what: &'static str, bytes: &[u8]) -> Result<N, Error> {
    read(bytes).map(|(noun, _)| noun).map_err(|flaw| flaw.of(what))
}

impl Flaw {
    /// The store's error for a flawed `what`.
    pub(super) fn of(self, what: &'static str) -> Error {
        match self {
            Self::Newer(found) if found > FORMAT => Error::NewerForm { what, found, known: FORMAT },
            flaw => Error::corrupt(format!("{what}: {flaw}")),
        }
    }
}

/// Something with a stored form.
pub(super) trait Noun: Sized {
    fn write(&self, sink: &mut Sink);
    fn read(source: &mut Source<'_>) -> Result<Self, Flaw>;
    /// For the export.
    fn show(&self, json: &mut Json);
    /// Any one of them.
    #[cfg(test)]
    fn invent(dice: &mut Dice) -> Self;
}

/// A noun of fields, in stored order; those after `without` are not stored.
macro_rules! fields {
    ($name:ty { $($field:ident),+ $(,)? } $(without $skip:ident)*) => {
        impl Noun for $name {
            fn write(&self, sink: &mut Sink) {
                let Self { $($field,)+ $($skip: _,)* } = self;
                $($field.write(sink);)+
            }
            fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
                Ok(Self { $($field: Noun::read(source)?,)+ $($skip: Default::default(),)* })
            }
            fn show(&self, json: &mut Json) {
                json.open();
                $(json.key(stringify!($field)); self.$field.show(json);)+
                json.close();
            }
            #[cfg(test)]
            fn invent(dice: &mut Dice) -> Self {
                Self { $($field: Noun::invent(dice),)+ $($skip: Default::default(),)* }
            }
        }
    };
}

/// A noun of variants, each with the tag that it is stored by. Shown as an object whose
/// `kind` is the variant.
macro_rules! variants {
    ($name:ident { $($tag:literal $variant:ident $(($inner:ident))? $({ $($field:ident),+ $(,)? })?,)+ }) => {
        impl Noun for $name {
            fn write(&self, sink: &mut Sink) {
                match self {
                    $(Self::$variant $(($inner))? $({ $($field),+ })? => {
                        sink.bytes.push($tag);
                        $($inner.write(sink);)?
                        $($($field.write(sink);)+)?
                    })+
                }
            }
            fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
                match source.byte()? {
                    $($tag => Ok(Self::$variant
                        $(({ let $inner = Noun::read(source)?; $inner }))?
                        $({ $($field: Noun::read(source)?),+ })?),)+
                    tag => Err(Flaw::Variant(stringify!($name), tag)),
                }
            }
            fn show(&self, json: &mut Json) {
                json.open();
                json.key("kind");
                match self {
                    $(Self::$variant $(($inner))? $({ $($field),+ })? => {
                        json.text(&stringify!($variant).to_ascii_lowercase());
                        $(json.key("of"); $inner.show(json);)?
                        $($(json.key(stringify!($field)); $field.show(json);)+)?
                    })+
                }
                json.close();
            }
            #[cfg(test)]
            fn invent(dice: &mut Dice) -> Self {
                const TAGS: &[u8] = &[$($tag),+];
                match TAGS[dice.below(TAGS.len() as u64) as usize] {
                    $($tag => Self::$variant
                        $(({ let $inner = Noun::invent(dice); $inner }))?
                        $({ $($field: Noun::invent(dice)),+ })?,)+
                    tag => unreachable!("{tag} is no tag"),
                }
            }
        }
    };
}

/// A noun of variants without fields. Shown as the variant's name.
macro_rules! names {
    ($name:ident { $($tag:literal $variant:ident,)+ }) => {
        impl Noun for $name {
            fn write(&self, sink: &mut Sink) {
                sink.bytes.push(match self { $(Self::$variant => $tag,)+ });
            }
            fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
                match source.byte()? {
                    $($tag => Ok(Self::$variant),)+
                    tag => Err(Flaw::Variant(stringify!($name), tag)),
                }
            }
            fn show(&self, json: &mut Json) {
                let name = match self { $(Self::$variant => stringify!($variant),)+ };
                json.text(&name.to_ascii_lowercase());
            }
            #[cfg(test)]
            fn invent(dice: &mut Dice) -> Self {
                let all = [$(Self::$variant),+];
                all[dice.below(all.len() as u64) as usize]
            }
        }
    };
}

pub(super) use {fields, names, variants};

macro_rules! whole {
    ($($type:ty)+) => { $(
        impl Noun for $type {
            fn write(&self, sink: &mut Sink) {
                sink.number(u64::from(*self));
            }
            fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
                Self::try_from(source.number()?).map_err(|_| Flaw::Number)
            }
            fn show(&self, json: &mut Json) {
                json.number(u64::from(*self));
            }
            #[cfg(test)]
            fn invent(dice: &mut Dice) -> Self {
                dice.number() as Self
            }
        }
    )+ };
}

whole!(u8 u16 u32 u64);

macro_rules! unit {
    ($($type:ident)+) => { $(
        impl Noun for $type {
            fn write(&self, sink: &mut Sink) {
                sink.number(self.0);
            }
            fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
                source.number().map(Self)
            }
            fn show(&self, json: &mut Json) {
                json.number(self.0);
            }
            #[cfg(test)]
            fn invent(dice: &mut Dice) -> Self {
                Self(dice.number())
            }
        }
    )+ };
}

unit!(At Millis Tokens MicroUsd);

impl Noun for RunKey {
    fn write(&self, sink: &mut Sink) {
        sink.number(self.0);
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
        source.number().map(Self)
    }
    fn show(&self, json: &mut Json) {
        json.text(&self.to_string());
    }
    #[cfg(test)]
    fn invent(dice: &mut Dice) -> Self {
        Self(dice.number())
    }
}

impl Noun for bool {
    fn write(&self, sink: &mut Sink) {
        sink.bytes.push(u8::from(*self));
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
        match source.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            tag => Err(Flaw::Variant("bool", tag)),
        }
    }
    fn show(&self, json: &mut Json) {
        json.raw(if *self { "true" } else { "false" });
    }
    #[cfg(test)]
    fn invent(dice: &mut Dice) -> Self {
        dice.below(2) == 1
    }
}

impl Noun for Arc<str> {
    fn write(&self, sink: &mut Sink) {
        sink.run(self.as_bytes());
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
        source.text().map(Self::from)
    }
    fn show(&self, json: &mut Json) {
        json.words(self);
    }
    #[cfg(test)]
    fn invent(dice: &mut Dice) -> Self {
        const LETTERS: [&str; 8] = ["a", "key", "\"", "\\", "\n", "ü", "\u{1}", "漢字"];
        (0..dice.below(4)).map(|_| LETTERS[dice.below(8) as usize]).collect::<String>().into()
    }
}

impl Noun for Payload {
    fn write(&self, sink: &mut Sink) {
        match self {
            Self::Here(bytes) => {
                sink.bytes.push(0);
                sink.run(bytes);
            }
            Self::Blob { digest, len } => {
                sink.bytes.push(1);
                sink.bytes.extend_from_slice(digest);
                sink.number(*len);
                sink.blobs.push(*digest);
            }
        }
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
        match source.byte()? {
            0 => {
                let length = source.length()?;
                Ok(Self::Here(source.take(length)?.into()))
            }
            1 => {
                let digest = source.take(32)?.try_into().map_err(|_| Flaw::Short)?;
                source.blobs.push(digest);
                Ok(Self::Blob { digest, len: source.number()? })
            }
            tag => Err(Flaw::Variant("Payload", tag)),
        }
    }
    fn show(&self, json: &mut Json) {
        json.payload(self);
    }
    #[cfg(test)]
    fn invent(dice: &mut Dice) -> Self {
        if dice.below(4) == 0 {
            return Self::Blob { digest: [dice.number() as u8; 32], len: dice.number() };
        }
        let length = dice.below(20);
        (0..length).map(|_| dice.number() as u8).collect::<Vec<_>>().into()
    }
}

impl Noun for Tenant {
    fn write(&self, sink: &mut Sink) {
        sink.run(self.as_str().as_bytes());
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
        Self::parse(source.text()?).map_err(|_| Flaw::Name)
    }
    fn show(&self, json: &mut Json) {
        json.text(self.as_str());
    }
    #[cfg(test)]
    fn invent(dice: &mut Dice) -> Self {
        Self::parse(["acme", "acme/search", "x/y/z/@1"][dice.below(3) as usize]).expect("valid")
    }
}

impl Noun for Agent {
    fn write(&self, sink: &mut Sink) {
        sink.run(self.as_str().as_bytes());
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
        Self::parse(source.text()?).map_err(|_| Flaw::Name)
    }
    fn show(&self, json: &mut Json) {
        json.text(self.as_str());
    }
    #[cfg(test)]
    fn invent(dice: &mut Dice) -> Self {
        Self::parse(["researcher/42", "critic", "a/b"][dice.below(3) as usize]).expect("valid")
    }
}

impl Noun for Address {
    fn write(&self, sink: &mut Sink) {
        self.tenant.write(sink);
        self.agent.write(sink);
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
        Ok(Self { tenant: Noun::read(source)?, agent: Noun::read(source)? })
    }
    fn show(&self, json: &mut Json) {
        json.text(&self.to_string());
    }
    #[cfg(test)]
    fn invent(dice: &mut Dice) -> Self {
        Self { tenant: Noun::invent(dice), agent: Noun::invent(dice) }
    }
}

// By its stable name: the table is in no order that lasts.
impl Noun for Code {
    fn write(&self, sink: &mut Sink) {
        sink.run(self.as_str().as_bytes());
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
        Self::from_name(source.text()?).ok_or(Flaw::Code)
    }
    fn show(&self, json: &mut Json) {
        json.text(self.as_str());
    }
    #[cfg(test)]
    fn invent(dice: &mut Dice) -> Self {
        let table = seawall_model::code::TABLE;
        table[dice.below(table.len() as u64) as usize].code
    }
}

impl<N: Noun> Noun for Option<N> {
    fn write(&self, sink: &mut Sink) {
        self.is_some().write(sink);
        if let Some(noun) = self {
            noun.write(sink);
        }
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
        if bool::read(source)? { N::read(source).map(Some) } else { Ok(None) }
    }
    fn show(&self, json: &mut Json) {
        match self {
            Some(noun) => noun.show(json),
            None => json.raw("null"),
        }
    }
    #[cfg(test)]
    fn invent(dice: &mut Dice) -> Self {
        bool::invent(dice).then(|| N::invent(dice))
    }
}

impl<N: Noun> Noun for Vec<N> {
    fn write(&self, sink: &mut Sink) {
        sink.number(self.len() as u64);
        for noun in self {
            noun.write(sink);
        }
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
        let length = source.length()?;
        let mut nouns = Self::with_capacity(length.min(ITEMS_TRUSTED));
        for _ in 0..length {
            nouns.push(N::read(source)?);
        }
        Ok(nouns)
    }
    fn show(&self, json: &mut Json) {
        json.list();
        for noun in self {
            json.item();
            noun.show(json);
        }
        json.end_list();
    }
    #[cfg(test)]
    fn invent(dice: &mut Dice) -> Self {
        (0..dice.below(4)).map(|_| N::invent(dice)).collect()
    }
}

impl<N: Noun> Noun for Box<N> {
    fn write(&self, sink: &mut Sink) {
        (**self).write(sink);
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
        N::read(source).map(Self::new)
    }
    fn show(&self, json: &mut Json) {
        (**self).show(json);
    }
    #[cfg(test)]
    fn invent(dice: &mut Dice) -> Self {
        Self::new(N::invent(dice))
    }
}

impl<A: Noun, B: Noun> Noun for (A, B) {
    fn write(&self, sink: &mut Sink) {
        self.0.write(sink);
        self.1.write(sink);
    }
    fn read(source: &mut Source<'_>) -> Result<Self, Flaw> {
        Ok((A::read(source)?, B::read(source)?))
    }
    fn show(&self, json: &mut Json) {
        json.list();
        json.item();
        self.0.show(json);
        json.item();
        self.1.show(json);
        json.end_list();
    }
    #[cfg(test)]
    fn invent(dice: &mut Dice) -> Self {
        (A::invent(dice), B::invent(dice))
    }
}

/// Chance for tests: splitmix64.
#[cfg(test)]
pub(super) struct Dice(pub(super) u64);

#[cfg(test)]
impl Dice {
    pub(super) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // Of every length, as small numbers are the common ones.
        (mixed ^ (mixed >> 31)) >> (mixed % 64)
    }

    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }
}
