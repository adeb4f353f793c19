//! Operations beside malloc, calloc, realloc and free: the workload from which these are drawn,
//! threads, forks, time, tables, refusals.

use obmalloc::capi::{extension, introspection};

use crate::account;
use crate::block::Block;
use crate::concurrent;
use crate::domain::{Domain, pool_block};
use crate::engine::{Engine, Next};
use crate::history::{self, Did};
use crate::refusals;
use crate::sizes::{IMPOSSIBLE, Sizes};
use crate::source::Source;

/// The distribution of operations for some time.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub sizes: Sizes,
    /// Maximum live blocks and bytes.
    pub most: usize,
    pub bytes: usize,
    /// Allocations among 256 operations, on average.
    pub split: u8,
    /// Which block is freed next: 0 the first, 1 the last, else any.
    pub order: u8,
}

impl Workload {
    pub fn first() -> Workload {
        Workload {
            sizes: Sizes::Python,
            most: 1000,
            bytes: 1 << 20,
            split: 200,
            order: 2,
        }
    }
}

/// The rarer operations.
#[derive(Clone, Copy, Debug)]
pub enum Rare {
    Workload,
    Switch,
    Spawn,
    End,
    Drop,
    Chain,
    Trim,
    Fork,
    Pass,
    Foreign,
    Astray,
    Impossible,
    Refuse,
    Hook,
    Arenas,
    Concurrent,
    Look,
    Verify,
}

/// How often rare operations happen, and how large the heap gets.
pub struct Profile {
    /// Weights in 65536 of the rare operations. The rest does nothing.
    weights: [(Rare, u32); 18],
    /// Maximum live blocks and bytes.
    most: usize,
    bytes: usize,
    /// Operations of a child, and of each concurrent thread.
    child: u64,
    concurrent: u64,
}

/// A thousand million operations in minutes.
pub static PLAIN: Profile = Profile {
    weights: [
        (Rare::Workload, 400),
        (Rare::Switch, 400),
        (Rare::Spawn, 60),
        (Rare::End, 50),
        (Rare::Drop, 100),
        (Rare::Chain, 500),
        (Rare::Trim, 8),
        (Rare::Fork, 1),
        (Rare::Pass, 80),
        (Rare::Foreign, 300),
        (Rare::Astray, 500),
        (Rare::Impossible, 1000),
        (Rare::Refuse, 40),
        (Rare::Hook, 30),
        (Rare::Arenas, 3),
        (Rare::Concurrent, 1),
        (Rare::Look, 5),
        (Rare::Verify, 5),
    ],
    most: 60_000,
    bytes: 24 << 20,
    child: 5_000,
    concurrent: 20_000,
};

/// Every operation at any time, on a small heap that is checked as a whole.
pub static PARANOID: Profile = Profile {
    weights: [
        (Rare::Workload, 4_000),
        (Rare::Switch, 10_000),
        (Rare::Spawn, 2_000),
        (Rare::End, 2_000),
        (Rare::Drop, 3_000),
        (Rare::Chain, 6_000),
        (Rare::Trim, 1_500),
        (Rare::Fork, 150),
        (Rare::Pass, 3_000),
        (Rare::Foreign, 6_000),
        (Rare::Astray, 4_000),
        (Rare::Impossible, 6_000),
        (Rare::Refuse, 3_000),
        (Rare::Hook, 1_000),
        (Rare::Arenas, 400),
        (Rare::Concurrent, 30),
        (Rare::Look, 1_000),
        (Rare::Verify, 1_000),
    ],
    most: 2_000,
    bytes: 3 << 20,
    child: 60,
    concurrent: 3_000,
};

/// For inputs of a few thousand bytes.
pub static FUZZ: Profile = Profile {
    weights: [
        (Rare::Workload, 8_000),
        (Rare::Switch, 8_000),
        (Rare::Spawn, 3_000),
        (Rare::End, 3_000),
        (Rare::Drop, 5_000),
        (Rare::Chain, 6_000),
        (Rare::Trim, 3_000),
        (Rare::Fork, 150),
        (Rare::Pass, 5_000),
        (Rare::Foreign, 5_000),
        (Rare::Astray, 4_000),
        (Rare::Impossible, 3_000),
        (Rare::Refuse, 4_000),
        (Rare::Hook, 2_000),
        (Rare::Arenas, 1_500),
        (Rare::Concurrent, 20),
        (Rare::Look, 500),
        (Rare::Verify, 500),
    ],
    most: 20_000,
    bytes: 8 << 20,
    child: 60,
    concurrent: 2_000,
};

impl Profile {
    fn rare(&self, mut bits: u32) -> Option<Rare> {
        self.weights.iter().find_map(|&(rare, weight)| {
            if bits < weight {
                return Some(rare);
            }
            bits -= weight;
            None
        })
    }

    /// The profile of this name.
    pub fn named(name: &str) -> Option<&'static Profile> {
        match name {
            "plain" => Some(&PLAIN),
            "paranoid" => Some(&PARANOID),
            "fuzz" => Some(&FUZZ),
            _ => None,
        }
    }
}

