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
