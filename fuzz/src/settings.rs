//! The environment that the library runs in. It is read once in a process, so that each
//! set of settings has a process of its own.

/// Sets of settings that runs take in turn: `OBMALLOC_*`, and the model's own:
/// `MODEL_DEBUG` (under the debug hooks), `MODEL_ARENA` (the size of a program's arenas,
/// in KiB).
pub const SETS: &[&str] = &[
    "OBMALLOC_BACKGROUND_THREAD=0",
    "OBMALLOC_BACKGROUND_THREAD=0 OBMALLOC_ALIGN=8",
    "OBMALLOC_BACKGROUND_THREAD=0 OBMALLOC_POOL_MAX=32K OBMALLOC_FORK_COW=share",
    "OBMALLOC_BACKGROUND_THREAD=0 OBMALLOC_DECAY_MS=0",
    "OBMALLOC_BACKGROUND_THREAD=0 OBMALLOC_DECAY_MS=-1 OBMALLOC_POOL_MAX=512",
    "OBMALLOC_DECAY_MS=2",
    "OBMALLOC_BACKGROUND_THREAD=0 OBMALLOC_ALIGN=obj:8 OBMALLOC_POOL_MAX=32K OBMALLOC_FORK_COW=freeze",
    "OBMALLOC_BACKGROUND_THREAD=0 MODEL_DEBUG=1",
    "OBMALLOC_BACKGROUND_THREAD=0 OBMALLOC_THP=always OBMALLOC_POOL_MAX=8K MODEL_ARENA=256",
    "OBMALLOC_BACKGROUND_THREAD=0 OBMALLOC_SOFT_LIMIT=24M OBMALLOC_HARD_LIMIT=1G",
    "OBMALLOC_DECAY_MS=1 OBMALLOC_ALIGN=mem:8 OBMALLOC_POOL_MAX=2048",
];

/// The settings that concern the model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    pub packed_mem: bool,
    pub packed_obj: bool,
    /// A helper thread may run: numbers under several locks may change while they are read.
    pub helper: bool,
    /// There is a hard limit: any request may fail.
    pub limited: bool,
    pub debug: bool,
    /// A program's arenas have the size of CPython until 3.9.
    pub small_arenas: bool,
}

impl Settings {
    /// The settings of this process.
    pub fn of_environment() -> Settings {
        let get = |name: &str| std::env::var(name).unwrap_or_default();
        let align = get("OBMALLOC_ALIGN");
        let decay = get("OBMALLOC_DECAY_MS");
        Settings {
            packed_mem: align == "8" || align == "mem:8",
            packed_obj: align == "8" || align == "obj:8",
            helper: get("OBMALLOC_BACKGROUND_THREAD") != "0" && decay != "0" && decay != "-1",
            limited: !get("OBMALLOC_HARD_LIMIT").is_empty(),
            debug: get("MODEL_DEBUG") == "1",
            small_arenas: get("MODEL_ARENA") == "256",
        }
    }

    /// Names and values of a set.
    pub fn pairs(set: &str) -> impl Iterator<Item = (&str, &str)> {
        set.split_whitespace()
            .filter_map(|pair| pair.split_once('='))
    }
}