impl<S: Source> Engine<S> {
    /// A rarer operation.
    #[cold]
    #[inline(never)]
    pub fn rare(&mut self) -> Option<Next> {
        let bits = self.source.draw(2);
        match self.profile.rare(bits)? {
            Rare::Workload => self.change_weather(),
            Rare::Switch => return self.switch(),
            Rare::Spawn => {
                if let Some(number) = self.turns.spawn() {
                    history::did(Did::Spawn, number, 0, 0);
                }
            }
            Rare::End => return self.end_thread(),
            Rare::Drop => self.drop_many(),
            Rare::Chain => self.chain(),
            Rare::Trim => {
                let keep = [0, 0, 64 << 10, 1 << 20, usize::MAX][self.source.draw(1) as usize % 5];
                history::did(Did::Trim, keep, 0, 0);
                extension::obmalloc_trim(keep);
            }
            Rare::Fork => self.fork(),
            Rare::Pass => {
                let milliseconds = u64::from(self.source.draw(2)) % 2000;
                history::did(Did::Pass, milliseconds as usize, 0, 0);
                obmalloc::tests::model::pass_time(milliseconds);
            }
            Rare::Foreign => self.foreign(),
            Rare::Astray => self.astray(),
            Rare::Impossible => self.impossible(),
            Rare::Refuse => self.refuse(),
            Rare::Hook => {
                let domain = self.source.draw(1) as usize % 3;
                if !self.settings.debug {
                    history::did(Did::Hook, domain, refusals::hook(domain).into(), 0);
                }
            }
            Rare::Arenas => {
                if self.settings.small_arenas {
                    obmalloc::tests::model::set_era(9, 0);
                }
                if refusals::change_arenas() {
                    let programs = refusals::arenas_are_programs();
                    history::did(Did::Arenas, programs.into(), 0, 0);
                }
            }
            Rare::Concurrent => self.concurrent(),
            Rare::Look => {
                self.check_count();
                account::check(self.settings.helper);
                debug_malloc_stats();
            }
            Rare::Verify => {
                self.verify_all();
                obmalloc::tests::model::check();
                self.check();
            }
        }
        None
    }

    fn change_weather(&mut self) {
        let sizes = Sizes::of(self.source.draw(2));
        let bits = self.source.draw(2) as usize;
        // Small heaps as often as large ones.
        let share = |most: usize, bits: usize| (most >> (bits % 8)).max(4);
        self.workload = Workload {
            sizes,
            most: share(self.profile.most, bits),
            bytes: share(self.profile.bytes, bits >> 3),
            split: [110, 140, 144, 150, 180, 240][(bits >> 6) % 6],
            order: [0, 1, 2, 2][(bits >> 9) % 4],
        };
        let order = self.workload.order.into();
        history::did(
            Did::Workload,
            self.workload.most,
            self.workload.bytes,
            order,
        );
    }

    fn switch(&mut self) -> Option<Next> {
        let bits = self.source.draw(1) as usize;
        let to = self.turns.other(self.me, bits)?;
        history::did(Did::Switch, to, 0, 0);
        Some(Next::Pass(to))
    }

    fn end_thread(&mut self) -> Option<Next> {
        let bits = self.source.draw(2) as usize;
        // The main thread stays; in a child, another thread may have forked.
        let to = self
            .turns
            .other(self.me, bits & 0xff)
            .filter(|_| self.me != 0)?;
        history::did(Did::End, self.me, to, 0);
        let (mut blocks, mut ask) = (Vec::new(), Vec::new());
        // Without refusals by layer 0, which the model could not attribute there.
        if bits & 0x100 != 0 {
            for _ in 0..bits >> 9 & 7 {
                blocks.extend(self.pick());
                ask.push(self.size().min(9000));
            }
            let counted = |block: &&Block| block.domain != Domain::Raw;
            self.count -= blocks.iter().filter(counted).count() as isize;
            self.calls += 2 * blocks.len() as u64;
        }
        Some(Next::Leave { to, blocks, ask })
    }

    /// Frees a part of the blocks, in a random order.
    fn drop_many(&mut self) {
        let bits = self.source.draw(1) as usize;
        let goes = self.blocks.len() * (bits % 9) / 8;
        history::did(Did::Drop, goes, 0, 0);
        let order = core::mem::replace(&mut self.workload.order, (bits / 9 % 3) as u8);
        for _ in 0..goes {
            if let Some(block) = self.pick() {
                self.free_block(block);
            }
        }
        self.workload.order = order;
    }

    /// A buffer that grows by an eighth each time, and shrinks again.
    fn chain(&mut self) {
        let bits = self.source.draw(2) as usize;
        let Some(mut block) = self.pick() else {
            return;
        };
        let end = 1usize << (3 + bits % 16);
        let steps = 3 + (bits >> 4) % 32;
        for _ in 0..steps {
            let n = if block.len < end {
                block.len + block.len / 8 + 1 + (bits >> 9) % 8
            } else {
                end / 2
            };
            block = self.realloc_block(block, n);
        }
        for n in 0..bits >> 12 {
            let n = block.len * 3 / 4 - (n + 1).min(block.len / 2);
            block = self.realloc_block(block, n);
        }
        self.put(block);
    }

