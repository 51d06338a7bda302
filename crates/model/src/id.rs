//! Ids as types. They are small numbers given out by the shell; names stay outside.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);
    };
}

id!(
    /// One call, unique for the life of the process and rising with arrival.
    CallId(u64)
);
id!(
    /// One engine of the plan. The same name keeps its id across a reload.
    EngineId(u32)
);
id!(
    /// One replica. The same engine and address keep their id across a reload.
    ReplicaId(u32)
);
id!(
    /// One model alias. The same name keeps its id across a reload.
    ModelId(u32)
);
id!(
    /// A run, as a 64-bit digest of tenant and run name.
    RunId(u64)
);

/// A durable run: its number among those of its shard, and in the low byte the shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunKey(pub u64);

impl RunKey {
    /// The `number`-th run of `shard`.
    #[must_use]
    pub const fn new(shard: u8, number: u64) -> Self {
        Self(number << 8 | shard as u64)
    }

    /// The shard that holds it and all of its tree.
    #[must_use]
    pub const fn shard(self) -> u8 {
        (self.0 & 0xff) as u8
    }

    /// Parses what `Display` writes: `run-1f03`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("run-")?;
        u64::from_str_radix(digits, 16).ok().map(Self).filter(|key| key.to_string() == text)
    }
}

impl std::fmt::Display for RunKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "run-{:04x}", self.0)
    }
}