    /// Allocates a block of the C library, which is freed by MEM.
    fn foreign(&mut self) {
        if self.settings.debug {
            return;
        }
        let n = self.edge();
        if !self.malloc_of(Domain::Foreign, n) {
            return;
        }
        if let Some(block) = self.blocks.back() {
            history::did(Did::Foreign, n, block.p.addr(), 0);
        }
    }

    /// Passes a block of MEM or OBJ to RAW.
    fn astray(&mut self) {
        let n = self.source.draw(2);
        if self.settings.debug {
            return;
        }
        let Some(mut block) = self.pick() else {
            return;
        };
        if !block.domain.is_counted() || pool_block(block.p).is_none() {
            return self.put(block);
        }
        history::did(Did::Astray, block.len, block.p.addr(), 0);
        let domain = core::mem::replace(&mut block.domain, Domain::Raw);
        let was_packed = block.align == 8;
        if n.is_multiple_of(2) {
            let n = n as usize >> 6;
            let before = self.count;
            block = self.realloc_block(block, n);
            self.count = before;
            block.domain = domain;
            if was_packed {
                block.align = 8;
            }
            return self.put(block);
        }
        self.free_block(block);
        self.count -= 1;
    }

    fn impossible(&mut self) {
        let bits = self.source.draw(2) as usize;
        let n = IMPOSSIBLE[bits % IMPOSSIBLE.len()];
        let domain = [Domain::Mem, Domain::Obj, Domain::Raw][(bits >> 3) % 3];
        match bits >> 6 & 3 {
            0 => assert!(!self.malloc_of(domain, n), "an impossible size"),
            1 => self.calloc_of(domain, n, 1),
            2 => self.calloc_of(domain, 1 << (bits >> 8 & 63), n),
            _ => {
                if let Some(block) = self.pick() {
                    let (p, len) = (block.p, block.len);
                    let block = self.realloc_block(block, n);
                    assert_eq!((block.p, block.len), (p, len), "O2: it stays as it was");
                    self.put(block);
                }
            }
        }
    }

    fn refuse(&mut self) {
        let bits = self.source.draw(2) as usize;
        let (kind, pass) = (bits % 5, (bits >> 3) % 32);
        // Memory that cannot be unmapped leaks: not too much of it.
        let refuse = if kind == 3 { 1 } else { 1 + (bits >> 8) % 64 };
        history::did(Did::Refuse, kind, pass, refuse);
        refusals::arm(kind as u32, pass, refuse);
    }

    fn fork(&mut self) {
        let bits = self.source.draw(1);
        if self.depth >= 2 {
            return;
        }
        if bits.is_multiple_of(4) {
            extension::obmalloc_before_fork();
        }
        let branch = self.source.branch();
        // SAFETY: the child continues with the state that fork leaves, and ends by `_exit`.
        let child = unsafe { libc::fork() };
        history::did(Did::Fork, child.max(0) as usize, 0, 0);
        if child == 0 {
            history::did(Did::Child, 0, 0, 0);
            // SAFETY: no preconditions; the alarm ends a child that hangs.
            unsafe { libc::alarm(300) };
            self.depth += 1;
            self.turns.forget_others(self.me);
            self.source = branch;
            self.limit = self.calls + self.profile.child;
            self.verify_all();
            self.check();
        } else if child > 0 {
            wait_for(child);
        }
    }

    fn concurrent(&mut self) {
        let bits = u64::from(self.source.draw(4));
        if self.is_child() {
            return;
        }
        refusals::disarm();
        let threads = 2 + (bits % 5) as usize;
        let calls = self.profile.concurrent;
        history::did(Did::Concurrent, threads, calls as usize, 0);
        let plan = concurrent::Plan {
            threads,
            calls,
            seed: bits,
            sizes: self.workload.sizes,
            limited: self.settings.limited,
            full: self.is_paranoid(),
            may_fork: !refusals::arenas_are_programs(),
            may_cross: !self.settings.debug,
        };
        let outcome = concurrent::run(&plan);
        self.calls += outcome.calls;
        self.count += outcome
            .blocks
            .iter()
            .filter(|b| b.domain.is_counted())
            .count() as isize;
        for block in outcome.blocks {
            self.put(block);
        }
        self.check();
    }
}

/// Waits for a child, and asserts that it succeeded.
pub fn wait_for(child: i32) {
    let mut status = 0;
    // SAFETY: room for the status.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0), "a child has failed");
}

/// Writes the table of statistics to `/dev/null`.
fn debug_malloc_stats() {
    // SAFETY: a file, opened and closed here.
    unsafe {
        let null = libc::fopen(c"/dev/null".as_ptr(), c"w".as_ptr());
        if !null.is_null() {
            introspection::_PyObject_DebugMallocStats(null);
            libc::fclose(null);
        }
    }
}
